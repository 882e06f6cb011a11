"""Files of a sandbox."""

from __future__ import annotations

import asyncio
import logging
import os
import tarfile
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import git
from ..exceptions import (
    SandboxAgentError,
    SandboxConnectionError,
)
from ..http import FS_PATH
from .base import Part, dict_of, list_of

if TYPE_CHECKING:
    pass

_CHUNK = 1 << 20
Progress = Callable[[int], Any]
log = logging.getLogger("sandboxagent.client")


class Files(Part):
    """Reading, writing, moving and carrying files and trees."""

    async def read_file(self, path: str) -> str:
        """A file's text. What is not UTF-8 is a `UnicodeDecodeError`: use `read_bytes`."""
        return (await self.read_bytes(path)).decode()

    async def read_bytes(self, path: str) -> bytes:
        """A file's content, whole; `download` streams it."""
        return (await self._http.get(f"{FS_PATH}/file", params={"path": path}, timeout=None)).content

    async def write_file(self, path: str, content: str | bytes) -> None:
        """Writes a file; directories above it are made. One that begins with ``#!`` becomes executable."""
        data = content.encode() if isinstance(content, str) else bytes(content)
        await self._http.put(f"{FS_PATH}/file", content=data, params={"path": path}, timeout=None)
        if data.startswith(b"#!"):
            await self._chmod("u+x", path)

    async def write_executable(self, path: str, content: str) -> None:
        """Writes a program that only its owner can read and run."""
        await self._http.put(f"{FS_PATH}/file", content=content.encode(), params={"path": path})
        await self._chmod("700", path)

    async def _chmod(self, mode: str, path: str) -> None:
        result = await self.run_process({"command": "chmod", "args": [mode, "--", path]})
        if not git.run_result(result):
            raise OSError(f"{path} could not be made executable: {result.get('stderr')}")

    async def forget(self, path: str) -> None:
        """Removes a file, if it is there; what goes wrong is not this call's to tell."""
        try:
            await self._http.delete(f"{FS_PATH}/entry", params={"path": path})
        except (SandboxAgentError, SandboxConnectionError):
            return

    async def list_entries(self, path: str) -> list[dict[str, Any]]:
        """``[{name, path, entryType, size, modified}]``"""
        return list_of(await self._http.get(f"{FS_PATH}/entries", params={"path": path}))

    async def stat(self, path: str) -> dict[str, Any]:
        """``{path, entryType, size, modified}``"""
        return dict_of(await self._http.get(f"{FS_PATH}/stat", params={"path": path}))

    async def move(self, from_path: str, to_path: str, overwrite: bool | None = None) -> None:
        """Moves a file or directory."""
        body: dict[str, Any] = {"from": from_path, "to": to_path}
        if overwrite is not None:
            body["overwrite"] = overwrite
        await self._http.post(f"{FS_PATH}/move", json=body)

    async def delete_entry(self, path: str, recursive: bool = False) -> None:
        """Deletes a file, an empty directory, or with ``recursive`` a full one."""
        params = {"path": path, "recursive": True if recursive else None}
        await self._http.delete(f"{FS_PATH}/entry", params=params)

    async def mkdir_fs(self, path: str) -> dict[str, Any]:
        """Makes a directory, and those above it; ``{path}``."""
        return dict_of(await self._http.post(f"{FS_PATH}/mkdir", params={"path": path}))

    async def upload_fs_batch(self, files: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes several files: ``[{path, content, encoding?}]`` → ``{paths, truncated}``."""
        return dict_of(await self._http.post(f"{FS_PATH}/batch", json={"files": files}, timeout=None))

    async def download(self, path: str, local: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copies a file, or a directory with all that is in it, to this machine. ``progress`` hears bytes so far.

        ``local`` is what a file becomes, or the directory that the content of a directory is put into.
        """
        is_directory = (await self.stat(path))["entryType"] == "directory"
        target = Path(local)
        url = f"{FS_PATH}/{'archive' if is_directory else 'file'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            done = 0
            with os.fdopen(descriptor, "wb") as file:
                async with self._http.stream("GET", url, params={"path": path}) as response:
                    async for piece in response.aiter_bytes(_CHUNK):
                        await asyncio.to_thread(file.write, piece)
                        done += len(piece)
                        if progress is not None:
                            progress(done)
            if is_directory:
                await asyncio.to_thread(_unpack, name, target)
            else:
                os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)

    async def upload(self, local: str | os.PathLike[str], path: str, progress: Progress | None = None) -> None:
        """Copies a file, or a directory with all that is in it, into the sandbox, streamed. ``progress`` hears bytes so far."""
        source = Path(local)
        if source.is_dir():
            content, where, kind = _packed(source), "upload-batch", "application/x-tar"
            await self._http.post(
                f"{FS_PATH}/{where}",
                content=_counted(content, progress),
                params={"path": path},
                headers={"content-type": kind},
                timeout=None,
            )
        else:
            content = _pieces(source)
            await self._http.put(
                f"{FS_PATH}/file", content=_counted(content, progress), params={"path": path}, timeout=None
            )


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece


async def _packed(directory: Path) -> AsyncIterator[bytes]:
    """A directory as a tar stream, made by a thread as fast as it is taken."""
    read, write = os.pipe()
    failed: list[BaseException] = []

    def pack() -> None:
        try:
            with os.fdopen(write, "wb") as out, tarfile.open(fileobj=out, mode="w|") as archive:
                for entry in sorted(directory.iterdir()):
                    archive.add(entry, arcname=entry.name)
        except BrokenPipeError:
            return
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=pack, daemon=True)
    thread.start()
    with os.fdopen(read, "rb") as stream:
        while piece := await asyncio.to_thread(stream.read, 64 * 1024):
            yield piece
    await asyncio.to_thread(thread.join)
    if failed:
        raise failed[0]


def _unpack(archive: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as packed:
        # What a sandbox made leads nowhere but below the directory; a link that does is left out.
        if hasattr(tarfile, "data_filter"):

            def inside(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
                try:
                    return tarfile.data_filter(member, path)
                except tarfile.FilterError as error:
                    log.warning("%s was left out: %s", member.name, error)
                    return None

            packed.extractall(target, filter=inside)
        else:
            raise SandboxConnectionError("this Python cannot unpack archives safely: use 3.10.12, 3.11.4 or later")


async def _counted(content: AsyncIterator[bytes], progress: Progress | None) -> AsyncIterator[bytes]:
    done = 0
    async for piece in content:
        yield piece
        done += len(piece)
        if progress is not None:
            progress(done)
