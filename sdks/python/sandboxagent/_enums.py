"""Words of the wire."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    def __str__(self) -> str:
        return str(self.value)


class DesktopMouseButton(_Word):
    LEFT = "left"
    MIDDLE = "middle"
    RIGHT = "right"


class DesktopRecordingStatus(_Word):
    RECORDING = "recording"
    COMPLETED = "completed"
    FAILED = "failed"


class DesktopScreenshotFormat(_Word):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class DesktopState(_Word):
    INACTIVE = "inactive"
    INSTALL_REQUIRED = "install_required"
    STARTING = "starting"
    ACTIVE = "active"
    STOPPING = "stopping"
    FAILED = "failed"


class ErrorType(_Word):
    INVALID_REQUEST = "invalid_request"
    CONFLICT = "conflict"
    UNSUPPORTED_AGENT = "unsupported_agent"
    AGENT_NOT_INSTALLED = "agent_not_installed"
    INSTALL_FAILED = "install_failed"
    AGENT_PROCESS_EXITED = "agent_process_exited"
    TOKEN_INVALID = "token_invalid"
    PERMISSION_DENIED = "permission_denied"
    NOT_ACCEPTABLE = "not_acceptable"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    NOT_FOUND = "not_found"
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_ALREADY_EXISTS = "session_already_exists"
    MODE_NOT_SUPPORTED = "mode_not_supported"
    STREAM_ERROR = "stream_error"
    TIMEOUT = "timeout"


class FsEntryType(_Word):
    FILE = "file"
    DIRECTORY = "directory"


class McpCommand(_Word):
    NPX = "npx"
    BUNX = "bunx"
    UVX = "uvx"


class McpRemoteTransport(_Word):
    SSE = "sse"
    STREAMABLE_HTTP = "streamable_http"


class ProcessLogsStream(_Word):
    STDOUT = "stdout"
    STDERR = "stderr"
    COMBINED = "combined"
    PTY = "pty"


class ProcessOwner(_Word):
    USER = "user"
    DESKTOP = "desktop"
    SYSTEM = "system"


class ProcessState(_Word):
    RUNNING = "running"
    EXITED = "exited"


class ServerStatus(_Word):
    RUNNING = "running"
    STOPPED = "stopped"
