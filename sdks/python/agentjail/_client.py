"""The client."""

from __future__ import annotations

import httpx

from ._http import Http
from ._resources import Audit, Credentials, Jails, Keys, Public, Runs, Sessions, Settings, Snapshots, Workspaces


class Agentjail:
    """One control plane, as one key sees it. Use it with ``with``, or `close` it.

    ``transport`` is for tests. Calls block for as long as what they ask for takes, or ``timeout`` seconds; those that
    only read are sent again, ``retries`` times at most, when they found nobody or were told to come later.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = Http(base_url, api_key, transport, timeout=timeout, retries=retries)
        self.credentials = Credentials(self._http)
        self.sessions = Sessions(self._http)
        self.runs = Runs(self._http)
        self.audit = Audit(self._http)
        self.jails = Jails(self._http)
        self.keys = Keys(self._http)
        self.workspaces = Workspaces(self._http)
        self.snapshots = Snapshots(self._http)
        self.settings = Settings(self._http)
        self.public = Public(self._http)

    def close(self) -> None:
        """Closes connections."""
        self._http.close()

    def __enter__(self) -> Agentjail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
