from __future__ import annotations

import base64

import pytest
from sandboxagent import SandboxAgent
from sandboxagent.http import SandboxAgentError
from serving import Server


async def test_text_and_bytes_are_written_parents_with_them_and_read_back(
    client: SandboxAgent, server: Server
) -> None:
    path = server.work / "deep" / "er" / "file"
    await client.write_file(str(path), "grüß\n")
    assert await client.read_file(str(path)) == "grüß\n"
    await client.write_file(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"


async def test_a_path_that_is_relative_starts_at_the_servers_home(client: SandboxAgent, server: Server) -> None:
    await client.write_file("notes/today", "x")
    assert (server.home / "notes" / "today").read_text() == "x"


async def test_entries_and_stat_tell_kind_size_and_time(client: SandboxAgent, server: Server) -> None:
    directory = server.work / "listed"
    await client.write_file(str(directory / "one"), "12345")
    await client.mkdir_fs(str(directory / "two"))
    one, two = sorted(await client.list_entries(str(directory)), key=lambda entry: entry["name"])
    assert (one["name"], one["path"], one["entryType"], one["size"]) == ("one", str(directory / "one"), "file", 5)
    assert (two["name"], two["entryType"]) == ("two", "directory")
    assert isinstance(one["modified"], str)
    stat = await client.stat(str(directory / "one"))
    assert (stat["path"], stat["entryType"], stat["size"]) == (str(directory / "one"), "file", 5)
    assert (await client.stat(str(directory)))["entryType"] == "directory"


async def test_a_directory_is_made_with_its_parents_once_or_twice(client: SandboxAgent, server: Server) -> None:
    path = str(server.work / "made" / "with" / "parents")
    for _ in range(2):
        assert await client.mkdir_fs(path) == {"path": path}
    assert (server.work / "made" / "with" / "parents").is_dir()


async def test_an_entry_is_moved_but_not_over_another(client: SandboxAgent, server: Server) -> None:
    before, after = str(server.work / "before"), str(server.work / "after")
    await client.write_file(before, "kept")
    await client.move(before, after)
    assert await client.read_file(after) == "kept"
    await client.write_file(before, "new")
    with pytest.raises(SandboxAgentError) as refused:
        await client.move(before, after)
    assert refused.value.status == 400
    assert await client.read_file(after) == "kept"


async def test_an_entry_is_deleted_but_no_full_directory(client: SandboxAgent, server: Server) -> None:
    path = server.work / "full" / "file"
    await client.write_file(str(path), "x")
    with pytest.raises(SandboxAgentError) as refused:
        await client.delete_entry(str(path.parent))
    assert refused.value.status == 409
    await client.delete_entry(str(path))
    await client.delete_entry(str(path.parent))
    assert not path.parent.exists()


async def test_many_files_are_uploaded_at_once(client: SandboxAgent, server: Server) -> None:
    directory = server.work / "batch"
    files = [
        {"path": str(directory / "text"), "content": "grüß"},
        {"path": str(directory / "sub" / "bytes"), "content": base64.b64encode(b"\x00\xff").decode(),
         "encoding": "base64"},
    ]
    answer = await client.upload_fs_batch(files)
    assert sorted(answer["paths"]) == sorted(file["path"] for file in files)
    assert answer["truncated"] is False
    assert (directory / "text").read_text() == "grüß"
    assert (directory / "sub" / "bytes").read_bytes() == b"\x00\xff"


async def test_what_is_missing_or_of_the_wrong_kind_is_said_so(client: SandboxAgent, server: Server) -> None:
    await client.write_file(str(server.work / "plain"), "x")
    for call, detail in [
        (lambda: client.read_file(str(server.work / "none")), "path not found"),
        (lambda: client.read_file(str(server.work)), "path is not a file"),
        (lambda: client.list_entries(str(server.work / "plain")), "path is not a directory"),
        (lambda: client.stat(str(server.work / "none")), "path not found"),
        (lambda: client.delete_entry(str(server.work / "none")), "path not found"),
    ]:
        with pytest.raises(SandboxAgentError) as refused:
            await call()
        assert refused.value.status == 400
        assert refused.value.problem.type == "urn:sandbox-agent:error:invalid_request"
        assert detail in refused.value.problem.detail
