import type { Access } from "./access.js";
import { queryOf } from "./place.js";
import { Problem, problemOf } from "./problem.js";

export interface Request {
  query?: Record<string, string | number | boolean | undefined>;
  /** Sent as JSON. */
  body?: unknown;
  /** Sent as it is. */
  bytes?: Blob;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** One place that speaks HTTP, to one server: the one that this page came from. */
export class Http {
  readonly #root: URL;
  readonly #access: Access;
  readonly #refused: () => void;

  /** `refused` is told when the server does not take the token. */
  constructor(root: URL, access: Access, refused: () => void) {
    this.#root = root;
    this.#access = access;
    this.#refused = refused;
  }

  /** Sends a request and reads its JSON; nothing for an empty body. White space may come before: it keeps alive. */
  async json<T>(method: string, path: string, request: Request = {}): Promise<T> {
    const response = await this.open(method, path, request);
    const text = await response.text();
    if (text.trim() === "") return undefined as T;
    try {
      return JSON.parse(text) as T;
    } catch {
      throw new Problem(response.status, "Not JSON", `${method} ${path} answered something else`);
    }
  }

  /** Sends a request and gives the answer unread, if it is a good one. */
  async open(method: string, path: string, request: Request = {}): Promise<Response> {
    const headers = new Headers(this.#access.headers);
    for (const [name, value] of Object.entries(request.headers ?? {})) headers.set(name, value);
    if (this.#access.token !== undefined) headers.set("authorization", `Bearer ${this.#access.token}`);
    const init: RequestInit = { method, headers, cache: "no-store", credentials: "same-origin" };
    if (request.signal !== undefined) init.signal = request.signal;
    if (request.bytes !== undefined) init.body = request.bytes;
    if (request.body !== undefined) {
      headers.set("content-type", "application/json");
      init.body = JSON.stringify(request.body);
    }
    let response: Response;
    try {
      response = await fetch(this.#url(path, request.query), init);
    } catch (error) {
      if (request.signal?.aborted) throw error;
      throw new Problem(0, "No answer", "The server cannot be reached.");
    }
    if (response.ok) return response;
    if (response.status === 401) this.#refused();
    throw problemOf(response.status, response.statusText, await response.text().catch(() => ""));
  }

  /** A socket's address. Browsers send no headers with it, so the token is part of it. */
  socket(path: string, query: Request["query"] = {}): string {
    const url = this.#url(path, { ...query, access_token: this.#access.token });
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url.href;
  }

  #url(path: string, query: Request["query"] = {}): URL {
    const url = new URL(path.replace(/^\//, ""), this.#root);
    url.search = queryOf(query);
    return url;
  }
}

/** A path whose parts are encoded, so that an id cannot become another path. */
export function path(strings: TemplateStringsArray, ...parts: string[]): string {
  return strings.reduce((whole, text, n) => {
    if (n === 0) return text;
    const part = encodeURIComponent(parts[n - 1] ?? "");
    if (part === "" || part === "." || part === "..") throw new Error(`not an id: ${JSON.stringify(parts[n - 1])}`);
    return `${whole}${part}${text}`;
  }, "");
}
