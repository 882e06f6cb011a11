// The client against the real server; and the examples of the README, as they stand there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { Agentjail, AgentjailError } from "../dist/index.js";
import { startServer } from "./server.mjs";

let aj, baseUrl, stop;

before(async () => {
  ({ aj, baseUrl, stop } = await startServer());
});

after(() => stop());

test("health, stats, settings, whoami", async () => {
  assert.equal(await aj.public.health(), "ok");
  assert.equal(typeof (await aj.public.stats()).total_execs, "number");
  assert.deepEqual(await aj.settings.whoami(), { tenant: "sdk", role: "operator" });
  assert.equal((await aj.settings.get()).exec.default_memory_mb, 512);
  assert.deepEqual(await aj.settings.flavors(), []);
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
  const examples = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
  assert.ok(examples.length >= 3);
  const body = examples
    .join("\n")
    .replace(/^import .*$/gm, "")
    .replace("http://localhost:7000", baseUrl)
    .replace("process.env.AGENTJAIL_API_KEY!", '"sdk-key"');
  const said = [];
  const print = { log: (...words) => said.push(words.join(" ")) };
  const AsyncFunction = (async () => {}).constructor;
  await new AsyncFunction("Agentjail", "AgentjailError", "console", body)(Agentjail, AgentjailError, print);
  assert.ok(said.includes("42"), said.join("\n"));
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
