// The client against the real server; and the examples of the README, as they stand there.
import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Agentjail, AgentjailError } from "../dist/index.js";
import { fileURLToPath } from "node:url";
import { PROJECT, startGit } from "./git-server.mjs";
import { startServer } from "./server.mjs";

let aj, baseUrl, stop, git, runtimes;

before(async () => {
  git = await startGit("127.86.0.1", "my-org/app", PROJECT);
  runtimes = mkdtempSync(join(tmpdir(), "agentjail-runtimes-"));
  // One directory of programs, and one with a `bin`: what a machine has is what a flavor is made of.
  mkdirSync(join(runtimes, "nodejs"));
  copyFileSync(fileURLToPath(import.meta.resolve("@oven/bun-linux-x64-baseline/bin/bun")), join(runtimes, "nodejs/bun"));
  mkdirSync(join(runtimes, "python/bin"), { recursive: true });
  symlinkSync("/usr/bin/python3", join(runtimes, "python/bin/python3"));
  const flavors = { nodejs: join(runtimes, "nodejs"), python: join(runtimes, "python") };
  ({ aj, baseUrl, stop } = await startServer({ flags: git.flags, flavors }));
});

after(async () => {
  await stop();
  git.stop();
  rmSync(runtimes, { recursive: true });
});

test("health, stats, settings, whoami", async () => {
  assert.equal(await aj.public.health(), "ok");
  assert.equal(typeof (await aj.public.stats()).total_execs, "number");
  assert.deepEqual(await aj.settings.whoami(), { tenant: "sdk", role: "operator" });
  assert.equal((await aj.settings.get()).exec.default_memory_mb, 512);
  assert.deepEqual(await aj.settings.flavors(), [{ name: "nodejs" }, { name: "python" }]);
});

test("credentials and sessions, from put to close", async () => {
  const record = await aj.credentials.put({ service: "openai", secret: "sk-real" });
  assert.ok(record.fingerprint.length > 0);
  assert.deepEqual(await aj.credentials.list(), [record]);
  const session = await aj.sessions.create({ services: ["openai"], ttlSecs: 600 });
  assert.match(session.env.OPENAI_API_KEY, /^phm_[0-9a-f]{64}$/);
  assert.deepEqual(await aj.sessions.get(session.id), session);
  const result = await aj.sessions.exec(session.id, { cmd: "/bin/sh", args: ["-c", "echo $OPENAI_API_KEY"] });
  assert.deepEqual([result.exit_code, result.stdout.trim()], [0, session.env.OPENAI_API_KEY]);
  await aj.sessions.close(session.id);
  await assert.rejects(aj.sessions.get(session.id), (error) => error instanceof AgentjailError && error.code === "NOT_FOUND");
  assert.equal(await aj.credentials.delete("openai"), undefined);
});

test("runs, streams, the ledger", async () => {
  const result = await aj.runs.create({ code: "console.log(process.version)" });
  assert.deepEqual([result.exit_code, result.stdout[0]], [0, "v"]);
  const late = await aj.runs.create({ code: "sleep 60", language: "bash", timeoutSecs: 1 });
  assert.equal(late.timed_out, true);
  const events = [];
  for await (const event of aj.runs.stream({ code: "echo '  a'; echo; echo b >&2", language: "bash" })) events.push(event);
  assert.equal(events[0].type, "started");
  assert.deepEqual(events.filter((event) => event.type === "stdout").map((event) => event.line), ["  a", ""]);
  assert.deepEqual(events.filter((event) => event.type === "stderr").map((event) => event.line), ["b"]);
  assert.deepEqual([events.at(-1).type, events.at(-1).exit_code], ["completed", 0]);
  const { rows } = await aj.jails.list({ kind: "stream" });
  assert.deepEqual(await aj.jails.get(rows[0].id), rows[0]);
});

test("leaving a stream ends its jail", async () => {
  for await (const event of aj.runs.stream({ code: "echo up; sleep 60", language: "bash" })) {
    if (event.type === "stdout") break;
  }
  for (let n = 0; ; n++) {
    const [row] = (await aj.jails.list({ kind: "stream", limit: 1 })).rows;
    if (row.status === "error") break;
    assert.ok(n < 100, "the jail still runs");
    await new Promise((done) => setTimeout(done, 50));
  }
});

test("errors are told by field", async () => {
  const error = await aj.runs.create({ code: "1", memoryMb: 0 }).catch((error) => error);
  assert.deepEqual([error.code, error.message], ["BAD_REQUEST", "agentjail 400: bad request: memory_mb must be at least 1"]);
  const unknown = await new Agentjail({ baseUrl, apiKey: "wrong" }).credentials.list().catch((error) => error);
  assert.deepEqual([unknown.code, unknown.message], ["UNAUTHORIZED", "agentjail 401: invalid api key"]);
});

