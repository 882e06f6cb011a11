import { frames } from "./sse.js";
import type { StreamEvent } from "./types.js";

/** What happens in a jail, off the stream of its events. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamEvent, void, void> {
  for await (const frame of frames(body)) {
    const event = eventOf(frame.event, frame.data);
    if (event !== undefined) yield event;
  }
}

function eventOf(name: string, data: string): StreamEvent | undefined {
  switch (name) {
    case "stdout":
    case "stderr":
      return { type: name, line: data };
    case "started":
    case "stats":
    case "completed":
    case "error":
      try {
        return { type: name, ...(JSON.parse(data) as object) } as StreamEvent;
      } catch {
        return undefined;
      }
    default:
      // A later server may say more.
      return undefined;
  }
}
