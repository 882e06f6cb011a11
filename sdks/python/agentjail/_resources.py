"""The control plane's resources, one class each. Results are dicts with wire names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypedDict, cast

import httpx

from ._http import Http, given, path
from ._types import (
    AgentStarted,
    AgentView,
    AuditList,
    CredentialRecord,
    ExecResult,
    Flavor,
    ForkResult,
    GitSeed,
    JailRecord,
    JailsList,
    NetworkSpec,
    PublicStats,
    SeccompSpec,
    Session,
    SnapshotDiff,
    SnapshotList,
    SnapshotManifest,
    SnapshotRecord,
    StreamEvent,
    Whoami,
    Workspace,
    WorkspaceForkResponse,
    WorkspaceList,
)

_PAGE = 100


class _Resource:
    def __init__(self, http: Http) -> None:
        self._http = http


class Credentials(_Resource):
    """Real keys. They go in and never come out."""

    def list(self) -> list[CredentialRecord]:
        return cast("list[CredentialRecord]", self._http.request("GET", "/v1/credentials"))

    def put(self, service: str, secret: str) -> CredentialRecord:
        """Keeps a key, or puts it in the place of a former one: in force at once."""
        body = {"service": service, "secret": secret}
        return cast(CredentialRecord, self._http.request("POST", "/v1/credentials", body=body))

    def delete(self, service: str) -> None:
        """Removes a key. Its phantom tokens stop working at once."""
        self._http.request("DELETE", path("/v1/credentials/{}", service))


class Sessions(_Resource):
    """Phantom tokens for some services, and jails that hold nothing else."""

    def create(
        self, services: Sequence[str], ttl_secs: int | None = None, scopes: Mapping[str, Sequence[str]] | None = None
    ) -> Session:
        """Mints one phantom token a service. ``scopes``: path globs by service; without an entry, no restriction."""
        body = given(services=list(services), ttl_secs=ttl_secs, scopes=dict(scopes) if scopes is not None else None)
        return cast(Session, self._http.request("POST", "/v1/sessions", body=body))

    def list(self) -> list[Session]:
        return cast("list[Session]", self._http.request("GET", "/v1/sessions"))

    def get(self, id: str) -> Session:  # noqa: A002 - part of the surface
        return cast(Session, self._http.request("GET", path("/v1/sessions/{}", id)))

    def close(self, id: str) -> None:  # noqa: A002
        """Revokes the session's tokens, also in the middle of a stream."""
        self._http.request("DELETE", path("/v1/sessions/{}", id))

    def run(
        self,
        id: str,  # noqa: A002
        code: str,
        language: str | None = None,
        git: GitSeed | None = None,
        **options: Any,
    ) -> ExecResult:
        """Runs code in a throwaway jail with the session's environment. ``options``: as of `Runs.create`."""
        body = {**given(code=code, language=language, git=git), **_exec_options(options)}
        return cast(ExecResult, self._http.request("POST", path("/v1/sessions/{}/runs", id), body=body))

    def exec(
        self,
        id: str,  # noqa: A002
        cmd: str,
        args: Sequence[str] | None = None,
        timeout_secs: int | None = None,
        memory_mb: int | None = None,
        network: NetworkSpec | None = None,
        seccomp: SeccompSpec | None = None,
        cpu_percent: int | None = None,
        max_pids: int | None = None,
        flavors: Sequence[str] | None = None,
        image: str | None = None,
    ) -> ExecResult:
        """Runs one command in a throwaway jail with the session's environment."""
        body = given(
            cmd=cmd,
            args=list(args) if args is not None else None,
            timeout_secs=timeout_secs,
            memory_mb=memory_mb,
            network=network,
            seccomp=seccomp,
            cpu_percent=cpu_percent,
            max_pids=max_pids,
            flavors=flavors,
            image=image,
        )
        return cast(ExecResult, self._http.request("POST", path("/v1/sessions/{}/exec", id), body=body))


