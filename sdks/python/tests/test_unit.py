"""What needs no server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

import sandboxagent
from sandboxagent import exceptions
from sandboxagent.bootstrap import env_file, merged_env_file
from sandboxagent.git import category_of, name_of
from sandboxagent.http import HttpTransport
from sandboxagent.inspector import build_inspector_url
from sandboxagent.persistence import (
    InMemorySessionPersistDriver,
    SqliteSessionPersistDriver,
    build_replay_text,
)
from sandboxagent.sse_streaming import _parse_log_sse_chunk
from sandboxagent.terminal import ProcessTerminalSession
from sandboxagent.types import ListPage, ProcessInfo, SessionEvent, SessionRecord
from sandboxagent.workspace_config import WorkspaceConfig

ROOT = Path(__file__).parent.parent


def test_configuration_files_are_made_as_given() -> None:
    assert WorkspaceConfig.auth_json({"a": {"b": "ü"}}) == '{\n  "a": {\n    "b": "\\u00fc"\n  }\n}'
    assert json.loads(WorkspaceConfig.opencode_config({"model": "x"})) == {"model": "x"}
    text = WorkspaceConfig.oh_my_openagent_config(["m"], "priority")
    assert text.startswith("// oh-my-openagent configuration file\n")
    assert "\n// This file configures model routing" in text
    assert json.loads(text[text.index("{") :]) == {"models": ["m"], "fallback_strategy": "priority"}
    files = {"a": "b"}
    assert WorkspaceConfig.from_files(files) is files
    script = WorkspaceConfig.git_clone_script([{"url": "https://h/r.git", "path": "my-dir"}])
    assert "git clone https://h/r.git my-dir" in script
    assert script.startswith("#!/bin/sh\n")
    assert not {"GIT_TOKEN", "GIT_ASKPASS", "trap"} & set(script.replace('"', " ").split())
    with pytest.raises(ValueError, match=r"repos\[1\]\.url"):
        WorkspaceConfig.git_clone_script([{"url": "a"}, {}])
    askpass = WorkspaceConfig.git_askpass_script("secret")
    assert "secret" not in askpass
    for question, answer in (("Username for 'x':", "x-access-token"), ("Password for 'x':", "t'k")):
        done = subprocess.run(
            ["sh", "-c", askpass, "askpass", question],
            env={"GIT_TOKEN": "t'k"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == answer


def test_variables_are_escaped_and_merged() -> None:
    nasty = {"A": 'a"b\\c\nd$e`f', "B": "x"}
    text = env_file(nasty)
    shell = f"set -a\n{text}printf '%s' \"$A\""
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.replace("\\n", "\n") == nasty["A"]
    assert merged_env_file("X=1", {"Y": "2"}) == 'X=1\nY="2"\n'


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("fatal: Authentication failed for 'https://h/r.git/'", "auth"),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", "auth"),
        ("error: The requested URL returned error: 403", "auth"),
        ("remote: Repository not found.", "not_found"),
        ("fatal: repository 'https://h/r.git/' not found", "not_found"),
        (
            "warning: Could not find remote branch x to clone.\nfatal: Remote branch x not found in upstream origin",
            "not_found",
        ),
        ("fatal: unable to access 'https://h/404/': Failed to connect to h port 443", "network"),
        ("fatal: unable to access 'https://h/r/': server certificate verification failed", "network"),
        ("fatal: unable to access 'x': Could not resolve host: nope", "network"),
        ("fatal: destination path 'x' already exists and is not an empty directory.", "unknown"),
    ],
)
def test_a_complaint_of_gits_has_a_category(text: str, category: str) -> None:
    assert category_of(text, "https://h/404/") == category


def test_a_clone_is_called_as_git_would_call_it() -> None:
    for url, name in (("https://h/a/b.git", "b"), ("https://h/a/b/", "b"), ("git@h:x.git", "x"), ("ssh://g@h/y", "y")):
        assert name_of(url) == name


async def test_a_transport_tells_refusals_and_silence_apart() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/problem":
            problem = {"type": "t", "title": "No", "status": 400, "detail": "because"}
            return httpx.Response(400, json=problem)
        if request.url.path == "/plain":
            return httpx.Response(500, text="oops")
        if request.url.path == "/gone":
            raise httpx.ConnectError("refused")
        seen.append(request)
        return httpx.Response(200, json={})

    seen: list[httpx.Request] = []
    transport = HttpTransport("http://h/", token="t", headers={"x-mine": "1"})
    transport._made = httpx.AsyncClient(transport=httpx.MockTransport(answer), headers=transport.client.headers)
    await transport.get("/ok", params={"a": True, "b": None, "c": ["x", "y"]})
    assert str(seen[0].url) == "http://h/ok?a=true&c=x%2Cy"
    assert seen[0].headers["authorization"] == "Bearer t"
    assert seen[0].headers["x-mine"] == "1"
    with pytest.raises(exceptions.SandboxAgentError, match="No: because") as refused:
        await transport.get("/problem")
    assert refused.value.status == 400
    with pytest.raises(exceptions.SandboxAgentError, match="Request failed with status 500"):
        await transport.get("/plain")
    with pytest.raises(ConnectionError):
        await transport.get("/gone")
    await transport.close()


def test_the_inspectors_address() -> None:
    assert build_inspector_url("http://h/") == "http://h/ui/"
    assert build_inspector_url("http://h", token="a b") == "http://h/ui/?token=a+b"
    assert build_inspector_url("http://h", headers={"x": "y"}) == "http://h/ui/?headers=%7B%22x%22%3A%22y%22%7D"


def record(session_id: str, created_at: int = 1) -> SessionRecord:
    return SessionRecord(
        id=session_id, agent="mock", agent_session_id=f"a-{session_id}", last_connection_id="c", created_at=created_at
    )


def event(session_id: str, index: int) -> SessionEvent:
    return SessionEvent(
        id=f"{session_id}-{index}",
        event_index=index,
        session_id=session_id,
        created_at=index,
        connection_id="c",
        sender="client",
        payload={"n": index},
    )


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_store_keeps_sessions_and_events(kind: str, tmp_path: Path) -> None:
    sqlite = SqliteSessionPersistDriver(tmp_path / "s.db")
    driver = sqlite if kind == "sqlite" else InMemorySessionPersistDriver()
    for n in range(3):
        await driver.update_session(record(f"s{n}", n))
    await driver.update_session(record("s1", 1).model_copy(update={"destroyed_at": 9}))
    kept = await driver.get_session("s1")
    assert kept is not None
    assert kept.destroyed_at == 9
    assert await driver.get_session("none") is None
    page: ListPage[Any] = await driver.list_sessions(limit=2)
    assert [one.id for one in page.items] == ["s0", "s1"]
    rest: ListPage[Any] = await driver.list_sessions(cursor=page.next_cursor, limit=2)
    assert ([one.id for one in rest.items], rest.next_cursor) == (["s2"], None)
    assert await build_replay_text(driver, "s0") is None
    for n in range(1, 6):
        assert await driver.create_event_index("s0") == n
        await driver.insert_event("s0", event("s0", n))
    events = await driver.list_events("s0", limit=3)
    assert [one.event_index for one in events.items] == [1, 2, 3]
    text = await build_replay_text(driver, "s0", max_events=2)
    assert text is not None
    assert text.startswith("Previous session history is replayed below")
    assert text.count('"payload"') == 2
    short = await build_replay_text(driver, "s0", max_chars=280)
    assert short is not None
    assert "[history truncated]" in short
    assert len(short) <= 280
    await sqlite.close()


async def test_memory_is_bounded() -> None:
    driver = InMemorySessionPersistDriver(max_sessions=2, max_events_per_session=3)
    for n in range(4):
        await driver.update_session(record(f"s{n}", n))
        for index in range(5):
            await driver.insert_event(f"s{n}", event(f"s{n}", index))
    page: ListPage[Any] = await driver.list_sessions()
    assert [one.id for one in page.items] == ["s2", "s3"]
    assert [one.event_index for one in (await driver.list_events("s3")).items] == [2, 3, 4]
    assert (await driver.list_events("s0")).items == []


def test_one_event_of_a_log_is_read() -> None:
    assert _parse_log_sse_chunk('event: log\r\nid: 1\r\ndata: {"a":\r\ndata: 1}') == {"a": 1}
    for chunk in ("", ": ping", "event: gap\ndata: {}", "event: log\ndata: {", "event: log\ndata: []"):
        assert _parse_log_sse_chunk(chunk) is None


def test_names_of_both_kinds_are_taken() -> None:
    wire = {
        "id": "p",
        "command": "c",
        "args": [],
        "tty": False,
        "interactive": False,
        "owner": "user",
        "status": "running",
        "createdAtMs": 1,
        "more": 1,
    }
    info = ProcessInfo.model_validate(wire)
    assert info.created_at_ms == 1
    assert ProcessInfo(**{**info.model_dump(), "created_at_ms": 2}).model_dump(by_alias=True)["createdAtMs"] == 2


def test_a_terminal_needs_no_loop_to_be_made() -> None:
    class Socket:
        state = 1

    session = ProcessTerminalSession(Socket())
    heard: list[Any] = []
    stop = session.on_error(heard.append)
    session._handle_control_frame("{")
    session._handle_control_frame('{"type":"error","message":"m"}')
    session._handle_control_frame('{"type":"none"}')
    stop()
    session._handle_control_frame("{")
    assert [type(error) for error in heard] == [ValueError, RuntimeError, ValueError]
    data: list[bytes] = []
    session._handle_binary_data(b"early")
    session.on_data(data.append)
    session._handle_binary_data(b"late")
    assert data == [b"early", b"late"]


def test_exceptions_are_one_tree() -> None:
    named = [getattr(sandboxagent, name) for name in sandboxagent.__all__]
    errors = [value for value in named if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) == 20
    assert all(issubclass(error, exceptions.SandboxError) for error in errors)
    from sandboxagent import client

    assert client.SandboxDestroyedError is sandboxagent.SandboxDestroyedError
    assert client.SandboxProvider is not None
    assert issubclass(exceptions.SessionNotFoundError, RuntimeError)
    text = str(sandboxagent.DesktopNotSupportedError())
    assert "not supported on this platform" in text
    assert "Only Linux" in text
    assert "Unsupported" in text


async def test_a_session_without_a_connection_says_so() -> None:
    agent = sandboxagent.SandboxAgent("http://h")
    session = sandboxagent.Session(agent, record("s"))
    with pytest.raises(RuntimeError, match="Session is not connected to an ACP client"):
        await session.prompt("x")
    assert session.get_transcript() == "(no events recorded)"
    await agent.dispose()
    await agent.dispose()


async def test_a_container_is_published_on_loopback_behind_a_token() -> None:
    from sandboxagent.providers import docker

    asked: dict[str, Any] = {}

    class Container:
        id = "c1"
        attrs = {"NetworkSettings": {"Ports": {"3000/tcp": [{"HostPort": "4711"}]}}}  # noqa: RUF012

        def reload(self) -> None:
            return

        def remove(self, **options: Any) -> None:
            asked["removed"] = options

    class Containers:
        def run(self, image: str, command: list[str], **options: Any) -> Container:
            asked.update(image=image, command=command, **options)
            return Container()

        def get(self, _: str) -> Container:
            return Container()

    class Client:
        containers = Containers()

    provider = docker(client=Client(), env=["A=b"])
    sandbox_id = await provider.create()
    assert await provider.get_url(sandbox_id) == "http://127.0.0.1:4711"
    token = await provider.get_token(sandbox_id)
    assert asked["environment"] == {"A": "b", "SANDBOX_AGENT_TOKEN": token}
    assert asked["ports"] == {"3000/tcp": ("127.0.0.1", None)}
    assert token not in asked["command"]
    await provider.destroy(sandbox_id)
    assert asked["removed"] == {"force": True, "v": True}


async def test_any_cloud_can_be_wrapped_and_what_fails_is_removed() -> None:
    from sandboxagent.providers import vercel

    done: list[str] = []

    class Cloud:
        fails = False

        async def create(self, env: dict[str, str], port: int) -> tuple[str, Any]:
            done.append(f"create {port} {sorted(env)}")
            return "box", "box"

        async def find(self, sandbox_id: str) -> Any:
            return None

        async def run(self, box: Any, command: str) -> tuple[int, str]:
            done.append(command)
            return (1, "no npm") if self.fails else (0, "")

        async def remove(self, box: Any) -> None:
            done.append("remove")

        async def url(self, box: Any, port: int) -> str:
            return f"https://{box}/{port}"

    cloud = Cloud()
    provider = vercel(cloud)
    sandbox_id = await provider.create()
    assert await provider.get_url(sandbox_id) == "https://box/3000"
    assert done[0] == "create 3000 ['SANDBOX_AGENT_TOKEN']"
    assert "nohup sandbox-agent" in done[2]
    cloud.fails = True
    with pytest.raises(sandboxagent.SandboxStartError, match="no npm"):
        await provider.create()
    assert done[-1] == "remove"
    with pytest.raises(sandboxagent.SandboxDestroyedError):
        await provider.reconnect("other")


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from sandboxagent.providers import modal

    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(ImportError, match=r"sandbox-agent-sdk\[modal\]"):
        asyncio.run(modal().create())


def test_what_is_published(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    for name in ("sandboxagent/py.typed", "agentjail/py.typed", "sandboxagent/providers/agentjail.py"):
        assert name in in_wheel
    assert any(name.endswith("licenses/LICENSE") for name in in_wheel)
    assert not any(name.startswith(("tests", "dist", ".")) or "__pycache__" in name for name in in_wheel)
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("pyproject.toml", "README.md", "LICENSE", "tests/test_unit.py", "tests/snippets/quick_start.txt"):
        assert name in in_sdist
    assert not any(name.startswith((".venv", ".mypy", "dist", "uv.lock")) for name in in_sdist)


def test_importing_is_quick() -> None:
    code = "import sandboxagent, sys; print(len([m for m in sys.modules if m.split('.')[0] in ('docker', 'aiortc', 'e2b')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_script_that_is_edited_keeps_its_variables() -> None:
    from sandboxagent.workspace_config import WorkspaceConfig

    script = WorkspaceConfig.git_clone_script([{"url": "https://h/a"}], token="t")
    for edited in (script + "echo done\n", "#!/bin/sh\n" + script):
        assert edited.env == {"GIT_TOKEN": "t"}
    assert WorkspaceConfig.git_clone_script([{"url": "https://h/a"}], token="").env == {}


def test_what_is_said_of_a_path_is_not_what_happened() -> None:

    for text in (
        "fatal: could not create work tree dir '/x': Permission denied",
        "fatal: destination path 'openssl' already exists and is not an empty directory.",
    ):
        assert category_of(text, "https://h/openssl") == "unknown"
    assert category_of("fatal: Authentication failed for 'https://h/a'", "https://h/a") == "auth"


async def test_a_way_to_elsewhere_is_no_answer() -> None:
    transport = HttpTransport("http://h")
    moved = httpx.MockTransport(lambda _: httpx.Response(302, headers={"location": "http://other"}))
    transport._loop, transport._made = asyncio.get_running_loop(), httpx.AsyncClient(transport=moved)
    with pytest.raises(sandboxagent.SandboxAgentError) as refused:
        await transport.put("/v1/fs/file", content=b"x")
    assert refused.value.status == 302


@pytest.mark.parametrize("known", [True, False])
def test_a_server_is_started_as_it_takes_it(known: bool, tmp_path: Path) -> None:
    """The published server has its token among its arguments, and knows no hosts."""
    from sandboxagent.providers.shared import serve_command, start_command

    program = tmp_path / "sandbox-agent"
    helps = "--allow-host" if known else "--host"
    program.write_text(f'#!/bin/sh\ncase "$*" in *--help*) echo "{helps}" ;; *) printf "%s\\n" "$@" >"$OUT" ;; esac\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SANDBOX_AGENT_TOKEN": "the token", "OUT": str(tmp_path / "out")}
    for command in (serve_command(7, ["A"]), ["sh", "-c", start_command(7) + " wait"]):
        subprocess.run(command, env=env, check=True)
        given = (tmp_path / "out").read_text().splitlines()
        assert given[:5] == ["server", "--host", "0.0.0.0", "--port", "7"]
        if known:
            assert given[5:7] == ["--allow-host", "*"]
            assert "the token" not in given
        else:
            assert given[5:] == ["--token", "the token"]
