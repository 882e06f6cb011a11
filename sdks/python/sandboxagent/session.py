"""A session with a coding agent."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .acp import AcpHttpClient, CloseHandler, ErrorHandler, MessageHandler, PermissionHandler
from .exceptions import (
    SessionNotConnectedError,
    UnsupportedSessionCategoryError,
    UnsupportedSessionConfigOptionError,
    UnsupportedSessionValueError,
)
from .types import SessionRecord

if TYPE_CHECKING:
    from .client import SandboxAgent
    from .terminal import ProcessTerminalSession

#: Events that a transcript is made of.
_TRACKED = 10_000

#: Updates of a turn that may wait for a slow reader; then the stream waits.
_STREAMED = 256

#: What agents call the mode in which they work, for callers who ask for it by another's name.
_WORKING_MODES = ("code", "build", "default", "agent", "auto", "normal", "ask")


async def _next_of(updates: asyncio.Queue[dict[str, Any]], turn: asyncio.Task[Any]) -> dict[str, Any] | None:
    """The next update of a turn; ``None`` when it is over: its answer comes after all of them."""
    if updates.empty() and not turn.done():
        more = asyncio.create_task(updates.get())
        try:
            await asyncio.wait({more, turn}, return_when=asyncio.FIRST_COMPLETED)
            if more.done():
                return more.result()
        finally:
            more.cancel()
    return None if updates.empty() else updates.get_nowait()


class Session:
    """One conversation. Make it with `SandboxAgent.create_session`."""

    def __init__(self, sandbox: SandboxAgent, record: SessionRecord, acp_client: AcpHttpClient | None = None) -> None:
        self._sandbox = sandbox
        self._record = record.model_copy(deep=True)
        self._acp_client = acp_client
        self._message_handlers: list[MessageHandler] = []
        self._error_handlers: list[ErrorHandler] = []
        self._close_handlers: list[CloseHandler] = []
        self._permission_callback: PermissionHandler | None = None
        self._track_events = False
        self._events: deque[dict[str, Any]] = deque(maxlen=_TRACKED)
        self._turn: list[str] | None = None
        self._hears: Callable[[dict[str, Any]], Awaitable[None]] | None = None
        self._speaking = asyncio.Lock()
        #: Envelopes that came before the session was on record.
        self._early: list[tuple[str, dict[str, Any]]] | None = []
        self._models: dict[str, Any] = {}
        self._tools: dict[str, Callable[..., Any]] = {}

    # What it is

    @property
    def id(self) -> str:
        """This client's name of it."""
        return self._record.id

    @property
    def agent(self) -> str:
        return self._record.agent

    @property
    def agent_session_id(self) -> str:
        """The agent's name of it."""
        return self._record.agent_session_id

    @property
    def created_at(self) -> int:
        """Seconds since 1970."""
        return self._record.created_at

    @property
    def destroyed_at(self) -> int | None:
        """Seconds since 1970."""
        return self._record.destroyed_at

    @property
    def acp_client(self) -> AcpHttpClient | None:
        return self._acp_client

    def to_record(self) -> SessionRecord:
        """A copy of what is kept of it."""
        return self._record.model_copy(deep=True)

    # Speaking

    async def prompt(
        self,
        prompt: str | list[dict[str, Any]],
        attachments: list[dict[str, Any]] | None = None,
        streaming: bool = False,
    ) -> dict[str, Any]:
        """Says something, and gives the answer: ``{"stopReason", "text", …}``, when the turn is over.

        What the agent does meanwhile reaches ``on_message`` in either case; `stream` gives it as it comes.
        """
        return await self._say(prompt, attachments, streaming, None)

    async def _say(
        self,
        prompt: str | list[dict[str, Any]],
        attachments: list[dict[str, Any]] | None,
        streaming: bool,
        hear: Callable[[dict[str, Any]], Awaitable[None]] | None,
    ) -> dict[str, Any]:
        client = self._client()
        request = {"sessionId": self.agent_session_id, "prompt": prompt, "streaming": streaming}
        if attachments is not None:
            request["attachments"] = attachments
        # A conversation has one turn at a time.
        async with self._speaking:
            await client.settle(self.agent_session_id)
            said = self._turn = list[str]()
            self._hears = hear
            try:
                answer = await client.prompt(request)
            except asyncio.CancelledError:
                # Nobody waits for the turn any more: it is not to go on.
                await asyncio.shield(self._cancel_quietly())
                raise
            finally:
                self._turn = self._hears = None
        return {**answer, "text": "".join(said)}

    async def stream(
        self, prompt: str | list[dict[str, Any]], attachments: list[dict[str, Any]] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Says something, and gives each update of the turn as it comes (``{"sessionUpdate": …}``). Leaving the loop
        ends the turn. Whoever reads slowly makes the stream wait, and loses nothing."""
        updates: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_STREAMED)
        left = False

        async def take(update: dict[str, Any]) -> None:
            if not left:
                await updates.put(update)

        turn = asyncio.create_task(self._say(prompt, attachments, True, take))
        try:
            while True:
                update = await _next_of(updates, turn)
                if update is None:
                    break
                yield update
            await turn
        finally:
            left = True
            # One that waits for room has it.
            while not updates.empty():
                updates.get_nowait()
            if not turn.done():
                turn.cancel()
                await asyncio.wait([turn])

    async def cancel(self, request_id: str | None = None) -> None:
        """Ends what the agent does at the moment; its prompt is answered with ``cancelled``."""
        await self._client().cancel({"sessionId": self.agent_session_id, "requestId": request_id or ""})

    async def _cancel_quietly(self) -> None:
        try:
            await asyncio.wait_for(self.cancel(), 2)
        except Exception:
            return

    # Settings

    async def set_mode(self, mode: str) -> dict[str, Any]:
        """Sets the mode. Where the agent has it by another name, ``code`` is the mode in which it works."""
        offered = [str(entry.get("id")) for entry in (self._record.modes or {}).get("availableModes", [])]
        if not offered:
            if self._option("mode") is None:
                # One that does not say which modes it has is asked.
                return await self._client().set_session_mode({"sessionId": self.agent_session_id, "mode": mode})
            return await self._set_by_category("mode", mode)
        if mode not in offered:
            if mode != "code":
                raise UnsupportedSessionValueError(self.id, "mode", "mode", mode, offered)
            mode = next((known for known in _WORKING_MODES if known in offered), offered[0])
        answer = await self._client().set_session_mode({"sessionId": self.agent_session_id, "mode": mode})
        self._record.modes = {**(self._record.modes or {}), "currentModeId": mode}
        await self._keep()
        return answer

    async def set_model(self, model: str) -> dict[str, Any]:
        """Sets the model, by the agent's name for it or by its maker's."""
        if self._option("model") is not None:
            return await self._set_by_category("model", model)
        offered = [str(entry.get("modelId")) for entry in self._models.get("availableModels", [])]
        if not offered:
            raise UnsupportedSessionCategoryError(self.id, "model", self._categories())
        chosen = _nearest(model, offered)
        if chosen is None:
            raise UnsupportedSessionValueError(self.id, "model", "model", model, offered)
        return await self._client().request(
            "session/set_model", {"sessionId": self.agent_session_id, "modelId": chosen}
        )

    async def set_thought_level(self, level: str) -> dict[str, Any]:
        """Sets how much the agent thinks."""
        return await self._set_by_category("thought_level", level)

    async def set_config_option(self, config_id: str, value: str) -> dict[str, Any]:
        """Sets an option by its id."""
        option = next((known for known in self.config_options() if known.get("id") == config_id), None)
        if option is None:
            known_ids = [str(known.get("id")) for known in self.config_options()]
            raise UnsupportedSessionConfigOptionError(self.id, config_id, known_ids)
        return await self._set(option, value)

    def config_options(self) -> list[dict[str, Any]]:
        """What can be set: ``[{id, name, category?, currentValue, options: [{value, name}]}]``."""
        return list(self._record.config_options or [])

    def modes(self) -> dict[str, Any]:
        """``{currentModeId, availableModes: [{id, name}]}``"""
        return dict(self._record.modes or {})

    def _option(self, category: str) -> dict[str, Any] | None:
        options = self.config_options()
        by_category = (option for option in options if option.get("category") == category)
        return next(by_category, next((option for option in options if option.get("id") == category), None))

    def _categories(self) -> list[str]:
        return [str(option.get("category") or option.get("id")) for option in self.config_options()]

    async def _set_by_category(self, category: str, value: str) -> dict[str, Any]:
        option = self._option(category)
        if option is None:
            raise UnsupportedSessionCategoryError(self.id, category, self._categories())
        return await self._set(option, value)

    async def _set(self, option: Mapping[str, Any], value: str) -> dict[str, Any]:
        offered = _values(option.get("options"))
        category = str(option.get("category") or option.get("id"))
        chosen = value if not offered else _nearest(value, offered) if category == "model" else value
        if chosen is None or (offered and chosen not in offered):
            raise UnsupportedSessionValueError(self.id, category, str(option.get("id")), value, offered)
        request = {"sessionId": self.agent_session_id, "configId": option["id"], "value": chosen}
        answer = await self._client().set_session_config_option(request)
        if isinstance(options := answer.get("configOptions"), list):
            self._record.config_options = options
        else:
            for known in self._record.config_options or []:
                if known.get("id") == option["id"]:
                    known["currentValue"] = chosen
        await self._keep()
        return answer

    # Listening

    def on_message(self, handler: MessageHandler) -> MessageHandler:
        """Hears what the agent says. Also a decorator."""
        self._message_handlers.append(handler)
        return handler

    def on_error(self, handler: ErrorHandler) -> ErrorHandler:
        """Hears what goes wrong with the connection."""
        self._error_handlers.append(handler)
        return handler

    def on_close(self, handler: CloseHandler) -> CloseHandler:
        """Hears that the connection is closed."""
        self._close_handlers.append(handler)
        return handler

    def set_permission_callback(self, callback: PermissionHandler | None) -> None:
        """Says who answers the agent's questions; without anybody, they are answered with no.

        The callback is given a `PermissionRequest` and gives a word (``once``, ``always``, ``reject``), an option's id,
        a `PermissionResponse`, or ``None`` to answer later with `SandboxAgent.respond_permission`. It may be async.
        """
        self._permission_callback = callback
        if self._acp_client is not None:
            self._acp_client.on_permission_request = callback

    def track_events(self, enabled: bool = True) -> None:
        """Begins or ends to keep what is said, for `get_transcript`."""
        self._track_events = enabled

    def get_transcript(self, max_events: int = 100) -> str:
        """What was said while it was kept, a line each."""
        events = list(self._events)[-max_events:] if max_events > 0 else []
        if not events:
            return "(no events recorded)"
        lines = [f"# Session {self.id} transcript", ""]
        for event in events:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event["timestamp"]))
            lines.append(f"[{when}] {event['role']}: {event['content']}")
        return "\n".join(lines)

    async def attach_terminal(
        self,
        process_id: str,
        *,
        on_data: Callable[[bytes], Any] | None = None,
        on_exit: Callable[[Any], Any] | None = None,
        on_error: Callable[[Exception], Any] | None = None,
    ) -> ProcessTerminalSession:
        """Opens the terminal of a process in the session's sandbox."""
        terminal = await self._sandbox.connect_process_terminal(process_id)
        if on_error is not None:
            terminal.on_error(on_error)
        if on_exit is not None:
            terminal.on_exit(on_exit)
        if on_data is not None:
            terminal.on_data(on_data)
        return terminal

    async def start_desktop(self, *, width: int | None = None, height: int | None = None) -> Any:
        """Opens the desktop's stream, where there is one."""
        return await self._sandbox.desktop_stream_start(width=width, height=height)

    # The protocol underneath

    async def initialize(self, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Connects, and says who we are."""
        client = self._client()
        await client.connect()
        return await client.initialize(cast(Any, request))

    async def authenticate(self, token: str) -> dict[str, Any]:
        """Authenticates with the agent, where it wants that."""
        return await self._client().authenticate({"token": token})

    async def new_session(
        self,
        agent: str,
        session_init: Mapping[str, Any] | None = None,
        config_options: list[dict[str, Any]] | None = None,
        modes: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Begins another conversation over the same connection. ``session_init``: ``cwd``, ``mcpServers``, ``env``."""
        given = {"sessionInit": session_init, "configOptions": config_options, "modes": modes}
        request = {"agent": agent, **{name: value for name, value in given.items() if value is not None}}
        return await self._client().new_session(request)

    async def load_session(self, session_id: str) -> dict[str, Any]:
        """Goes on with a conversation that the agent knows."""
        return await self._client().load_session({"sessionId": session_id})

    async def get_mcp_config(self) -> dict[str, Any]:
        return await self._sandbox.session_config("GET", self.agent_session_id, "mcp")

    async def set_mcp_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return await self._sandbox.session_config("PUT", self.agent_session_id, "mcp", config)

    async def get_skills_config(self) -> dict[str, Any]:
        return await self._sandbox.session_config("GET", self.agent_session_id, "skills")

    async def set_skills_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return await self._sandbox.session_config("PUT", self.agent_session_id, "skills", config)

    async def register_custom_tool(
        self,
        name: str,
        handler: Callable[..., Any],
        description: str | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """Offers a function of this process to the agent as a tool, if the agent takes tools over the connection
        (``_tools/register``); one that does not answers with `AcpRpcError`."""
        params = {"sessionId": self.agent_session_id, "name": name, "description": description, "schema": schema}
        await self._client().ext_method("_tools/register", params)
        self._tools[name] = handler

    async def unregister_custom_tool(self, name: str) -> None:
        """Takes it back."""
        await self._client().ext_method("_tools/unregister", {"sessionId": self.agent_session_id, "name": name})
        self._tools.pop(name, None)

    # For the client

    def _take_up(self, answer: Mapping[str, Any]) -> None:
        """What the agent says of a session that it has begun, or goes on with."""
        if not self._record.agent_session_id:
            self._record.agent_session_id = str(answer.get("agentSessionId") or answer.get("sessionId") or "")
        self._models = answer.get("models") or {}
        if answer.get("configOptions"):
            self._record.config_options = answer["configOptions"]
        if answer.get("modes"):
            self._record.modes = answer["modes"]

    def _client(self) -> AcpHttpClient:
        if self._acp_client is None:
            raise SessionNotConnectedError
        return self._acp_client

    async def _keep(self) -> None:
        await self._sandbox.persist.update_session(self.to_record())

    async def _hear(self, envelope: dict[str, Any]) -> None:
        params = envelope.get("params") or {}
        update = params.get("update") or {}
        if params.get("sessionId", self.agent_session_id) != self.agent_session_id:
            return
        if self._turn is not None and update.get("sessionUpdate") == "agent_message_chunk":
            self._turn.append(str((update.get("content") or {}).get("text", "")))
        if self._hears is not None and envelope.get("method") == "session/update":
            await self._hears(update)
        if update.get("sessionUpdate") == "current_mode_update":
            self._record.modes = {**(self._record.modes or {}), "currentModeId": update.get("currentModeId")}
        if update.get("sessionUpdate") == "config_option_update" and isinstance(update.get("configOptions"), list):
            self._record.config_options = update["configOptions"]
        if self._track_events:
            role = (envelope.get("message") or {}).get("role", "agent")
            self._events.append({"timestamp": int(time.time()), "role": role, "content": json.dumps(envelope)})


def _values(options: Any) -> list[str]:
    """The values of a choice, which may stand in groups."""
    found: list[str] = []
    for option in options or []:
        found += _values(option["options"]) if "options" in option else [str(option.get("value"))]
    return found


def _nearest(wanted: str, offered: list[str]) -> str | None:
    """A model by the agent's name: that very one, or the family that is meant (``claude-sonnet-4-…`` is ``sonnet``, and
    ``sonnet`` is ``claude-sonnet-4-…``), if only one can be."""
    if wanted in offered:
        return wanted
    words = re.split(r"[-/ ]", wanted.lower())
    families = [name for name in offered if name.lower() in words]
    members = [name for name in offered if wanted.lower() in re.split(r"[-/ ]", name.lower())]
    for found in (families, members):
        if len(found) == 1:
            return found[0]
    return None
