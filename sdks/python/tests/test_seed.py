"""The snippets of the package's published description, as they stand there but for addresses and keys."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from git_server import serving

from sandboxagent import GitCloneError, SandboxAgent, SandboxAgentSpawnHandle, Session

pytestmark = pytest.mark.integration

SNIPPETS = Path(__file__).parent / "snippets"
TOKEN = "ghp_a-real-one"


async def run(name: str, replaced: Mapping[str, str], **given: Any) -> tuple[str, dict[str, Any]]:
    """Runs a snippet with some texts replaced and some names given; gives what it printed, and its names."""
    text = (SNIPPETS / f"{name}.txt").read_text()
    for old, new in replaced.items():
        assert old in text, f"{old} is not in {name}"
        text = text.replace(old, new)
    names: dict[str, Any] = {"os": os, "__name__": "snippet", **given}
    code = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        done = eval(code, names)
        if inspect.isawaitable(done):
            await done
    return printed.getvalue(), names


async def test_quick_start(server: SandboxAgentSpawnHandle, tmp_path: Path) -> None:
    connect = f'"{server.base_url}", token="{server.token}"'
    replaced = {
        '"http://localhost:2468"': connect,
        "/tmp/hello.txt": str(tmp_path / "hello.txt"),
        # It runs in a loop already.
        "asyncio.run(main())": "await main()",
    }
    printed, _ = await run("quick_start", replaced)
    assert "Health: {'status': 'ok'}" in printed
    assert "File content: Hello from Python!" in printed
    assert "stdout: hello world" in printed
    assert re.search(r"Available agents: \['claude', .*'mock'.*\]", printed)
    assert f"Inspector: {server.base_url}/ui/" in printed


async def test_start_local(home: Path) -> None:
    printed, names = await run("start_local", {})
    url = re.search(r"Server running at (http://127\.0\.0\.1:\d+)", printed)
    assert url is not None
    assert f"Inspector: {url[1]}/ui/?token=" in printed
    assert names["agent"]._base_url == url[1]


async def test_acp_sessions(client: SandboxAgent) -> None:
    printed, names = await run("acp_sessions", {}, agent=client)
    session = names["session"]
    assert isinstance(session, Session)
    assert "You said: Write a Python function to calculate factorial" in printed
    assert "end_turn" in printed
    assert session.config_options()[0]["currentValue"] == "sonnet"
    assert session.modes()["currentModeId"] == "default"
    record = await client.get_session(session.id)
    assert record.destroyed_at is not None
    assert (await client.list_acp_servers())["servers"] == []


async def test_workspace_config(home: Path) -> None:
    _, names = await run("workspace_config", {})
    async with names["agent"] as agent:
        directory = agent.sandbox.default_cwd
        auth = json.loads(await agent.read_file(f"{directory}/auth.json"))
        assert auth == {"openai_api_key": "sk-...", "anthropic_api_key": "sk-ant-..."}
        assert await agent.read_file(f"{directory}/.env") == 'API_KEY=secret\nDEBUG=1\nFOO="bar"\n'
        result = await agent.run_process({"command": "sh", "args": ["-c", "echo $FOO"]})
        assert result["stdout"] == "bar\n"
    assert not Path(directory).exists()


async def test_clone_at_runtime(
    client: SandboxAgent, home: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    names = ["public-repo", "private-repo"]
    with serving(tmp_path, TOKEN, names) as (url, seen):
        printed, _ = await run("clone_runtime", {"https://github.com/owner": url}, agent=client)
        # The last one names a repository that is not there.
        assert "Repository not found" in printed
        assert (home / "public-repo" / "file").read_text() == "second"
        project = workspace / "my-project"
        assert (project / "file").read_text() == "second"
        assert TOKEN not in (project / ".git" / "config").read_text()
        assert any(f"git:{TOKEN}" in line for line in seen)
        assert not any(TOKEN in line.split(" ")[0] for line in seen)
        with pytest.raises(GitCloneError) as failed:
            await client.clone_repo(f"{url}/private-repo.git", path=str(tmp_path / "no"), token="ghp_wrong")
        assert failed.value.category == "auth"
        assert "ghp_wrong" not in str(failed.value)
    assert not list(Path("/tmp").glob(".git-askpass-*"))


async def test_clone_at_bootstrap(home: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    with serving(tmp_path, TOKEN, ["repo1-private", "repo2"]) as (url, _):
        replaced = {
            "https://github.com/owner/repo1.git": f"{url}/repo1-private.git",
            "https://github.com/owner/repo2.git": f"{url}/repo2.git",
        }
        _, names = await run("clone_bootstrap", replaced)
        async with names["agent"] as agent:
            for name in ("r1", "r2"):
                assert await agent.read_file(f"/workspace/{name}/file") == "second"
            assert TOKEN not in names["clone_script"]
            assert TOKEN not in await agent.read_file(f"{agent.default_cwd}/clone-repos.sh")
            assert TOKEN not in json.dumps(agent.bootstrap_results)


async def test_askpass_helper(client: SandboxAgent, home: Path, workspace: Path, tmp_path: Path) -> None:
    with serving(tmp_path, TOKEN, ["private"]) as (url, _):
        replaced = {"https://github.com/owner": url, "ghp_xxx": TOKEN}
        _, names = await run("askpass", replaced, agent=client)
        assert names["result"]["exitCode"] == 0, names["result"]
        assert TOKEN not in names["askpass_script"]
        assert (home / "private" / "file").read_text() == "second"
