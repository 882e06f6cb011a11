"""The stream of a desktop, where a server has one: signalling over a WebSocket, pictures and input over WebRTC.

Needs the extra ``desktop`` (aiortc), which is loaded when a stream is opened.
"""

from __future__ import annotations

from .exceptions import DesktopNotSupportedError

__all__ = ["DesktopNotSupportedError"]
