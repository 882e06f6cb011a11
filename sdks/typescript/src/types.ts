/** What goes over the wire, under its wire names; and what methods take, in camel case. */

export type ServiceId = "openai" | "anthropic" | "github" | "stripe" | (string & {});

export interface CredentialRecord {
  tenant_id: string;
  service: ServiceId;
  added_at: string;
  updated_at: string;
  fingerprint: string;
}

export interface Session {
  id: string;
  created_at: string;
  expires_at: string | null;
  services: ServiceId[];
  /** Phantom tokens and base URLs: hand it to whatever sandbox you use. */
  env: Record<string, string>;
}

export interface AuditRow {
  id: number;
  at: string;
  tenant_id: string | null;
  session_id: string;
  service: string;
  method: string;
  path: string;
  status: number;
  reject_reason: string | null;
  upstream_ms: number | null;
  request_bytes: number | null;
  response_bytes: number | null;
}

export interface AuditList {
  rows: AuditRow[];
  total: number;
}

export interface ResourceStats {
  memory_peak_bytes: number;
  memory_current_bytes: number;
  cpu_usage_usec: number;
  cpu_user_usec?: number;
  cpu_system_usec?: number;
  io_read_bytes: number;
  io_write_bytes: number;
  pids_current: number;
}

export interface ExecResult {
  stdout: string;
  stderr: string;
  exit_code: number;
  duration_ms: number;
  timed_out: boolean;
  oom_killed: boolean;
  stats?: ResourceStats;
  stdout_truncated?: boolean;
  stderr_truncated?: boolean;
  /** The signal that ended it, such as `SIGKILL`. */
  signal?: string | null;
  /** Why the server ended it, if that was neither its time nor its memory: a quota. */
  error?: string;
  /** Protections and limits that were in force. */
  enforced?: string[];
  /** Of a jail with an allowlist. */
  network?: NetworkUse;
}

/** What went through a jail's gate, and what did not. */
export interface NetworkUse {
  sent_bytes: number;
  received_bytes: number;
  connections: number;
  /** In the order they first came; at most 64 of each protocol. */
  refused: RefusedUse[];
  /** Refusals beyond those. */
  refused_more: number;
}

/** Something a jail wanted to reach and did not. */
export interface RefusedUse {
  /** A stable word, such as `host-not-allowed`. */
  reason: string;
  protocol: "tcp" | "udp" | "dns";
  host: string;
  /** 0 for a look-up. */
  port: number;
  /** The entry of `domains` that would allow it, if one could. */
  rule: string | null;
  count: number;
}

/** How much a jail with an allowlist may do. What is left out is not limited, but for 256 connections at once. */
export interface NetworkLimits {
  connections?: number;
  connections_per_second?: number;
  /** Sent and received together. */
  bytes_per_second?: number;
  bytes?: number;
}

/**
 * What a jail may reach. `domains`: host names, `*.suffix` for any name below one, addresses, or networks
 * such as `203.0.113.0/24`, each optionally `:port`; without a port, 80 and 443.
 */
export type NetworkSpec =
  | { mode: "none" }
  | { mode: "loopback" }
  | { mode: "allowlist"; domains: string[]; limits?: NetworkLimits };

export type SeccompSpec = "standard" | "strict";

export interface ExecOptions {
  network?: NetworkSpec;
  seccomp?: SeccompSpec;
  cpuPercent?: number;
  maxPids?: number;
  /** Runtimes to put in, by name. */
  flavors?: string[];
  /** A root file system in place of the server's system directories, by name. */
  image?: string;
}

export interface RunRequest extends ExecOptions {
  code: string;
  language?: "javascript" | "python" | "bash";
  timeoutSecs?: number;
  memoryMb?: number;
  /** A session whose environment, and phantom proxy, the code gets. */
  sessionId?: string;
  git?: GitSeed;
}

export interface ForkChild {
  code: string;
  memoryMb?: number;
}

export interface ForkRequest extends ExecOptions {
  parentCode: string;
  childCode?: string;
  children?: ForkChild[];
  language?: "javascript" | "python" | "bash";
  forkAfterMs?: number;
  timeoutSecs?: number;
  memoryMb?: number;
  /** A session whose environment, and phantom proxy, all of them get. */
  sessionId?: string;
  git?: GitSeed;
}

export interface ForkMeta {
  clone_ms: number;
  files_cloned: number;
  files_cow: number;
  bytes_cloned: number;
  method: "reflink" | "copy" | "mixed";
  was_frozen: boolean;
  /** How long the parent stood still. */
  freeze_ms?: number;
}

