import type { Http, RequestOptions } from "./http.js";
import type { PublicStats } from "./types.js";

/** What needs no key. */
export class Public {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** `"ok"` */
  health(options?: RequestOptions): Promise<string> {
    return this.#http.request("GET", "/healthz", options);
  }

  stats(options?: RequestOptions): Promise<PublicStats> {
    return this.#http.request("GET", "/v1/stats", options);
  }
}
