import { strict as assert } from "node:assert";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Server } from "../support.mjs";

let server, client;
before(async () => {
  server = await Server.start();
  client = await server.client();
});
after(() => server.stop());

const at = (...names) => join(server.dir.work, ...names);
const bytes = (text) => new TextEncoder().encode(text);
const refused = (status, code, detail) => (error) => {
  assert.equal(error.name, "SandboxAgentError");
  assert.equal(error.status, status);
  assert.equal(error.problem.type, `urn:sandbox-agent:error:${code}`);
  if (detail) assert.match(error.problem.detail, detail);
  return true;
};

/** A tar archive of plain files, as POSIX has it. */
function tar(files) {
  const blocks = [];
  for (const [name, content] of Object.entries(files)) {
    const head = Buffer.alloc(512);
    const put = (value, offset) => head.write(value, offset, "latin1");
    put(name, 0);
    put("0000644\0", 100);
    put("0000000\0", 108);
    put("0000000\0", 116);
    put(content.length.toString(8).padStart(11, "0") + "\0", 124);
    put("00000000000\0", 136);
    put("        ", 148);
    put("0", 156);
    put("ustar\0" + "00", 257);
    const sum = head.reduce((total, byte) => total + byte, 0);
    put(sum.toString(8).padStart(6, "0") + "\0 ", 148);
    const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
    body.write(content);
    blocks.push(head, body);
  }
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

test("a file is written, its parents with it, and read back byte by byte", async () => {
  const path = at("deep", "er", "file.bin");
  const content = new Uint8Array(256).map((_, index) => index);
  assert.deepEqual(await client.writeFsFile({ path }, content), { path, bytesWritten: 256 });
  assert.deepEqual(await client.readFsFile({ path }), content);
  assert.deepEqual(new Uint8Array(await readFile(path)), content);
});

test("a written text, a blob and an empty body are files too", async () => {
  for (const [body, length] of [["grüß", 6], [new Blob(["abc"]), 3], [new Uint8Array(), 0]]) {
    const path = at("bodies");
    assert.equal((await client.writeFsFile({ path }, body)).bytesWritten, length);
    assert.equal((await stat(path)).size, length);
  }
});

test("a file larger than the original's cap of two mebibytes goes through", async () => {
  const path = at("large");
  const content = new Uint8Array(5 * 1024 * 1024).fill(7);
  assert.equal((await client.writeFsFile({ path }, content)).bytesWritten, content.length);
  assert.equal((await client.readFsFile({ path })).length, content.length);
});

test("a path that is relative starts at the server's home", async () => {
  await client.writeFsFile({ path: "notes/today" }, "x");
  assert.equal(await readFile(join(server.dir.home, "notes", "today"), "utf8"), "x");
  const names = (await client.listFsEntries()).map((entry) => entry.name);
  assert.ok(names.includes("notes"), String(names));
});

test("entries and stat tell kind, size and time", async () => {
  const before = Date.now() - 2000;
  await client.writeFsFile({ path: at("listed", "one") }, "12345");
  await client.mkdirFs({ path: at("listed", "two") });
  const entries = await client.listFsEntries({ path: at("listed") });
  entries.sort((a, b) => a.name.localeCompare(b.name));
  assert.deepEqual(entries.map(({ name, path, entryType }) => ({ name, path, entryType })), [
    { name: "one", path: at("listed", "one"), entryType: "file" },
    { name: "two", path: at("listed", "two"), entryType: "directory" },
  ]);
  assert.equal(entries[0].size, 5);
  assert.ok(Date.parse(entries[0].modified) >= before);
  const one = await client.statFs({ path: at("listed", "one") });
  assert.equal(one.path, at("listed", "one"));
  assert.equal(one.entryType, "file");
  assert.equal(one.size, 5);
  assert.ok(Date.parse(one.modified) >= before);
  assert.equal((await client.statFs({ path: at("listed") })).entryType, "directory");
});

test("a directory is made with its parents, once or twice", async () => {
  const path = at("made", "with", "parents");
  assert.deepEqual(await client.mkdirFs({ path }), { path });
  assert.deepEqual(await client.mkdirFs({ path }), { path });
});

test("an entry is moved, and over another only when asked to", async () => {
  const [from, to] = [at("move-a"), at("move-b")];
  await client.writeFsFile({ path: from }, "a");
  await client.writeFsFile({ path: to }, "b");
  await assert.rejects(client.moveFs({ from, to }), refused(400, "invalid_request"));
  assert.deepEqual(await client.moveFs({ from, to, overwrite: true }), { from, to });
  assert.equal(await readFile(to, "utf8"), "a");
  await assert.rejects(client.statFs({ path: from }), refused(400, "invalid_request", /path not found/));
});

test("a move onto itself or from nowhere destroys nothing", async () => {
  const path = at("precious");
  await client.writeFsFile({ path }, "kept");
  await client.moveFs({ from: path, to: path, overwrite: true }).catch(() => {});
  assert.equal(await readFile(path, "utf8"), "kept");
  await assert.rejects(client.moveFs({ from: at("nowhere"), to: path, overwrite: true }));
  assert.equal(await readFile(path, "utf8"), "kept");
});

test("an entry is deleted, a full directory only with all below it", async () => {
  await client.writeFsFile({ path: at("full", "file") }, "x");
  await assert.rejects(client.deleteFsEntry({ path: at("full") }), refused(409, "conflict"));
  assert.deepEqual(await client.deleteFsEntry({ path: at("full"), recursive: true }), { path: at("full") });
  await client.writeFsFile({ path: at("single") }, "x");
  assert.deepEqual(await client.deleteFsEntry({ path: at("single") }), { path: at("single") });
  await assert.rejects(stat(at("full")));
});

test("an archive is unpacked into a directory", async () => {
  const path = at("unpacked");
  const answer = await client.uploadFsBatch(tar({ "a.txt": "first", "sub/b.txt": "second" }), { path });
  assert.equal(answer.truncated, false);
  assert.deepEqual(answer.paths.filter((one) => one.endsWith(".txt")).sort(), [
    join(path, "a.txt"),
    join(path, "sub", "b.txt"),
  ]);
  assert.equal(await readFile(join(path, "sub", "b.txt"), "utf8"), "second");
});

test("an archive does not write beside its directory", async () => {
  const archive = tar({ "../escaped": "out" });
  await assert.rejects(client.uploadFsBatch(archive, { path: at("jail") }), refused(400, "invalid_request"));
  await assert.rejects(stat(at("escaped")));
});

test("what is missing or of the wrong kind is said so", async () => {
  await client.writeFsFile({ path: at("plain") }, bytes("x"));
  await assert.rejects(client.readFsFile({ path: at("none") }), refused(400, "invalid_request", /path not found/));
  await assert.rejects(client.readFsFile({ path: at() }), refused(400, "invalid_request", /path is not a file/));
  await assert.rejects(
    client.listFsEntries({ path: at("plain") }),
    refused(400, "invalid_request", /path is not a directory/),
  );
});
