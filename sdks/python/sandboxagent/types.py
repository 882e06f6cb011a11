"""What goes over the wire, as models. Attributes in snake case, members in camel case; both are taken.

The clients give plain dicts with wire names; `Model.model_validate` makes a model of one.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ._enums import (
    DesktopMouseButton,
    DesktopRecordingStatus,
    DesktopScreenshotFormat,
    DesktopState,
    FsEntryType,
    McpCommand,
    McpRemoteTransport,
    ProcessLogsStream,
    ProcessOwner,
    ProcessState,
    ServerStatus,
)

T = TypeVar("T")


def to_camel(name: str) -> str:
    """``exit_code`` → ``exitCode``"""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


class SandboxModel(BaseModel):
    """The base: camel case outside, members nobody knows are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class AcpEnvelope(SandboxModel):
    """Acp envelope."""

    jsonrpc: str
    id: Any | None = None
    method: str | None = None
    params: Any | None = None
    result: Any | None = None
    error: Any | None = None


class AcpPostQuery(SandboxModel):
    """Acp post query."""

    agent: str | None = None


class AcpServerInfo(SandboxModel):
    """Acp server info."""

    server_id: str
    agent: str
    created_at_ms: int


class AcpServerListResponse(SandboxModel):
    """Acp server list response."""

    servers: list[AcpServerInfo]


class AgentCapabilities(SandboxModel):
    """Agent capabilities."""

    plan_mode: bool
    permissions: bool
    questions: bool
    tool_calls: bool
    tool_results: bool
    text_messages: bool
    images: bool
    file_attachments: bool
    session_lifecycle: bool
    error_events: bool
    reasoning: bool
    status: bool
    command_execution: bool
    file_changes: bool
    mcp_tools: bool
    streaming_deltas: bool
    item_started: bool
    shared_process: bool


class ServerStatusInfo(SandboxModel):
    """Server status info."""

    status: ServerStatus
    uptime_ms: int | None = None


class AgentInfo(SandboxModel):
    """Agent info."""

    id: str
    installed: bool
    credentials_available: bool
    capabilities: AgentCapabilities
    version: str | None = None
    path: str | None = None
    config_options: list[Any] | None = None
    config_error: str | None = None
    server_status: ServerStatusInfo | None = None


class AgentInstallArtifact(SandboxModel):
    """Agent install artifact."""

    kind: str
    path: str
    source: str
    version: str | None = None


class AgentInstallRequest(SandboxModel):
    """Agent install request."""

    agent_version: str | None = None
    agent_process_version: str | None = None
    reinstall: bool | None = None


class AgentInstallResponse(SandboxModel):
    """Agent install response."""

    already_installed: bool
    artifacts: list[AgentInstallArtifact]


class AgentListResponse(SandboxModel):
    """Agent list response."""

    agents: list[AgentInfo]


class DesktopActionResponse(SandboxModel):
    """Desktop action response."""

    ok: bool


class DesktopClipboardResponse(SandboxModel):
    """Desktop clipboard response."""

    text: str
    selection: str


class DesktopClipboardWriteRequest(SandboxModel):
    """Desktop clipboard write request."""

    text: str
    selection: str | None = None


class DesktopResolution(SandboxModel):
    """Desktop resolution."""

    width: int
    height: int
    dpi: int | None = None


class DesktopDisplayInfoResponse(SandboxModel):
    """Desktop display info response."""

    display: str
    resolution: DesktopResolution


class DesktopErrorInfo(SandboxModel):
    """Desktop error info."""

    code: str
    message: str


class DesktopKeyModifiers(SandboxModel):
    """Desktop key modifiers."""

    alt: bool | None = None
    cmd: bool | None = None
    ctrl: bool | None = None
    shift: bool | None = None


class DesktopKeyboardDownRequest(SandboxModel):
    """Desktop keyboard down request."""

    key: str


class DesktopKeyboardPressRequest(SandboxModel):
    """Desktop keyboard press request."""

    key: str
    modifiers: DesktopKeyModifiers | None = None


class DesktopKeyboardTypeRequest(SandboxModel):
    """Desktop keyboard type request."""

    text: str
    delay_ms: int | None = None


