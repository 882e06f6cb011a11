"""A connection with an agent that several sessions of a client share, and what is said over it, observed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from .acp import AcpHttpClient, Envelope, PermissionRequest
from .exceptions import AcpError
from .persistence import build_replay_text
from .types import SessionEvent

AcpEnvelopeDirection = Literal["outbound", "inbound"]

EnvelopeObserver = Callable[["LiveAcpConnection", Envelope, AcpEnvelopeDirection, "str | None"], Any]

#: Ways to authenticate that take their key from the agent's environment.
_KEY_METHODS = ("codex-api-key", "openai-api-key", "anthropic-api-key", "gemini-api-key")


class RequestPermissionRequest(TypedDict):
    id: Any
    sessionId: str
    options: list[dict[str, Any]]
    toolCall: dict[str, Any]


class RequestPermissionResponse(TypedDict):
    outcome: Any


@dataclass
class SessionSendOptions:
    """``notification``: do not wait for an answer; there is none."""

    notification: bool = False


class LiveAcpConnection:
    """Make it with `create`. ``local`` ids are the client's names of sessions, which are bound to the agent's."""

    def __init__(self, agent: str, client: AcpHttpClient) -> None:
        self.agent = agent
        self.connection_id = str(uuid.uuid4())
        self._client = client
        self._bound: dict[str, str] = {}
        self._replays: dict[str, str] = {}
        self._exit: dict[str, Any] | None = None
        self._observer: EnvelopeObserver | None = None

    @classmethod
    async def create(
        cls,
        base_url: str,
        agent: str,
        server_id: str,
        on_observed_envelope: EnvelopeObserver | None = None,
        on_permission_request: Callable[[LiveAcpConnection, str, str, RequestPermissionRequest], Any] | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> LiveAcpConnection:
        """Connects, and authenticates where an agent wants that and finds its key in its environment."""
        client = AcpHttpClient(base_url, server_id, agent=agent, token=token, headers=headers)
        live = cls(agent, client)
        live._observer = on_observed_envelope
        client.on_envelope = live._observe
        if on_permission_request is not None:
            handler = on_permission_request

            async def ask(asked: PermissionRequest) -> Any:
                request: RequestPermissionRequest = {
                    "id": asked["id"],
                    "sessionId": asked["sessionId"],
                    "options": asked["permission"]["options"],
                    "toolCall": asked["permission"]["toolCall"] or {},
                }
                answer = handler(live, live.local_of(asked["sessionId"]) or "", asked["sessionId"], request)
                return await answer if hasattr(answer, "__await__") else answer

            client.on_permission_request = ask
        await client.connect()
        greeting = await client.initialize()
        offered = [str(method.get("id")) for method in greeting.get("authMethods") or []]
        for method in _KEY_METHODS:
            if method in offered:
                try:
                    await client.authenticate({"methodId": method})
                except AcpError:
                    continue
                break
        return live

    async def disconnect(self) -> None:
        """Ends the agent's process, and closes the connection."""
        await self._client.disconnect()

    def has_bound_session(self, local: str, agent_id: str | None = None) -> bool:
        bound = self._bound.get(local)
        return bound is not None and (agent_id is None or bound == agent_id)

    def bind_session(self, local: str, agent_id: str) -> None:
        self._bound[local] = agent_id

    def local_of(self, agent_id: str) -> str | None:
        """The client's name of a session of the agent's."""
        return next((local for local, bound in self._bound.items() if bound == agent_id), None)

    def queue_replay(self, local: str, text: str | None) -> None:
        """Has a text stand before the next prompt of a session, once."""
        if text:
            self._replays[local] = text
        else:
            self._replays.pop(local, None)

    async def create_remote_session(self, local: str, init: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Begins a session with the agent, and binds it."""
        try:
            answer = await self._client.new_session({"agent": self.agent, "sessionInit": dict(init or {})})
        except AcpError as error:
            if self._exit is not None:
                code = (self._exit.get("params") or {}).get("exitCode")
                raise RuntimeError(f"the agent {self.agent} ended with exit code {code}") from error
            raise
        self.bind_session(local, str(answer.get("sessionId")))
        return answer

    async def send_session_method(
        self, local: str, method: str, params: Mapping[str, Any], options: SessionSendOptions | None = None
    ) -> dict[str, Any] | None:
        """Sends a method of a bound session, under the agent's name of it."""
        agent_id = self._bound.get(local)
        if agent_id is None:
            raise RuntimeError(f"session {local} is bound to none of the agent's")
        given = {**params, "sessionId": agent_id}
        if options is not None and options.notification:
            await self._client.notify(method, given)
            return None
        if method == "session/prompt":
            if (replay := self._replays.pop(local, None)) is not None:
                prompt = given.get("prompt", "")
                blocks = [{"type": "text", "text": prompt}] if isinstance(prompt, str) else list(prompt)
                given["prompt"] = [{"type": "text", "text": replay}, *blocks]
            return await self._client.prompt(given)
        if method == "session/cancel":
            await self._client.cancel(given)
            return None
        if method == "session/set_mode":
            return await self._client.set_session_mode(given)
        return await self._client.request(method, given)

    async def get_replay_text(
        self, session_id: str, events: list[SessionEvent], max_chars: int = 100_000
    ) -> str | None:
        """What was said in a session, as text."""
        from .persistence import InMemorySessionPersistDriver

        kept = InMemorySessionPersistDriver(max_events_per_session=max(len(events), 1))
        for event in events:
            await kept.insert_event(session_id, event)
        return await build_replay_text(kept, session_id, max_events=len(events) or 1, max_chars=max_chars)

    async def _observe(self, direction: str, envelope: Envelope) -> None:
        if envelope.get("method") == "_adapter/agent_exited":
            self._exit = envelope
        if self._observer is None:
            return
        session = (envelope.get("params") or {}).get("sessionId")
        observed = self._observer(
            self, envelope, "outbound" if direction == "outbound" else "inbound", self.local_of(str(session))
        )
        if hasattr(observed, "__await__"):
            await observed
