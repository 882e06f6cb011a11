import type { Http, RequestOptions } from "./http.js";
import type { Flavor, Image, SettingsSnapshot, Whoami } from "./types.js";

/** How the server is set up, and who it takes you for. */
export class Settings {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  get(options?: RequestOptions): Promise<SettingsSnapshot> {
    return this.#http.request("GET", "/v1/config", options);
  }

  /** Tenant and role of the key. */
  whoami(options?: RequestOptions): Promise<Whoami> {
    return this.#http.request("GET", "/v1/whoami", options);
  }

  /** Runtimes that can be put into a jail. */
  flavors(options?: RequestOptions): Promise<Flavor[]> {
    return this.#http.request("GET", "/v1/flavors", options);
  }

  /** Root file systems that a jail can have. */
  images(options?: RequestOptions): Promise<Image[]> {
    return this.#http.request("GET", "/v1/images", options);
  }
}