class Runs(_Resource):
    """Code in a throwaway jail."""

    def create(
        self,
        code: str,
        language: str | None = None,
        timeout_secs: int | None = None,
        memory_mb: int | None = None,
        network: NetworkSpec | None = None,
        seccomp: SeccompSpec | None = None,
        cpu_percent: int | None = None,
        max_pids: int | None = None,
        flavors: Sequence[str] | None = None,
        image: str | None = None,
        session_id: str | None = None,
        git: GitSeed | None = None,
    ) -> ExecResult:
        """Runs code to its end. A non-zero exit, a timeout or running out of memory is a result, not an error."""
        body = given(**{name: value for name, value in locals().items() if name != "self"})
        return cast(ExecResult, self._http.request("POST", "/v1/runs", body=body))

    def stream(
        self,
        code: str,
        language: str | None = None,
        timeout_secs: int | None = None,
        memory_mb: int | None = None,
        session_id: str | None = None,
        git: GitSeed | None = None,
        **options: Any,
    ) -> Iterator[StreamEvent]:
        """Runs code and gives what happens as it happens. Closing the iterator ends the run."""
        body = given(
            code=code,
            language=language,
            timeout_secs=timeout_secs,
            memory_mb=memory_mb,
            session_id=session_id,
            git=git,
        )
        events = self._http.events("/v1/runs/stream", {**body, **_exec_options(options)})
        return cast("Iterator[StreamEvent]", events)

    def fork(
        self,
        parent_code: str,
        child_code: str | None = None,
        children: Sequence[Mapping[str, Any]] | None = None,
        language: str | None = None,
        fork_after_ms: int | None = None,
        timeout_secs: int | None = None,
        memory_mb: int | None = None,
        session_id: str | None = None,
        git: GitSeed | None = None,
        **options: Any,
    ) -> ForkResult:
        """Runs a parent, and children that begin with what it had written by then."""
        if (child_code is None) == (not children):
            raise ValueError("pass exactly one of child_code and children")
        body = given(
            parent_code=parent_code,
            child_code=child_code,
            children=[dict(child) for child in children] if children else None,
            language=language,
            fork_after_ms=fork_after_ms,
            timeout_secs=timeout_secs,
            memory_mb=memory_mb,
            session_id=session_id,
            git=git,
        )
        return cast(ForkResult, self._http.request("POST", "/v1/runs/fork", body={**body, **_exec_options(options)}))


