"""The desktop of a sandbox, where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from ..exceptions import (
    DesktopNotSupportedError,
    SandboxAgentError,
)
from ..http import API_PREFIX
from .base import Part, dict_of

if TYPE_CHECKING:
    pass


class Desktop(Part):
    """Screens, pointers and keys."""

    async def desktop_status(self) -> dict[str, Any]:
        return await self._desktop("GET", "status")

    async def desktop_start(self, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._desktop("POST", "start", json=dict(config or {}))

    async def desktop_stop(self) -> dict[str, Any]:
        return await self._desktop("POST", "stop", json={})

    async def desktop_screenshot(self, format: str | None = None) -> bytes:  # noqa: A002 - part of the surface
        return (await self._desktop_response("GET", "screenshot", params={"format": format})).content

    async def desktop_mouse_move(self, x: int, y: int) -> dict[str, Any]:
        return await self._desktop("POST", "mouse/move", json={"x": x, "y": y})

    async def desktop_mouse_click(
        self, button: str = "left", clicks: int | None = None, *, x: int | None = None, y: int | None = None
    ) -> dict[str, Any]:
        """Clicks where the pointer is, or at a position."""
        body = {"button": button, "clickCount": clicks, "x": x, "y": y}
        return await self._desktop("POST", "mouse/click", json={n: v for n, v in body.items() if v is not None})

    async def desktop_keyboard_type(self, text: str) -> dict[str, Any]:
        return await self._desktop("POST", "keyboard/type", json={"text": text})

    async def desktop_windows(self) -> dict[str, Any]:
        return await self._desktop("GET", "windows")

    async def desktop_stream_start(self, *, width: int | None = None, height: int | None = None) -> dict[str, Any]:
        body = {"width": width, "height": height}
        return await self._desktop("POST", "stream/start", json={n: v for n, v in body.items() if v is not None})

    async def _desktop(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return dict_of(await self._desktop_response(method, path, **options))

    async def _desktop_response(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, f"{API_PREFIX}/desktop/{path}", **options)
        except SandboxAgentError as error:
            if error.status == 501:
                raise DesktopNotSupportedError from error
            raise
