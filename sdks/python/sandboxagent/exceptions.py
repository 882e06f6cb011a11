"""What can go wrong, as one tree.

::

    SandboxError
    ├── SandboxAgentError            the server said no: status and problem
    ├── SandboxConnectionError       nobody answered (also a ConnectionError)
    ├── HealthTimeoutError           not healthy in time (also a TimeoutError)
    ├── SandboxStartError            a sandbox or its server did not start (also a RuntimeError)
    ├── SandboxNotAttachedError      there is no sandbox to pause or end (also a RuntimeError)
    ├── SandboxDestroyedError        the provider's sandbox is gone
    ├── WorkspaceScriptError         a script of the bootstrap failed
    ├── GitCloneError                with a category
    ├── DesktopNotSupportedError     no desktop here
    ├── SessionError
    │   ├── SessionNotFoundError     (also a RuntimeError)
    │   ├── SessionNotConnectedError (also a RuntimeError)
    │   ├── UnsupportedSessionCategoryError
    │   ├── UnsupportedSessionValueError
    │   ├── UnsupportedSessionConfigOptionError
    │   └── UnsupportedPermissionReplyError
    └── AcpError
        ├── AcpHttpError             the agent could not be asked
        └── AcpRpcError              the agent answered with an error
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import httpx

    from .types import ProblemDetails

GitCategory = Literal["auth", "not_found", "network", "unknown"]


class SandboxError(Exception):
    """Anything that this package raises on its own account."""


class SandboxConnectionError(SandboxError, ConnectionError):
    """Nobody answered: refused, unreachable, or broken off."""


class HealthTimeoutError(SandboxError, TimeoutError):
    """A server was not healthy in time; the last reason is its ``__cause__``."""


class SandboxStartError(SandboxError, RuntimeError):
    """A sandbox, or the server in it, did not start."""


class SandboxNotAttachedError(SandboxError, RuntimeError):
    """There is no provisioned sandbox that could be paused, resumed or ended."""

    def __init__(self) -> None:
        super().__init__("SandboxAgent is not attached to a provisioned sandbox.")


class SandboxAgentError(SandboxError):
    """The server refused.

    ``problem`` is its problem document, or the JSON or nothing it sent instead; ``response`` the whole answer.
    """

    def __init__(
        self,
        status: int,
        problem: ProblemDetails | dict[str, Any] | None = None,
        response: httpx.Response | None = None,
    ) -> None:
        self.status = status
        self.problem = problem
        self.response = response
        super().__init__(_said(status, problem))


class SandboxDestroyedError(SandboxError):
    """A provider does not have a sandbox any more."""

    def __init__(self, sandbox_id: str, provider: str) -> None:
        self.sandbox_id = sandbox_id
        self.provider = provider
        super().__init__(f"sandbox {provider}/{sandbox_id} is gone")


class WorkspaceScriptError(SandboxError):
    """A script of ``workspace_files`` failed; ``result`` is how it ended."""

    def __init__(self, name: str, result: dict[str, Any]) -> None:
        self.name = name
        self.result = result
        how = "timed out" if result.get("timedOut") else f"exited with {result.get('exitCode')}"
        super().__init__(f"{name} {how}: {str(result.get('stderr', '')).strip()[-500:]}")


class GitCloneError(SandboxError):
    """A clone failed. The message never holds the token."""

    def __init__(self, message: str, *, category: GitCategory | None = None) -> None:
        self.category = category
        super().__init__(message)


class DesktopNotSupportedError(SandboxError):
    """The sandbox has no desktop."""

    def __init__(
        self,
        message: str = "Unsupported: the desktop is not supported on this platform. Only Linux sandboxes with a "
        "desktop installed have one.",
    ) -> None:
        self.message = message
        super().__init__(message)


class SessionError(SandboxError):
    """Something is not to be had of a session."""


class SessionNotFoundError(SessionError, RuntimeError):
    """Neither this client nor its server knows the session."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(f"session {session_id} not found")


class SessionNotConnectedError(SessionError, RuntimeError):
    """A session was made without a connection to an agent."""

    def __init__(self) -> None:
        super().__init__("Session is not connected to an ACP client")


class UnsupportedSessionCategoryError(SessionError):
    """The agent has nothing of the kind (model, mode, thought level) to choose."""

    def __init__(self, session_id: str, category: str, available_categories: Sequence[str]) -> None:
        self.session_id = session_id
        self.category = category
        self.available_categories = list(available_categories)
        super().__init__(f"session {session_id} has no {category} to set; it has: {_listed(available_categories)}")


class UnsupportedSessionValueError(SessionError):
    """The agent does not offer this value."""

    def __init__(
        self, session_id: str, category: str, config_id: str, requested_value: str, allowed_values: Sequence[str]
    ) -> None:
        self.session_id = session_id
        self.category = category
        self.config_id = config_id
        self.requested_value = requested_value
        self.allowed_values = list(allowed_values)
        super().__init__(
            f"session {session_id} does not offer {requested_value!r} as its {category}; "
            f"it offers: {_listed(allowed_values)}"
        )


class UnsupportedSessionConfigOptionError(SessionError):
    """The agent has no option of this id."""

    def __init__(self, session_id: str, config_id: str, available_config_ids: Sequence[str]) -> None:
        self.session_id = session_id
        self.config_id = config_id
        self.available_config_ids = list(available_config_ids)
        super().__init__(f"session {session_id} has no option {config_id!r}; it has: {_listed(available_config_ids)}")


class UnsupportedPermissionReplyError(SessionError):
    """The agent does not offer this reply to its question."""

    def __init__(self, permission_id: str, requested_reply: str, available_replies: Sequence[str]) -> None:
        self.permission_id = permission_id
        self.requested_reply = requested_reply
        self.available_replies = list(available_replies)
        super().__init__(
            f"permission {permission_id} cannot be answered with {requested_reply!r}; "
            f"it can with: {_listed(available_replies)}"
        )


class AcpError(SandboxError):
    """An agent could not be asked, or refused."""


class AcpHttpError(AcpError):
    """A message did not reach an agent. Status 0: nobody answered."""

    def __init__(
        self,
        status: int,
        problem: ProblemDetails | dict[str, Any] | None = None,
        response: httpx.Response | None = None,
    ) -> None:
        self.status = status
        self.problem = problem
        self.response = response
        super().__init__(_said(status, problem))


_LABELS = {
    -32700: "Parse error",
    -32600: "Invalid request",
    -32601: "Method not supported",
    -32602: "Invalid parameters",
    -32603: "Internal error",
    -32000: "Authentication required",
    -32002: "Resource not found",
}


class AcpRpcError(AcpError):
    """An agent answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        self.code = code
        self.message = message
        self.data = data
        label = _LABELS.get(code)
        super().__init__(f"{label}: {message}" if label else message)


def _said(status: int, problem: Any) -> str:
    title = detail = None
    if isinstance(problem, dict):
        title, detail = problem.get("title"), problem.get("detail") or problem.get("error")
    elif problem is not None:
        title, detail = problem.title, problem.detail
    if not title and not detail:
        return f"Request failed with status {status}"
    return f"{title}: {detail}" if title and detail and title != detail else str(title or detail)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) or "nothing"
