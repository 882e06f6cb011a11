import { AgentjailError } from "./error.js";

/** What every method takes last. */
export interface RequestOptions {
  /** Ends the request; a run that is under way is ended with it. */
  signal?: AbortSignal;
  /** Milliseconds that the answer's head may take. A run that is under way is ended with its request. */
  timeoutMs?: number;
}

interface Request extends RequestOptions {
  body?: unknown;
  query?: Record<string, string | number | undefined>;
  accept?: string;
}

export interface HttpConfig {
  baseUrl: string;
  apiKey?: string | undefined;
  fetch?: typeof fetch;
  timeoutMs?: number;
  retries?: number;
}

/** Answers after which a request that only reads is sent again, if they say when (`Retry-After`). */
const PASSING = [429, 503];

/** One place that speaks HTTP. */
export class Http {
  readonly #baseUrl: string;
  readonly #apiKey: string | undefined;
  readonly #fetch: typeof fetch;
  readonly #timeoutMs: number | undefined;
  readonly #retries: number;

  constructor(config: HttpConfig) {
    if (!config.baseUrl) throw new Error("baseUrl is required");
    const given = config.fetch ?? globalThis.fetch;
    if (typeof given !== "function") throw new Error("no fetch: pass one as `fetch`");
    this.#baseUrl = config.baseUrl.replace(/\/+$/, "");
    this.#apiKey = config.apiKey || undefined;
    this.#timeoutMs = config.timeoutMs;
    this.#retries = config.retries ?? 2;
    // Called by itself: as a method it is an "illegal invocation" in browsers.
    this.#fetch = (input, init) => given(input, init);
  }

  /** Sends a request and reads the answer: JSON, text if it is not JSON, nothing for 204. */
  async request<T>(method: string, path: string, request: Request = {}): Promise<T> {
    const response = await this.open(method, path, request);
    if (response.status === 204) return undefined as T;
    return (await read(response)) as T;
  }

  /** Sends a request and gives the answer unread, if it is a good one. */
  async open(method: string, path: string, request: Request = {}): Promise<Response> {
    const headers: Record<string, string> = { accept: request.accept ?? "application/json" };
    if (this.#apiKey !== undefined) headers["authorization"] = `Bearer ${this.#apiKey}`;
    const init: RequestInit = { method, headers };
    if (request.body !== undefined) {
      headers["content-type"] = "application/json";
      init.body = JSON.stringify(request.body);
    }
    const url = `${this.#baseUrl}${path}${queryOf(request.query)}`;
    const limit = request.timeoutMs ?? this.#timeoutMs;
    // Only what changes nothing is sent twice: nobody knows how far a request got whose answer is missing.
    for (let left = method === "GET" ? this.#retries : 0; ; left--) {
      const last = left <= 0;
      let response: Response;
      try {
        response = await this.#send(url, init, request.signal, limit);
      } catch (error) {
        if (last || !(error instanceof AgentjailError) || error.status !== 0) throw error;
        await pause(100 * 2 ** (this.#retries - left), request.signal);
        continue;
      }
      if (response.ok) return response;
      const after = PASSING.includes(response.status) ? response.headers?.get("retry-after") : null;
      if (last || !after) {
        const requestId = response.headers?.get("x-request-id") ?? undefined;
        throw new AgentjailError(response.status, await read(response), response.statusText, { requestId });
      }
      await response.body?.cancel().catch(() => undefined);
      await pause(Math.min((Number(after) || 1) * 1000, 10_000), request.signal);
    }
  }

  /** Sends a request with the key and gives the answer, whatever it is. */
  raw(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.#apiKey !== undefined) headers.set("authorization", `Bearer ${this.#apiKey}`);
    return this.#send(`${this.#baseUrl}${path}`, { ...init, headers }, init.signal ?? undefined, undefined);
  }

  async #send(
    url: string,
    init: RequestInit,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
  ): Promise<Response> {
    const stop = new AbortController();
    const forward = () => stop.abort(signal?.reason);
    if (signal?.aborted) forward();
    signal?.addEventListener("abort", forward, { once: true });
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => stop.abort(), timeoutMs);
    const watched = signal !== undefined || timer !== undefined;
    try {
      return await this.#fetch(url, watched ? { ...init, signal: stop.signal } : init);
    } catch (cause) {
      // The caller's own abort is theirs to recognise.
      if (signal?.aborted) throw cause;
      if (stop.signal.aborted) throw new AgentjailError(408, null, `no answer in ${timeoutMs} ms`, { cause });
      const text = cause instanceof Error ? cause.message : String(cause);
      throw new AgentjailError(0, null, text, { cause });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Waits, unless the caller has enough. */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      done();
    }, ms);
    const stop = () => {
      clearTimeout(timer);
      fail(signal?.reason);
    };
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A path whose parts are encoded, so that an id cannot become another path. */
export function path(strings: TemplateStringsArray, ...parts: (string | number)[]): string {
  return strings.reduce((whole, text, n) => {
    if (n === 0) return text;
    const part = encodeURIComponent(String(parts[n - 1]));
    if (part === "" || part === "." || part === "..") throw new Error(`not an id: ${JSON.stringify(parts[n - 1])}`);
    return `${whole}${part}${text}`;
  }, "");
}

/** The entries that are set. */
export function set(entries: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined));
}

function queryOf(query: Request["query"]): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) search.set(name, String(value));
  }
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}

async function read(response: Response): Promise<unknown> {
  const text = await response.text();
  if (text === "") return null;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
