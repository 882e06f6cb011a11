"""Why a call failed."""

from __future__ import annotations

from typing import Any, Literal

AgentjailErrorCode = Literal[
    "NETWORK",
    "TIMEOUT",
    "RATE_LIMITED",
    "BAD_REQUEST",
    "UNAUTHORIZED",
    "FORBIDDEN",
    "NOT_FOUND",
    "CONFLICT",
    "SERVER_ERROR",
    "UNKNOWN",
]

_CODES: dict[int, AgentjailErrorCode] = {
    0: "NETWORK",
    408: "TIMEOUT",
    504: "TIMEOUT",
    429: "RATE_LIMITED",
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "CONFLICT",
}


class AgentjailError(Exception):
    """The control plane refused (``status`` from 400), or did not answer (0, 408). ``body`` is what it sent."""

    def __init__(self, status: int, body: Any = None, reason: str = "", request_id: str | None = None) -> None:
        self.status = status
        self.body = body
        self.request_id = request_id
        said = body.get("error") if isinstance(body, dict) else None
        text = said if isinstance(said, str) and said else reason or "request failed"
        super().__init__(f"agentjail {status}: {text}")

    @property
    def code(self) -> AgentjailErrorCode:
        """The status as a word."""
        if self.status >= 500:
            return _CODES.get(self.status, "SERVER_ERROR")
        return _CODES.get(self.status, "BAD_REQUEST" if self.status >= 400 else "UNKNOWN")