export interface ForkResult {
  parent: ExecResult;
  child: ExecResult;
  children: ExecResult[];
  fork: ForkMeta;
  forks: ForkMeta[];
}

export type StreamEvent =
  | { type: "started"; pid: number }
  | { type: "stdout"; line: string }
  | { type: "stderr"; line: string }
  | ({ type: "stats" } & ResourceStats)
  | ({
      type: "completed";
      exit_code: number;
      duration_ms: number;
      timed_out: boolean;
      oom_killed: boolean;
      signal?: string | null;
    } & Pick<ResourceStats, "memory_peak_bytes" | "memory_current_bytes" | "cpu_usage_usec" | "pids_current">)
  | { type: "error"; message: string };

export type JailKind = "run" | "exec" | "fork" | "stream" | "workspace";
export type JailStatus = "running" | "completed" | "error";

export interface JailConfigSnapshot {
  network_mode: "none" | "loopback" | "allowlist";
  network_domains?: string[];
  network_limits?: NetworkLimits;
  seccomp: SeccompSpec;
  memory_mb: number;
  timeout_secs: number;
  cpu_percent: number;
  max_pids: number;
  flavors?: string[];
  image?: string;
  git_repo?: string;
  git_ref?: string;
}

export interface JailRecord {
  id: number;
  tenant_id: string;
  kind: JailKind;
  started_at: string;
  ended_at: string | null;
  status: JailStatus;
  session_id: string | null;
  label: string;
  parent_id: number | null;
  exit_code: number | null;
  duration_ms: number | null;
  timed_out: boolean | null;
  oom_killed: boolean | null;
  memory_peak_bytes: number | null;
  memory_current_bytes: number | null;
  cpu_usage_usec: number | null;
  cpu_user_usec?: number | null;
  cpu_system_usec?: number | null;
  io_read_bytes: number | null;
  io_write_bytes: number | null;
  pids_current: number | null;
  stdout: string | null;
  stderr: string | null;
  error: string | null;
  config?: JailConfigSnapshot;
  enforced?: string[];
  /** Of a jail with an allowlist that has ended. */
  network?: NetworkUse | null;
}

export interface JailsList {
  rows: JailRecord[];
  total: number;
  limit: number;
  offset: number;
}

export interface PublicStats {
  active_execs: number;
  total_execs: number;
  sessions: number;
  credentials: number;
}

export interface Whoami {
  tenant: string;
  role: "admin" | "operator";
}

export interface Flavor {
  name: string;
}

/** A root file system that a jail can have. */
export interface Image {
  name: string;
  /** Of its manifest, as `sha256:…`. */
  digest: string;
}

export interface ProviderInfo {
  service_id: ServiceId;
  upstream_base: string;
  request_prefix: string;
}

export interface SettingsSnapshot {
  proxy: { base_url: string; bind_addr?: string | null; providers: ProviderInfo[] };
  control_plane: { bind_addr?: string | null };
  gateway: { bind_addr: string } | null;
  exec: { default_memory_mb: number; default_timeout_secs: number; max_concurrent: number } | null;
  persistence: { state_dir?: string | null; snapshot_pool_dir?: string | null; idle_check_secs: number };
  snapshots: { gc: { max_age_secs: number | null; max_count: number | null; tick_secs: number } | null };
}

/**
 * What to clone. `ref`: a branch, a tag, or a commit's full hash. `credential`: a service whose upstream is the
 * repository's host (`github` for github.com), and whose key clones it; the key does not enter the jail.
 */
export type GitSeed =
  | { repo: string; ref?: string; credential?: ServiceId; depth?: number }
  | { repos: { repo: string; ref?: string; dir?: string; credential?: ServiceId }[]; depth?: number };

export interface WorkspaceSpec {
  memory_mb: number;
  timeout_secs: number;
  cpu_percent: number;
  max_pids: number;
  network_mode: "none" | "loopback" | "allowlist";
  network_domains: string[];
  seccomp: SeccompSpec;
  idle_timeout_secs: number;
  flavors?: string[];
  image?: string;
}

/** A host name, and where the gateway sends its requests: exactly one of the two. */
export interface WorkspaceDomain {
  domain: string;
  backend_url?: string;
  /** A port inside the workspace's jail. */
  vm_port?: number;
}