class WorkspaceAgents(_Resource):
    """The sandbox agent that lives in a workspace: ``aj.workspaces.agent``."""

    def __call__(
        self,
        id: str,  # noqa: A002
        services: Sequence[str] | None = None,
        scopes: Mapping[str, Sequence[str]] | None = None,
        session_id: str | None = None,
        agents: Sequence[str] | None = None,
        network: NetworkSpec | None = None,
        memory_mb: int | None = None,
        max_pids: int | None = None,
        cpu_percent: int | None = None,
        env: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> AgentStarted:
        """Starts it, with a session of ``services`` whose phantom tokens are all that it holds."""
        body = given(
            services=services,
            scopes=scopes,
            session_id=session_id,
            agents=agents,
            network=network,
            memory_mb=memory_mb,
            max_pids=max_pids,
            cpu_percent=cpu_percent,
            env=_pairs(env),
        )
        return cast(AgentStarted, self._http.request("POST", path("/v1/workspaces/{}/agent", id), body=body))

    def get(self, id: str) -> AgentView:  # noqa: A002
        return cast(AgentView, self._http.request("GET", path("/v1/workspaces/{}/agent", id)))

    def set(self, id: str, state: Literal["running", "paused", "ended"]) -> AgentView:  # noqa: A002
        """Lets it run, stand still (with a snapshot; whatever is asked of it wakes it) or end, and keeps its token."""
        return cast(AgentView, self._http.request("PATCH", path("/v1/workspaces/{}/agent", id), body={"state": state}))

    def delete(self, id: str) -> None:  # noqa: A002
        """Ends it; the workspace stays."""
        self._http.request("DELETE", path("/v1/workspaces/{}/agent", id))


class Workspaces(_Resource):
    """Long-lived pairs of ``/workspace`` and ``/output``, and commands in them."""

    def __init__(self, http: Http) -> None:
        super().__init__(http)
        self.agent = WorkspaceAgents(http)
        self.get_agent, self.set_agent, self.delete_agent = self.agent.get, self.agent.set, self.agent.delete

    def preview(
        self,
        id: str,  # noqa: A002
        port: int,
        target: str = "/",
        *,
        method: str = "GET",
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """What a server on a port of the workspace's jail answers, whatever its status."""
        below = target if target.startswith("/") else f"/{target}"
        at = path("/v1/workspaces/{}/ports/{}", id, port)
        return self._http.raw(method, f"{at}{below}", content=content, headers=headers)

    def create(
        self,
        git: GitSeed | None = None,
        label: str | None = None,
        memory_mb: int | None = None,
        timeout_secs: int | None = None,
        idle_timeout_secs: int | None = None,
        domains: Sequence[Mapping[str, Any]] | None = None,
        flavors: Sequence[str] | None = None,
        network: NetworkSpec | None = None,
        seccomp: SeccompSpec | None = None,
        cpu_percent: int | None = None,
        max_pids: int | None = None,
        image: str | None = None,
    ) -> Workspace:
        """Makes one: empty, or with repositories that are cloned in a jail."""
        body = given(**{name: value for name, value in locals().items() if name != "self"})
        return cast(Workspace, self._http.request("POST", "/v1/workspaces", body=body))

    def list(self, limit: int | None = None, offset: int | None = None, q: str | None = None) -> WorkspaceList:
        """Newest first."""
        query = given(limit=limit, offset=offset, q=q)
        return cast(WorkspaceList, self._http.request("GET", "/v1/workspaces", query=query))

    def all(self, q: str | None = None, page_size: int = _PAGE) -> Iterator[Workspace]:
        """All of them, page by page as they are asked for."""
        return _pages(page_size, lambda limit, offset: self.list(limit=limit, offset=offset, q=q))

    def get(self, id: str) -> Workspace:  # noqa: A002
        return cast(Workspace, self._http.request("GET", path("/v1/workspaces/{}", id)))

    def rename(self, id: str, label: str | None = None) -> Workspace:  # noqa: A002
        """Gives it another label; without one, a friendly one is made up."""
        body = given(label=label)
        return cast(Workspace, self._http.request("PATCH", path("/v1/workspaces/{}", id), body=body))

    def delete(self, id: str) -> None:  # noqa: A002
        """Ends what runs in it, and removes it. Its snapshots stay."""
        self._http.request("DELETE", path("/v1/workspaces/{}", id))

    def exec(
        self,
        id: str,  # noqa: A002
        cmd: str,
        args: Sequence[str] | None = None,
        timeout_secs: int | None = None,
        memory_mb: int | None = None,
        env: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        session_id: str | None = None,
        stdin: str | None = None,
    ) -> ExecResult:
        """Runs one command over the files that the last one left. Another that is in flight is a ``CONFLICT``."""
        body = _exec_body(cmd, args, timeout_secs, memory_mb, env, session_id, stdin)
        return cast(ExecResult, self._http.request("POST", path("/v1/workspaces/{}/exec", id), body=body))

    def stream(
        self,
        id: str,  # noqa: A002
        cmd: str,
        args: Sequence[str] | None = None,
        timeout_secs: int | None = None,
        memory_mb: int | None = None,
        env: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        session_id: str | None = None,
        stdin: str | None = None,
    ) -> Iterator[StreamEvent]:
        """The same, and gives what happens as it happens. Closing the iterator ends the command."""
        body = _exec_body(cmd, args, timeout_secs, memory_mb, env, session_id, stdin)
        events = self._http.events(path("/v1/workspaces/{}/exec/stream", id), body)
        return cast("Iterator[StreamEvent]", events)

    def fork(
        self,
        id: str,  # noqa: A002
        count: int,
        label: str | None = None,
        agent: Mapping[str, Any] | None = None,
    ) -> WorkspaceForkResponse:
        """Makes workspaces that begin as this one is now. With ``agent`` (it may be ``{}``) each gets one of its own, with
        tokens of its own, that goes on with the conversation."""
        if not 1 <= count <= 16:
            raise ValueError("count must be from 1 to 16")
        body = given(count=count, label=label, agent=dict(agent) if agent is not None else None)
        return cast(WorkspaceForkResponse, self._http.request("POST", path("/v1/workspaces/{}/fork", id), body=body))

    def restore(self, id: str, snapshot_id: str) -> Workspace:  # noqa: A002
        """Puts it back to one of its snapshots. What was written since is gone."""
        body = {"snapshot_id": snapshot_id}
        return cast(Workspace, self._http.request("POST", path("/v1/workspaces/{}/restore", id), body=body))


class Snapshots(_Resource):
    """What workspaces were at one moment."""

    def create(self, workspace_id: str, name: str | None = None) -> SnapshotRecord:
        """Takes one, of a running command too: it stands still for as long as ``freeze_ms`` says."""
        body = given(name=name)
        url = path("/v1/workspaces/{}/snapshot", workspace_id)
        return cast(SnapshotRecord, self._http.request("POST", url, body=body))

    def list(
        self,
        workspace_id: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
        q: str | None = None,
    ) -> SnapshotList:
        """Newest first."""
        query = given(workspace_id=workspace_id, limit=limit, offset=offset, q=q)
        return cast(SnapshotList, self._http.request("GET", "/v1/snapshots", query=query))

    def all(
        self, workspace_id: str | None = None, q: str | None = None, page_size: int = _PAGE
    ) -> Iterator[SnapshotRecord]:
        """All of them, page by page as they are asked for."""
        return _pages(page_size, lambda limit, offset: self.list(workspace_id, limit=limit, offset=offset, q=q))

    def get(self, id: str) -> SnapshotRecord:  # noqa: A002
        return cast(SnapshotRecord, self._http.request("GET", path("/v1/snapshots/{}", id)))

    def manifest(self, id: str) -> SnapshotManifest:  # noqa: A002
        """Every file with its hash."""
        return cast(SnapshotManifest, self._http.request("GET", path("/v1/snapshots/{}/manifest", id)))

    def diff(self, id: str, against: str, limit: int | None = None) -> SnapshotDiff:  # noqa: A002
        """What changed from ``against`` to ``id``."""
        query = given(against=against, limit=limit)
        return cast(SnapshotDiff, self._http.request("GET", path("/v1/snapshots/{}/diff", id), query=query))

    def tar(self, id: str) -> AbstractContextManager[httpx.Response]:  # noqa: A002
        """A tar archive, as it comes: ``with aj.snapshots.tar(id) as response: …response.iter_bytes()``."""
        return self._http.stream("GET", path("/v1/snapshots/{}/tar", id), accept="application/x-tar")

    def verify(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Reads every content, and compares it with its hash: ``{intact, error}``."""
        return cast("dict[str, Any]", self._http.request("POST", path("/v1/snapshots/{}/verify", id)))

    def delete(self, id: str) -> None:  # noqa: A002
        """A second time it is a ``NOT_FOUND``."""
        self._http.request("DELETE", path("/v1/snapshots/{}", id))

    def create_workspace_from(
        self,
        id: str,  # noqa: A002
        parent_workspace_id: str | None = None,
        label: str | None = None,
    ) -> Workspace:
        """Makes a workspace that begins as the snapshot is. Without its parent, the snapshot is looked up first."""
        parent = parent_workspace_id or self.get(id).get("workspace_id") or ""
        body = {"snapshot_id": id, "parent_workspace_id": parent, **given(label=label)}
        return cast(Workspace, self._http.request("POST", "/v1/workspaces/from-snapshot", body=body))


class Jails(_Resource):
    """The ledger of everything that ran."""

    def list(
        self,
        limit: int | None = None,
        offset: int | None = None,
        status: str | None = None,
        kind: str | None = None,
        q: str | None = None,
    ) -> JailsList:
        """Newest first."""
        query = given(limit=limit, offset=offset, status=status, kind=kind, q=q)
        return cast(JailsList, self._http.request("GET", "/v1/jails", query=query))

    def all(
        self, status: str | None = None, kind: str | None = None, q: str | None = None, page_size: int = _PAGE
    ) -> Iterator[JailRecord]:
        """All of them, page by page as they are asked for."""
        return _pages(
            page_size, lambda limit, offset: self.list(limit=limit, offset=offset, status=status, kind=kind, q=q)
        )

    def get(self, id: int) -> JailRecord:  # noqa: A002
        return cast(JailRecord, self._http.request("GET", path("/v1/jails/{}", id)))

    def set_network(self, id: int, domains: Sequence[str]) -> dict[str, Any]:  # noqa: A002
        """Replaces the allowlist of a running jail, open connections included: ``{domains, cut}``."""
        body = {"domains": domains}
        return cast("dict[str, Any]", self._http.request("PUT", path("/v1/jails/{}/network", id), body=body))


class Audit(_Resource):
    """Every decision of the phantom proxy."""

    def recent(self, limit: int | None = None) -> AuditList:
        """The newest decisions, 100 unless said otherwise."""
        return cast(AuditList, self._http.request("GET", "/v1/audit", query=given(limit=limit)))


class Keys(_Resource):
    """API keys that are kept in the store. For admins."""

    def create(
        self, role: str, tenant: str | None = None, label: str | None = None, ttl_secs: int | None = None
    ) -> dict[str, Any]:
        """Makes one. ``key`` is in this answer and nowhere else."""
        body = given(role=role, tenant=tenant, label=label, ttl_secs=ttl_secs)
        return cast("dict[str, Any]", self._http.request("POST", "/v1/keys", body=body))

    def list(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self._http.request("GET", "/v1/keys"))

    def revoke(self, id: str) -> None:  # noqa: A002
        """Ends one, from the next request on."""
        self._http.request("DELETE", path("/v1/keys/{}", id))


class Settings(_Resource):
    """How the server is set up, and who it takes you for."""

    def get(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self._http.request("GET", "/v1/config"))

    def whoami(self) -> Whoami:
        """Tenant and role of the key."""
        return cast(Whoami, self._http.request("GET", "/v1/whoami"))

    def flavors(self) -> list[Flavor]:
        """Runtimes that can be put into a jail."""
        return cast("list[Flavor]", self._http.request("GET", "/v1/flavors"))

    def images(self) -> list[dict[str, Any]]:
        """Root file systems that a jail can have."""
        return cast("list[dict[str, Any]]", self._http.request("GET", "/v1/images"))


class Public(_Resource):
    """What needs no key."""

    def health(self) -> str:
        """``"ok"``"""
        return cast(str, self._http.request("GET", "/healthz"))

    def stats(self) -> PublicStats:
        return cast(PublicStats, self._http.request("GET", "/v1/stats"))


_EXEC_OPTIONS = ("timeout_secs", "memory_mb", "network", "seccomp", "cpu_percent", "max_pids", "flavors", "image")


class _Rows(TypedDict):
    rows: list[Any]
    total: int


def _exec_options(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _EXEC_OPTIONS:
            raise TypeError(f"unexpected keyword argument {name!r}; there are: {', '.join(_EXEC_OPTIONS)}")
    return given(**options)


def _exec_body(
    cmd: str,
    args: Sequence[str] | None,
    timeout_secs: int | None,
    memory_mb: int | None,
    env: Mapping[str, str] | Sequence[tuple[str, str]] | None,
    session_id: str | None,
    stdin: str | None,
) -> dict[str, Any]:
    return given(
        cmd=cmd,
        args=list(args) if args is not None else None,
        timeout_secs=timeout_secs,
        memory_mb=memory_mb,
        env=_pairs(env),
        session_id=session_id,
        stdin=stdin,
    )


def _pairs(env: Mapping[str, str] | Sequence[tuple[str, str]] | None) -> list[list[str]] | None:
    if env is None:
        return None
    pairs = [list(pair) for pair in (env.items() if isinstance(env, Mapping) else env) if not isinstance(pair, str)]
    if len(pairs) != len(env) or any(len(pair) != 2 for pair in pairs):
        raise TypeError("env: a mapping, or pairs of name and value, are expected")
    return pairs


def _pages(size: int, fetch: Callable[[int, int], Any]) -> Iterator[Any]:
    offset = 0
    while True:
        page: _Rows = fetch(size, offset)
        yield from page["rows"]
        offset += size
        if not page["rows"] or offset >= page["total"]:
            return
