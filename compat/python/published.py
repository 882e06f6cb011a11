"""Runs the published client's own integration tests against our server.

They want an open server at 127.0.0.1:2468, and come with the source archive of the client only, so that it is
fetched. The archive's session tests cannot be run live: each of them answers its own requests from a mock.

    SANDBOX_AGENT_BIN=… python published.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

from serving import Server

CLIENT = "sandbox-agent-sdk==0.1.5"

# Those that skip themselves whatever the server does, and why. They skip whenever something goes wrong, so that
# any other one that is skipped has failed.
SKIPPED = {
    "test_desktop_start": "there is no desktop",
    "test_desktop_screenshot": "there is no desktop",
    "test_get_mcp_config": "it gives the client's method arguments that it does not take",
    "test_get_skills_config": "it gives the client's method arguments that it does not take",
    "test_start_spawns_server": "it wants a client where the client's method gives a handle",
}


def unpacked(directory: Path) -> Path:
    """The client's source archive, fetched and unpacked."""
    wanted = ["--no-deps", "--no-binary", ":all:", "--no-cache-dir", "--dest", str(directory), CLIENT]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", *wanted], check=True)
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    (root,) = (path for path in directory.iterdir() if path.is_dir())
    return root


def run(root: Path, home: Path) -> int:
    """Runs the tests. Fails unless all of them pass, but for those that always skip themselves."""
    report = root / "report.xml"
    tests = ["-m", "integration", "tests/test_integration.py"]
    arguments = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    # Without the program's name: what it would start by itself, the client cannot end.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    code = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=root, env=environment).returncode
    cases = list(xml.parse(report).getroot().iter("testcase")) if report.exists() else []
    skipped = {case.get("name"): skip.get("message") for case in cases for skip in case.findall("skipped")}
    for name, message in skipped.items():
        print(f"{'skipped by itself' if name in SKIPPED else 'FAILED, if silently'}: {name}: {message}")
    print(f"{len(cases)} tests, {len(skipped)} of them skipped")
    silent = skipped.keys() - SKIPPED.keys()
    return code or int(bool(silent) or len(cases) == len(skipped))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="compat-") as directory:
        root = unpacked(Path(directory))
        server = Server(port=2468, token=None)
        try:
            return run(root, server.home)
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
