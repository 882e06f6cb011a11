"""A terminal of a process, over a WebSocket. Input arrives in the order it was given."""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import inspect
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import websockets
from websockets.asyncio.client import connect
from websockets.protocol import State

from .exceptions import SandboxConnectionError
from .http import API_PREFIX
from .types import ProcessTerminalExitFrame, ProcessTerminalReadyFrame

log = logging.getLogger("sandboxagent.terminal")

Unregister = Callable[[], None]

#: What comes before anybody listens is kept up to here; older output goes first.
_EARLY_BYTES = 1 << 20

#: Bytes of input that may wait for the socket.
_WAITING = 64 << 20

#: Bytes of one frame of input; servers refuse longer ones.
_FRAME = 32 << 10

_CLOSING = 5.0


class TerminalConnectionError(SandboxConnectionError):
    """The terminal's socket did not open."""


class ProcessTerminalSession:
    """One view of a terminal. Register listeners with ``on_…``; each gives what unregisters it."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket
        self._ready_listeners: set[Callable[[ProcessTerminalReadyFrame], Any]] = set()
        self._data_listeners: set[Callable[[bytes], Any]] = set()
        self._exit_listeners: set[Callable[[ProcessTerminalExitFrame], Any]] = set()
        self._error_listeners: set[Callable[[Exception], Any]] = set()
        self._close_listeners: set[Callable[[], Any]] = set()
        self._early: deque[bytes] = deque()
        self._early_bytes = 0
        self._ready: ProcessTerminalReadyFrame | None = None
        self._exit: ProcessTerminalExitFrame | None = None
        self._closed = False
        self._done: asyncio.Future[None] | None = None
        self._outgoing: asyncio.Queue[str] | None = None
        self._waiting = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def websocket(self) -> Any:
        """The socket underneath."""
        return self._websocket

    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the terminal is closed."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
            if self._closed:
                self._done.set_result(None)
        return self._done

    def on_ready(self, listener: Callable[[ProcessTerminalReadyFrame], Any]) -> Unregister:
        """Hears that it can be written to; at once if it already can."""
        self._ready_listeners.add(listener)
        if self._ready is not None:
            _call(listener, self._ready)
        return lambda: self._ready_listeners.discard(listener)

    def on_data(self, listener: Callable[[bytes], Any]) -> Unregister:
        """Hears output; the first one also hears what came before it."""
        self._data_listeners.add(listener)
        while self._early:
            piece = self._early.popleft()
            self._early_bytes -= len(piece)
            _call(listener, piece)
        return lambda: self._data_listeners.discard(listener)

    def on_exit(self, listener: Callable[[ProcessTerminalExitFrame], Any]) -> Unregister:
        """Hears the end of the process; at once if it has ended."""
        self._exit_listeners.add(listener)
        if self._exit is not None:
            _call(listener, self._exit)
        return lambda: self._exit_listeners.discard(listener)

    def on_error(self, listener: Callable[[Exception], Any]) -> Unregister:
        """Hears what goes wrong."""
        self._error_listeners.add(listener)
        return lambda: self._error_listeners.discard(listener)

    def on_close(self, listener: Callable[[], Any]) -> Unregister:
        """Hears, once, that it is closed."""
        self._close_listeners.add(listener)
        return lambda: self._close_listeners.discard(listener)

    async def start(self) -> None:
        """Begins to read and write."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    def send_input(self, data: str | bytes) -> None:
        """Types something. Nothing happens once it is closed; a `BufferError` if far more waits than is taken."""
        if isinstance(data, str) and len(data) <= _FRAME // 4:
            self._send({"type": "input", "data": data, "encoding": None})
            return
        raw = data.encode() if isinstance(data, str) else bytes(data)
        for start in range(0, len(raw), _FRAME):
            piece = base64.b64encode(raw[start : start + _FRAME]).decode()
            self._send({"type": "input", "data": piece, "encoding": "base64"})

    def resize(self, cols: int, rows: int) -> None:
        """Tells how large the screen is."""
        self._send({"type": "resize", "cols": cols, "rows": rows})

    async def close(self) -> None:
        """Sends what waits, and closes. It may be called again."""
        if self._closed:
            return
        if self._outgoing is not None and self._is_open():
            try:
                await asyncio.wait_for(self._outgoing.join(), _CLOSING)
            except asyncio.TimeoutError:
                log.debug("input was left when a terminal was closed")
        if self._is_open():
            try:
                await self._websocket.send(json.dumps({"type": "close"}))
            except (websockets.WebSocketException, OSError):
                log.debug("the end of a terminal was not told")
        await self._websocket.close()
        self._end()

    def _send(self, frame: Mapping[str, Any]) -> None:
        if not self._is_open() or self._closed:
            return
        if self._outgoing is None:
            self._outgoing = asyncio.Queue()
        text = json.dumps(frame)
        if self._waiting + len(text) > _WAITING:
            raise BufferError("the terminal takes no more input at the moment")
        self._waiting += len(text)
        self._outgoing.put_nowait(text)
        if not self._tasks:
            # Not begun to read: what is typed is sent all the same.
            self._tasks.append(asyncio.create_task(self._write()))

    def _is_open(self) -> bool:
        return bool(getattr(self._websocket, "state", None) == State.OPEN)

    async def _write(self) -> None:
        if self._outgoing is None:
            self._outgoing = asyncio.Queue()
        while True:
            text = await self._outgoing.get()
            self._waiting -= len(text)
            try:
                await self._websocket.send(text)
            except (websockets.WebSocketException, OSError) as error:
                self._emit_error(error)
                return
            finally:
                self._outgoing.task_done()

    async def _read(self) -> None:
        try:
            async for message in self._websocket:
                if isinstance(message, bytes):
                    self._handle_binary_data(message)
                else:
                    self._handle_control_frame(message)
        except websockets.ConnectionClosedError as error:
            self._emit_error(error)
        except websockets.WebSocketException as error:
            self._emit_error(error)
        finally:
            self._end()

    def _handle_binary_data(self, data: bytes) -> None:
        if self._data_listeners:
            for listener in list(self._data_listeners):
                _call(listener, data)
            return
        self._early.append(data)
        self._early_bytes += len(data)
        while self._early_bytes > _EARLY_BYTES and len(self._early) > 1:
            self._early_bytes -= len(self._early.popleft())

    def _handle_control_frame(self, text: str) -> None:
        try:
            frame = json.loads(text)
            kind = frame["type"]
        except (ValueError, KeyError, TypeError):
            self._emit_error(ValueError(f"not a frame of a terminal: {text[:200]!r}"))
            return
        if kind == "ready":
            self._ready = ProcessTerminalReadyFrame.model_validate(frame)
            for ready in list(self._ready_listeners):
                _call(ready, self._ready)
        elif kind == "exit":
            self._exit = ProcessTerminalExitFrame.model_validate(frame)
            for listener in list(self._exit_listeners):
                _call(listener, self._exit)
        elif kind == "error":
            self._emit_error(RuntimeError(str(frame.get("message"))))
        else:
            self._emit_error(ValueError(f"a terminal has no frame {kind!r}"))

    def _emit_error(self, error: Exception) -> None:
        for listener in list(self._error_listeners):
            _call(listener, error)

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for listener in list(self._close_listeners):
            _call(listener)
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


