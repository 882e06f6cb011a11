import { describe, expect, it } from "vitest";
import { diff } from "../src/acp/diff.js";

const shown = (before: string, after: string) => diff(before, after).map(({ kind, text }) => `${kind[0]} ${text}`);

describe("a diff", () => {
  it("shows what changed with a little around it", () => {
    const lines = Array.from({ length: 20 }, (_, n) => `line ${n}`);
    const after = lines.map((line, n) => (n === 10 ? "changed" : line));
    expect(shown(lines.join("\n"), after.join("\n"))).toEqual([
      "f 7 unchanged lines",
      "s line 7",
      "s line 8",
      "s line 9",
      "r line 10",
      "a changed",
      "s line 11",
      "s line 12",
      "s line 13",
      "f 6 unchanged lines",
    ]);
  });

  it("is all added for a new file, all removed for an empty one, nothing for the same", () => {
    expect(shown("", "a\nb\n")).toEqual(["a a", "a b"]);
    expect(shown("a\n", "")).toEqual(["r a"]);
    expect(shown("a\nb", "a\nb\n")).toEqual(["f 2 unchanged lines"]);
  });

  it("finds lines that moved apart", () => {
    expect(shown("a\nb\nc", "a\nx\nb\nc\ny")).toEqual(["s a", "a x", "s b", "s c", "a y"]);
  });

  it("takes two large texts in little time", () => {
    const text = (seed: number) => Array.from({ length: 30_000 }, (_, n) => `${seed} ${n}`).join("\n");
    expect(diff(text(1), text(2))).toHaveLength(60_000);
  });
});
