import { AgentjailError } from "./error.js";
import { events } from "./events.js";
import { set, type Http, type RequestOptions } from "./http.js";
import { execOptions } from "./options.js";
import type { ExecResult, ForkRequest, ForkResult, RunRequest, StreamEvent } from "./types.js";

/** Code in a throwaway jail. */
export class Runs {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** Runs code to its end. A non-zero exit, a timeout or running out of memory is a result, not an error. */
  create(params: RunRequest, options?: RequestOptions): Promise<ExecResult> {
    return this.#http.request("POST", "/v1/runs", { ...options, body: runBody(params) });
  }

  /**
   * Runs code and gives what happens as it happens. Leaving the loop ends the run.
   *
   * The last event is `completed`, or `error`.
   */
  async *stream(params: RunRequest, options?: RequestOptions): AsyncGenerator<StreamEvent, void, void> {
    const request = { ...options, body: runBody(params), accept: "text/event-stream" };
    const response = await this.#http.open("POST", "/v1/runs/stream", request);
    if (response.body === null) throw new AgentjailError(response.status, null, "stream failed");
    yield* events(response.body);
  }

  /** Runs a parent, and children that begin with what it had written by then. */
  async fork(params: ForkRequest, options?: RequestOptions): Promise<ForkResult> {
    const one = params.childCode !== undefined;
    const many = params.children !== undefined && params.children.length > 0;
    if (one === many) throw new Error("pass exactly one of childCode and children");
    const children = params.children?.map((child) => set({ code: child.code, memory_mb: child.memoryMb }));
    const body = {
      ...set({
        parent_code: params.parentCode,
        child_code: params.childCode,
        children: many ? children : undefined,
        language: params.language,
        fork_after_ms: params.forkAfterMs,
        session_id: params.sessionId,
        git: params.git,
      }),
      ...execOptions(params),
    };
    return this.#http.request("POST", "/v1/runs/fork", { ...options, body });
  }
}

function runBody(params: RunRequest): Record<string, unknown> {
  const { code, language, sessionId, git } = params;
  return { ...set({ code, language, session_id: sessionId, git }), ...execOptions(params) };
}
