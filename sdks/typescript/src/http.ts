import { AgentjailError } from "./error.js";

/** What every method takes last. */
export interface RequestOptions {
  /** Ends the request; a run that is under way is ended with it. */
  signal?: AbortSignal;
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
}

/** One place that speaks HTTP. */
export class Http {
  readonly #baseUrl: string;
  readonly #apiKey: string | undefined;
  readonly #fetch: typeof fetch;

  constructor(config: HttpConfig) {
    if (!config.baseUrl) throw new Error("baseUrl is required");
    const given = config.fetch ?? globalThis.fetch;
    if (typeof given !== "function") throw new Error("no fetch: pass one as `fetch`");
    this.#baseUrl = config.baseUrl.replace(/\/+$/, "");
    this.#apiKey = config.apiKey || undefined;
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
    if (request.signal !== undefined) init.signal = request.signal;
    const response = await this.#send(`${this.#baseUrl}${path}${queryOf(request.query)}`, init);
    if (response.ok) return response;
    const requestId = response.headers?.get("x-request-id") ?? undefined;
    throw new AgentjailError(response.status, await read(response), response.statusText, { requestId });
  }

  async #send(url: string, init: RequestInit): Promise<Response> {
    try {
      return await this.#fetch(url, init);
    } catch (cause) {
      // The caller's own abort is theirs to recognise.
      if (init.signal?.aborted) throw cause;
      const text = cause instanceof Error ? cause.message : String(cause);
      throw new AgentjailError(0, null, text, { cause });
    }
  }
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
