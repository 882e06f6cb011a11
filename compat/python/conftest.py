from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sandboxagent import SandboxAgent
from serving import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for a module's tests."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that a test may kill."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[SandboxAgent]:
    async with await SandboxAgent.connect(server.url, token=server.token) as client:
        yield client


@pytest.fixture
async def other(server: Server) -> AsyncIterator[SandboxAgent]:
    """A second client of the same server."""
    async with await SandboxAgent.connect(server.url, token=server.token) as client:
        yield client
