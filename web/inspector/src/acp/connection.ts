/**
 * One agent server: its event stream, what this page sends to it, and what was made of both.
 *
 * The stream is open only while somebody looks (a browser allows six connections to an origin, and each prompt that
 * is under way holds one); it goes on after the last event seen. What was sent stays known for as long as the tab
 * lives, and where the server keeps sessions, their stored messages come first.
 */

import { type FollowState, follow } from "../wire/follow.js";
import { type Http, path } from "../wire/http.js";
import { Problem } from "../wire/problem.js";
import { type Fields, fieldsOf, listOf, textOf } from "../wire/untrusted.js";
import { Conversation } from "./conversation.js";
import { canonical, type Envelope, type Sender } from "./envelope.js";

export interface LogEntry {
  n: number;
  sender: Sender | "stream";
  /** The event's id in the stream, if it came from there. */
  eventId: string | undefined;
  envelope: Envelope;
}

export type ConnectionState = FollowState | "closed" | "ended";

const MOST_ENTRIES = 2_000;
/** How long the stream may take to bring an answer that its POST has already brought. */
const STREAM_LATE_MS = 1_500;
const REDRAW_MS = 40;
const HISTORY = { perPage: 200, pages: 50 };

export class Connection {
  readonly serverId: string;
  readonly conversation = new Conversation();
  /** The newest messages, oldest first. */
  readonly log: LogEntry[] = [];
  /** Whose server it is, as soon as that is known: a server that has restarted wants to be told. */
  agent: string | undefined;
  state: ConnectionState = "closed";
  problem: Problem | undefined;
  readonly #http: Http;
  readonly #path: string;
  readonly #run = Math.random().toString(36).slice(2, 8);
  #requests = 0;
  #entries = 0;
  #lastEventId: string | undefined;
  #historyRead = false;
  /** Messages that the store has given and the stream will give again. */
  readonly #stored = new Map<string, number>();
  readonly #sentHere = new Set<string>();
  #stop: AbortController | undefined;
  readonly #listeners = new Set<() => void>();
  #redraw: ReturnType<typeof setTimeout> | undefined;

  constructor(http: Http, serverId: string) {
    this.#http = http;
    this.serverId = serverId;
    this.#path = path`/v1/acp/${serverId}`;
  }

