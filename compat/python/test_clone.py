"""A repository is cloned into the sandbox, from a server on this machine that asks for a token."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sandboxagent import SandboxAgent
from sandboxagent.client import GitCloneError
from serving import Server, free_port

TOKEN = "s3cret"


def git(*arguments: str, cwd: Path) -> None:
    identity = {f"GIT_{who}_{what}": "a@b" for who in ["AUTHOR", "COMMITTER"] for what in ["NAME", "EMAIL"]}
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), **identity}
    subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, env=environment)


class Backend(BaseHTTPRequestHandler):
    """`git http-backend`; what lies below `/private` needs the token."""

    root: Path

    def do_GET(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def serve(self) -> None:
        path, _, query = self.path.partition("?")
        expected = "Basic " + base64.b64encode(f"git:{TOKEN}".encode()).decode()
        if path.startswith("/private") and self.headers.get("authorization") != expected:
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="private"')
            self.end_headers()
            return
        repository = self.root / path.lstrip("/").partition(".git/")[0]
        if not repository.with_name(f"{repository.name}.git").is_dir():
            # In the words of the servers that the client knows.
            self.send_response(404)
            self.send_header("content-type", "text/plain")
            self.end_headers()
            self.wfile.write(b"Repository not found.\n")
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding") or "",
            "GIT_PROTOCOL": self.headers.get("git-protocol") or "",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        answer = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of repositories: `/public/repo.git` and `/private/repo.git`."""
    root = tmp_path_factory.mktemp("remote")
    work = root / "work"
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)
    for text in ["first", "second"]:
        (work / "file").write_text(text)
        git("add", "file", cwd=work)
        git("commit", "-q", "-m", text, cwd=work)
    git("checkout", "-q", "-b", "side", cwd=work)
    (work / "aside").write_text("aside")
    git("add", "aside", cwd=work)
    git("commit", "-q", "-m", "aside", cwd=work)
    git("checkout", "-q", "main", cwd=work)
    for name in ["public", "private"]:
        git("clone", "-q", "--bare", str(work), str(root / name / "repo.git"), cwd=root)
    handler = type("Handler", (Backend,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


async def test_a_repository_is_cloned_under_its_own_name_into_the_home(
    client: SandboxAgent, server: Server, remote: str
) -> None:
    result = await client.clone_repo(f"{remote}/public/repo.git")
    assert result["exitCode"] == 0
    assert (server.home / "repo" / "file").read_text() == "second"


async def test_a_branch_is_cloned_as_deep_as_it_is_wanted(client: SandboxAgent, server: Server, remote: str) -> None:
    path = server.work / "side"
    await client.clone_repo(f"{remote}/public/repo.git", path=str(path), branch="side", depth=1, timeout=60)
    assert (path / "aside").read_text() == "aside"
    count = await client.run_process({"command": "git", "args": ["rev-list", "--count", "HEAD"], "cwd": str(path)})
    assert count["stdout"] == "1\n"


async def test_a_private_repository_opens_to_its_token_which_leaves_no_trace(
    client: SandboxAgent, server: Server, remote: str
) -> None:
    path = server.work / "private"
    before = set(Path("/tmp").glob(".git-askpass-*"))
    await client.clone_repo(f"{remote}/private/repo.git", path=str(path), token=TOKEN)
    assert (path / "file").read_text() == "second"
    assert TOKEN not in (path / ".git" / "config").read_text()
    assert set(Path("/tmp").glob(".git-askpass-*")) <= before


@pytest.mark.parametrize(
    ("where", "token", "category"),
    [("private/repo.git", None, "auth"), ("private/repo.git", "wrong", "auth"), ("public/none.git", None, "not_found")],
)
async def test_a_clone_that_fails_says_of_what(
    client: SandboxAgent, server: Server, remote: str, where: str, token: str | None, category: str
) -> None:
    with pytest.raises(GitCloneError) as failed:
        await client.clone_repo(f"{remote}/{where}", path=str(server.work / "failed"), token=token)
    assert failed.value.category == category


async def test_a_clone_from_nowhere_is_the_networks_fault(client: SandboxAgent, server: Server) -> None:
    with pytest.raises(GitCloneError) as failed:
        await client.clone_repo(f"http://127.0.0.1:{free_port()}/repo.git", path=str(server.work / "failed"))
    assert failed.value.category == "network"
