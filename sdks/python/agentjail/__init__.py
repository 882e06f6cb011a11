"""Client for the agentjail control plane: tenants' keys, sessions of phantom tokens, runs, workspaces, snapshots, agents.

::

    from agentjail import Agentjail

    with Agentjail(base_url="http://localhost:7000", api_key="aj_…") as aj:
        session = aj.sessions.create(["anthropic"])
        print(aj.sessions.exec(session["id"], "env")["stdout"])
"""

from ._client import Agentjail
from ._error import AgentjailError, AgentjailErrorCode
from ._resources import (
    Audit,
    Credentials,
    Jails,
    Keys,
    Public,
    Runs,
    Sessions,
    Settings,
    Snapshots,
    WorkspaceAgents,
    Workspaces,
)
from ._types import (
    AgentStarted,
    AgentView,
    AuditList,
    AuditRow,
    CredentialRecord,
    ExecResult,
    Flavor,
    ForkResult,
    GitRepoEntry,
    GitSeed,
    JailRecord,
    JailsList,
    NetworkSpec,
    PublicStats,
    ResourceStats,
    SeccompSpec,
    Session,
    SnapshotDiff,
    SnapshotList,
    SnapshotManifest,
    SnapshotRecord,
    StreamEvent,
    Whoami,
    Workspace,
    WorkspaceForkResponse,
    WorkspaceList,
)

__all__ = [
    "AgentStarted",
    "AgentView",
    "Agentjail",
    "AgentjailError",
    "AgentjailErrorCode",
    "Audit",
    "AuditList",
    "AuditRow",
    "CredentialRecord",
    "Credentials",
    "ExecResult",
    "Flavor",
    "ForkResult",
    "GitRepoEntry",
    "GitSeed",
    "JailRecord",
    "Jails",
    "JailsList",
    "Keys",
    "NetworkSpec",
    "Public",
    "PublicStats",
    "ResourceStats",
    "Runs",
    "SeccompSpec",
    "Session",
    "Sessions",
    "Settings",
    "SnapshotDiff",
    "SnapshotList",
    "SnapshotManifest",
    "SnapshotRecord",
    "Snapshots",
    "StreamEvent",
    "Whoami",
    "Workspace",
    "WorkspaceAgents",
    "WorkspaceForkResponse",
    "WorkspaceList",
    "Workspaces",
]
