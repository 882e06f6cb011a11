import { AgentjailError } from "./error.js";
import { path, set, type Http, type RequestOptions } from "./http.js";
import { pages } from "./pages.js";
import type { SnapshotDiff, SnapshotList, SnapshotManifest, SnapshotRecord, Workspace } from "./types.js";

/** What workspaces were at one moment. */
export class Snapshots {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  /** Takes one, of a running command too: it stands still for as long as `freeze_ms` says. */
  create(workspaceId: string, params: { name?: string } = {}, options?: RequestOptions): Promise<SnapshotRecord> {
    const body = set({ name: params.name });
    return this.#http.request("POST", path`/v1/workspaces/${workspaceId}/snapshot`, { ...options, body });
  }

  /** Newest first. */
  list(
    params: { workspaceId?: string; limit?: number; offset?: number; q?: string } = {},
    options?: RequestOptions,
  ): Promise<SnapshotList> {
    const query = { workspace_id: params.workspaceId, limit: params.limit, offset: params.offset, q: params.q };
    return this.#http.request("GET", "/v1/snapshots", { ...options, query });
  }

  /** All of them, page by page as they are asked for. */
  all(
    params: { workspaceId?: string; q?: string; pageSize?: number } = {},
    options?: RequestOptions,
  ): AsyncGenerator<SnapshotRecord, void, void> {
    const { pageSize, ...filter } = params;
    return pages(pageSize, (limit, offset) => this.list({ ...filter, limit, offset }, options));
  }

  get(id: string, options?: RequestOptions): Promise<SnapshotRecord> {
    return this.#http.request("GET", path`/v1/snapshots/${id}`, options);
  }

  /** Every file with its hash. */
  manifest(id: string, options?: RequestOptions): Promise<SnapshotManifest> {
    return this.#http.request("GET", path`/v1/snapshots/${id}/manifest`, options);
  }

  /** What changed from `against` to `id`. */
  diff(id: string, against: string, params: { limit?: number } = {}, options?: RequestOptions): Promise<SnapshotDiff> {
    const query = { against, limit: params.limit };
    return this.#http.request("GET", path`/v1/snapshots/${id}/diff`, { ...options, query });
  }

  /** A tar archive with `workspace/` and `output/`, as it comes. A content that is not what it was breaks it off. */
  async tar(id: string, options?: RequestOptions): Promise<ReadableStream<Uint8Array>> {
    const request = { ...options, accept: "application/x-tar" };
    const response = await this.#http.open("GET", path`/v1/snapshots/${id}/tar`, request);
    if (response.body === null) throw new AgentjailError(response.status, null, "no archive came");
    return response.body;
  }

  /** Reads every content, and compares it with its hash. */
  verify(id: string, options?: RequestOptions): Promise<{ intact: boolean; error: string | null }> {
    return this.#http.request("POST", path`/v1/snapshots/${id}/verify`, options);
  }

  /** A second time it is a `NOT_FOUND`. */
  delete(id: string, options?: RequestOptions): Promise<void> {
    return this.#http.request("DELETE", path`/v1/snapshots/${id}`, options);
  }

  /**
   * Makes a workspace that begins as the snapshot is. `parentWorkspaceId` proves that you know where it is from;
   * without it the snapshot is looked up first.
   */
  async createWorkspaceFrom(
    snapshotId: string,
    params: { parentWorkspaceId?: string; label?: string } = {},
    options?: RequestOptions,
  ): Promise<Workspace> {
    const parent = params.parentWorkspaceId ?? (await this.get(snapshotId, options)).workspace_id ?? "";
    const body = { snapshot_id: snapshotId, parent_workspace_id: parent, ...set({ label: params.label }) };
    return this.#http.request("POST", "/v1/workspaces/from-snapshot", { ...options, body });
  }
}