export interface Workspace {
  id: string;
  tenant_id?: string;
  created_at: string;
  deleted_at: string | null;
  /** For admins; else empty. */
  source_dir: string;
  output_dir: string;
  config: WorkspaceSpec;
  git_repo: string | null;
  git_ref: string | null;
  label: string | null;
  domains: WorkspaceDomain[];
  last_exec_at: string | null;
  paused_at: string | null;
  auto_snapshot: string | null;
}

export interface WorkspaceList {
  rows: Workspace[];
  total: number;
  limit: number;
  offset: number;
}

export interface WorkspaceCreateRequest extends ExecOptions {
  git?: GitSeed;
  label?: string;
  memoryMb?: number;
  timeoutSecs?: number;
  /** Seconds without a command after which it is put aside; 0 is never. */
  idleTimeoutSecs?: number;
  domains?: WorkspaceDomain[];
}

export interface WorkspaceExecRequest {
  cmd: string;
  args?: string[];
  timeoutSecs?: number;
  memoryMb?: number;
  /** The last word on a name counts. */
  env?: [string, string][];
  /** A session whose environment, and phantom proxy, the command gets. */
  sessionId?: string;
  /** What the command reads. */
  stdin?: string;
}

/** An agent to start. All of it may be left out. */
export interface WorkspaceAgentRequest {
  /** Of which a session is made for it, and goes with it. */
  services?: ServiceId[];
  scopes?: Partial<Record<ServiceId, string[]>>;
  /** A session that is there already, in place of `services`. */
  sessionId?: string;
  /** Coding agents that must be installed on the server; default: all there are. */
  agents?: string[];
  /** In place of the workspace's. */
  network?: NetworkSpec;
  memoryMb?: number;
  maxPids?: number;
  cpuPercent?: number;
  /** For all that runs there; not a place for keys. */
  env?: [string, string][];
}

export interface WorkspaceAgentStarted {
  url: string;
  /** Opens `url` and nothing else. Told this once. */
  token: string;
  session_id: string | null;
}

export type WorkspaceAgentState = "running" | "paused" | "ended";

export interface WorkspaceAgent {
  state: WorkspaceAgentState;
  url: string;
  session_id: string | null;
  created_at: string;
  agents: string[];
  jail_id: number | null;
  /** How it last ended by itself. */
  ended: { reason: "exited" | "oom_killed" | "quota"; exit_code: number; at: string } | null;
}

export interface WorkspaceForkResponse {
  parent: Workspace;
  forks: (Workspace & { agent?: WorkspaceAgentStarted })[];
  snapshot_id: string;
  /** How long a running command stood still; null if none ran. */
  freeze_ms?: number | null;
}

export interface SnapshotRecord {
  id: string;
  tenant_id?: string;
  workspace_id: string | null;
  name: string | null;
  created_at: string;
  /** For admins; else empty. */
  path: string;
  size_bytes: number;
  files?: number;
  /** What is not kept: sockets, FIFOs, devices, set-id bits. */
  left_out?: { count: number; first: { path: string; reason: string }[] };
  /** How long a running command stood still. In the answer to taking it only. */
  freeze_ms?: number;
}

export interface SnapshotList {
  rows: SnapshotRecord[];
  total: number;
  limit: number;
  offset: number;
}

export interface SnapshotManifestEntry {
  path: string;
  mode: number;
  /** BLAKE3-256, in hex; empty for what has no content. */
  hash: string;
  size: number;
  type?: "file" | "symlink" | "directory";
  /** What `path` is from: `/workspace` or `/output`. */
  root?: "workspace" | "output";
  target?: string;
  /** Of a name that is not UTF-8. */
  path_base64?: string;
}

export interface SnapshotManifest {
  kind: "incremental" | "classic";
  /** Of `/workspace`. */
  entries: SnapshotManifestEntry[];
  /** Of `/output`. */
  output?: SnapshotManifestEntry[];
}

export interface SnapshotDiff {
  against: string;
  added: SnapshotManifestEntry[];
  changed: { before: SnapshotManifestEntry; after: SnapshotManifestEntry }[];
  removed: SnapshotManifestEntry[];
  totals: { added: number; changed: number; removed: number };
  /** Whether there are more than are listed. */
  truncated: boolean;
}

export interface ApiKeyRecord {
  id: string;
  tenant: string;
  role: "admin" | "operator";
  label: string;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
  last_used_at: string | null;
}

export interface CreatedApiKey extends ApiKeyRecord {
  /** Shown this once. */
  key: string;
}
