import { path, type Http, type RequestOptions } from "./http.js";
import type { CredentialRecord, ServiceId } from "./types.js";

/** Real keys. They go in and never come out. */
export class Credentials {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  list(options?: RequestOptions): Promise<CredentialRecord[]> {
    return this.#http.request("GET", "/v1/credentials", options);
  }

  /** Keeps a key, or puts it in the place of a former one: in force at once. */
  put(params: { service: ServiceId; secret: string }, options?: RequestOptions): Promise<CredentialRecord> {
    const body = { service: params.service, secret: params.secret };
    return this.#http.request("POST", "/v1/credentials", { ...options, body });
  }

  /** Removes a key. Its phantom tokens stop working at once. */
  delete(service: ServiceId, options?: RequestOptions): Promise<void> {
    return this.#http.request("DELETE", path`/v1/credentials/${service}`, options);
  }
}
