"""Client for sandbox agents: files, processes, terminals and coding agents of a sandbox.

::

    from sandboxagent import SandboxAgent

    async with await SandboxAgent.connect("http://localhost:2468") as agent:
        print(await agent.run_process({"command": "/bin/echo", "args": ["hello"]}))
"""

from .acp import (
    AcpHttpClient,
    AuthenticateRequest,
    AuthenticateResponse,
    CancelNotification,
    InitializeRequest,
    InitializeResponse,
    ListSessionsRequest,
    ListSessionsResponse,
    LoadSessionRequest,
    LoadSessionResponse,
    NewSessionRequest,
    NewSessionResponse,
    PermissionRequest,
    PermissionResponse,
    PromptRequest,
    PromptResponse,
    SetSessionConfigOptionRequest,
    SetSessionConfigOptionResponse,
    SetSessionModeRequest,
    SetSessionModeResponse,
)
from .client import SandboxAgent
from .exceptions import (
    AcpError,
    AcpHttpError,
    AcpRpcError,
    DesktopNotSupportedError,
    GitCloneError,
    HealthTimeoutError,
    SandboxAgentError,
    SandboxConnectionError,
    SandboxDestroyedError,
    SandboxError,
    SandboxNotAttachedError,
    SandboxStartError,
    SessionError,
    SessionNotConnectedError,
    SessionNotFoundError,
    UnsupportedPermissionReplyError,
    UnsupportedSessionCategoryError,
    UnsupportedSessionConfigOptionError,
    UnsupportedSessionValueError,
    WorkspaceScriptError,
)
from .inspector import build_inspector_url
from .live_acp import LiveAcpConnection
from .persistence import InMemorySessionPersistDriver, SessionPersistDriver, SqliteSessionPersistDriver
from .providers.agentjail import agentjail
from .session import Session
from .spawn import SandboxAgentSpawnHandle, SandboxAgentSpawnOptions, package_version, spawn_sandbox_agent
from .terminal import ProcessTerminalSession, connect_process_terminal

__version__ = package_version()

#: The stream of a desktop; no server of this version has one.
DesktopStreamSession = None

__all__ = [
    "AcpError",
    "AcpHttpClient",
    "AcpHttpError",
    "AcpRpcError",
    "AuthenticateRequest",
    "AuthenticateResponse",
    "CancelNotification",
    "DesktopNotSupportedError",
    "GitCloneError",
    "HealthTimeoutError",
    "InMemorySessionPersistDriver",
    "InitializeRequest",
    "InitializeResponse",
    "ListSessionsRequest",
    "ListSessionsResponse",
    "LiveAcpConnection",
    "LoadSessionRequest",
    "LoadSessionResponse",
    "NewSessionRequest",
    "NewSessionResponse",
    "PermissionRequest",
    "PermissionResponse",
    "ProcessTerminalSession",
    "PromptRequest",
    "PromptResponse",
    "SandboxAgent",
    "SandboxAgentError",
    "SandboxAgentSpawnHandle",
    "SandboxAgentSpawnOptions",
    "SandboxConnectionError",
    "SandboxDestroyedError",
    "SandboxError",
    "SandboxNotAttachedError",
    "SandboxStartError",
    "Session",
    "SessionError",
    "SessionNotConnectedError",
    "SessionNotFoundError",
    "SessionPersistDriver",
    "SetSessionConfigOptionRequest",
    "SetSessionConfigOptionResponse",
    "SetSessionModeRequest",
    "SetSessionModeResponse",
    "SqliteSessionPersistDriver",
    "UnsupportedPermissionReplyError",
    "UnsupportedSessionCategoryError",
    "UnsupportedSessionConfigOptionError",
    "UnsupportedSessionValueError",
    "WorkspaceScriptError",
    "agentjail",
    "build_inspector_url",
    "connect_process_terminal",
    "spawn_sandbox_agent",
]
