from __future__ import annotations

import httpx
import pytest
from sandboxagent import SandboxAgent
from sandboxagent.client import DesktopNotSupportedError
from sandboxagent.http import SandboxAgentError
from serving import Server


async def test_a_client_connects_and_finds_the_server_healthy(client: SandboxAgent) -> None:
    assert (await client.health())["status"] == "ok"
    assert (await client.wait_for_health(timeout_seconds=1))["status"] == "ok"


@pytest.mark.parametrize("token", [None, "another"])
async def test_a_wrong_token_is_refused_with_a_problem_the_client_can_show(
    server: Server, token: str | None
) -> None:
    async with SandboxAgent(server.url, token=token) as client:
        with pytest.raises(SandboxAgentError) as refused:
            await client.list_agents()
    assert refused.value.status == 401
    assert refused.value.problem.type == "urn:sandbox-agent:error:token_invalid"
    assert refused.value.problem.title == str(refused.value)
    with pytest.raises(TimeoutError):
        await SandboxAgent.connect(server.url, token=token, health_timeout=0.1)


async def test_an_open_server_serves_a_client_without_a_token() -> None:
    server = Server(token=None)
    try:
        async with await SandboxAgent.connect(server.url) as client:
            assert await client.list_agents()
    finally:
        server.stop()


async def test_the_inspectors_page_is_served_to_whoever_follows_the_clients_link(
    client: SandboxAgent, server: Server
) -> None:
    assert client.inspector_url == f"{server.url}/ui/?token={server.token}"
    async with httpx.AsyncClient() as browser:
        page = await browser.get(client.inspector_url)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


async def test_the_desktops_state_is_told_and_everything_else_of_it_refused_by_name(
    client: SandboxAgent,
) -> None:
    status = await client.desktop_status()
    assert status["state"] == "install_required"
    assert isinstance(status["missingDependencies"], list)
    for call in [
        lambda: client.desktop_start(),
        lambda: client.desktop_start({"width": 800, "height": 600}),
        lambda: client.desktop_screenshot(),
        lambda: client.desktop_screenshot(format="png"),
        lambda: client.desktop_mouse_move(1, 2),
        lambda: client.desktop_mouse_click("left"),
        lambda: client.desktop_mouse_click("left", clicks=2),
        lambda: client.desktop_keyboard_type("a"),
        lambda: client.desktop_windows(),
    ]:
        with pytest.raises(DesktopNotSupportedError):
            await call()
