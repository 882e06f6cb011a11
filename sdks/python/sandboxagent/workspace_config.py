"""Files to begin a workspace with. Pure functions; nothing here holds or writes a token but `auth_json`'s own input."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

#: Answers git's two questions from the environment. The user is not empty, or git would send no password either.
_ASKPASS = """#!/bin/sh
case "$1" in
Username*) printf '%s\\n' "${GIT_USERNAME:-x-access-token}" ;;
Password*) printf '%s\\n' "$GIT_TOKEN" ;;
esac
"""


class Script(str):
    """A script, and the variables that it is to be run with, which are not in its text."""

    env: dict[str, str]

    def __new__(cls, text: str, env: Mapping[str, str] | None = None) -> Script:
        script = super().__new__(cls, text)
        script.env = dict(env or {})
        return script

    def __add__(self, more: str) -> Script:
        return Script(str(self) + more, {**self.env, **getattr(more, "env", {})})

    def __radd__(self, before: str) -> Script:
        return Script(before + str(self), self.env)

    def __repr__(self) -> str:
        return f"Script({str(self)!r})"


class WorkspaceConfig:
    """Makers of configuration files, as text."""

    @staticmethod
    def auth_json(credentials: Mapping[str, Any]) -> str:
        """``auth.json``: what is given, as JSON."""
        return json.dumps(dict(credentials), indent=2)

    @staticmethod
    def opencode_config(settings: Mapping[str, Any]) -> str:
        """``opencode.json``: what is given, as JSON."""
        return json.dumps(dict(settings), indent=2)

    @staticmethod
    def oh_my_openagent_config(models: Sequence[Any], fallback_strategy: str = "round_robin") -> str:
        """``oh-my-openagent.jsonc``: models, and in which order they are tried."""
        head = (
            "// oh-my-openagent configuration file\n"
            "// This file configures model routing: which models there are, and which comes next when one fails.\n"
            "// fallback_strategy options:\n"
            '//   - "round_robin": each in its turn\n'
            '//   - "priority": the first that works\n'
        )
        return head + json.dumps({"models": list(models), "fallback_strategy": fallback_strategy}, indent=2)

    @staticmethod
    def from_files(files: dict[str, str]) -> dict[str, str]:
        """What is given."""
        return files

    @staticmethod
    def git_askpass_script(token: str) -> str:
        """A ``GIT_ASKPASS`` program that answers from ``$GIT_TOKEN``.

        The token is not in it: give it to git's environment. The file must be executable; `SandboxAgent.write_file`
        sees to that where a file begins with ``#!``.
        """
        del token
        return _ASKPASS

    @staticmethod
    def git_clone_script(repos: Sequence[Mapping[str, Any]], token: str | None = None) -> Script:
        """A script for any ``sh`` that clones each of ``{url, path?, branch?, depth?}``.

        With ``token`` it wants one in ``$GIT_TOKEN``, or in a file that ``$GIT_TOKEN_FILE`` names and that it removes.
        The token is in ``env`` of what is given, not in the text: `SandboxAgent.start` runs it with that.
        """
        lines = [
            "#!/bin/sh",
            "# pipefail is not every shell's.",
            "if (set -euo pipefail) 2>/dev/null; then set -euo pipefail; else set -eu; fi",
        ]
        if token:
            lines += [
                'askpass_dir="$(umask 077 && mktemp -d)"',
                'trap \'rm -rf "$askpass_dir" "${GIT_TOKEN_FILE:-$askpass_dir}"\' EXIT',
                "trap 'exit 130' INT HUP TERM",
                'if [ -n "${GIT_TOKEN_FILE:-}" ]; then GIT_TOKEN="$(cat "$GIT_TOKEN_FILE")"; fi',
                'export GIT_TOKEN="${GIT_TOKEN:?the token to clone with, or GIT_TOKEN_FILE}"',
                'export GIT_ASKPASS="$askpass_dir/askpass"',
                "cat > \"$GIT_ASKPASS\" <<'ASKPASS'",
                _ASKPASS.rstrip("\n"),
                "ASKPASS",
                'chmod 700 "$GIT_ASKPASS"',
            ]
        lines.append("export GIT_TERMINAL_PROMPT=0")
        lines += [_clone(n, repo) for n, repo in enumerate(repos)]
        return Script("\n".join(lines) + "\n", {"GIT_TOKEN": token} if token else {})


def _clone(n: int, repo: Mapping[str, Any]) -> str:
    url = repo.get("url")
    if not isinstance(url, str) or not url:
        raise ValueError(f"repos[{n}].url: a URL is expected")
    words = ["git", "clone"]
    if branch := repo.get("branch"):
        words += ["--branch", shlex.quote(str(branch))]
    if depth := repo.get("depth"):
        words += ["--depth", str(int(depth))]
    # What begins with a dash would be an option.
    if url.startswith("-") or str(repo.get("path") or "").startswith("-"):
        words.append("--")
    words.append(shlex.quote(url))
    if path := repo.get("path"):
        words.append(shlex.quote(str(path)))
    return " ".join(words)
