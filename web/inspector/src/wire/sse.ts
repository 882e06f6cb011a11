/** One server-sent event. */
export interface Frame {
  event: string;
  data: string;
  /** The last id that the stream named, on this event or before it. */
  id: string | undefined;
}

/**
 * Makes events out of text, whatever pieces it comes in. A piece is looked at once: an event of many megabytes costs
 * no more than its length. An event that the stream's end cuts off is dropped, as the format wants.
 */
export class Parser {
  #line = "";
  #afterReturn = false;
  #started = false;
  #event = "";
  #data: string[] = [];
  #id: string | undefined;

  /** The events that this piece completes. */
  push(piece: string): Frame[] {
    const frames: Frame[] = [];
    let text = piece;
    if (!this.#started && text !== "") {
      this.#started = true;
      if (text.startsWith("\u{feff}")) text = text.slice(1);
    }
    // A line feed after a carriage return is the same line's end, also when the pieces part between them.
    let start = this.#afterReturn && text.startsWith("\n") ? 1 : 0;
    if (text !== "") this.#afterReturn = false;
    for (let at = start; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code !== 10 && code !== 13) continue;
      const frame = this.#take(this.#line + text.slice(start, at));
      if (frame !== undefined) frames.push(frame);
      this.#line = "";
      if (code === 13) {
        if (at + 1 === text.length) this.#afterReturn = true;
        else if (text.charCodeAt(at + 1) === 10) at++;
      }
      start = at + 1;
    }
    this.#line += text.slice(start);
    return frames;
  }

  #take(line: string): Frame | undefined {
    if (line === "") return this.#finish();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const field = colon === -1 ? line : line.slice(0, colon);
    // One space after the colon belongs to the format; more belong to the value.
    const value = colon === -1 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") this.#event = value;
    if (field === "data") this.#data.push(value);
    if (field === "id" && !value.includes("\0")) this.#id = value;
    return undefined;
  }

  #finish(): Frame | undefined {
    const event = this.#event || "message";
    const data = this.#data;
    this.#event = "";
    this.#data = [];
    return data.length === 0 ? undefined : { event, data: data.join("\n"), id: this.#id };
  }
}

/**
 * Reads events off a stream. Leaving the loop cancels it. A stream that says nothing for `silenceMs`, no keep-alive
 * even, is taken for a broken connection.
 */
export async function* frames(body: ReadableStream<Uint8Array>, silenceMs = 0): AsyncGenerator<Frame, void, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new Parser();
  try {
    for (;;) {
      const { done, value } = await inTime(reader.read(), silenceMs);
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function inTime<T>(waited: Promise<T>, limitMs: number): Promise<T> {
  if (limitMs === 0) return waited;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error("the stream went silent")), limitMs);
  });
  try {
    return await Promise.race([waited, late]);
  } finally {
    clearTimeout(timer);
  }
}
