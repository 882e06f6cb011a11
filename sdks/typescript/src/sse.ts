/** One server-sent event. */
export interface Frame {
  event: string;
  data: string;
}

/** Reads events off a stream, whatever pieces it comes in. Leaving the loop cancels the stream. */
export async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame, void, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      pending += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A carriage return at the end may be half of a line end.
      const whole = pending.endsWith("\r") && !done ? pending.slice(0, -1) : pending;
      const kept = pending.slice(whole.length);
      const blocks = whole.replace(/\r\n?/g, "\n").split("\n\n");
      pending = (blocks.pop() ?? "") + kept;
      for (const block of blocks) {
        const frame = parse(block);
        if (frame !== undefined) yield frame;
      }
      if (done) {
        const last = parse(pending);
        if (last !== undefined) yield last;
        return;
      }
    }
  } finally {
    // Tells the server that nobody listens; it ends the run.
    await reader.cancel().catch(() => undefined);
  }
}

function parse(block: string): Frame | undefined {
  let event = "message";
  let data: string[] | undefined;
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon === 0 || line === "") continue;
    const field = colon === -1 ? line : line.slice(0, colon);
    // One space after the colon belongs to the format; more belong to the value.
    const value = colon === -1 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") event = value.trim();
    if (field === "data") (data ??= []).push(value);
  }
  return data === undefined ? undefined : { event, data: data.join("\n") };
}