class DesktopKeyboardUpRequest(SandboxModel):
    """Desktop keyboard up request."""

    key: str


class DesktopLaunchRequest(SandboxModel):
    """Desktop launch request."""

    app: str
    args: list[str] | None = None
    wait: bool | None = None


class DesktopLaunchResponse(SandboxModel):
    """Desktop launch response."""

    process_id: str
    pid: int | None = None
    window_id: str | None = None


class DesktopMouseClickRequest(SandboxModel):
    """Desktop mouse click request."""

    x: int
    y: int
    button: DesktopMouseButton | None = None
    click_count: int | None = None


class DesktopMouseDownRequest(SandboxModel):
    """Desktop mouse down request."""

    button: DesktopMouseButton | None = None
    x: int | None = None
    y: int | None = None


class DesktopMouseDragRequest(SandboxModel):
    """Desktop mouse drag request."""

    start_x: int
    start_y: int
    end_x: int
    end_y: int
    button: DesktopMouseButton | None = None


class DesktopMouseMoveRequest(SandboxModel):
    """Desktop mouse move request."""

    x: int
    y: int


class DesktopMousePositionResponse(SandboxModel):
    """Desktop mouse position response."""

    x: int
    y: int
    screen: int | None = None
    window: str | None = None


class DesktopMouseScrollRequest(SandboxModel):
    """Desktop mouse scroll request."""

    x: int
    y: int
    delta_x: int | None = None
    delta_y: int | None = None


class DesktopMouseUpRequest(SandboxModel):
    """Desktop mouse up request."""

    button: DesktopMouseButton | None = None
    x: int | None = None
    y: int | None = None


class DesktopOpenRequest(SandboxModel):
    """Desktop open request."""

    target: str


class DesktopOpenResponse(SandboxModel):
    """Desktop open response."""

    process_id: str
    pid: int | None = None


class DesktopProcessInfo(SandboxModel):
    """Desktop process info."""

    name: str
    running: bool
    pid: int | None = None
    log_path: str | None = None


class DesktopRecordingInfo(SandboxModel):
    """Desktop recording info."""

    id: str
    status: DesktopRecordingStatus
    file_name: str
    bytes: int
    started_at: str
    ended_at: str | None = None
    process_id: str | None = None


class DesktopRecordingListResponse(SandboxModel):
    """Desktop recording list response."""

    recordings: list[DesktopRecordingInfo]


class DesktopRecordingStartRequest(SandboxModel):
    """Desktop recording start request."""

    fps: int | None = None


class DesktopStartRequest(SandboxModel):
    """Desktop start request."""

    display_num: int | None = None
    width: int | None = None
    height: int | None = None
    dpi: int | None = None
    recording_fps: int | None = None
    state_dir: str | None = None
    stream_audio_codec: str | None = None
    stream_frame_rate: int | None = None
    stream_video_codec: str | None = None
    webrtc_port_range: str | None = None


class DesktopWindowInfo(SandboxModel):
    """Desktop window info."""

    id: str
    title: str
    x: int
    y: int
    width: int
    height: int
    is_active: bool


class DesktopStatusResponse(SandboxModel):
    """Desktop status response."""

    state: DesktopState
    display: str | None = None
    resolution: DesktopResolution | None = None
    processes: list[DesktopProcessInfo] | None = None
    windows: list[DesktopWindowInfo] | None = None
    missing_dependencies: list[str] | None = None
    install_command: str | None = None
    last_error: DesktopErrorInfo | None = None
    runtime_log_path: str | None = None
    started_at: str | None = None


class DesktopStreamStatusResponse(SandboxModel):
    """Desktop stream status response."""

    active: bool
    process_id: str | None = None
    window_id: str | None = None


class DesktopWindowListResponse(SandboxModel):
    """Desktop window list response."""

    windows: list[DesktopWindowInfo]


class DesktopWindowMoveRequest(SandboxModel):
    """Desktop window move request."""

    x: int
    y: int


class DesktopWindowResizeRequest(SandboxModel):
    """Desktop window resize request."""

    width: int
    height: int


