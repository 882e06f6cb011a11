"""Directories of local sandboxes. Each goes with its owner; of one that was killed, when the next is made."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile

_PREFIX = "sandbox-agent-"
_OWNER = "owner"


class Scratch:
    """A directory that is held by a lock, which the kernel gives up when this process ends, however it does."""

    def __init__(self) -> None:
        _sweep()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        fresh = os.path.join(self.path, f"{_OWNER}.fresh")
        self._owner = os.open(fresh, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._owner, fcntl.LOCK_EX)
        # Not before it is locked: whoever sees the name without a lock takes the directory for abandoned.
        os.rename(fresh, os.path.join(self.path, _OWNER))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._owner)


def _sweep() -> None:
    for path in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{_PREFIX}*")):
        try:
            owner = os.open(os.path.join(path, _OWNER), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.lstat(path).st_uid == os.geteuid():
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            # It has an owner, or somebody else has swept it.
            pass
        finally:
            os.close(owner)
