"""ACP over HTTP: JSON-RPC envelopes to one server id, and what the agent says on an event stream.

Methods take the names that callers know (``{"sessionId", "prompt": "text"}``) and send what the protocol says.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict
from urllib.parse import quote

import httpx

from ._sse import events_of
from .exceptions import AcpError, AcpHttpError, AcpRpcError, SandboxAgentError, SandboxConnectionError
from .http import API_PREFIX, HttpTransport
from .permissions import answer_of, denied

__all__ = ["AcpError", "AcpHttpClient", "AcpHttpError", "AcpRpcError"]

log = logging.getLogger("sandboxagent.acp")

DEFAULT_ACP_PATH = f"{API_PREFIX}/acp"
PROTOCOL_VERSION = 1

Envelope = dict[str, Any]
MessageHandler = Callable[[Envelope], Any]
ErrorHandler = Callable[[Exception], Any]
CloseHandler = Callable[[], Any]

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0

#: How long an answer waits for its copy on the stream, which comes after all that was said before it, while nothing at
#: all comes.
_STREAM_LAG = 5.0

#: How long what was asked may go on when its answer is there by the stream.
_LATE_POST = 1.0

_CLOSING = 5.0


class InitializeRequest(TypedDict, total=False):
    protocolVersion: int | str
    clientCapabilities: dict[str, Any]
    clientInfo: dict[str, Any]
    _meta: dict[str, Any]


class InitializeResponse(TypedDict, total=False):
    protocolVersion: int
    agentCapabilities: dict[str, Any]
    authMethods: list[dict[str, Any]]
    capabilities: dict[str, Any]
    serverInfo: dict[str, Any]


class AuthenticateRequest(TypedDict, total=False):
    methodId: str
    token: str


class AuthenticateResponse(TypedDict, total=False):
    success: bool


class NewSessionRequest(TypedDict, total=False):
    agent: str
    cwd: str
    mcpServers: list[dict[str, Any]]
    sessionInit: dict[str, Any]
    configOptions: list[dict[str, Any]]
    modes: dict[str, Any]


class NewSessionResponse(TypedDict, total=False):
    sessionId: str
    agentSessionId: str
    modes: dict[str, Any] | None
    models: dict[str, Any] | None
    configOptions: list[dict[str, Any]] | None


class LoadSessionRequest(TypedDict, total=False):
    sessionId: str
    cwd: str
    mcpServers: list[dict[str, Any]]


class LoadSessionResponse(TypedDict, total=False):
    sessionId: str
    agentSessionId: str
    error: str | None


class PromptRequest(TypedDict, total=False):
    sessionId: str
    prompt: str | list[dict[str, Any]]
    attachments: list[dict[str, Any]]
    streaming: bool


class PromptResponse(TypedDict, total=False):
    stopReason: str
    content: str
    error: str | None


class CancelNotification(TypedDict, total=False):
    sessionId: str
    requestId: str


class SetSessionModeRequest(TypedDict, total=False):
    sessionId: str
    mode: str
    modeId: str


class SetSessionModeResponse(TypedDict, total=False):
    success: bool
    error: str | None


class SetSessionConfigOptionRequest(TypedDict, total=False):
    sessionId: str
    configId: str
    value: str


class SetSessionConfigOptionResponse(TypedDict, total=False):
    configOptions: list[dict[str, Any]]
    success: bool
    error: str | None


class ListSessionsRequest(TypedDict, total=False):
    cursor: str
    limit: int


class ListSessionsResponse(TypedDict, total=False):
    sessions: list[dict[str, Any]]
    nextCursor: str | None


class PermissionRequest(TypedDict):
    """A question of the agent's: ``permission`` is ``{toolCall, options: [{optionId, name, kind}]}``."""

    id: Any
    sessionId: str
    permission: dict[str, Any]


class PermissionResponse(TypedDict, total=False):
    """``outcome``: a word such as ``once``, ``always``, ``reject``, ``cancelled``; or ACP's own outcome."""

    id: Any
    outcome: Any


PermissionHandler = Callable[[PermissionRequest], Any]


