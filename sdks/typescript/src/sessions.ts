import { path, set, type Http, type RequestOptions } from "./http.js";
import { execOptions } from "./options.js";
import type { ExecOptions, ExecResult, RunRequest, ServiceId, Session } from "./types.js";

/** Phantom tokens for some services, and jails that hold nothing else. */
export class Sessions {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** Mints one phantom token a service. `scopes`: path globs a service; without an entry, no restriction. */
  create(
    params: { services: ServiceId[]; ttlSecs?: number; scopes?: Partial<Record<ServiceId, string[]>> },
    options?: RequestOptions,
  ): Promise<Session> {
    const body = set({ services: params.services, ttl_secs: params.ttlSecs, scopes: params.scopes });
    return this.#http.request("POST", "/v1/sessions", { ...options, body });
  }

  /** Newest first. */
  list(options?: RequestOptions): Promise<Session[]> {
    return this.#http.request("GET", "/v1/sessions", options);
  }

  get(id: string, options?: RequestOptions): Promise<Session> {
    return this.#http.request("GET", path`/v1/sessions/${id}`, options);
  }

  /** Revokes the session's tokens, also in the middle of a stream. */
  close(id: string, options?: RequestOptions): Promise<void> {
    return this.#http.request("DELETE", path`/v1/sessions/${id}`, options);
  }

  /** Runs code in a throwaway jail with the session's environment. */
  run(id: string, params: Omit<RunRequest, "sessionId">, options?: RequestOptions): Promise<ExecResult> {
    const { code, language, git } = params;
    const body = { ...set({ code, language, git }), ...execOptions(params) };
    return this.#http.request("POST", path`/v1/sessions/${id}/runs`, { ...options, body });
  }

  /** Runs one command in a throwaway jail with the session's environment. */
  exec(
    id: string,
    params: { cmd: string; args?: string[]; timeoutSecs?: number; memoryMb?: number } & ExecOptions,
    options?: RequestOptions,
  ): Promise<ExecResult> {
    const body = { ...set({ cmd: params.cmd, args: params.args }), ...execOptions(params) };
    return this.#http.request("POST", path`/v1/sessions/${id}/exec`, { ...options, body });
  }
}
