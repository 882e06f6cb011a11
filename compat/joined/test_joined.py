"""Real coding agents at work in jails that hold no real key, driven through the Python SDK.

    AGENTS_STATE=DIR pytest compat/joined

``AGENTS_STATE`` is a state directory in which ``agentjail agents install claude codex opencode`` was run. Only the models
are not real.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joined import CANARIES, KEY, Plane, holding, plane
from sandboxagent import SandboxAgent, agentjail

OPENCODE = json.dumps({"permission": {"bash": "ask"}})

AGENTS: dict[str, dict[str, Any]] = {
    "claude": {"services": ["anthropic"]},
    # It asks before whatever its sandbox would refuse, which in this mode is all writing.
    "codex": {"services": ["openai"], "mode": "read-only"},
    "opencode": {"services": ["anthropic", "openai"], "env": {"OPENCODE_CONFIG_CONTENT": OPENCODE}},
}

CHOSEN = os.environ.get("AGENTS", ",".join(AGENTS)).split(",")

PROJECT = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "test_calc.py": (
        "import unittest\n\nfrom calc import add\n\n\nclass Add(unittest.TestCase):\n"
        "    def test_adds(self):\n        self.assertEqual(add(2, 3), 5)\n"
    ),
}


@pytest.fixture(scope="module")
def house() -> Iterator[Plane]:
    state = os.environ.get("AGENTS_STATE")
    assert state, "AGENTS_STATE must name a state directory with agents in it"
    with plane(Path(state) / "flavors") as running:
        yield running


@pytest.mark.parametrize("agent", CHOSEN)
async def test_an_agent_mends_a_project_in_a_jail_and_its_fork_ends_differently(
    house: Plane, agent: str, tmp_path: Path
) -> None:
    about = AGENTS[agent]
    provider = agentjail(
        base_url=house.url, api_key=KEY, services=about["services"], agents=[agent], env=about.get("env"), label=agent
    )
    before = len(house.requests())
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    async with await SandboxAgent.start(sandbox=provider) as sandbox:
        assert sandbox.sandbox_id is not None
        await sandbox.upload(tmp_path, "/workspace")
        asked: list[Any] = []

        def allow(request: Any) -> str:
            asked.append(request)
            return "once"

        session = await sandbox.create_session(
            agent=agent, mode=about.get("mode"), cwd="/workspace", on_permission_request=allow
        )
        answer = await session.prompt("mend the project")
        assert answer["stopReason"] == "end_turn"
        assert "OK" in answer["text"], answer
        assert len(asked) == 1, "it asked before it acted"
        assert "a + b" in await sandbox.read_file("/workspace/calc.py")
        tests = await sandbox.run_process({"command": "python3", "args": ["-m", "unittest"], "cwd": "/workspace"})
        assert tests["exitCode"] == 0, tests

        # What it has for a key, and what is nowhere in the jail.
        seen = await sandbox.run_process({"command": "env"})
        assert "_API_KEY=phm_" in seen["stdout"]
        look = f"grep -rlE '{'|'.join(CANARIES.values())}' /workspace /home /tmp /proc/[0-9]*/environ 2>/dev/null; true"
        assert (await sandbox.run_process({"command": "sh", "args": ["-c", look]}))["stdout"] == ""
        way_out = {"command": "curl", "args": ["-s", "-m", "3", "https://1.1.1.1/"]}
        assert (await sandbox.run_process(way_out))["exitCode"] != 0
        # The model was asked with the real key, and each of its calls is in the audit.
        calls = [call for call in house.requests()[before:] if call["method"] == "POST"]
        assert calls
        assert all(any(key in json.dumps(call["headers"]) for key in CANARIES.values()) for call in calls)
        assert not any("phm_" in json.dumps(call["headers"]) for call in calls)
        own = provider.sessions[sandbox.sandbox_id]
        rows = [row for row in house.get("/v1/audit?limit=500")["rows"] if row["session_id"] == own]
        assert len([row for row in rows if row["method"] == "POST" and row["status"] == 200]) == len(calls)

        taken = await provider.snapshot(sandbox.sandbox_id, "mended")
        assert taken["freeze_ms"] < 1000
        (fork_id,) = await provider.fork(sandbox.sandbox_id, label=f"{agent}-loud")
        async with await SandboxAgent.start(sandbox=provider, sandbox_id=fork_id) as fork:
            resumed = await fork.resume_session(session.agent_session_id)
            resumed.set_permission_callback(allow)
            assert "mend the project" in (await resumed.prompt("what did I ask"))["text"]
            if mode := about.get("mode"):
                await resumed.set_mode(mode)
            answer = await resumed.prompt("make it loud")
            assert "FAILED" in answer["text"], answer
            assert "-(a + b)" in await fork.read_file("/workspace/calc.py")
            phantoms = [(await one.run_process({"command": "env"}))["stdout"] for one in (sandbox, fork)]
            assert phantoms[0] != phantoms[1]
            await fork.destroy_sandbox()
        assert "-(a + b)" not in await sandbox.read_file("/workspace/calc.py")

        # Paused, resumed, ended and started again, the conversation goes on.
        await sandbox.pause_sandbox()
        assert house.get(f"/v1/workspaces/{sandbox.sandbox_id}/agent")["state"] == "paused"
        await sandbox.resume_sandbox()
        assert "mend the project" in (await session.prompt("what did I ask"))["text"]
        await sandbox.restart_sandbox()
        assert "mend the project" in (await session.prompt("what did I ask"))["text"]
        workspace = sandbox.sandbox_id
        await sandbox.destroy_sandbox()
        assert "error" in house.get(f"/v1/workspaces/{workspace}")
    await provider.close()


def test_no_real_key_is_on_disk_or_in_the_log(house: Plane) -> None:
    assert holding(house.state, list(CANARIES.values())) == []
