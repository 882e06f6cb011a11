import { path, set, type Http, type RequestOptions } from "./http.js";
import type { ApiKeyRecord, CreatedApiKey } from "./types.js";

/** API keys that are kept in the store. For admins. */
export class Keys {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** Makes one. `key` is in this answer and nowhere else. */
  create(
    params: { role: "admin" | "operator"; tenant?: string; label?: string; ttlSecs?: number },
    options?: RequestOptions,
  ): Promise<CreatedApiKey> {
    const { role, tenant, label, ttlSecs } = params;
    const body = set({ role, tenant, label, ttl_secs: ttlSecs });
    return this.#http.request("POST", "/v1/keys", { ...options, body });
  }

  /** Newest first. */
  list(options?: RequestOptions): Promise<ApiKeyRecord[]> {
    return this.#http.request("GET", "/v1/keys", options);
  }

  /** Ends one, from the next request on. */
  revoke(id: string, options?: RequestOptions): Promise<void> {
    return this.#http.request("DELETE", path`/v1/keys/${id}`, options);
  }
}
