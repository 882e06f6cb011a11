export interface DiffLine {
  kind: "same" | "removed" | "added" | "fold";
  text: string;
}

/** How many cells the comparison may fill; beyond it the changed part is shown as removed and added whole. */
const MOST_CELLS = 1_000_000;
const CONTEXT = 3;

/** What changed from one text to another, line by line, with a little of what did not. */
export function diff(before: string, after: string): DiffLine[] {
  const from = linesOf(before);
  const to = linesOf(after);
  let head = 0;
  while (head < from.length && head < to.length && from[head] === to[head]) head++;
  let tail = 0;
  while (tail < from.length - head && tail < to.length - head && from.at(-1 - tail) === to.at(-1 - tail)) tail++;
  const same = (text: string): DiffLine => ({ kind: "same", text });
  return folded([
    ...from.slice(0, head).map(same),
    ...middle(from.slice(head, from.length - tail), to.slice(head, to.length - tail)),
    ...from.slice(from.length - tail).map(same),
  ]);
}

function linesOf(text: string): string[] {
  if (text === "") return [];
  return text.replace(/\r?\n$/, "").split(/\r?\n/);
}

/** The longest common subsequence, by the table that everybody knows. */
function middle(from: string[], to: string[]): DiffLine[] {
  const removed = (text: string): DiffLine => ({ kind: "removed", text });
  const added = (text: string): DiffLine => ({ kind: "added", text });
  const width = to.length + 1;
  if ((from.length + 1) * width > MOST_CELLS) return [...from.map(removed), ...to.map(added)];
  const length = new Uint32Array((from.length + 1) * width);
  const at = (i: number, j: number) => length[i * width + j] ?? 0;
  for (let i = from.length - 1; i >= 0; i--) {
    for (let j = to.length - 1; j >= 0; j--) {
      length[i * width + j] = from[i] === to[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < from.length || j < to.length) {
    if (i < from.length && j < to.length && from[i] === to[j]) {
      lines.push({ kind: "same", text: from[i] ?? "" });
      i++;
      j++;
    } else if (i < from.length && (j === to.length || at(i + 1, j) >= at(i, j + 1))) {
      lines.push(removed(from[i++] ?? ""));
    } else {
      lines.push(added(to[j++] ?? ""));
    }
  }
  return lines;
}

/** Keeps a few unchanged lines around each change, and says how many it left out. */
function folded(lines: DiffLine[]): DiffLine[] {
  const near = new Uint8Array(lines.length);
  lines.forEach((line, at) => {
    if (line.kind === "same") return;
    near.fill(1, Math.max(0, at - CONTEXT), at + CONTEXT + 1);
  });
  const kept: DiffLine[] = [];
  let left = 0;
  const close = () => {
    if (left > 0) kept.push({ kind: "fold", text: `${left} unchanged ${left === 1 ? "line" : "lines"}` });
    left = 0;
  };
  lines.forEach((line, at) => {
    if (near[at] === 0) {
      left++;
      return;
    }
    close();
    kept.push(line);
  });
  close();
  return kept;
}
