"""The control plane's client, against answers that are made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agentjail import Agentjail, AgentjailError


def client(answer: Any = None, status: int = 200) -> tuple[Agentjail, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(answer, str):
            return httpx.Response(status, text=answer)
        return httpx.Response(status) if answer is None else httpx.Response(status, json=answer)

    return Agentjail(base_url="http://h:7000//", api_key="k", transport=httpx.MockTransport(serve)), seen


def sent(request: httpx.Request) -> Any:
    return json.loads(request.content) if request.content else None


CALLS: list[tuple[str, Any, str, Any]] = [
    ("POST", lambda aj: aj.credentials.put("openai", "sk"), "/v1/credentials", {"service": "openai", "secret": "sk"}),
    ("DELETE", lambda aj: aj.credentials.delete("a/b"), "/v1/credentials/a%2Fb", None),
    ("POST", lambda aj: aj.sessions.create(["x"]), "/v1/sessions", {"services": ["x"]}),
    (
        "POST",
        lambda aj: aj.sessions.exec("s", "env", args=["-0"], memory_mb=64),
        "/v1/sessions/s/exec",
        {"cmd": "env", "args": ["-0"], "memory_mb": 64},
    ),
    (
        "POST",
        lambda aj: aj.sessions.run("s", "1", cpu_percent=50),
        "/v1/sessions/s/runs",
        {"code": "1", "cpu_percent": 50},
    ),
    (
        "POST",
        lambda aj: aj.runs.create("x", language="bash", network={"mode": "none"}),
        "/v1/runs",
        {"code": "x", "language": "bash", "network": {"mode": "none"}},
    ),
    (
        "POST",
        lambda aj: aj.runs.fork("p", children=[{"code": "c"}], fork_after_ms=5),
        "/v1/runs/fork",
        {"parent_code": "p", "children": [{"code": "c"}], "fork_after_ms": 5},
    ),
    ("GET", lambda aj: aj.workspaces.list(limit=10, offset=20), "/v1/workspaces?limit=10&offset=20", None),
    ("PATCH", lambda aj: aj.workspaces.rename("w", "n"), "/v1/workspaces/w", {"label": "n"}),
    (
        "POST",
        lambda aj: aj.workspaces.exec("w", "sh", env=[("A", "b")], stdin="x"),
        "/v1/workspaces/w/exec",
        {"cmd": "sh", "env": [["A", "b"]], "stdin": "x"},
    ),
    ("POST", lambda aj: aj.workspaces.fork("w", 2, agent={}), "/v1/workspaces/w/fork", {"count": 2, "agent": {}}),
    ("POST", lambda aj: aj.workspaces.agent("w", services=["a"]), "/v1/workspaces/w/agent", {"services": ["a"]}),
    ("GET", lambda aj: aj.workspaces.agent.get("w"), "/v1/workspaces/w/agent", None),
    ("DELETE", lambda aj: aj.workspaces.agent.delete("w"), "/v1/workspaces/w/agent", None),
    ("POST", lambda aj: aj.snapshots.create("w"), "/v1/workspaces/w/snapshot", {}),
    ("GET", lambda aj: aj.snapshots.list("wrk_abc"), "/v1/snapshots?workspace_id=wrk_abc", None),
    ("GET", lambda aj: aj.snapshots.diff("b", "a", limit=1), "/v1/snapshots/b/diff?against=a&limit=1", None),
    (
        "POST",
        lambda aj: aj.snapshots.create_workspace_from("s", "w", label="l"),
        "/v1/workspaces/from-snapshot",
        {"snapshot_id": "s", "parent_workspace_id": "w", "label": "l"},
    ),
    ("GET", lambda aj: aj.audit.recent(50), "/v1/audit?limit=50", None),
    ("GET", lambda aj: aj.jails.list(status="running"), "/v1/jails?status=running", None),
    ("PUT", lambda aj: aj.jails.set_network(3, ["h"]), "/v1/jails/3/network", {"domains": ["h"]}),
    ("POST", lambda aj: aj.keys.create("operator", ttl_secs=9), "/v1/keys", {"role": "operator", "ttl_secs": 9}),
    ("GET", lambda aj: aj.settings.whoami(), "/v1/whoami", None),
]


@pytest.mark.parametrize(("method", "call", "url", "body"), CALLS, ids=[call[2] for call in CALLS])
def test_a_call_is_what_the_contract_says(method: str, call: Any, url: str, body: Any) -> None:
    aj, seen = client({})
    call(aj)
    assert (seen[0].method, str(seen[0].url), sent(seen[0])) == (method, f"http://h:7000{url}", body)
    assert seen[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BAD_REQUEST"),
        (401, "UNAUTHORIZED"),
        (403, "FORBIDDEN"),
        (404, "NOT_FOUND"),
        (408, "TIMEOUT"),
        (409, "CONFLICT"),
        (418, "BAD_REQUEST"),
        (429, "RATE_LIMITED"),
        (500, "SERVER_ERROR"),
        (504, "TIMEOUT"),
    ],
)
def test_a_refusal_has_a_code_and_what_was_said(status: int, code: str) -> None:
    aj, _ = client({"error": "why"}, status)
    with pytest.raises(AgentjailError, match=f"agentjail {status}: why") as failed:
        aj.runs.create("x")
    assert failed.value.code == code
    assert failed.value.body == {"error": "why"}


def test_what_cannot_be_meant_is_refused_here() -> None:
    aj, seen = client({})
    with pytest.raises(ValueError, match="base_url"):
        Agentjail(base_url="")
    for count in (0, 17):
        with pytest.raises(ValueError, match="count"):
            aj.workspaces.fork("w", count)
    with pytest.raises(ValueError, match="exactly one"):
        aj.runs.fork("p")
    with pytest.raises(ValueError, match="exactly one"):
        aj.runs.fork("p", "c", children=[{"code": "c"}])
    for bad in ("", ".", ".."):
        with pytest.raises(ValueError, match="not an id"):
            aj.workspaces.get(bad)
    with pytest.raises(TypeError, match="memory_gb"):
        aj.sessions.run("s", "x", memory_gb=1)
    assert seen == []


def test_answers_are_read_as_they_are() -> None:
    assert client("ok")[0].public.health() == "ok"
    assert client('"ok"')[0].public.health() == "ok"
    assert client(None, 204)[0].sessions.close("s") is None  # type: ignore[func-returns-value]


def test_what_only_reads_is_asked_again() -> None:
    seen: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        if len(seen) == 1:
            raise httpx.ConnectError("refused")
        if len(seen) == 2:
            return httpx.Response(429, headers={"retry-after": "0"}, json={})
        return httpx.Response(200, json=[])

    with Agentjail(base_url="http://h", transport=httpx.MockTransport(serve)) as aj:
        assert aj.sessions.list() == []
    assert seen == ["GET"] * 3

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with (
        Agentjail(base_url="http://h", transport=httpx.MockTransport(refuse)) as aj,
        pytest.raises(AgentjailError) as failed,
    ):
        aj.runs.create("x")
    assert (failed.value.status, failed.value.code) == (0, "NETWORK")


def test_a_stream_is_told_event_by_event_and_pages_one_by_one() -> None:
    text = 'event: started\ndata: {"pid":1}\n\n: ping\n\nevent: stdout\ndata: {"a":1}\n\nevent: completed\ndata: {"exit_code":0}\n\n'
    aj, seen = client(text)
    events = list(aj.runs.stream("x"))
    assert events == [
        {"type": "started", "pid": 1},
        {"type": "stdout", "line": '{"a":1}'},
        {"type": "completed", "exit_code": 0},
    ]
    assert seen[0].headers["accept"] == "text/event-stream"

    def page(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        rows = [{"id": n} for n in range(offset, min(offset + 2, 5))]
        return httpx.Response(200, json={"rows": rows, "total": 5})

    with Agentjail(base_url="http://h", transport=httpx.MockTransport(page)) as aj:
        assert [str(row["id"]) for row in aj.workspaces.all(page_size=2)] == ["0", "1", "2", "3", "4"]


def test_what_a_jail_prints_is_a_line_whatever_it_holds() -> None:
    """An event stream ends lines at CR and LF; what else `str.splitlines` takes for an end may be printed by anybody."""
    forged = 'hello\u2028\u2028event: completed\u2028data: {"exit_code":0}\u2028\u2028\x0b\x0c\x1c\x85'
    stream = f"event: stdout\ndata: {forged}\n\nevent: no such\ndata: {{}}\n\nevent: stats\ndata: not json\n\n"
    stream += 'event: completed\r\ndata: {"exit_code": 3}\r\n\r\n'
    pieces = [stream.encode()[start : start + 7] for start in range(0, len(stream.encode()), 7)]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces(pieces))

    with Agentjail(base_url="http://h", transport=httpx.MockTransport(answer)) as aj:
        events = list(aj.runs.stream("x"))
    assert events == [{"type": "stdout", "line": forged}, {"type": "completed", "exit_code": 3}]


def test_a_way_to_elsewhere_is_no_answer() -> None:
    aj, _ = client({}, 302)
    with pytest.raises(AgentjailError) as refused:
        aj.workspaces.delete("wrk_1")
    assert refused.value.status == 302


def test_agents_are_told_what_to_do() -> None:
    aj, seen = client({})
    aj.workspaces.set_agent("wrk_1", "paused")
    aj.workspaces.get_agent("wrk_1")
    aj.workspaces.delete_agent("wrk_1")
    assert [(request.method, request.url.path) for request in seen] == [
        (method, "/v1/workspaces/wrk_1/agent") for method in ("PATCH", "GET", "DELETE")
    ]
    aj.workspaces.preview("wrk_1", 3000, "/a?b", method="POST", content="x")
    assert str(seen[-1].url).endswith("/v1/workspaces/wrk_1/ports/3000/a?b")
    aj.workspaces.exec("wrk_1", "true", env={"AB": "x"})
    assert b'[["AB","x"]]' in seen[-1].content.replace(b" ", b"")
    wrong: Any = ["AB"]
    with pytest.raises(TypeError, match="env"):
        aj.workspaces.exec("wrk_1", "true", env=wrong)


class Pieces(httpx.SyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
