"""What a workspace begins with: files, variables, and scripts that are run once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .exceptions import SandboxAgentError, SandboxConnectionError, WorkspaceScriptError
from .git import redacted
from .workspace_config import Script

if TYPE_CHECKING:
    from .client import SandboxAgent

#: Scripts that are run when they are written, in this order.
RUN_ONCE = ("setup.sh", "clone-repos.sh")

#: How long one may take.
_SCRIPT_SECONDS = 300


def checked_env(env: Mapping[str, Any] | None) -> dict[str, str]:
    """The variables, if all are text."""
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"workspace_env[{name!r}]: text is expected, not {type(value).__name__}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in value:
            raise ValueError(f"workspace_env[{name!r}]: a name is letters, digits and `_`, and a value holds no NUL")
    return dict(env or {})


def env_file(env: Mapping[str, str]) -> str:
    """``NAME="value"``, a line each; in single quotes what shells and readers of such files would not leave as it is."""
    return "".join(f"{name}={_quoted(value)}\n" for name, value in env.items())


def _quoted(value: str) -> str:
    if any(letter in value for letter in '$`"\\') and not any(letter in value for letter in "'\n\r"):
        return f"'{value}'"
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "$": "\\$", "`": "\\`"}
    return f'"{"".join(escapes.get(letter, letter) for letter in value)}"'


def merged_env_file(given: str | None, env: Mapping[str, str]) -> str:
    """A ``.env`` of the caller's with the variables after it; the last word on a name counts."""
    text = given or ""
    if text and not text.endswith("\n"):
        text += "\n"
    return text + env_file(env)


async def bootstrap(
    agent: SandboxAgent, directory: str, files: Mapping[str, str] | None, env: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Writes files and ``.env`` into a directory, and runs the scripts among them; gives how those ended."""
    wanted: dict[str, str] = {}
    for name, text in (files or {}).items():
        base = re.split(r"[/\\]", name)[-1]
        if base in ("", ".", "..") or "\0" in base:
            warnings.warn(f"workspace_files[{name!r}]: not the name of a file; skipped", RuntimeWarning, stacklevel=3)
            continue
        if not isinstance(text, str):
            raise TypeError(f"workspace_files[{name!r}]: text is expected, not {type(text).__name__}")
        wanted[base] = text
    if env:
        wanted[".env"] = merged_env_file(wanted.get(".env"), env)
    if not wanted:
        return {}
    await agent.mkdir_fs(directory)
    written: set[str] = set()
    for name, text in wanted.items():
        try:
            await agent.write_file(f"{directory}/{name}", text)
            written.add(name)
        except (SandboxAgentError, SandboxConnectionError) as error:
            warnings.warn(f"workspace_files[{name!r}] was not written: {error}", RuntimeWarning, stacklevel=3)
    results: dict[str, dict[str, Any]] = {}
    for name in RUN_ONCE:
        if name in written:
            results[name] = await _run(agent, directory, name, wanted[name], env)
    return results


async def _run(agent: SandboxAgent, directory: str, name: str, text: str, env: Mapping[str, str]) -> dict[str, Any]:
    own = text.env if isinstance(text, Script) else {}
    result = await agent.run_process(
        {
            # One that says who reads it is run by that.
            "command": f"{directory}/{name}" if text.startswith("#!") else "sh",
            "args": [] if text.startswith("#!") else [f"{directory}/{name}"],
            "cwd": directory,
            "env": {**env, **own},
            "timeoutMs": _SCRIPT_SECONDS * 1000,
        }
    )
    for secret in own.values():
        result = {key: redacted(value, secret) if isinstance(value, str) else value for key, value in result.items()}
    if result.get("exitCode") != 0:
        raise WorkspaceScriptError(name, result)
    return result
