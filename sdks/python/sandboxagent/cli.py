"""``sandboxagent``: a sandbox agent from a shell."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys

from .client import SandboxAgent
from .exceptions import SandboxError
from .inspector import build_inspector_url

_DEFAULT_URL = "http://localhost:2468"


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=argparse.SUPPRESS, help=f"the server (SANDBOX_AGENT_URL; {_DEFAULT_URL})")
    common.add_argument("--token", default=argparse.SUPPRESS, help="its token (better: SANDBOX_AGENT_TOKEN)")
    parser = argparse.ArgumentParser(prog="sandboxagent", description=__doc__, parents=[common])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    start = add("start", "start a server on this machine and say where it is")
    start.add_argument("--wait", action="store_true", help="stay until interrupted; without it the server ends at once")
    add("health", "whether the server is well")
    add("agents", "which coding agents there are")
    run = add("run", "run a command and end as it ends")
    run.add_argument("--cwd", help="where")
    run.add_argument("--timeout", type=float, help="seconds")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND …")
    read = add("read", "write a file of the sandbox to standard output")
    read.add_argument("path")
    write = add("write", "write a file of the sandbox")
    write.add_argument("path")
    write.add_argument("content", nargs="?")
    write.add_argument("--stdin", action="store_true", help="take the content from standard input")
    ls = add("ls", "list a directory")
    ls.add_argument("path", nargs="?", default="/")
    add("inspector", "where a browser sees what goes on")
    return parser


async def _act(options: argparse.Namespace) -> int:
    url = getattr(options, "url", None) or os.environ.get("SANDBOX_AGENT_URL", _DEFAULT_URL)
    token = getattr(options, "token", None) or os.environ.get("SANDBOX_AGENT_TOKEN")
    if options.command == "inspector":
        print(build_inspector_url(url, token=token))
        return 0
    if options.command == "start":
        return await _start(options.wait)
    async with SandboxAgent(url, token) as agent:
        if options.command == "health":
            print(json.dumps(await agent.health(), indent=2))
        elif options.command == "agents":
            for known in await agent.list_agents():
                print(f"{known['id']}: installed={known['installed']}")
        elif options.command == "read":
            sys.stdout.buffer.write(await agent.read_bytes(options.path))
        elif options.command == "ls":
            for entry in await agent.list_entries(options.path):
                print(f"{entry['entryType']:<10} {entry['size']:>12} {entry['name']}")
        elif options.command == "write":
            return await _write(agent, options)
        else:
            return await _run(agent, options)
    return 0


async def _start(wait: bool) -> int:
    async with await SandboxAgent.start() as agent:
        print(f"Server: {agent.base_url}\nInspector: {agent.inspector_url}", flush=True)
        if wait:
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await stop.wait()
    return 0


async def _write(agent: SandboxAgent, options: argparse.Namespace) -> int:
    if options.stdin == (options.content is not None):
        print("sandboxagent: give the content, or --stdin", file=sys.stderr)
        return 2
    content = await asyncio.to_thread(sys.stdin.buffer.read) if options.stdin else options.content
    await agent.write_file(options.path, content)
    return 0


async def _run(agent: SandboxAgent, options: argparse.Namespace) -> int:
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        print("sandboxagent: run: a command is expected", file=sys.stderr)
        return 2
    config = {"command": words[0], "args": words[1:]}
    if options.cwd:
        config["cwd"] = options.cwd
    if options.timeout:
        config["timeoutMs"] = int(options.timeout * 1000)
    result = await agent.run_process(config)
    sys.stdout.write(result["stdout"])
    sys.stderr.write(result["stderr"])
    if result["timedOut"]:
        print("sandboxagent: it took too long", file=sys.stderr)
        return 124
    # One that a signal ended has no code.
    return 137 if result["exitCode"] is None else int(result["exitCode"])


def main(arguments: list[str] | None = None) -> None:
    """Acts, and exits."""
    options = _parser().parse_args(arguments)
    try:
        code = asyncio.run(_act(options))
    except KeyboardInterrupt:
        code = 130
    except (SandboxError, FileNotFoundError, OSError, UnicodeError) as error:
        print(f"sandboxagent: {error}", file=sys.stderr)
        code = 1
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
