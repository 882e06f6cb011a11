"""A control plane whose models are stand-ins, for tests and for timing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

#: Real keys, which must be found nowhere but at the model.
CANARIES = {
    "ANTHROPIC_API_KEY": "sk-ant-canary-51f0c2",
    "OPENAI_API_KEY": "sk-canary-7be94d",
    "GITHUB_TOKEN": "ghp_canary2c8e10",
}

KEY = "joined-key"


@dataclass
class Plane:
    """A control plane, and the model behind it."""

    url: str
    model: str
    state: Path
    process: subprocess.Popen[bytes]
    log: Path
    repository: str = ""

    def requests(self) -> list[dict[str, Any]]:
        """What the model was asked."""
        answer: list[dict[str, Any]] = httpx.get(f"{self.model}/requests", timeout=30).json()
        return answer

    def get(self, path: str) -> Any:
        """What the control plane says."""
        return httpx.get(f"{self.url}{path}", headers={"authorization": f"Bearer {KEY}"}, timeout=30).json()


@dataclass
class Git:
    """A git server, and what a control plane needs to reach it."""

    url: str
    flags: list[str]


@contextmanager
def git_house() -> Iterator[Git]:
    """Starts a git server that says it is github.com."""
    server = subprocess.Popen(["node", HERE / "git.mjs"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield Git("https://github.com/you/project", json.loads(server.stdout.readline()))
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


@contextmanager
def plane(flavors: Path | None, flags: Sequence[str] = ()) -> Iterator[Plane]:
    """Starts both, with agents that are installed in ``flavors``."""
    program = Path(os.environ.get("AGENTJAIL_BIN", ROOT / "target/debug/agentjail"))
    state = Path(tempfile.mkdtemp(prefix="joined-"))
    if flavors is not None:
        (state / "flavors").mkdir()
        for flavor in flavors.iterdir():
            # A link to a directory is a flavor, too.
            (state / "flavors" / flavor.name).symlink_to(flavor)
    model = subprocess.Popen(["node", HERE.parent / "agents/model.mjs"], stdout=subprocess.PIPE, text=True)
    assert model.stdout is not None
    upstream = model.stdout.readline().strip()
    api, proxy = free_port(), free_port()
    log = state / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                program,
                "serve",
                *["--ctl-addr", f"127.0.0.1:{api}", "--proxy-addr", f"127.0.0.1:{proxy}"],
                *["--state-dir", state / "state", "--log", "debug"],
                *["--upstream", f"anthropic={upstream}", "--upstream", f"openai={upstream}"],
                *flags,
            ],
            env={"PATH": os.environ["PATH"], "AGENTJAIL_API_KEY": f"{KEY}@dev:operator", **CANARIES},
            stdout=out,
            stderr=out,
        )
    (state / "state").mkdir(exist_ok=True)
    if flavors is not None:
        shutil.move(state / "flavors", state / "state/flavors")
    url = f"http://127.0.0.1:{api}"
    try:
        end = time.monotonic() + 20
        while True:
            try:
                if httpx.get(f"{url}/healthz").status_code == 200:
                    break
            except httpx.HTTPError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.02)
        yield Plane(url, upstream, state, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        model.terminate()
        model.wait(10)
        model.stdout.close()
        shutil.rmtree(state, ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def holding(directory: Path, texts: list[str]) -> list[str]:
    """Files below a directory that hold one of some texts."""
    pattern = re.compile("|".join(map(re.escape, texts)).encode())
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and pattern.search(path.read_bytes()):
            found.append(str(path))
    return found
