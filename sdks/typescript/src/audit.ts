import type { Http, RequestOptions } from "./http.js";
import type { AuditList } from "./types.js";

/** Every decision of the phantom proxy. */
export class Audit {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** The newest decisions, 100 unless said otherwise. */
  recent(limit?: number, options?: RequestOptions): Promise<AuditList> {
    return this.#http.request("GET", "/v1/audit", { ...options, query: { limit } });
  }
}