test("the README's examples run as they stand", async () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const blocks = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
  // What needs another package is run where that is: in compat/joined.
  const examples = blocks.filter((text) => !text.includes('from "sandbox-agent"'));
  assert.equal(examples.length, blocks.length - 1);
  const body = examples
    .join("\n")
    .replace(/^import .*$/gm, "")
    .replace("http://localhost:7000", baseUrl)
    .replace("process.env.AGENTJAIL_KEY!", '"sdk-key"');
  const said = [];
  const print = { log: (...words) => said.push(words.join(" ")) };
  const AsyncFunction = (async () => {}).constructor;
  await new AsyncFunction("Agentjail", "AgentjailError", "console", body)(Agentjail, AgentjailError, print);
  for (const line of ["42", "recovered", "deps-ready", "hello world"]) assert.ok(said.includes(line), said.join("\n"));
});

test("workspaces: written to, streamed, forked, restored, found, deleted", async () => {
  const ws = await aj.workspaces.create({ label: "sdk", memoryMb: 256 });
  const sh = (id, code, more = {}) => aj.workspaces.exec(id, { cmd: "sh", args: ["-c", code], ...more });
  assert.equal((await sh(ws.id, "cat > a; echo $A", { stdin: "typed", env: [["A", "1"]] })).stdout, "1\n");
  const said = [];
  for await (const event of aj.workspaces.stream(ws.id, { cmd: "cat", args: ["a"] })) said.push(event);
  assert.deepEqual([said[0].type, said.find((event) => event.type === "stdout").line], ["started", "typed"]);
  const first = await aj.snapshots.create(ws.id, { name: "first" });
  await sh(ws.id, "echo more >> a; echo b > b");
  const second = await aj.snapshots.create(ws.id);
  const { totals, changed } = await aj.snapshots.diff(second.id, first.id);
  assert.deepEqual([totals, changed[0].after.path], [{ added: 1, changed: 1, removed: 0 }, "a"]);
  const { entries } = await aj.snapshots.manifest(first.id);
  assert.deepEqual(entries.map((entry) => [entry.path, entry.size, entry.hash.length]), [["a", 5, 64]]);
  assert.deepEqual(await aj.snapshots.verify(first.id), { intact: true, error: null });
  let bytes = 0;
  for await (const piece of await aj.snapshots.tar(first.id)) bytes += piece.length;
  assert.equal(bytes % 512, 0);
  const { forks, snapshot_id } = await aj.workspaces.fork(ws.id, { count: 2, label: "try" });
  assert.deepEqual(forks.map((fork) => fork.label), ["try-0", "try-1"]);
  assert.equal((await sh(forks[1].id, "cat a b")).stdout, "typedmore\nb\n");
  assert.equal((await aj.snapshots.get(snapshot_id)).name, `fork-origin:${ws.id}`);
  const back = await aj.snapshots.createWorkspaceFrom(first.id, { label: "recovered" });
  assert.equal((await sh(back.id, "cat a")).stdout, "typed");
  await aj.workspaces.restore(ws.id, first.id);
  assert.equal((await sh(ws.id, "ls")).stdout, "a\n");
  assert.equal((await aj.workspaces.rename(ws.id, "renamed")).label, "renamed");
  const found = [];
  for await (const { label } of aj.workspaces.all({ q: "try", pageSize: 1 })) found.push(label);
  assert.deepEqual(found, ["try-1", "try-0"]);
  const names = [];
  for await (const { name } of aj.snapshots.all({ workspaceId: ws.id, pageSize: 2 })) names.push(name);
  assert.deepEqual(names, [`fork-origin:${ws.id}`, null, "first"]);
  for (const { id } of [ws, back, ...forks]) assert.equal(await aj.workspaces.delete(id), undefined);
  await assert.rejects(aj.workspaces.get(ws.id), (error) => error.code === "NOT_FOUND");
  assert.equal(await aj.snapshots.delete(first.id), undefined);
  await assert.rejects(aj.snapshots.delete(first.id), (error) => error.code === "NOT_FOUND");
});

test("a server in a workspace is previewed, and a second command is told to wait", async () => {
  const ws = await aj.workspaces.create({ network: { mode: "loopback" } });
  const code = "require('http').createServer((q, r) => r.end(q.method + q.url + q.headers.authorization)).listen(3000, () => console.log('up'))";
  for await (const event of aj.workspaces.stream(ws.id, { cmd: "node", args: ["-e", code] })) {
    if (event.type !== "stdout") continue;
    const answer = await aj.workspaces.preview(ws.id, 3000, "/a?b", { method: "POST", body: "x" });
    assert.deepEqual([answer.status, await answer.text()], [200, "POST/a?bundefined"]);
    await assert.rejects(aj.workspaces.exec(ws.id, { cmd: "true" }), (error) => error.code === "CONFLICT");
    break;
  }
});

