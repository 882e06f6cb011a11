import { describe, expect, it } from "vitest";
import { frames, Parser } from "../src/wire/sse.js";

function all(...pieces: string[]) {
  const parser = new Parser();
  return pieces.flatMap((piece) => parser.push(piece));
}

describe("an event stream", () => {
  it("is events with a name, data and the last id", () => {
    expect(all('event: message\nid: 7\ndata: {"a":1}\n\n: keep-alive\n\ndata: b\n\n')).toEqual([
      { event: "message", data: '{"a":1}', id: "7" },
      { event: "message", data: "b", id: "7" },
    ]);
  });

  it("may come in any pieces and with any line ends", () => {
    const text = "\u{feff}event: log\r\nid: 1\r\ndata: one\r\ndata: two\r\n\r\nid: 2\rdata:three\r\r";
    const whole = all(text);
    expect(whole).toEqual([
      { event: "log", data: "one\ntwo", id: "1" },
      { event: "message", data: "three", id: "2" },
    ]);
    expect(all(...text)).toEqual(whole);
    for (let at = 1; at < text.length; at++) expect(all(text.slice(0, at), text.slice(at))).toEqual(whole);
  });

  it("takes one space from a value, and no id with a zero in it", () => {
    expect(all("id: a\ndata:  x\nid: b\0\n\n")).toEqual([{ event: "message", data: " x", id: "a" }]);
  });

  it("drops an event that has no data or no end", () => {
    expect(all("event: x\n\ndata: cut")).toEqual([]);
  });

  it("takes a large event in small pieces in little time", () => {
    const piece = "x".repeat(1_000);
    const [frame] = all("data: ", ...Array.from({ length: 8_000 }, () => piece), "\n\n");
    expect(frame?.data.length).toBe(8_000_000);
  });

  it("joins characters that the network parted", async () => {
    const bytes = new TextEncoder().encode("data: grüße 🙂\n\n");
    const body = new ReadableStream<Uint8Array>({
      start(stream) {
        for (const byte of bytes) stream.enqueue(Uint8Array.of(byte));
        stream.close();
      },
    });
    const seen = [];
    for await (const frame of frames(body)) seen.push(frame.data);
    expect(seen).toEqual(["grüße 🙂"]);
  });

  it("is taken for broken when it says nothing, and is cancelled", async () => {
    let cancelled = false;
    const body = new ReadableStream<Uint8Array>({
      cancel() {
        cancelled = true;
      },
    });
    await expect(frames(body, 20).next()).rejects.toThrow("silent");
    expect(cancelled).toBe(true);
  });
});