  /** Calls back a little after something has changed, once for much. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Starts to read the stream. */
  open(): void {
    if (this.#stop !== undefined) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.problem = undefined;
    void this.#read(stop.signal).catch((error: unknown) => {
      if (stop.signal.aborted) return;
      this.#stop = undefined;
      this.problem = Problem.from(error);
      this.#become("ended");
    });
  }

  /** Stops to read it; the agent goes on. */
  close(): void {
    this.#stop?.abort();
    this.#stop = undefined;
    this.#become("closed");
  }

  /** Sends a request and waits for its result. */
  async call(method: string, params: Fields): Promise<Fields> {
    const envelope: Envelope = { jsonrpc: "2.0", id: `inspector-${this.#run}-${++this.#requests}`, method, params };
    const sessionId = textOf(params.sessionId);
    this.#send(envelope);
    let answer: Envelope;
    try {
      answer = fieldsOf(await this.#post(envelope));
    } catch (error) {
      const problem = Problem.from(error);
      this.conversation.failed(sessionId, problem.title, problem.detail);
      this.#changed();
      throw problem;
    }
    const take = () => {
      this.conversation.received(answer);
      this.#changed();
    };
    // A prompt's answer is the end of what was said: the stream brings it in its place, unless it is closed. What
    // others answer is needed at once, like a new session's id.
    if (method === "session/prompt") setTimeout(take, STREAM_LATE_MS);
    else take();
    if ("error" in answer) {
      const error = fieldsOf(answer.error);
      throw new Problem(0, `The agent refused ${method}`, textOf(error.message));
    }
    return fieldsOf(answer.result);
  }

  async notify(method: string, params: Fields): Promise<void> {
    const envelope: Envelope = { jsonrpc: "2.0", method, params };
    this.#send(envelope);
    await this.#post(envelope);
  }

  /** Answers a request of the agent's. */
  async respond(id: unknown, result: Fields): Promise<void> {
    const envelope: Envelope = { jsonrpc: "2.0", id, result };
    this.#record("client", undefined, envelope);
    await this.#post(envelope);
    this.#sentHere.add(canonical(envelope));
    this.conversation.sent(envelope);
    this.#changed();
  }

  /** Ends the agent's process and all that it started. */
  async end(): Promise<void> {
    await this.#http.open("DELETE", this.#path);
    this.close();
  }

  #post(envelope: Envelope): Promise<unknown> {
    return this.#http.json("POST", this.#path, { query: { agent: this.agent }, body: envelope });
  }

  #send(envelope: Envelope): void {
    this.#sentHere.add(canonical(envelope));
    this.conversation.sent(envelope);
    this.#record("client", undefined, envelope);
  }

  async #read(signal: AbortSignal): Promise<void> {
    await this.#readHistory(signal);
    const stream = follow(
      (lastEventId) =>
        this.#http.open("GET", this.#path, {
          headers: {
            accept: "text/event-stream",
            ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
          },
          signal,
        }),
      { signal, after: this.#lastEventId, tell: (state) => this.#become(state) },
    );
    for await (const frame of stream) {
      this.#lastEventId = frame.id ?? this.#lastEventId;
      let data: Envelope;
      try {
        data = fieldsOf(JSON.parse(frame.data));
      } catch {
        continue;
      }
      if (frame.event === "gap") {
        this.conversation.missed(String(data.from ?? "?"), String(data.to ?? "?"));
        this.#record("stream", frame.id, { gap: data });
      } else if (frame.event === "message") {
        if (!this.#takeStored(data)) this.conversation.received(data);
        this.#record("agent", frame.id, data);
      }
    }
  }

  /** Brings what the server has stored of this agent's sessions, if it stores any. */
  async #readHistory(signal: AbortSignal): Promise<void> {
    if (this.#historyRead) return;
    const events = await storedEvents(this.#http, this.serverId, signal);
    this.#historyRead = true;
    for (const { sender, payload } of events) {
      const text = canonical(payload);
      if (sender === "agent") {
        this.#stored.set(text, (this.#stored.get(text) ?? 0) + 1);
        this.conversation.received(payload);
      } else if (!this.#sentHere.has(text)) {
        this.conversation.sent(payload);
        this.#record("client", undefined, payload);
      }
    }
    this.#changed();
  }

  /** Whether the store has given this message already. */
  #takeStored(envelope: Envelope): boolean {
    if (this.#stored.size === 0) return false;
    const text = canonical(envelope);
    const count = this.#stored.get(text);
    if (count === undefined) {
      // The stream keeps the store's order: with the first update that is not stored, all that was is behind. What
      // is left would swallow new messages that happen to be equal to old ones.
      if (envelope.method === "session/update") this.#stored.clear();
      return false;
    }
    if (count === 1) this.#stored.delete(text);
    else this.#stored.set(text, count - 1);
    return true;
  }

  #record(sender: LogEntry["sender"], eventId: string | undefined, envelope: Envelope): void {
    this.log.push({ n: ++this.#entries, sender, eventId, envelope });
    if (this.log.length > MOST_ENTRIES) this.log.splice(0, this.log.length - MOST_ENTRIES);
    this.#changed();
  }

  #become(state: ConnectionState): void {
    this.state = state;
    this.#changed();
  }

  #changed(): void {
    this.#redraw ??= setTimeout(() => {
      this.#redraw = undefined;
      for (const listener of this.#listeners) listener();
    }, REDRAW_MS);
  }
}

export interface StoredEvent {
  sender: Sender;
  payload: Envelope;
}

/** The stored messages of an agent server's sessions; none where the server stores nothing. */
async function storedEvents(http: Http, serverId: string, signal: AbortSignal): Promise<StoredEvent[]> {
  const events: StoredEvent[] = [];
  try {
    const query = { page: 1, perPage: 100 };
    const { sessions } = await http.json<{ sessions: unknown }>("GET", "/v1/sessions", { query, signal });
    const ids = listOf(sessions)
      .map(fieldsOf)
      .filter((record) => record.lastConnectionId === serverId)
      .sort((a, b) => Number(a.createdAt) - Number(b.createdAt))
      .flatMap((record) => textOf(record.id) ?? []);
    for (const id of ids) events.push(...(await sessionEvents(http, id, signal)));
  } catch (error) {
    // A server without these routes, or one that is away: the stream says what it can.
    if (signal.aborted || (error instanceof Problem && error.status === 401)) throw error;
  }
  return events;
}

/** A session's stored messages, in order. */
export async function sessionEvents(http: Http, id: string, signal: AbortSignal): Promise<StoredEvent[]> {
  const events: StoredEvent[] = [];
  for (let page = 1; page <= HISTORY.pages; page++) {
    const answer = await http.json<{ events: unknown; total?: number }>("GET", path`/v1/sessions/${id}/events`, {
      query: { page, perPage: HISTORY.perPage },
      signal,
    });
    const some = listOf(answer.events).map(fieldsOf);
    for (const event of some) {
      events.push({ sender: event.sender === "client" ? "client" : "agent", payload: fieldsOf(event.payload) });
    }
    if (some.length === 0 || events.length >= (answer.total ?? 0)) break;
  }
  return events;
}