test("a run is forked, and clones what it needs", async () => {
  const git = { repo: "https://github.com/my-org/app" };
  const forked = await aj.runs.fork({
    language: "bash",
    git,
    parentCode: "cat package.json > /output/p; sleep 1",
    children: [{ code: "grep -c greet /output/p" }, { code: "ls packages" }],
    forkAfterMs: 300,
  });
  assert.deepEqual(forked.children.map((child) => child.stdout), ["1\n", "greet\n"]);
  assert.equal(forked.fork.was_frozen, true);
  const failed = await aj.workspaces.create({ git: { ...git, ref: "nosuch" } }).catch((error) => error);
  assert.match(failed.message, /agentjail 400: bad request: git clone failed: .*\(ref: /);
});

test("an agent lives in a workspace, is paused, woken, forked and ended", async () => {
  await aj.credentials.put({ service: "anthropic", secret: "sk-ant-real" });
  const ws = await aj.workspaces.create({});
  const agent = await aj.workspaces.agent(ws.id, { services: ["anthropic"] });
  assert.match(agent.token, /^agt_[0-9a-f]{64}$/);
  const ask = (started, path, init) =>
    fetch(started.url + path, { ...init, headers: { authorization: `Bearer ${started.token}`, "content-type": "application/json" } });
  const shell = async (started, script) => {
    const body = JSON.stringify({ command: "sh", args: ["-c", script] });
    return (await (await ask(started, "/v1/processes/run", { method: "POST", body })).json()).stdout.trim();
  };
  const key = await shell(agent, "echo $ANTHROPIC_API_KEY");
  assert.match(key, /^phm_[0-9a-f]{64}$/);
  assert.equal((await aj.workspaces.getAgent(ws.id)).state, "running");
  assert.equal((await aj.workspaces.setAgent(ws.id, "paused")).state, "paused");
  assert.equal((await ask(agent, "/v1/health")).status, 200);
  assert.equal((await aj.workspaces.getAgent(ws.id)).state, "running");
  // A command joins the jail that the agent lives in.
  const joined = await aj.workspaces.exec(ws.id, { cmd: "sh", args: ["-c", "echo mine > note; echo $ANTHROPIC_API_KEY"], sessionId: agent.session_id });
  assert.deepEqual([joined.exit_code, joined.stdout.trim()], [0, key]);
  const { forks } = await aj.workspaces.fork(ws.id, { count: 1, agent: {} });
  const theirs = forks[0].agent;
  assert.notEqual(theirs.session_id, agent.session_id);
  assert.equal(await shell(theirs, "cat /workspace/note"), "mine");
  assert.notEqual(await shell(theirs, "echo $ANTHROPIC_API_KEY"), key);
  assert.equal((await fetch(`${theirs.url}/v1/health`, { headers: { authorization: `Bearer ${agent.token}` } })).status, 404);
  assert.equal(await aj.workspaces.deleteAgent(ws.id), undefined);
  assert.equal((await ask(agent, "/v1/health")).status, 401);
  await assert.rejects(aj.workspaces.getAgent(ws.id), (error) => error.code === "NOT_FOUND");
});

test("keys are made and ended by admins", async () => {
  const root = new Agentjail({ baseUrl, apiKey: "root-key" });
  const made = await root.keys.create({ role: "operator", label: "ci", ttlSecs: 600 });
  const theirs = new Agentjail({ baseUrl, apiKey: made.key });
  assert.deepEqual(await theirs.settings.whoami(), { tenant: "sdk", role: "operator" });
  assert.equal((await root.keys.list())[0].id, made.id);
  await root.keys.revoke(made.id);
  await assert.rejects(theirs.settings.whoami(), (error) => error.code === "UNAUTHORIZED");
});

test("the allowlist of a running jail is replaced", async () => {
  const running = aj.runs.create({
    language: "bash",
    code: "sleep 2",
    network: { mode: "allowlist", domains: ["a.test"], limits: { bytes: 1000 } },
  });
  let row;
  for (let n = 0; n < 100 && !row; n++) {
    [row] = (await aj.jails.list({ status: "running", kind: "run" })).rows;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.deepEqual(await aj.jails.setNetwork(row.id, { domains: ["b.test"] }), { domains: ["b.test"], cut: 0 });
  await assert.rejects(aj.jails.setNetwork(row.id, { domains: ["a b"] }), (error) => error.status === 400);
  const { network } = await running;
  assert.deepEqual(network, { sent_bytes: 0, received_bytes: 0, connections: 0, refused: [], refused_more: 0 });
  await assert.rejects(aj.jails.setNetwork(row.id, { domains: [] }), (error) => error.status === 409);
});
