"""The last act of the demo: a real Claude Code mends a project in a jail. Only its model is a stand-in."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from typing import Any

from sandboxagent import SandboxAgent, agentjail

URL, KEY, MODEL, REAL = sys.argv[1:5]
PROJECT = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "test_calc.py": "import unittest\nfrom calc import add\n\nclass Add(unittest.TestCase):\n"
    "    def test_adds(self):\n        self.assertEqual(add(2, 3), 5)\n",
}


def tell(title: str) -> None:
    print(f"\n\x1b[1m{title}\x1b[0m" if sys.stdout.isatty() else f"\n{title}")


def show(name: str, value: Any) -> None:
    print(f"  {name:<28} {value}")


def check(holds: bool, claim: str) -> None:
    if not holds:
        raise SystemExit(f"not so: {claim}")
    print(f"  \u2713 {claim}")


def ask(url: str, key: str | None = None) -> Any:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


async def main() -> None:
    jail = agentjail(base_url=URL, api_key=KEY, services=["anthropic"], agents=["claude"], label="demo")
    tell("Claude Code in a jail: one call makes a workspace, phantom tokens, and a sandbox agent")
    began = time.monotonic()
    async with await SandboxAgent.start(sandbox=jail) as sandbox:
        show("workspace", sandbox.sandbox_id)
        show("ready after", f"{(time.monotonic() - began) * 1000:.0f} ms (unoptimised build)")
        for name, text in PROJECT.items():
            await sandbox.write_file(f"/workspace/{name}", text)
        broken = await sandbox.run_process({"command": "python3", "args": ["-m", "unittest"], "cwd": "/workspace"})
        show("the project's tests", broken["stderr"].strip().splitlines()[-1])

        def permit(request: Any) -> str:
            show("it asks", f"may I? {request['permission']['toolCall'].get('title')}")
            show("you say", "once")
            return "once"

        session = await sandbox.create_session(agent="claude", cwd="/workspace", on_permission_request=permit)
        show("you", "mend the project")
        said = ""
        async for update in session.stream("mend the project"):
            if update["sessionUpdate"] == "tool_call":
                show("it uses", update.get("title"))
            elif update["sessionUpdate"] == "agent_message_chunk":
                said += update["content"]["text"]
        show("it", said.strip())
        mended = await sandbox.run_process({"command": "python3", "args": ["-m", "unittest"], "cwd": "/workspace"})
        show("the project's tests", mended["stderr"].strip().splitlines()[-1])
        check(mended["exitCode"] == 0, "the project is mended")

        tell("the key, as the agent saw it, and as the model did")
        look = 'for p in /proc/[0-9]*; do tr "\\0" "\\n" < $p/environ; done 2>/dev/null | grep ^ANTHROPIC_API_KEY= | sort -u'
        inside = await sandbox.run_process({"command": "sh", "args": ["-c", look]})
        keys = inside["stdout"].split()
        show("every process in the jail", " ".join(keys))
        calls = [call for call in ask(f"{MODEL}/requests") if call["method"] == "POST"]
        show("the model", calls[-1]["headers"].get("x-api-key"))
        check(len(keys) == 1 and keys[0].startswith("ANTHROPIC_API_KEY=phm_"), "inside there is a phantom and nothing else")
        check(all(call["headers"].get("x-api-key") == REAL for call in calls), "the model was asked with the real key")
        rows = ask(f"{URL}/v1/audit?limit=100", KEY)["rows"]
        own = [row for row in rows if row["session_id"] == jail.sessions[sandbox.sandbox_id or ""]]
        check(len(own) >= len(calls), f"each of its {len(calls)} calls is in the audit")

        tell("a fork: the same conversation, another ending")
        began = time.monotonic()
        (fork_id,) = await jail.fork(sandbox.sandbox_id or "")
        show("forked, with an agent, in", f"{(time.monotonic() - began) * 1000:.0f} ms (unoptimised build)")
        async with await SandboxAgent.start(sandbox=jail, sandbox_id=fork_id) as fork:
            again = await fork.resume_session(session.agent_session_id)
            again.set_permission_callback(permit)
            remembered = await again.prompt("what did I ask")
            show("the fork", remembered["text"].strip())
            check("mend the project" in remembered["text"], "it remembers")
            await again.prompt("make it loud")
            theirs = await fork.read_file("/workspace/calc.py")
            ours = await sandbox.read_file("/workspace/calc.py")
            check(theirs != ours, "each goes its own way")
            await fork.destroy_sandbox()
        await sandbox.destroy_sandbox()
    await jail.close()
    print("\nThat was it: the agent had a phantom, the model had the key.")


if __name__ == "__main__":
    asyncio.run(main())
