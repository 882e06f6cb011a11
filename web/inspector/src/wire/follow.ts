import { Problem } from "./problem.js";
import { type Frame, frames } from "./sse.js";

export type FollowState = "connecting" | "open" | "waiting";

/** Servers send a comment every fifteen seconds or so. */
const SILENCE_MS = 60_000;
const PAUSE_MS = { least: 250, most: 10_000 };

/**
 * Reads an event stream for as long as the reader likes: when it breaks, it is opened again after the last event
 * seen. A refusal (4xx) ends it with its problem, since asking again would not help.
 */
export async function* follow(
  open: (lastEventId: string | undefined) => Promise<Response>,
  options: { signal: AbortSignal; after?: string | undefined; tell?: (state: FollowState) => void },
): AsyncGenerator<Frame, void, void> {
  const { signal } = options;
  const tell = options.tell ?? (() => undefined);
  let last = options.after;
  let pauseMs = PAUSE_MS.least;
  while (!signal.aborted) {
    try {
      tell("connecting");
      const response = await open(last);
      tell("open");
      if (response.body === null) throw new Problem(response.status, "No stream");
      for await (const frame of frames(response.body, SILENCE_MS)) {
        last = frame.id ?? last;
        pauseMs = PAUSE_MS.least;
        yield frame;
        if (signal.aborted) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    tell("waiting");
    await pause(pauseMs, signal);
    pauseMs = Math.min(pauseMs * 2, PAUSE_MS.most);
  }
}

/** Waits, or less when the signal comes. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) return done();
    const finish = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      done();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish, { once: true });
  });
}
