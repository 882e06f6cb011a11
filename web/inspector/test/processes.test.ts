import { describe, expect, it } from "vitest";
import { commandOf, lineOf } from "../src/processes/command.js";
import { bytesOf, LogLines } from "../src/processes/log-lines.js";

const bytes = (text: string) => new TextEncoder().encode(text);
const texts = (lines: LogLines) =>
  [...lines.blocks.flatMap((block) => block.lines), ...lines.unfinished()].map((line) => line.text);

describe("a command line", () => {
  it("is words", () => {
    expect(commandOf(` ls  -l 'a b' "" x'y'z `)).toEqual({ command: "ls", args: ["-l", "a b", "", "xyz"] });
    expect(commandOf("  ")).toBeUndefined();
  });

  it.each(["echo $HOME", "a | b", "ls *.ts", "A=1 env", "echo 'open", "a && b"])("goes to a shell: %s", (line) => {
    expect(commandOf(line)).toEqual({ command: "sh", args: ["-c", line] });
  });

  it("can be read again", () => {
    expect(lineOf({ command: "sh", args: ["-c", "echo 'a b'"] })).toBe("sh -c 'echo '\\''a b'\\'''");
  });
});

describe("log lines", () => {
  it("are joined from pieces, each stream by itself", () => {
    const lines = new LogLines();
    lines.add("stdout", bytes("one\ntw"));
    lines.add("stderr", bytes("oops\n"));
    lines.add("stdout", bytes("o\nthree"));
    expect(texts(lines)).toEqual(["one", "oops", "two", "three"]);
    lines.remark("end");
    expect(texts(lines)).toEqual(["one", "oops", "two", "three", "end"]);
  });

  it("show no escape sequences and nothing overwritten", () => {
    const lines = new LogLines();
    lines.add("pty", bytes("\u001b[1;31mred\u001b[0m\r\n\u001b]0;title\u0007x\r\n10%\r100%\r\n<b>\u0008\n"));
    expect(texts(lines)).toEqual(["red", "x", "100%", "<b>"]);
  });

  it("join characters that were parted", () => {
    const lines = new LogLines();
    for (const byte of bytes("ü🙂\n")) lines.add("stdout", Uint8Array.of(byte));
    expect(texts(lines)).toEqual(["ü🙂"]);
  });

  it("are no more than were wished for", () => {
    const lines = new LogLines(250);
    for (let n = 0; n < 1_000; n++) lines.add("stdout", bytes(`${n}\n`));
    lines.add("stdout", bytes("x\n".repeat(400)));
    expect(lines.count).toBe(250);
    expect(texts(lines)).toHaveLength(250);
    expect(lines.dropped).toBe(1_150);
  });

  it("do not change once their block is full", () => {
    const lines = new LogLines();
    lines.add("stdout", bytes("x\n".repeat(150)));
    const [first] = lines.blocks;
    lines.add("stdout", bytes("y\n"));
    expect(lines.blocks[0]).toBe(first);
  });

  it("cut a line that is endless", () => {
    const lines = new LogLines();
    for (let n = 0; n < 30; n++) lines.add("stdout", bytes("x".repeat(1_000)));
    expect(texts(lines)[0]?.length).toBeLessThanOrEqual(10_001);
  });
});

describe("base64", () => {
  it("is bytes, or none", () => {
    expect([...bytesOf("AP8=")]).toEqual([0, 255]);
    expect([...bytesOf("%")]).toEqual([]);
  });
});
