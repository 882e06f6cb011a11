"""Cloning a repository inside the sandbox, with a token that git alone gets to see."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .exceptions import GitCategory, GitCloneError, SandboxAgentError, SandboxConnectionError
from .workspace_config import WorkspaceConfig

if TYPE_CHECKING:
    from .client import SandboxAgent

_PATTERNS: list[tuple[GitCategory, str]] = [
    (
        "auth",
        r"authentication failed|could not read (username|password)|permission denied|access denied|"
        r"returned error: (401|403)|invalid (username or password|credentials)|terminal prompts disabled",
    ),
    (
        "not_found",
        r"repository not found|remote: not found|repository .{0,400}not found|does not appear to be a git repository|"
        r"returned error: 404|not found in upstream|remote branch .{0,200} not found|does not exist",
    ),
    (
        "network",
        r"could not resolve (host|proxy)|failed to connect|couldn't connect|connection (timed out|refused|reset)|"
        r"network is unreachable|no route to host|ssl|certificate|gnutls|early eof|the remote end hung up|timed out|"
        r"returned error: 5\d\d|empty reply",
    ),
]

_REDACTED = "[REDACTED]"


async def clone_repo(
    agent: SandboxAgent,
    url: str,
    path: str | None = None,
    token: str | None = None,
    branch: str | None = None,
    depth: int | None = None,
    timeout: float = 300,
) -> dict[str, Any]:
    """Clones ``url`` to ``path`` (default: its own name, in the working directory of the sandbox)."""
    check_url(url)
    arguments = ["clone"]
    if branch is not None:
        arguments += ["--branch", branch, "--single-branch"]
    if depth is not None:
        arguments += ["--depth", str(int(depth))]
    target = path if path is not None else name_of(url)
    arguments += ["--", url, target]
    env = {"GIT_TERMINAL_PROMPT": "0"}
    askpass = None
    if token is not None:
        askpass = f"/tmp/.git-askpass-{secrets.token_hex(16)}"
        env |= {"GIT_ASKPASS": askpass, "GIT_TOKEN": token, "GIT_USERNAME": "git"}
    milliseconds = int(timeout * 1000)
    config = {"command": "git", "args": arguments, "env": env, "timeoutMs": milliseconds, "cwd": agent.default_cwd}
    try:
        if askpass is not None:
            askpass = env["GIT_ASKPASS"] = await _put_askpass(agent, askpass)
        result = await agent.run_process({name: value for name, value in config.items() if value is not None})
    except SandboxConnectionError as error:
        raise GitCloneError(redacted(str(error), token), category="network") from error
    except SandboxAgentError as error:
        # Nothing of the request, which holds the token, is in a refusal; to be sure, it is not chained either.
        raise GitCloneError(redacted(str(error), token), category="unknown") from None
    finally:
        if askpass is not None:
            await agent.forget(askpass)
    result = {name: redacted(value, token) if isinstance(value, str) else value for name, value in result.items()}
    if result.get("timedOut"):
        raise GitCloneError(f"git clone took longer than {timeout} s", category="network")
    code = result.get("exitCode", result.get("exit_code"))
    if code != 0:
        text = str(result.get("stderr", "")).strip() or f"git exited with {code}"
        raise GitCloneError(text, category=category_of(text, url))
    return result


async def _put_askpass(agent: SandboxAgent, path: str) -> str:
    """Gives where it is: a server may keep its files below one directory, which is where programs work then."""
    text = WorkspaceConfig.git_askpass_script("")
    try:
        await agent.write_executable(path, text)
    except SandboxAgentError as error:
        if error.status not in (400, 403) or agent.default_cwd is None:
            raise
        path = f"{agent.default_cwd}/{path.rsplit('/', 1)[-1]}"
        await agent.write_executable(path, text)
    return path


def check_url(url: str) -> None:
    """Refuses what git would take for an option, and a URL with credentials in it."""
    if not url or url.startswith("-"):
        raise GitCloneError("url: a repository's address is expected", category="unknown")
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        raise GitCloneError(
            "url: credentials embedded in a URL end up in logs and in .git/config: give them as token=", category="auth"
        )


def name_of(url: str) -> str:
    """What git would call the directory."""
    last = url.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].removesuffix(".git")
    if not last or last in (".", ".."):
        raise GitCloneError("path: the URL has no name of its own; say where to clone it to", category="unknown")
    return last


def category_of(text: str, url: str) -> GitCategory:
    """What a complaint of git's is about. What stands in the URL is no reason."""
    said = text.replace(url, "URL").replace(url.rstrip("/"), "URL").lower()
    said = re.sub(r"\w+://[^\s'\"]+", "URL", said)
    # Nor is a path, or what the file system says of one.
    if re.search(r"could not create|already exists and is not an empty directory|no space left", said):
        return "unknown"
    said = re.sub(r"'[^'\n]*'", "PATH", said)
    for category, pattern in _PATTERNS:
        if re.search(pattern, said, re.DOTALL):
            return category
    return "unknown"


def redacted(text: str, token: str | None) -> str:
    """Without the token."""
    return text.replace(token, _REDACTED) if token else text


def run_result(result: Mapping[str, Any]) -> bool:
    """Whether a command went well."""
    return result.get("exitCode") == 0 and not result.get("timedOut")
