import { AgentjailError } from "./error.js";
import { path, set, type Http, type RequestOptions } from "./http.js";
import { execOptions } from "./options.js";
import { pages } from "./pages.js";
import { events } from "./events.js";
import type {
  ExecResult,
  StreamEvent,
  Workspace,
  WorkspaceAgent,
  WorkspaceAgentRequest,
  WorkspaceAgentStarted,
  WorkspaceAgentState,
  WorkspaceCreateRequest,
  WorkspaceExecRequest,
  WorkspaceForkResponse,
  WorkspaceList,
} from "./types.js";

/** Long-lived pairs of `/workspace` and `/output`, and commands in them. */
export class Workspaces {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** Makes one: empty, or with repositories that are cloned in a jail. */
  create(params: WorkspaceCreateRequest = {}, options?: RequestOptions): Promise<Workspace> {
    const { git, label, idleTimeoutSecs, domains } = params;
    const own = set({ git, label, idle_timeout_secs: idleTimeoutSecs, domains });
    return this.#http.request("POST", "/v1/workspaces", { ...options, body: { ...own, ...execOptions(params) } });
  }

  /** Newest first. */
  list(params: { limit?: number; offset?: number; q?: string } = {}, options?: RequestOptions): Promise<WorkspaceList> {
    const { limit, offset, q } = params;
    return this.#http.request("GET", "/v1/workspaces", { ...options, query: { limit, offset, q } });
  }

  /** All of them, page by page as they are asked for. */
  all(params: { q?: string; pageSize?: number } = {}, options?: RequestOptions): AsyncGenerator<Workspace, void, void> {
    const { q, pageSize } = params;
    return pages(pageSize, (limit, offset) => this.list({ limit, offset, ...(q === undefined ? {} : { q }) }, options));
  }

  get(id: string, options?: RequestOptions): Promise<Workspace> {
    return this.#http.request("GET", path`/v1/workspaces/${id}`, options);
  }

  /** Gives it another label; without one, a friendly one is made up. */
  rename(id: string, label?: string, options?: RequestOptions): Promise<Workspace> {
    return this.#http.request("PATCH", path`/v1/workspaces/${id}`, { ...options, body: set({ label }) });
  }

  /** Ends what runs in it, and removes it. Its snapshots stay. */
  delete(id: string, options?: RequestOptions): Promise<void> {
    return this.#http.request("DELETE", path`/v1/workspaces/${id}`, options);
  }

  /** Runs one command over the files that the last one left. Another that is in flight is a `CONFLICT`. */
  exec(id: string, params: WorkspaceExecRequest, options?: RequestOptions): Promise<ExecResult> {
    return this.#http.request("POST", path`/v1/workspaces/${id}/exec`, { ...options, body: execBody(params) });
  }

  /** The same, and gives what happens as it happens. Leaving the loop ends the command. */
  async *stream(
    id: string,
    params: WorkspaceExecRequest,
    options?: RequestOptions,
  ): AsyncGenerator<StreamEvent, void, void> {
    const request = { ...options, body: execBody(params), accept: "text/event-stream" };
    const response = await this.#http.open("POST", path`/v1/workspaces/${id}/exec/stream`, request);
    if (response.body === null) throw new AgentjailError(response.status, null, "stream failed");
    yield* events(response.body);
  }

  /**
   * Makes workspaces that begin as this one is now, in constant time, a running command or not. With `agent` (it may be
   * `{}`) each gets one of its own, with tokens of its own, that goes on with the conversation.
   */
  async fork(
    id: string,
    params: { count: number; label?: string; agent?: WorkspaceAgentRequest },
    options?: RequestOptions,
  ): Promise<WorkspaceForkResponse> {
    if (!(params.count >= 1 && params.count <= 16)) throw new Error("count must be from 1 to 16");
    const agent = params.agent === undefined ? undefined : agentBody(params.agent);
    const body = set({ count: params.count, label: params.label, agent });
    return this.#http.request("POST", path`/v1/workspaces/${id}/fork`, { ...options, body });
  }

  /** Puts it back to one of its snapshots. What was written since is gone. */
  restore(id: string, snapshotId: string, options?: RequestOptions): Promise<Workspace> {
    const body = { snapshot_id: snapshotId };
    return this.#http.request("POST", path`/v1/workspaces/${id}/restore`, { ...options, body });
  }

  /**
   * Starts a sandbox agent in the workspace's jail, with a session of `services` whose phantom tokens are all that it
   * holds. Clients of a sandbox agent connect to `url` with `token`, which opens that and nothing else.
   */
  agent(id: string, params: WorkspaceAgentRequest = {}, options?: RequestOptions): Promise<WorkspaceAgentStarted> {
    return this.#http.request("POST", path`/v1/workspaces/${id}/agent`, { ...options, body: agentBody(params) });
  }

  getAgent(id: string, options?: RequestOptions): Promise<WorkspaceAgent> {
    return this.#http.request("GET", path`/v1/workspaces/${id}/agent`, options);
  }

  /** Lets it run, stand still, or end. Whatever is asked of it brings it back, with the same token and conversations. */
  setAgent(id: string, state: WorkspaceAgentState, options?: RequestOptions): Promise<WorkspaceAgent> {
    return this.#http.request("PATCH", path`/v1/workspaces/${id}/agent`, { ...options, body: { state } });
  }

  /** Ends it for good, with its token and the session that was made for it; the workspace stays. */
  deleteAgent(id: string, options?: RequestOptions): Promise<void> {
    return this.#http.request("DELETE", path`/v1/workspaces/${id}/agent`, options);
  }

  /**
   * Asks a server that runs in the workspace. `target` is what follows its port, such as `/api?x=1`; the answer
   * is as it is, whatever its status.
   */
  preview(id: string, port: number, target = "/", init: RequestInit = {}): Promise<Response> {
    const rest = target.startsWith("/") ? target : `/${target}`;
    return this.#http.raw(`${path`/v1/workspaces/${id}/ports/${port}`}${rest}`, init);
  }
}

function agentBody(params: WorkspaceAgentRequest): Record<string, unknown> {
  return set({
    services: params.services,
    scopes: params.scopes,
    session_id: params.sessionId,
    agents: params.agents,
    network: params.network,
    memory_mb: params.memoryMb,
    max_pids: params.maxPids,
    cpu_percent: params.cpuPercent,
    env: params.env,
  });
}

function execBody(params: WorkspaceExecRequest): Record<string, unknown> {
  return set({
    cmd: params.cmd,
    args: params.args,
    timeout_secs: params.timeoutSecs,
    memory_mb: params.memoryMb,
    env: params.env,
    session_id: params.sessionId,
    stdin: params.stdin,
  });
}