class FsActionResponse(SandboxModel):
    """Fs action response."""

    path: str


class FsEntry(SandboxModel):
    """Fs entry."""

    name: str
    path: str
    entry_type: FsEntryType
    size: int
    modified: str | None = None


class FsMoveRequest(SandboxModel):
    """Fs move request."""

    from_: str = Field(alias="from")
    to: str
    overwrite: bool | None = None


class FsMoveResponse(SandboxModel):
    """Fs move response."""

    from_: str = Field(alias="from")
    to: str


class FsStat(SandboxModel):
    """Fs stat."""

    path: str
    entry_type: FsEntryType
    size: int
    modified: str | None = None


class FsUploadBatchResponse(SandboxModel):
    """Fs upload batch response."""

    paths: list[str]
    truncated: bool


class FsWriteResponse(SandboxModel):
    """Fs write response."""

    path: str
    bytes_written: int


class HealthResponse(SandboxModel):
    """Health response."""

    status: str


class McpLocalServerConfig(SandboxModel):
    """Mcp local server config."""

    type: str = "local"
    command: McpCommand
    args: list[str] | None = None
    cwd: str | None = None
    enabled: bool | None = None
    env: dict[str, str] | None = None
    timeout_ms: int | None = None


class McpOAuthConfig(SandboxModel):
    """Mcpo auth config."""

    client_id: str
    client_secret: str
    token_url: str
    scopes: list[str] | None = None


class McpRemoteServerConfig(SandboxModel):
    """Mcp remote server config."""

    type: str = "remote"
    url: str
    transport: McpRemoteTransport | None = None
    headers: dict[str, str] | None = None
    env_headers: dict[str, str] | None = None
    bearer_token_env_var: str | None = None
    oauth: McpOAuthConfig | None = None
    enabled: bool | None = None
    timeout_ms: int | None = None


class ProblemDetails(SandboxModel):
    """Why a server refused."""

    type: str
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None


class ProcessConfig(SandboxModel):
    """Process config."""

    max_concurrent_processes: int
    default_run_timeout_ms: int
    max_run_timeout_ms: int
    max_output_bytes: int
    max_log_bytes_per_process: int
    max_input_bytes_per_request: int


class ProcessCreateRequest(SandboxModel):
    """Process create request."""

    command: str
    args: list[str] | None = None
    cwd: str | None = None
    env: dict[str, str] | None = None
    interactive: bool = False
    tty: bool = False


class ProcessInfo(SandboxModel):
    """Process info."""

    id: str
    command: str
    args: list[str]
    tty: bool
    interactive: bool
    owner: ProcessOwner
    status: ProcessState
    created_at_ms: int
    cwd: str | None = None
    pid: int | None = None
    exit_code: int | None = None
    exited_at_ms: int | None = None


class ProcessInputRequest(SandboxModel):
    """Process input request."""

    data: str
    encoding: str | None = None


class ProcessInputResponse(SandboxModel):
    """Process input response."""

    bytes_written: int


class ProcessListResponse(SandboxModel):
    """Process list response."""

    processes: list[ProcessInfo]


class ProcessLogEntry(SandboxModel):
    """Process log entry."""

    sequence: int
    stream: ProcessLogsStream
    timestamp_ms: int
    data: str
    encoding: str


class ProcessLogsResponse(SandboxModel):
    """Process logs response."""

    process_id: str
    stream: ProcessLogsStream
    entries: list[ProcessLogEntry]


class ProcessRunRequest(SandboxModel):
    """Process run request."""

    command: str
    args: list[str] | None = None
    cwd: str | None = None
    env: dict[str, str] | None = None
    timeout_ms: int | None = None
    max_output_bytes: int | None = None


class ProcessRunResponse(SandboxModel):
    """Process run response."""

    timed_out: bool
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    duration_ms: int
    exit_code: int | None = None


class ProcessTerminalResizeRequest(SandboxModel):
    """Process terminal resize request."""

    cols: int
    rows: int


class ProcessTerminalResizeResponse(SandboxModel):
    """Process terminal resize response."""

    cols: int
    rows: int