def terminal_url(base_url: str, process_id: str, token: str | None = None) -> str:
    """The address of a terminal's socket. It holds the token, as browsers need it."""
    scheme, _, rest = base_url.rstrip("/").partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    url = f"{scheme}://{rest}{API_PREFIX}/processes/{quote(process_id, safe='')}/terminal/ws"
    return f"{url}?{urlencode({'access_token': token})}" if token else url


async def connect_process_terminal(
    base_url: str, process_id: str, *, token: str | None = None, headers: Mapping[str, str] | None = None
) -> ProcessTerminalSession:
    """Opens a terminal of a process that was started with ``tty``."""
    more: dict[str, Any] = {"max_size": None, "additional_headers": dict(headers or {})}
    if int(importlib.metadata.version("websockets").split(".")[0]) >= 15:
        # A proxy of the environment is not meant for a sandbox.
        more["proxy"] = None
    try:
        websocket = await connect(terminal_url(base_url, process_id, token), **more)
    except (websockets.WebSocketException, OSError, asyncio.TimeoutError) as error:
        raise TerminalConnectionError(f"Failed to connect to terminal WebSocket: {error}") from error
    session = ProcessTerminalSession(websocket)
    await session.start()
    return session


#: Listeners that are at work: a task that nobody holds may be collected.
_at_work: set[asyncio.Future[Any]] = set()


def _call(listener: Callable[..., Any], *values: Any) -> None:
    try:
        done = listener(*values)
    except Exception:
        log.exception("a terminal's listener failed")
        return
    if inspect.isawaitable(done):
        task = asyncio.ensure_future(done)
        _at_work.add(task)
        task.add_done_callback(_finished)


def _finished(task: asyncio.Future[Any]) -> None:
    _at_work.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a terminal's listener failed", exc_info=error)
