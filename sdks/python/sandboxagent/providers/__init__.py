"""Where sandboxes come from. Each provider of a cloud loads its SDK when it is first used."""

from .agentjail import AgentjailProvider, AgentjailProviderOptions, agentjail
from .custom import CustomProvider, SandboxClient, agentcomputer, cloudflare, computesdk, sprites, vercel
from .daytona import DaytonaProvider, DaytonaProviderOptions, daytona
from .docker import DockerProvider, DockerProviderOptions, docker
from .e2b import E2bProvider, E2bProviderOptions, e2b
from .local import LocalProvider, LocalProviderOptions, local
from .modal import ModalProvider, ModalProviderOptions, modal
from .types import SandboxProvider

__all__ = [
    "AgentjailProvider",
    "AgentjailProviderOptions",
    "CustomProvider",
    "DaytonaProvider",
    "DaytonaProviderOptions",
    "DockerProvider",
    "DockerProviderOptions",
    "E2bProvider",
    "E2bProviderOptions",
    "LocalProvider",
    "LocalProviderOptions",
    "ModalProvider",
    "ModalProviderOptions",
    "SandboxClient",
    "SandboxProvider",
    "agentcomputer",
    "agentjail",
    "cloudflare",
    "computesdk",
    "daytona",
    "docker",
    "e2b",
    "local",
    "modal",
    "sprites",
    "vercel",
]
