"""The guides of docs/guides, as they stand there but for addresses, keys and what the model says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from joined import KEY, ROOT, Plane, free_port, git_house, plane

GUIDES = ROOT / "docs/guides"

#: With a state directory of agents, the real one; else the built-in one.
STATE = os.environ.get("AGENTS_STATE")
AGENT = "claude" if STATE else "mock"


@pytest.fixture(scope="module")
def house() -> Iterator[Plane]:
    with git_house() as git, plane(Path(STATE) / "flavors" if STATE else None, git.flags) as running:
        running.repository = git.url
        yield running


def block(guide: str, language: str, number: int = 0) -> str:
    """A block of code in a guide."""
    found = re.findall(rf"```{language}\n(.*?)```", (GUIDES / f"{guide}.md").read_text(), re.DOTALL)
    assert len(found) > number, f"{guide} has no such block"
    return str(found[number])


async def run(house: Plane, code: str, prompts: dict[str, str]) -> str:
    """Runs a guide's program; gives what it printed."""
    code = code.replace("http://localhost:7000", house.url).replace("aj_…", KEY).replace('"claude"', f'"{AGENT}"')
    for old, new in prompts.items():
        assert old in code, old
        # The built-in agent says back what it hears; a real one asks the model, which knows some cues.
        code = code.replace(old, new if STATE else old)
    code = code.replace("asyncio.run(main())", "")
    names: dict[str, object] = {}
    exec(compile(code, "guide", "exec"), names)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        await asyncio.wait_for(names["main"](), 120)  # type: ignore[operator]
    return printed.getvalue()


async def test_claude_code(house: Plane) -> None:
    printed = await run(house, block("claude-code", "python"), {"Correct the spelling in hello.py": "say pong"})
    assert ("pong" if STATE else "You said: Correct the spelling") in printed
    assert re.search(r"its key: phm_[0-9a-f]+", printed)


async def test_repository(house: Plane) -> None:
    code = block("repository", "python").replace("https://github.com/you/project", house.repository)
    # The phantom's way to github.com itself is on the far side of the internet; `workspaces::git` has it with a stand-in.
    code = code.replace(', "credential": "github"', "")
    printed = await run(house, code, {"Run the tests and mend what fails": "mend the project"})
    if STATE:
        assert "OK" in printed
        assert "+    return a + b" in printed
    else:
        assert "You said: Run the tests" in printed
    assert "scopes" in block("repository", "python", 1)


async def test_fork(house: Plane) -> None:
    first, then = "Read the project and tell me what you would mend first", "Now mend it {way}"
    printed = await run(house, block("fork", "python"), {first: "say pong", then: "what did I ask"})
    for way in ("as small as you can", "with a test for it", "by taking code away"):
        assert way in printed
    assert printed.count("you asked: say pong" if STATE else "You said: Now mend it") == 3


def test_mcp() -> None:
    config = json.loads(block("mcp", "json"))
    assert config["mcpServers"]["agentjail"]["args"] == ["mcp"]
    # Tried by the official client, and by Claude Code itself: mcp.test.mjs.
    tools = set(re.findall(r"`(\w+)`", (GUIDES / "mcp.md").read_text()))
    source = (ROOT / "crates/agentjail/src/client/mcp/tools.rs").read_text()
    for tool in tools - {"claude"}:
        assert f"async fn {tool}(" in source, tool


def test_every_guide_is_here() -> None:
    assert {path.stem for path in GUIDES.glob("*.md")} == {"README", "claude-code", "repository", "fork", "mcp"}
    assert free_port() > 0
