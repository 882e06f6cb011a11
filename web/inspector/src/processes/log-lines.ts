export interface Line {
  key: number;
  stream: string;
  text: string;
}

/** A run of lines that is drawn at once. A block that is full does not change any more. */
export interface Block {
  key: number;
  lines: Line[];
}

const BLOCK = 100;
const MOST_LINE = 10_000;

/**
 * A process's output as lines, the last few thousand. Colours and cursor movements are taken out; what a carriage
 * return overwrites is not shown.
 */
export class LogLines {
  /** A new array, with new blocks where they changed, after each `add`. */
  blocks: Block[] = [];
  dropped = 0;
  readonly #most: number;
  readonly #decoders = new Map<string, TextDecoder>();
  readonly #open = new Map<string, string>();
  #count = 0;
  #nextKey = 0;

  constructor(most = 5_000) {
    this.#most = most;
  }

  get count(): number {
    return this.#count;
  }

  /** Takes a piece of output, which may end within a line or a character. */
  add(stream: string, bytes: Uint8Array): void {
    let decoder = this.#decoders.get(stream);
    if (decoder === undefined) {
      decoder = new TextDecoder();
      this.#decoders.set(stream, decoder);
    }
    const pieces = ((this.#open.get(stream) ?? "") + decoder.decode(bytes, { stream: true })).split("\n");
    // A line without an end is not kept whole either.
    this.#open.set(stream, (pieces.pop() ?? "").slice(0, MOST_LINE));
    const skipped = Math.max(0, pieces.length - this.#most);
    this.dropped += skipped;
    this.#push(pieces.slice(skipped).map((text) => ({ key: this.#nextKey++, stream, text: plain(text) })));
  }

  /** Takes a remark that is not the process's. */
  remark(text: string): void {
    this.finish();
    this.#push([{ key: this.#nextKey++, stream: "remark", text }]);
  }

  /** Ends the lines that have no end, once nothing more will come. */
  finish(): void {
    for (const [stream, text] of this.#open) {
      if (text !== "") this.#push([{ key: this.#nextKey++, stream, text: plain(text) }]);
    }
    this.#open.clear();
  }

  /** What has come of the lines that are not ended, for showing last. */
  unfinished(): Line[] {
    return [...this.#open].flatMap(([stream, text], n) =>
      text === "" ? [] : [{ key: -1 - n, stream, text: plain(text) }],
    );
  }

  #push(lines: Line[]): void {
    const blocks = [...this.blocks];
    let rest = lines;
    while (rest.length > 0) {
      const last = blocks.at(-1);
      if (last !== undefined && last.lines.length < BLOCK) {
        const room = BLOCK - last.lines.length;
        blocks[blocks.length - 1] = { key: last.key, lines: [...last.lines, ...rest.slice(0, room)] };
        rest = rest.slice(room);
      } else {
        blocks.push({ key: rest[0]?.key ?? 0, lines: rest.slice(0, BLOCK) });
        rest = rest.slice(BLOCK);
      }
    }
    this.#count += lines.length;
    while (this.#count > this.#most && blocks[0] !== undefined) {
      const over = this.#count - this.#most;
      const first = blocks[0];
      const gone = Math.min(over, first.lines.length);
      if (gone === first.lines.length) blocks.shift();
      else blocks[0] = { key: first.key, lines: first.lines.slice(gone) };
      this.#count -= gone;
      this.dropped += gone;
    }
    this.blocks = blocks;
  }
}

/** What a terminal would not print: CSI, OSC and the other escape sequences; and control characters by themselves. */
const ESCAPES = new RegExp(
  [
    String.raw`\u001b\[[0-?]*[ -/]*[@-~]`,
    String.raw`\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?`,
    String.raw`\u001b[PX^_][^\u001b]*(?:\u001b\\)?`,
    String.raw`\u001b[ -/]*[0-~]`,
  ].join("|"),
  "g",
);
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

function plain(line: string): string {
  const text = line.replace(/\r+$/, "").replace(ESCAPES, "").replace(CONTROLS, "");
  const shown = text.slice(text.lastIndexOf("\r") + 1);
  return shown.length > MOST_LINE ? `${shown.slice(0, MOST_LINE)}…` : shown;
}

/** The bytes of base64; none if it is not. */
export function bytesOf(base64: string): Uint8Array {
  try {
    const binary = atob(base64);
    return Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}
