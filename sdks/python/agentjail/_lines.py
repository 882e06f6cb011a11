"""Lines of a byte stream."""

from __future__ import annotations

import re

_BREAK = re.compile(rb"\r\n|\n|\r")


class Lines:
    """Cuts at CR and LF only, as event streams are; `str.splitlines` knows more, which may stand in what is said."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0
        self._after_cr = False

    @property
    def waiting(self) -> int:
        """Bytes of a line whose end has not come."""
        return self._size

    def feed(self, data: bytes) -> list[str]:
        """The lines that are whole now."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        *whole, rest = _BREAK.split(data)
        if whole:
            whole[0] = b"".join([*self._begun, whole[0]])
            self._begun, self._size = [], 0
        if rest:
            self._begun.append(rest)
            self._size += len(rest)
        return [line.decode("utf-8", "replace") for line in whole]