class SkillSource(SandboxModel):
    """Skill source."""

    type: str
    source: str
    ref: str | None = None
    subpath: str | None = None
    skills: list[str] | None = None


class SkillsConfig(SandboxModel):
    """Skills config."""

    sources: list[SkillSource]


class SessionRecord(SandboxModel):
    """A session with an agent; times in seconds since 1970."""

    id: str
    agent: str
    agent_session_id: str
    last_connection_id: str
    created_at: int
    destroyed_at: int | None = None
    sandbox_id: str | None = None
    session_init: dict[str, Any] | None = None
    config_options: list[dict[str, Any]] | None = None
    modes: dict[str, Any] | None = None


class SessionEvent(SandboxModel):
    """Something that was said in a session; times in milliseconds since 1970."""

    id: str
    event_index: int
    session_id: str
    created_at: int
    connection_id: str
    sender: str
    payload: dict[str, Any]


class ListPageRequest(SandboxModel):
    """List page request."""

    cursor: str | None = None
    limit: int | None = None


class ListEventsRequest(SandboxModel):
    """List events request."""

    cursor: str | None = None
    limit: int | None = None
    session_id: str


class ProcessTerminalReadyFrame(SandboxModel):
    """Process terminal ready frame."""

    type: str = "ready"
    process_id: str


class ProcessTerminalExitFrame(SandboxModel):
    """Process terminal exit frame."""

    type: str = "exit"
    exit_code: int | None = None


class ProcessTerminalErrorFrame(SandboxModel):
    """Process terminal error frame."""

    type: str = "error"
    message: str


class TerminalResizePayload(SandboxModel):
    """Terminal resize payload."""

    cols: int
    rows: int


class ListPage(SandboxModel, Generic[T]):
    """A page of a list."""

    items: list[T]
    next_cursor: str | None = None


McpServerConfig = McpLocalServerConfig | McpRemoteServerConfig


class FsPathQuery(TypedDict):
    path: str


class FsEntriesQuery(TypedDict, total=False):
    path: str | None


class _FsDeleteQuery(TypedDict):
    path: str


class FsDeleteQuery(_FsDeleteQuery, total=False):
    recursive: bool | None


class FsUploadBatchQuery(TypedDict, total=False):
    path: str | None


class McpConfigQuery(TypedDict):
    directory: str
    mcp_name: str


class SkillsConfigQuery(TypedDict):
    directory: str
    skill_name: str


class ProcessListQuery(TypedDict, total=False):
    owner: ProcessOwner | None


class ProcessLogsQuery(TypedDict, total=False):
    stream: ProcessLogsStream | str | None
    tail: int | None
    follow: bool | None
    since: int | None


class ProcessSignalQuery(TypedDict, total=False):
    wait_ms: int | None


class DesktopClipboardQuery(TypedDict, total=False):
    selection: str | None


class DesktopScreenshotQuery(TypedDict, total=False):
    format: DesktopScreenshotFormat | None
    quality: int | None
    scale: float | None
    show_cursor: bool | None


class _DesktopRegion(TypedDict):
    x: int
    y: int
    width: int
    height: int


class DesktopRegionScreenshotQuery(_DesktopRegion, DesktopScreenshotQuery):
    pass


class ProcessTerminalInputFrame(TypedDict):
    type: Literal["input"]
    data: str
    encoding: str | None


class ProcessTerminalResizeFrame(TypedDict):
    type: Literal["resize"]
    cols: int
    rows: int


class ProcessTerminalCloseFrame(TypedDict):
    type: Literal["close"]


ProcessTerminalClientFrame = ProcessTerminalInputFrame | ProcessTerminalResizeFrame | ProcessTerminalCloseFrame
ProcessTerminalServerFrame = ProcessTerminalReadyFrame | ProcessTerminalExitFrame | ProcessTerminalErrorFrame
TerminalReadyStatus = ProcessTerminalReadyFrame
TerminalExitStatus = ProcessTerminalExitFrame
TerminalErrorStatus = ProcessTerminalErrorFrame
TerminalStatusMessage = ProcessTerminalServerFrame
