"""What goes over the wire, under its wire names. Times are RFC 3339."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

SeccompSpec = Literal["standard", "strict"]


class NetworkSpec(TypedDict, total=False):
    """``{"mode": "none" | "loopback"}``, or ``{"mode": "allowlist", "domains": [host, ``*.suffix``, network…]}``."""

    mode: Literal["none", "loopback", "allowlist"]
    domains: list[str]
    limits: dict[str, int]


class GitRepoEntry(TypedDict, total=False):
    repo: str
    ref: str
    dir: str
    credential: str


class GitSeed(TypedDict, total=False):
    """One ``repo``, or several ``repos``. ``credential`` is a service whose key clones; it does not enter the jail."""

    repo: str
    ref: str
    credential: str
    depth: int
    repos: list[GitRepoEntry]


class CredentialRecord(TypedDict):
    tenant_id: str
    service: str
    added_at: str
    updated_at: str
    fingerprint: str


class Session(TypedDict):
    """``env`` holds phantom tokens and base URLs: hand it to whatever sandbox you use."""

    id: str
    created_at: str
    expires_at: str | None
    services: list[str]
    env: dict[str, str]


class ResourceStats(TypedDict, total=False):
    memory_peak_bytes: int
    memory_current_bytes: int
    cpu_usage_usec: int
    cpu_user_usec: int
    cpu_system_usec: int
    io_read_bytes: int
    io_write_bytes: int
    pids_current: int


class ExecResult(TypedDict, total=False):
    """How a command ended. A non-zero exit, a timeout or running out of memory is a result, not an error."""

    stdout: str
    stderr: str
    exit_code: int
    duration_ms: int
    timed_out: bool
    oom_killed: bool
    stats: ResourceStats
    stdout_truncated: bool
    stderr_truncated: bool
    signal: str | None
    error: str
    enforced: list[str]
    network: dict[str, Any]


class ForkResult(TypedDict):
    parent: ExecResult
    child: ExecResult
    children: list[ExecResult]
    fork: dict[str, Any]
    forks: list[dict[str, Any]]


class StreamEvent(TypedDict, total=False):
    """``type``: ``started``, ``stdout``, ``stderr``, ``stats``, and last ``completed`` or ``error``."""

    type: str
    line: str
    pid: int
    message: str
    exit_code: int
    duration_ms: int
    timed_out: bool
    oom_killed: bool
    signal: str | None


class AuditRow(TypedDict):
    id: int
    at: str
    tenant_id: str | None
    session_id: str
    service: str
    method: str
    path: str
    status: int
    reject_reason: str | None
    upstream_ms: int | None
    request_bytes: int | None
    response_bytes: int | None


class AuditList(TypedDict):
    rows: list[AuditRow]
    total: int


class JailRecord(TypedDict, total=False):
    id: int
    tenant_id: str
    kind: str
    started_at: str
    ended_at: str | None
    status: Literal["running", "completed", "error"]
    session_id: str | None
    label: str
    parent_id: int | None
    exit_code: int | None
    duration_ms: int | None
    timed_out: bool | None
    oom_killed: bool | None
    stdout: str | None
    stderr: str | None
    error: str | None
    config: dict[str, Any]
    enforced: list[str]
    network: dict[str, Any] | None


class JailsList(TypedDict):
    rows: list[JailRecord]
    total: int
    limit: int
    offset: int


class Workspace(TypedDict, total=False):
    id: str
    tenant_id: str
    created_at: str
    deleted_at: str | None
    source_dir: str
    output_dir: str
    config: dict[str, Any]
    git_repo: str | None
    git_ref: str | None
    label: str | None
    domains: list[dict[str, Any]]
    last_exec_at: str | None
    paused_at: str | None
    auto_snapshot: str | None


class AgentStarted(TypedDict):
    """``token`` opens ``url`` and nothing else; it is told this once."""

    url: str
    token: str
    session_id: str | None


class AgentView(TypedDict):
    """``state``: ``running``, ``paused`` or ``ended``."""

    state: str
    url: str
    session_id: str | None
    created_at: str
    agents: list[str]
    jail_id: int | None
    ended: dict[str, Any] | None


class ForkedWorkspace(Workspace, total=False):
    agent: AgentStarted


class WorkspaceList(TypedDict):
    rows: list[Workspace]
    total: int
    limit: int
    offset: int


class WorkspaceForkResponse(TypedDict):
    parent: Workspace
    forks: list[ForkedWorkspace]
    snapshot_id: str
    freeze_ms: float | None


class SnapshotRecord(TypedDict, total=False):
    id: str
    tenant_id: str
    workspace_id: str | None
    name: str | None
    created_at: str
    path: str
    size_bytes: int
    files: int
    left_out: dict[str, Any]
    freeze_ms: float


class SnapshotList(TypedDict):
    rows: list[SnapshotRecord]
    total: int
    limit: int
    offset: int


class SnapshotManifest(TypedDict, total=False):
    kind: str
    entries: list[dict[str, Any]]
    output: list[dict[str, Any]]


class SnapshotDiff(TypedDict):
    against: str
    added: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    totals: dict[str, int]
    truncated: bool


class Whoami(TypedDict):
    tenant: str
    role: Literal["admin", "operator"]


class Flavor(TypedDict):
    name: str


class PublicStats(TypedDict):
    active_execs: int
    total_execs: int
    sessions: int
    credentials: int
