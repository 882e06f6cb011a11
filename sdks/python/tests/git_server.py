"""Git over HTTP on loopback, by git's own backend; what is private wants a token."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Backend(BaseHTTPRequestHandler):
    root: Path
    token: str
    #: What was asked, with how it was authorized.
    seen: list[str]

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        given = base64.b64decode((self.headers.get("authorization") or " ").partition(" ")[2]).decode()
        self.seen.append(f"{self.path} {given}")
        repository = self.root / path.lstrip("/").partition(".git/")[0]
        if not repository.with_name(f"{repository.name}.git").is_dir():
            self._refuse(404)
        elif "private" in path and given.partition(":")[2] != self.token:
            self._refuse(401)
        else:
            self._pass(path, query)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("www-authenticate", 'Basic realm="git"')
        self.end_headers()

    def _pass(self, path: str, query: str) -> None:
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
        answer = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = answer.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


def git(*arguments: str, cwd: Path) -> str:
    """Runs git; gives what it says."""
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), **identity}
    done = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


@contextmanager
def serving(root: Path, token: str, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Repositories of these names, with two commits on ``main``; gives their server's URL and what it sees."""
    work = root / "work"
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)
    for text in ("first", "second"):
        (work / "file").write_text(text)
        git("add", "file", cwd=work)
        git("commit", "-q", "-m", text, cwd=work)
    for name in names:
        git("clone", "-q", "--bare", str(work), str(root / f"{name}.git"), cwd=root)
    seen: list[str] = []
    handler = type("Handler", (_Backend,), {"root": root, "token": token, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
