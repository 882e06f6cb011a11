import { path, type Http, type RequestOptions } from "./http.js";
import { pages } from "./pages.js";
import type { JailKind, JailRecord, JailsList, JailStatus } from "./types.js";

/** The ledger of everything that ran. */
export class Jails {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** Newest first. */
  list(
    params: { limit?: number; offset?: number; status?: JailStatus; kind?: JailKind; q?: string } = {},
    options?: RequestOptions,
  ): Promise<JailsList> {
    const { limit, offset, status, kind, q } = params;
    const query = {
      limit: limit || undefined,
      offset: offset || undefined,
      status: status || undefined,
      kind: kind || undefined,
      q: q || undefined,
    };
    return this.#http.request("GET", "/v1/jails", { ...options, query });
  }

  /** All of them, page by page as they are asked for. */
  all(
    params: { status?: JailStatus; kind?: JailKind; q?: string; pageSize?: number } = {},
    options?: RequestOptions,
  ): AsyncGenerator<JailRecord, void, void> {
    const { pageSize, ...filter } = params;
    return pages(pageSize, (limit, offset) => this.list({ ...filter, limit, offset }, options));
  }

  get(id: number, options?: RequestOptions): Promise<JailRecord> {
    return this.#http.request("GET", path`/v1/jails/${id}`, options);
  }

  /**
   * Replaces the allowlist of a running jail: for new connections, and for those open, which are cut if it does
   * not allow them. No domains close everything.
   */
  setNetwork(
    id: number,
    params: { domains: string[] },
    options?: RequestOptions,
  ): Promise<{ domains: string[]; cut: number }> {
    return this.#http.request("PUT", path`/v1/jails/${id}/network`, { ...options, body: params });
  }
}