class AcpHttpClient:
    """One connection with one agent. Use it with ``async with``, or `connect` and `disconnect`."""

    def __init__(
        self,
        base_url: str,
        server_id: str,
        *,
        agent: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        on_message: MessageHandler | None = None,
        on_error: ErrorHandler | None = None,
        on_close: CloseHandler | None = None,
        on_permission_request: PermissionHandler | None = None,
    ) -> None:
        self.server_id = server_id
        self.agent = agent
        self.on_message = on_message
        self.on_error = on_error
        self.on_close = on_close
        self.on_permission_request = on_permission_request
        #: Hears every envelope with its direction, ``outbound`` or ``inbound``.
        self.on_envelope: Callable[[str, Envelope], Any] | None = None
        self.cwd = "/"
        self._path = f"{DEFAULT_ACP_PATH}/{quote(server_id, safe='')}"
        self._http = HttpTransport(base_url, token=token, headers=headers, timeout=timeout)
        self._stream: asyncio.Task[None] | None = None
        #: Set when something is asked: then a stream that broke off is not left for long.
        self._wanted = asyncio.Event()
        self._last_event: str | None = None
        #: Whether there is a stream at the moment, how much was heard on it, and whether a handler has it now.
        self._connected = False
        self._heard = 0
        self._handling = False
        self._pending: dict[str, asyncio.Future[Envelope]] = {}
        #: Requests whose answers are awaited on the stream, too: also those that nobody waits for any more.
        self._echoes: dict[str, asyncio.Event] = {}
        #: Turns that were left before they were over, by session: what is still said is not the next one's.
        self._left: dict[str, list[asyncio.Event]] = {}
        #: Which sessions are this client's, where several speak to one agent.
        self.owns: Callable[[str], bool] | None = None
        #: Whether every answer waits for its copy, as when a stream begins with what was said before.
        self.catches_up = False
        self._asked: dict[str, PermissionRequest] = {}
        self._questions: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        #: The sandbox is being removed: that the stream breaks off is no failure then.
        self.is_leaving = False
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AcpHttpClient:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    # Life

    async def connect(self) -> None:
        """Begins to listen; what cannot be heard yet is heard later."""
        self._check_open()
        if self._stream is None:
            self._stream = asyncio.create_task(self._listen(), name=f"acp {self.server_id}")

    async def disconnect(self, *, end: bool = True) -> None:
        """Stops listening, and ends the agent's process unless ``end`` is false."""
        if self._closing is None:
            self._closed = True
            # To its end, also if whoever asked for it waits no longer; a handler of ours may be who asked.
            self._closing = asyncio.create_task(self._close(end, asyncio.current_task()))
        await asyncio.shield(self._closing)

    async def _close(self, end: bool, asker: asyncio.Task[Any] | None) -> None:
        all_tasks = (self._stream, *self._questions.values())
        tasks = [task for task in all_tasks if task is not None and task is not asker]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if end:
            try:
                await self._http.request("DELETE", self._path, timeout=_CLOSING)
            except (SandboxAgentError, SandboxConnectionError) as error:
                if getattr(error, "status", 0) != 404:
                    log.debug("the end of %s was not told: %s", self.server_id, error)
        await self._http.close()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(AcpHttpError(0, {"title": "the connection was closed"}))
                # Whoever never looks is not told twice.
                future.exception()
        self._pending.clear()
        if self.on_close is not None:
            await _called(self.on_close)

    # Methods of the protocol

    async def initialize(self, request: InitializeRequest | None = None) -> dict[str, Any]:
        """``initialize``: what each side can do."""
        params: dict[str, Any] = {
            "protocolVersion": PROTOCOL_VERSION,
            "clientCapabilities": {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
            "clientInfo": {"name": "sandboxagent", "version": _version()},
        }
        return await self.request("initialize", {**params, **(request or {})})

    async def authenticate(self, request: AuthenticateRequest | Mapping[str, Any]) -> dict[str, Any]:
        """``authenticate``: by ``methodId``; a ``token`` goes beside it for agents that want one."""
        return await self.request("authenticate", dict(request))

    async def new_session(self, request: NewSessionRequest | Mapping[str, Any]) -> dict[str, Any]:
        """``session/new``: gives ``sessionId``, ``modes``, ``configOptions``."""
        given = dict(request)
        agent = given.pop("agent", None)
        if agent is not None:
            self.agent = str(agent)
        init = given.pop("sessionInit", None) or {}
        params: dict[str, Any] = {"cwd": self.cwd, "mcpServers": [], **given, **init}
        if isinstance(env := params.pop("env", None), dict):
            params["_meta"] = {**params.get("_meta", {}), "env": env}
        answer = await self.request("session/new", params)
        answer.setdefault("agentSessionId", answer.get("sessionId"))
        return answer

    async def load_session(self, request: LoadSessionRequest | Mapping[str, Any]) -> dict[str, Any]:
        """``session/load``: goes on with a session that the agent knows."""
        params = {"cwd": self.cwd, "mcpServers": [], **dict(request)}
        answer = await self.request("session/load", params)
        return {"sessionId": params.get("sessionId"), "agentSessionId": params.get("sessionId"), **answer}

    async def prompt(self, request: PromptRequest | Mapping[str, Any]) -> dict[str, Any]:
        """``session/prompt``: text becomes a content block. It may take as long as it takes."""
        given = dict(request)
        blocks = content_blocks(given.pop("prompt", ""), given.pop("attachments", None))
        given.pop("streaming", None)
        return await self.request("session/prompt", {**given, "prompt": blocks})

    async def cancel(self, request: CancelNotification | Mapping[str, Any]) -> None:
        """``session/cancel``: ends what the agent does at the moment."""
        session = dict(request).get("sessionId")
        await self.notify("session/cancel", {"sessionId": session})
        # A question of a turn that is over is answered so, as the protocol has it.
        for number, asked in list(self._asked.items()):
            if session in (None, asked["sessionId"]):
                self._asked.pop(number, None)
                if (question := self._questions.get(number)) is not None and question is not asyncio.current_task():
                    question.cancel()
                await self._answer_quietly(asked["id"], {"outcome": {"outcome": "cancelled"}})

    async def set_session_mode(self, request: SetSessionModeRequest | Mapping[str, Any]) -> dict[str, Any]:
        """``session/set_mode``"""
        given = dict(request)
        mode = given.pop("mode", None)
        given.setdefault("modeId", mode)
        return await self.request("session/set_mode", given)

    async def set_session_config_option(
        self, request: SetSessionConfigOptionRequest | Mapping[str, Any]
    ) -> dict[str, Any]:
        """``session/set_config_option``"""
        return await self.request("session/set_config_option", dict(request))

    async def list_sessions(self, request: ListSessionsRequest | Mapping[str, Any] | None = None) -> dict[str, Any]:
        """``session/list``: sessions that the agent knows."""
        return await self.request("session/list", dict(request or {}))

    async def ext_method(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A method of the agent's own."""
        return await self.request(method, dict(params or {}))

    async def ext_notification(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """A notification of the agent's own."""
        await self.notify(method, dict(params or {}))

    # Permissions

    @property
    def open_permissions(self) -> list[PermissionRequest]:
        """Questions of the agent that nobody has answered."""
        return list(self._asked.values())

    async def respond_permission(self, permission_id: Any, reply: Any) -> bool:
        """Answers a question that was left open; whether there was one.

        ``reply``: ``once``, ``always``, ``reject``, ``cancelled``, an option's id, or ACP's own outcome.
        """
        asked = self._asked.get(str(permission_id))
        if asked is None:
            return False
        outcome = answer_of(reply, asked)
        self._asked.pop(str(permission_id), None)
        await self.respond(asked["id"], {"outcome": outcome})
        return True

    # Envelopes

    async def request(self, method: str, params: Any = None) -> dict[str, Any]:
        """Sends a request and gives its result; when it is given, all that was said before it was heard."""
        self._check_open()
        # Never the same twice, whoever else speaks to this server.
        number = uuid.uuid4().hex
        envelope: Envelope = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        echo = asyncio.Event()
        session = str((params or {}).get("sessionId", "")) if isinstance(params, Mapping) else ""
        whole = method in ("session/prompt", "session/load") or self.catches_up
        self._pending[number], self._echoes[number] = future, echo
        self._wanted.set()
        try:
            answer = await self._answer(envelope, future)
            self._wanted.set()
            if whole:
                # Also where the stream broke off meanwhile: it goes on where it was.
                await self._until_heard(echo, must=True)
        except asyncio.CancelledError:
            if method == "session/prompt" and not echo.is_set():
                self._left.setdefault(session, []).append(echo)
            raise
        finally:
            self._pending.pop(number, None)
            if echo not in self._left.get(session, []):
                self._echoes.pop(number, None)
        if (error := answer.get("error")) is not None:
            raise AcpRpcError(error.get("code", -32603), error.get("message", "unknown"), error.get("data"))
        result = answer.get("result")
        return result if isinstance(result, dict) else {} if result is None else {"result": result}

    async def settle(self, session: str) -> None:
        """Waits until nothing more is said of turns that were left before they were over."""
        for left in self._left.pop(session, []):
            await self._until_heard(left, must=False)

    async def _answer(self, envelope: Envelope, future: asyncio.Future[Envelope]) -> Envelope:
        """The answer, by whichever way it comes: to what was sent, or on the stream."""
        post = asyncio.create_task(self._post(envelope))
        try:
            both: set[asyncio.Future[Any]] = {post, future}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                await _in_time(asyncio.shield(post), _LATE_POST)
                return future.result()
            try:
                answer = post.result()
            except AcpHttpError as error:
                if error.status != 0 or isinstance(_root(error), httpx.ConnectError):
                    raise
                # It was sent, and its answer was lost on the way: the turn goes on all the same.
                return await self._from_stream(future, error)
            return answer if answer is not None else await future
        finally:
            if not post.done():
                post.cancel()
            post.add_done_callback(_looked_at)

    async def _from_stream(self, future: asyncio.Future[Envelope], lost: AcpHttpError) -> Envelope:
        """An answer that can only come on the stream: for as long as there is one, or soon is again."""
        while not future.done():
            await asyncio.wait({future}, timeout=_STREAM_LAG)
            if not future.done() and not self._connected:
                raise lost
        return future.result()

    async def _until_heard(self, echo: asyncio.Event, *, must: bool) -> None:
        """Until all was heard that was said before an answer, however long handlers take for it. It is an error
        (``must``) if the stream is gone; one that is there and has nothing to say is of a server that says answers once."""
        if self._stream is None or asyncio.current_task() is self._stream:
            # Whoever asks from within a handler cannot hear more.
            return
        while not echo.is_set():
            heard = self._heard
            await _in_time(echo.wait(), _STREAM_LAG)
            if echo.is_set() or self._handling or self._heard != heard:
                continue
            if self._connected or not must:
                return
            raise AcpHttpError(0, {"title": "the stream broke off before all that was said had come"})

    async def notify(self, method: str, params: Any = None) -> None:
        """Sends something that is not answered."""
        self._check_open()
        await self._post({"jsonrpc": "2.0", "method": method, "params": params})

    async def respond(self, number: Any, result: Any) -> None:
        """Answers a request of the agent's."""
        self._check_open()
        await self._post({"jsonrpc": "2.0", "id": number, "result": result})

    async def _post(self, envelope: Envelope) -> Envelope | None:
        if self.on_envelope is not None:
            await _called(self.on_envelope, "outbound", envelope)
        try:
            # The server says something every few seconds while a long answer is on its way.
            response = await self._http.post(self._path, json=envelope, params={"agent": self.agent}, timeout=None)
        except SandboxAgentError as error:
            raise AcpHttpError(error.status, error.problem, error.response) from error
        except SandboxConnectionError as error:
            raise AcpHttpError(0, {"title": str(error)}) from error
        text = response.content.strip()
        if response.status_code != 200 or not text:
            return None
        answer = json.loads(text)
        return answer if isinstance(answer, dict) else None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the ACP client is closed")

    # The stream

    async def _listen(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                headers = {"accept": "text/event-stream"}
                if self._last_event is not None:
                    headers["last-event-id"] = self._last_event
                limits = httpx.Timeout(30.0, read=None)
                async with self._http.stream("GET", self._path, headers=headers, timeout=limits) as response:
                    self._connected = True
                    async for event in events_of(response):
                        delay = _FIRST_DELAY
                        self._heard += 1
                        if event.id is not None:
                            self._last_event = event.id
                        if event.name == "message":
                            self._handling = True
                            await self._hear(event.data)
                            self._handling = False
                        if self._closed:
                            return
            except asyncio.CancelledError:
                raise
            except SandboxAgentError as error:
                # Nothing to hear before the first message is sent.
                if error.status != 404:
                    await self._failed(error)
            except Exception as error:
                await self._failed(error)
            finally:
                self._connected = self._handling = False
            if self._closed:
                return
            self._wanted.clear()
            await _in_time(self._wanted.wait(), delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _failed(self, error: Exception) -> None:
        if self.is_leaving:
            return
        log.warning("the stream of %s broke off: %s", self.server_id, error)
        if self.on_error is not None:
            await _called(self.on_error, error)

    async def _hear(self, text: str) -> None:
        try:
            envelope = json.loads(text)
        except ValueError:
            log.warning("what is not JSON was said by %s", self.server_id)
            return
        if not isinstance(envelope, dict):
            return
        number = envelope.get("id")
        if self.on_envelope is not None:
            await _called(self.on_envelope, "inbound", envelope)
        if "method" not in envelope:
            self._hear_answer(str(number), envelope)
        elif number is not None:
            session = str((envelope.get("params") or {}).get("sessionId", ""))
            if self.owns is not None and not self.owns(session):
                # Another client's to answer.
                return
            asks = envelope["method"] == "session/request_permission"
            question = asyncio.create_task(self._ask(envelope) if asks else self._refuse(envelope))
            self._questions[str(number)] = question
            question.add_done_callback(lambda _: self._questions.pop(str(number), None))
        elif self.on_message is not None:
            await _called(self.on_message, envelope)

    def _hear_answer(self, number: str, envelope: Envelope) -> None:
        if (echo := self._echoes.pop(number, None)) is not None:
            echo.set()
        future = self._pending.get(number)
        if future is not None and not future.done():
            future.set_result(envelope)

    async def _ask(self, envelope: Envelope) -> None:
        params = envelope.get("params") or {}
        asked: PermissionRequest = {
            "id": envelope["id"],
            "sessionId": params.get("sessionId", ""),
            "permission": {"toolCall": params.get("toolCall"), "options": params.get("options") or []},
        }
        self._asked[str(envelope["id"])] = asked
        if self.on_message is not None:
            await _called(self.on_message, envelope)
        if self.on_permission_request is None:
            outcome: Any = denied(asked)
        else:
            try:
                reply = await _awaited(self.on_permission_request(asked))
                if reply is None or self._closed:
                    # Whoever was asked answers later, or not at all.
                    return
                outcome = answer_of(reply, asked)
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("a permission handler failed; what it was asked for is denied")
                outcome = denied(asked)
        if self._asked.pop(str(envelope["id"]), None) is not None and not self._closed:
            await self._answer_quietly(envelope["id"], {"outcome": outcome})

    async def _refuse(self, envelope: Envelope) -> None:
        text = f"this client has no {envelope['method']}"
        answer = {"jsonrpc": "2.0", "id": envelope["id"], "error": {"code": -32601, "message": text}}
        try:
            await self._post(answer)
        except AcpError as error:
            await self._failed(error)

    async def _answer_quietly(self, number: Any, result: Any) -> None:
        try:
            await self.respond(number, result)
        except AcpError as error:
            await self._failed(error)


def content_blocks(
    prompt: str | list[dict[str, Any]], attachments: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """A prompt as content blocks. An attachment is a block, or ``{path}``, which becomes a link to a file."""
    blocks = [{"type": "text", "text": prompt}] if isinstance(prompt, str) else list(prompt)
    for attachment in attachments or []:
        if "type" in attachment:
            blocks.append(attachment)
        elif isinstance(path := attachment.get("path"), str):
            name = attachment.get("name") or path.rsplit("/", 1)[-1]
            blocks.append({"type": "resource_link", "uri": f"file://{quote(path)}", "name": name})
        else:
            raise ValueError("an attachment is a content block with `type`, or has a `path`")
    return blocks


async def _called(handler: Callable[..., Any], *values: Any) -> None:
    """Calls what a caller gave us; what goes wrong in it is theirs, and logged."""
    try:
        await _awaited(handler(*values))
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a handler failed")


def _looked_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _in_time(wait: Awaitable[Any], seconds: float) -> None:
    try:
        await asyncio.wait_for(wait, seconds)
    except asyncio.TimeoutError:
        return


def _version() -> str:
    from . import __version__

    return __version__
