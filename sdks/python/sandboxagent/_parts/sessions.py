"""Sessions with coding agents."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from ..acp import AcpHttpClient, CloseHandler, ErrorHandler, MessageHandler, PermissionHandler
from ..exceptions import (
    SandboxAgentError,
    SandboxConnectionError,
    SessionNotFoundError,
)
from ..http import API_PREFIX
from ..persistence import REPLAY_HEAD, build_replay_text
from ..session import Session
from ..types import SessionEvent, SessionRecord
from .base import Part, dict_of

if TYPE_CHECKING:
    from ..client import SandboxAgent

#: Envelopes of a session that begins, until it is on record.
_EARLY = 10_000
log = logging.getLogger("sandboxagent.client")


class Sessions(Part):
    """Beginning, going on with, and ending conversations."""

    _replay: tuple[int, int]
    _disposing: asyncio.Task[None] | None
    _resuming: dict[str, asyncio.Lock]
    _event_listeners: dict[str, set[Callable[[dict[str, Any]], Any]]]
    _sessions: dict[str, Session]
    _indices: dict[str, int]

    async def create_session(
        self,
        *,
        agent: str,
        server_id: str | None = None,
        mode: str | None = None,
        model: str | None = None,
        thought_level: str | None = None,
        id: str | None = None,  # noqa: A002 - part of the surface
        session_id: str | None = None,
        on_message: MessageHandler | None = None,
        on_error: ErrorHandler | None = None,
        on_close: CloseHandler | None = None,
        on_permission_request: PermissionHandler | None = None,
        cwd: str | None = None,
        session_init: Mapping[str, Any] | None = None,
    ) -> Session:
        """Begins a conversation with an agent, in a process of its own unless ``server_id`` names one.

        ``cwd`` is where it works; ``session_init`` may add ``mcpServers`` and ``env``.
        """
        local = session_id or id or str(uuid.uuid4())
        if local in self._sessions:
            raise ValueError(f"session_id: there is a session {local} already; end it first, or resume it")
        client = self._acp(server_id or f"py-{uuid.uuid4().hex[:20]}", agent, cwd)
        client.on_permission_request = on_permission_request
        record = SessionRecord(
            id=local,
            agent=agent,
            agent_session_id="",
            last_connection_id=client.server_id,
            created_at=int(time.time()),
            sandbox_id=self._sandbox_id,
            session_init={"cwd": client.cwd, **(session_init or {})},
        )
        # Variables of a session may be keys: they are kept nowhere.
        (record.session_init or {}).pop("env", None)
        session = Session(cast("SandboxAgent", self), record, client)
        for handler, handlers in (
            (on_message, session._message_handlers),
            (on_error, session._error_handlers),
            (on_close, session._close_handlers),
        ):
            if handler is not None:
                cast(list[Any], handlers).append(handler)
        # What an agent says while it begins is heard, too.
        self._wire(session, client)
        try:
            await client.connect()
            greeting = await client.initialize()
            answer = await self._open(client, greeting, agent, session_init)
            session._take_up(answer)
            await self._adopt(session)
        except BaseException:
            self._sessions.pop(local, None)
            await client.disconnect(end=not self._is_shared(session))
            raise
        try:
            if mode is not None:
                await session.set_mode(mode)
            if model is not None:
                await session.set_model(model)
            if thought_level is not None:
                await session.set_thought_level(thought_level)
        except BaseException:
            await self.destroy_session(local)
            raise
        return session

    async def resume_session(self, session_id: str) -> Session:
        """Goes on with a session that this client's store knows, or its server: by either name."""
        # Two at once get the same.
        async with self._resuming.setdefault(session_id, asyncio.Lock()):
            try:
                return self._sessions.get(session_id) or await self._resumed(session_id)
            finally:
                self._resuming.pop(session_id, None)

    async def _resumed(self, session_id: str) -> Session:
        record = await self.persist.get_session(session_id) or await self._from_server(session_id)
        if record is None:
            raise SessionNotFoundError(session_id)
        cwd = (record.session_init or {}).get("cwd")
        client = self._acp(record.last_connection_id, record.agent, cwd)
        session = Session(cast("SandboxAgent", self), record, client)
        # The stream begins with what was said before, and nothing of that belongs to what comes.
        client.catches_up = True
        # Questions that stand open wait for whoever answers the session's.
        client.on_permission_request = lambda _: None
        try:
            await client.connect()
            greeting = await client.initialize()
            loadable = bool((greeting.get("agentCapabilities") or {}).get("loadSession"))
            if loadable and record.agent_session_id:
                answer = await client.load_session({"sessionId": record.agent_session_id})
            else:
                answer = await self._open(client, greeting, record.agent, None)
                session._record.agent_session_id = ""
                await self._replay_into(session, client)
            client.catches_up = False
            client.on_permission_request = None
            session._record.destroyed_at = None
            session._take_up(answer)
            self._wire(session, client)
            await self._adopt(session)
        except BaseException:
            self._sessions.pop(session_id, None)
            await client.disconnect(end=False)
            raise
        return session

    async def resume_or_create_session(
        self, agent: str, resume_token: str | None = None, config: Mapping[str, Any] | None = None
    ) -> Session:
        """Resumes a session by its id, or begins another if it is not known."""
        if resume_token is not None:
            try:
                return await self.resume_session(resume_token)
            except SessionNotFoundError:
                pass
        return await self.create_session(agent=agent, **dict(config or {}))

    async def destroy_session(self, session_id: str) -> None:
        """Ends a session and its agent's process; what was said stays on record. Unknown ids are none."""
        session = self._sessions.pop(session_id, None)
        self._event_listeners.pop(session_id, None)
        record = session.to_record() if session is not None else await self.persist.get_session(session_id)
        if session is not None and session.acp_client is not None:
            await session.acp_client.disconnect(end=not self._is_shared(session))
        if record is None:
            return
        record.destroyed_at = record.destroyed_at or int(time.time())
        await self.persist.update_session(record)
        if session is not None:
            session._record.destroyed_at = record.destroyed_at

    async def list_sessions(self, page: int = 1, per_page: int = 10) -> dict[str, Any]:
        """Sessions on record, newest first: ``{sessions, page, perPage, total}``, those of this client's store and, by
        the agent's name, others that the server knows."""
        page, per_page = max(page, 1), max(per_page, 1)
        records: list[SessionRecord] = []
        cursor: str | None = None
        while True:
            found = await self.persist.list_sessions(cursor=cursor)
            records += found.items
            cursor = found.next_cursor
            if cursor is None:
                break
        known = {record.agent_session_id for record in records}
        try:
            response = await self._http.get(f"{API_PREFIX}/sessions", params={"page": 1, "perPage": 500})
            for other in response.json().get("sessions", []):
                if other.get("agentSessionId") not in known:
                    records.append(SessionRecord.model_validate(other))
        except SandboxAgentError as error:
            if error.status != 404:
                raise
        records.sort(key=lambda record: (-record.created_at, record.id))
        shown = records[(page - 1) * per_page : page * per_page]
        sessions = [record.model_dump(by_alias=True, exclude_none=True) for record in shown]
        return {"sessions": sessions, "page": page, "perPage": per_page, "total": len(records)}

    async def get_session(self, session_id: str) -> SessionRecord:
        """What is on record of a session."""
        if (session := self._sessions.get(session_id)) is not None:
            return session.to_record()
        record = await self.persist.get_session(session_id) or await self._from_server(session_id)
        if record is None:
            raise SessionNotFoundError(session_id)
        return record

    async def get_events(self, session_id: str, page: int = 1, per_page: int = 50) -> dict[str, Any]:
        """What was said, oldest first: ``{events: [{id, eventIndex, createdAt, sender, payload}], page, perPage, total}``."""
        if await self.persist.get_session(session_id) is None:
            path = f"{API_PREFIX}/sessions/{quote(session_id, safe='')}/events"
            return dict_of(await self._http.get(path, params={"page": page, "perPage": per_page}))
        events: list[SessionEvent] = []
        cursor: str | None = None
        while True:
            found = await self.persist.list_events(session_id, cursor=cursor)
            events += found.items
            cursor = found.next_cursor
            if cursor is None:
                break
        # What was said elsewhere, before this client went on with it, the server knows.
        record = await self.persist.get_session(session_id)
        if record is not None and record.agent_session_id:
            path = f"{API_PREFIX}/sessions/{quote(record.agent_session_id, safe='')}/events"
            try:
                whole = dict_of(await self._http.get(path, params={"page": page, "perPage": per_page}))
                if int(whole.get("total") or 0) > len(events):
                    return whole
            except (SandboxAgentError, SandboxConnectionError):
                pass
        shown = events[(max(page, 1) - 1) * per_page :][:per_page]
        told = [event.model_dump(by_alias=True) for event in shown]
        return {"events": told, "page": page, "perPage": per_page, "total": len(events)}

    def on_session_event(self, session_id: str, listener: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
        """Hears what a session's agent says; what is given ends that."""
        self._event_listeners.setdefault(session_id, set()).add(listener)

        def unsubscribe() -> None:
            listeners = self._event_listeners.get(session_id, set())
            listeners.discard(listener)
            if not listeners:
                self._event_listeners.pop(session_id, None)

        return unsubscribe

    async def set_session_mode(self, session_id: str, mode: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_mode(mode)

    async def set_session_model(self, session_id: str, model: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_model(model)

    async def set_session_thought_level(self, session_id: str, level: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_thought_level(level)

    async def set_session_config_option(self, session_id: str, config_id: str, value: str) -> dict[str, Any]:
        return await (await self._session(session_id)).set_config_option(config_id, value)

    async def get_session_config_options(self, session_id: str) -> list[dict[str, Any]]:
        """``[{id, name, category?, currentValue, options}]``"""
        return (await self._session(session_id)).config_options()

    async def get_session_modes(self, session_id: str) -> list[dict[str, Any]]:
        """``[{id, name}]``"""
        return list((await self._session(session_id)).modes().get("availableModes", []))

    def on_permission_request(self, session_id: str, handler: PermissionHandler) -> PermissionHandler:
        """Says who answers the questions of a session's agent: see `Session.set_permission_callback`."""
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionNotFoundError(session_id)
        session.set_permission_callback(handler)
        return handler

    async def respond_permission(self, session_id: str, permission_id: str, reply: Any) -> dict[str, Any]:
        """Answers a question that was left open: ``once``, ``always``, ``reject``, ``cancelled``, or an option's id."""
        return {"success": await self._active(session_id).respond_permission(permission_id, reply)}

    async def raw_respond_permission(
        self, session_id: str, permission_id: str, reply: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Answers a question with a result as it is."""
        client = self._active(session_id)
        asked = client._asked.pop(str(permission_id), None)
        await client.respond(asked["id"] if asked else permission_id, dict(reply))
        return {"success": True}

    async def list_acp_servers(self) -> dict[str, Any]:
        """``{servers: [{serverId, agent, createdAtMs}]}``"""
        return dict_of(await self._http.get(f"{API_PREFIX}/acp"))

    async def get_acp_server(self, server_id: str) -> dict[str, Any]:
        """``{serverId, agent, createdAtMs}``"""
        for server in (await self.list_acp_servers()).get("servers", []):
            if server.get("serverId") == server_id:
                return cast(dict[str, Any], server)
        raise SandboxAgentError(404, {"title": "Not Found", "detail": f"there is no ACP server {server_id}"})

    def _acp(self, server_id: str, agent: str, cwd: str | None) -> AcpHttpClient:
        client = AcpHttpClient(self._base_url, server_id, agent=agent, token=self._token, headers=self._headers)
        client.cwd = cwd or self.default_cwd or "/"
        return client

    async def _open(
        self, client: AcpHttpClient, greeting: Mapping[str, Any], agent: str, init: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """A new session, after what authentication an agent wants that finds its key in its environment."""
        request: dict[str, Any] = {"agent": agent, "sessionInit": dict(init or {})}
        methods = [str(method.get("id")) for method in greeting.get("authMethods") or []]
        for method in ("gemini-api-key", "codex-api-key", "openai-api-key", "anthropic-api-key"):
            if method in methods:
                try:
                    await client.authenticate({"methodId": method})
                except Exception as error:
                    # Whether it was needed will be seen.
                    log.debug("%s did not authenticate by %s: %s", agent, method, error)
                break
        return await client.new_session(request)

    def _wire(self, session: Session, client: AcpHttpClient) -> None:
        """Connects a session's ends: what it hears is told to all who listen, and kept."""

        async def hear(envelope: dict[str, Any]) -> None:
            await session._hear(envelope)
            for handler in [*session._message_handlers, *self._event_listeners.get(session.id, set())]:
                await _told(handler, envelope)

        async def failed(error: Exception) -> None:
            for handler in list(session._error_handlers):
                await _told(handler, error)

        async def closed() -> None:
            for handler in list(session._close_handlers):
                await _told(handler)

        async def keep(direction: str, envelope: dict[str, Any]) -> None:
            envelope = _without_replay(envelope) if direction == "outbound" else envelope
            if session._early is None:
                await self._keep_event(session, client, direction, envelope)
            elif len(session._early) < _EARLY:
                session._early.append((direction, envelope))

        def owns(agent_session: str) -> bool:
            others = (other for other in self._sessions.values() if other is not session)
            return not any(other.agent_session_id == agent_session for other in others)

        client.on_message, client.on_error, client.on_close = hear, failed, closed
        client.on_envelope, client.owns = keep, owns

    async def _adopt(self, session: Session) -> None:
        """Puts a session that has begun on record, with what was said meanwhile."""
        if self._disposing is not None:
            raise RuntimeError("this SandboxAgent was disposed")
        self._sessions[session.id] = session
        await self.persist.update_session(session.to_record())
        client = session.acp_client
        while session._early and client is not None:
            await self._keep_event(session, client, *session._early.pop(0))
        session._early = None

    def _is_shared(self, session: Session) -> bool:
        """Whether another session here speaks to the same agent process."""
        server = session._record.last_connection_id
        others = (other for other in self._sessions.values() if other is not session)
        return any(other._record.last_connection_id == server for other in others)

    async def _keep_event(
        self, session: Session, client: AcpHttpClient, direction: str, envelope: dict[str, Any]
    ) -> None:
        index = self._indices.get(session.id)
        if index is None:
            index = await self._last_index(session.id)
        self._indices[session.id] = index + 1
        event = SessionEvent(
            id=str(uuid.uuid4()),
            event_index=index + 1,
            session_id=session.id,
            created_at=int(time.time() * 1000),
            connection_id=client.server_id,
            sender="client" if direction == "outbound" else "agent",
            payload=envelope,
        )
        await self.persist.insert_event(session.id, event)

    async def _last_index(self, session_id: str) -> int:
        number = getattr(self.persist, "create_event_index", None)
        if number is not None:
            return int(await number(session_id)) - 1
        last, cursor = 0, None
        while True:
            found = await self.persist.list_events(session_id, cursor=cursor)
            last = max([last, *(event.event_index for event in found.items)])
            cursor = found.next_cursor
            if cursor is None:
                return last

    async def _replay_into(self, session: Session, client: AcpHttpClient) -> None:
        """Tells an agent that has forgotten a session what was said in it, with the next prompt."""
        events, chars = self._replay
        text = await build_replay_text(self.persist, session.id, max_events=events, max_chars=chars)
        if text is None:
            return
        prompt = client.prompt

        async def first(request: Any) -> dict[str, Any]:
            asked = dict(request)
            given = asked.get("prompt", "")
            blocks = [{"type": "text", "text": given}] if isinstance(given, str) else list(given)
            answer = await prompt({**asked, "prompt": [{"type": "text", "text": text}, *blocks]})
            client.prompt = prompt  # type: ignore[method-assign]
            return answer

        client.prompt = first  # type: ignore[method-assign]

    async def _from_server(self, session_id: str) -> SessionRecord | None:
        try:
            response = await self._http.get(f"{API_PREFIX}/sessions/{quote(session_id, safe='')}")
        except SandboxAgentError as error:
            if error.status == 404:
                return None
            raise
        return SessionRecord.model_validate(response.json())

    async def _session(self, session_id: str) -> Session:
        return self._sessions.get(session_id) or await self.resume_session(session_id)

    def _active(self, session_id: str) -> AcpHttpClient:
        session = self._sessions.get(session_id)
        if session is None or session.acp_client is None:
            raise SessionNotFoundError(session_id)
        return session.acp_client


async def _told(handler: Callable[..., Any], *values: Any) -> None:
    try:
        done = handler(*values)
        if inspect.isawaitable(done):
            await done
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a listener failed")


def _without_replay(envelope: dict[str, Any]) -> dict[str, Any]:
    """A prompt as the caller gave it: what is kept is replayed, and would hold itself."""
    if envelope.get("method") != "session/prompt":
        return envelope
    params = envelope.get("params") or {}
    blocks = [block for block in params.get("prompt") or [] if not str(block.get("text", "")).startswith(REPLAY_HEAD)]
    return {**envelope, "params": {**params, "prompt": blocks}}
