// What the client sends and makes of answers, against a stub `fetch`.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as sdk from "../dist/index.js";

const { Agentjail, AgentjailError } = sdk;

/** A client whose requests are kept, and answered with what the test says. */
function stubbed(answer = { status: 200, body: {} }) {
  const calls = [];
  const fetch = async (url, init) => {
    calls.push({ url, ...init, body: init.body === undefined ? undefined : JSON.parse(init.body) });
    const text = typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body);
    const body = answer.status === 204 ? null : text;
    return new Response(body, { status: answer.status, statusText: answer.statusText ?? "", headers: answer.headers });
  };
  return { aj: new Agentjail({ baseUrl: "http://ctl.test/", apiKey: "aj_key", fetch }), calls };
}

test("what is exported is what is promised", () => {
  assert.deepEqual(Object.keys(sdk).sort(), ["Agentjail", "AgentjailError"]);
});

test("a client needs a base URL, and cuts its slashes", async () => {
  assert.throws(() => new Agentjail({ baseUrl: "" }));
  const { aj, calls } = stubbed();
  await aj.public.stats();
  assert.equal(calls[0].url, "http://ctl.test/v1/stats");
  assert.deepEqual(calls[0].headers, { accept: "application/json", authorization: "Bearer aj_key" });
});

test("without a key there is no authorization", async () => {
  const calls = [];
  const fetch = async (url, init) => (calls.push(init), new Response("ok"));
  assert.equal(await new Agentjail({ baseUrl: "http://x", fetch }).public.health(), "ok");
  assert.deepEqual(calls[0].headers, { accept: "application/json" });
});

test("each method sends what its route expects", async () => {
  const { aj, calls } = stubbed();
  const options = { network: { mode: "allowlist", domains: ["a.test"] }, seccomp: "strict", cpuPercent: 50, maxPids: 8 };
  const wire = { network: { mode: "allowlist", domains: ["a.test"] }, seccomp: "strict", cpu_percent: 50, max_pids: 8 };
  const expected = [
    [() => aj.credentials.list(), "GET", "/v1/credentials"],
    [() => aj.credentials.put({ service: "openai", secret: "s" }), "POST", "/v1/credentials", { service: "openai", secret: "s" }],
    [() => aj.credentials.delete("openai"), "DELETE", "/v1/credentials/openai"],
    [() => aj.sessions.create({ services: ["openai"] }), "POST", "/v1/sessions", { services: ["openai"] }],
    [() => aj.sessions.create({ services: ["github"], ttlSecs: 0, scopes: { github: ["/x"] } }), "POST", "/v1/sessions", { services: ["github"], ttl_secs: 0, scopes: { github: ["/x"] } }],
    [() => aj.sessions.list(), "GET", "/v1/sessions"],
    [() => aj.sessions.get("sess_1"), "GET", "/v1/sessions/sess_1"],
    [() => aj.sessions.close("a/../b c"), "DELETE", "/v1/sessions/a%2F..%2Fb%20c"],
    [() => aj.sessions.exec("sess_1", { cmd: "ls", args: ["-l"], timeoutSecs: 5, memoryMb: 64, ...options }), "POST", "/v1/sessions/sess_1/exec", { cmd: "ls", args: ["-l"], timeout_secs: 5, memory_mb: 64, ...wire }],
    [() => aj.runs.create({ code: "1" }), "POST", "/v1/runs", { code: "1" }],
    [() => aj.runs.create({ code: "1", language: "python", timeoutSecs: 9, memoryMb: 1, sessionId: "sess_1", ...options }), "POST", "/v1/runs", { code: "1", language: "python", session_id: "sess_1", timeout_secs: 9, memory_mb: 1, ...wire }],
    [() => aj.runs.fork({ parentCode: "p", children: [{ code: "c", memoryMb: 2 }], forkAfterMs: 7 }), "POST", "/v1/runs/fork", { parent_code: "p", children: [{ code: "c", memory_mb: 2 }], fork_after_ms: 7 }],
    [() => aj.runs.fork({ parentCode: "p", childCode: "c" }), "POST", "/v1/runs/fork", { parent_code: "p", child_code: "c" }],
    [() => aj.sessions.run("sess_1", { code: "1", git: { repo: "https://h/a" } }), "POST", "/v1/sessions/sess_1/runs", { code: "1", git: { repo: "https://h/a" } }],
    [() => aj.workspaces.create(), "POST", "/v1/workspaces", {}],
    [() => aj.workspaces.create({ git: { repo: "https://h/a", ref: "main" }, label: "ci", memoryMb: 1, timeoutSecs: 2, idleTimeoutSecs: 0, domains: [{ domain: "a.b", vm_port: 1 }], flavors: ["nodejs"], image: "debian", ...options }), "POST", "/v1/workspaces", { git: { repo: "https://h/a", ref: "main" }, label: "ci", memory_mb: 1, timeout_secs: 2, idle_timeout_secs: 0, domains: [{ domain: "a.b", vm_port: 1 }], flavors: ["nodejs"], image: "debian", ...wire }],
    [() => aj.workspaces.list(), "GET", "/v1/workspaces"],
    [() => aj.workspaces.list({ limit: 10, offset: 20 }), "GET", "/v1/workspaces?limit=10&offset=20"],
    [() => aj.workspaces.list({ q: "a b" }), "GET", "/v1/workspaces?q=a+b"],
    [() => aj.workspaces.get("wrk_1"), "GET", "/v1/workspaces/wrk_1"],
    [() => aj.workspaces.rename("wrk_1", "new"), "PATCH", "/v1/workspaces/wrk_1", { label: "new" }],
    [() => aj.workspaces.delete("wrk_1"), "DELETE", "/v1/workspaces/wrk_1"],
    [() => aj.workspaces.exec("wrk_1", { cmd: "ls" }), "POST", "/v1/workspaces/wrk_1/exec", { cmd: "ls" }],
    [() => aj.workspaces.exec("wrk_1", { cmd: "ls", args: ["-l"], timeoutSecs: 5, memoryMb: 64, env: [["A", "1"]], sessionId: "sess_1", stdin: "x" }), "POST", "/v1/workspaces/wrk_1/exec", { cmd: "ls", args: ["-l"], timeout_secs: 5, memory_mb: 64, env: [["A", "1"]], session_id: "sess_1", stdin: "x" }],
    [() => aj.workspaces.fork("wrk_1", { count: 3, label: "try" }), "POST", "/v1/workspaces/wrk_1/fork", { count: 3, label: "try" }],
    [() => aj.workspaces.agent("wrk_1"), "POST", "/v1/workspaces/wrk_1/agent", {}],
    [() => aj.workspaces.agent("wrk_1", { services: ["anthropic"], scopes: { anthropic: ["/v1/*"] }, agents: ["claude"], network: { mode: "allowlist", domains: ["a.test"] }, env: [["A", "1"]], memoryMb: 1, maxPids: 2, cpuPercent: 3 }), "POST", "/v1/workspaces/wrk_1/agent", { services: ["anthropic"], scopes: { anthropic: ["/v1/*"] }, agents: ["claude"], network: { mode: "allowlist", domains: ["a.test"] }, env: [["A", "1"]], memory_mb: 1, max_pids: 2, cpu_percent: 3 }],
    [() => aj.workspaces.agent("wrk_1", { sessionId: "sess_1" }), "POST", "/v1/workspaces/wrk_1/agent", { session_id: "sess_1" }],
    [() => aj.workspaces.getAgent("wrk_1"), "GET", "/v1/workspaces/wrk_1/agent"],
    [() => aj.workspaces.setAgent("wrk_1", "paused"), "PATCH", "/v1/workspaces/wrk_1/agent", { state: "paused" }],
    [() => aj.workspaces.deleteAgent("wrk_1"), "DELETE", "/v1/workspaces/wrk_1/agent"],
    [() => aj.workspaces.fork("wrk_1", { count: 1, agent: {} }), "POST", "/v1/workspaces/wrk_1/fork", { count: 1, agent: {} }],
    [() => aj.workspaces.restore("wrk_1", "snap_1"), "POST", "/v1/workspaces/wrk_1/restore", { snapshot_id: "snap_1" }],
    [() => aj.snapshots.create("wrk_1"), "POST", "/v1/workspaces/wrk_1/snapshot", {}],
    [() => aj.snapshots.create("wrk_1", { name: "n" }), "POST", "/v1/workspaces/wrk_1/snapshot", { name: "n" }],
    [() => aj.snapshots.list({ workspaceId: "wrk_abc" }), "GET", "/v1/snapshots?workspace_id=wrk_abc"],
    [() => aj.snapshots.get("snap_1"), "GET", "/v1/snapshots/snap_1"],
    [() => aj.snapshots.manifest("snap_1"), "GET", "/v1/snapshots/snap_1/manifest"],
    [() => aj.snapshots.diff("snap_2", "snap_1", { limit: 5 }), "GET", "/v1/snapshots/snap_2/diff?against=snap_1&limit=5"],
    [() => aj.snapshots.verify("snap_1"), "POST", "/v1/snapshots/snap_1/verify"],
    [() => aj.snapshots.delete("snap_1"), "DELETE", "/v1/snapshots/snap_1"],
    [() => aj.snapshots.createWorkspaceFrom("snap_1", { parentWorkspaceId: "wrk_1", label: "l" }), "POST", "/v1/workspaces/from-snapshot", { snapshot_id: "snap_1", parent_workspace_id: "wrk_1", label: "l" }],
    [() => aj.keys.create({ role: "operator", tenant: "t", label: "l", ttlSecs: 9 }), "POST", "/v1/keys", { role: "operator", tenant: "t", label: "l", ttl_secs: 9 }],
    [() => aj.keys.list(), "GET", "/v1/keys"],
    [() => aj.keys.revoke("key_1"), "DELETE", "/v1/keys/key_1"],
    [() => aj.audit.recent(), "GET", "/v1/audit"],
    [() => aj.audit.recent(50), "GET", "/v1/audit?limit=50"],
    [() => aj.jails.list(), "GET", "/v1/jails"],
    [() => aj.jails.list({ limit: 10, status: "error" }), "GET", "/v1/jails?limit=10&status=error"],
    [() => aj.jails.get(7), "GET", "/v1/jails/7"],
    [() => aj.settings.get(), "GET", "/v1/config"],
    [() => aj.settings.whoami(), "GET", "/v1/whoami"],
    [() => aj.settings.flavors(), "GET", "/v1/flavors"],
    [() => aj.settings.images(), "GET", "/v1/images"],
  ];
  for (const [call, method, path, body] of expected) {
    await call();
    const sent = calls.at(-1);
    assert.deepEqual([sent.method, sent.url, sent.body], [method, `http://ctl.test${path}`, body]);
    assert.equal(sent.headers["content-type"], body === undefined ? undefined : "application/json");
  }
});

test("an id that is none is not sent", async () => {
  const { aj, calls } = stubbed();
  for (const id of ["", ".", ".."]) assert.throws(() => aj.sessions.get(id), /not an id/);
  await assert.rejects(aj.runs.fork({ parentCode: "p" }), /exactly one/);
  await assert.rejects(aj.runs.fork({ parentCode: "p", childCode: "c", children: [{ code: "c" }] }), /exactly one/);
  assert.equal(calls.length, 0);
});

test("answers are JSON, text, or nothing", async () => {
  assert.equal(await stubbed({ status: 204 }).aj.sessions.close("x"), undefined);
  assert.equal(await stubbed({ status: 200, body: "ok" }).aj.public.health(), "ok");
  assert.equal(await stubbed({ status: 200, body: '"ok"' }).aj.public.health(), "ok");
  assert.equal(await stubbed({ status: 200, body: "" }).aj.public.health(), null);
});

test("errors have a status, a code and the server's words", async () => {
  const codes = { 400: "BAD_REQUEST", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 408: "TIMEOUT", 409: "CONFLICT", 413: "BAD_REQUEST", 429: "RATE_LIMITED", 500: "SERVER_ERROR", 502: "SERVER_ERROR", 504: "TIMEOUT" };
  for (const [status, code] of Object.entries(codes)) {
    const { aj } = stubbed({ status: Number(status), body: { error: "what is wrong" }, headers: { "x-request-id": "r1" } });
    const error = await aj.runs.create({ code: "" }).catch((error) => error);
    assert.ok(error instanceof AgentjailError);
    assert.deepEqual([error.name, error.status, error.code, error.message, error.requestId], ["AgentjailError", Number(status), code, `agentjail ${status}: what is wrong`, "r1"]);
    assert.deepEqual(error.body, { error: "what is wrong" });
  }
  const plain = await stubbed({ status: 401, body: "nope", statusText: "Unauthorized" }).aj.public.stats().catch((error) => error);
  assert.deepEqual([plain.message, plain.body], ["agentjail 401: Unauthorized", "nope"]);
});

test("a server that is not there is a NETWORK error with its cause", async () => {
  const cause = new TypeError("fetch failed");
  const aj = new Agentjail({ baseUrl: "http://x", fetch: () => Promise.reject(cause) });
  const error = await aj.public.health().catch((error) => error);
  assert.deepEqual([error.status, error.code, error.cause], [0, "NETWORK", cause]);
});

test("the caller's own abort stays the caller's", async () => {
  const reason = new Error("mine");
  const aj = new Agentjail({ baseUrl: "http://x", fetch: (_, { signal }) => Promise.reject(signal.reason) });
  await assert.rejects(aj.public.health({ signal: AbortSignal.abort(reason) }), reason);
});

/** A client whose stream is these bytes, in pieces of `size`. */
function streaming(text, size) {
  const bytes = new TextEncoder().encode(text);
  let cancelled = false;
  let at = 0;
  const body = new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, (at += size)));
    },
    cancel: () => void (cancelled = true),
  });
  const aj = new Agentjail({ baseUrl: "http://x", fetch: async () => new Response(body) });
  return { aj, cancelled: () => cancelled };
}

test("a stream is read however it is cut", async () => {
  const text =
    ': hello\n\nevent: started\ndata: {"pid":7}\n\nevent: stdout\ndata:   indented é\n\nevent: stdout\ndata: \n\n' +
    "event: stderr\r\ndata:no space\r\n\r\nevent: stdout\ndata: two\ndata: lines\n\nevent: later\ndata: x\n\nevent: stats\ndata: {bad\n\n" +
    'event: completed\ndata: {"exit_code":0}';
  for (const size of [1, 2, 3, 7, 1000]) {
    const events = [];
    for await (const event of streaming(text, size).aj.runs.stream({ code: "" })) events.push(event);
    assert.deepEqual(events, [
      { type: "started", pid: 7 },
      { type: "stdout", line: "  indented é" },
      { type: "stdout", line: "" },
      { type: "stderr", line: "no space" },
      { type: "stdout", line: "two\nlines" },
      { type: "completed", exit_code: 0 },
    ]);
  }
});

test("leaving the loop cancels the stream", async () => {
  const { aj, cancelled } = streaming("event: stdout\ndata: x\n\n".repeat(100), 10);
  for await (const _ of aj.runs.stream({ code: "" })) break;
  assert.equal(cancelled(), true);
});

test("forks are from 1 to 16, and a snapshot's parent is looked up if it is not given", async () => {
  const { aj, calls } = stubbed({ status: 200, body: { workspace_id: "wrk_parent" } });
  for (const count of [0, 17, NaN]) await assert.rejects(aj.workspaces.fork("wrk_1", { count }), /count/);
  assert.equal(calls.length, 0);
  await aj.snapshots.createWorkspaceFrom("snap_1", { label: "recovered" });
  assert.deepEqual(calls.map((call) => [call.method, call.url]), [
    ["GET", "http://ctl.test/v1/snapshots/snap_1"],
    ["POST", "http://ctl.test/v1/workspaces/from-snapshot"],
  ]);
  assert.deepEqual(calls[1].body, { snapshot_id: "snap_1", parent_workspace_id: "wrk_parent", label: "recovered" });
});

test("pages are fetched as they are asked for", async () => {
  const asked = [];
  const fetch = async (url) => {
    asked.push(new URL(url).search);
    const offset = Number(new URL(url).searchParams.get("offset"));
    const rows = [0, 1, 2, 3, 4].slice(offset, offset + 2).map((id) => ({ id }));
    return Response.json({ rows, total: 5, limit: 2, offset });
  };
  const aj = new Agentjail({ baseUrl: "http://ctl.test", fetch });
  const seen = [];
  for await (const { id } of aj.workspaces.all({ pageSize: 2 })) seen.push(id);
  assert.deepEqual([seen, asked.length], [[0, 1, 2, 3, 4], 3]);
  for await (const _ of aj.jails.all({ pageSize: 2 })) break;
  assert.equal(asked.length, 4);
});

test("only what reads is sent again, and only where that helps", async () => {
  const counted = async (answers, call, options) => {
    let sent = 0;
    const fetch = async () => {
      const answer = answers[Math.min(sent++, answers.length - 1)];
      if (answer instanceof Error) throw answer;
      return new Response("{}", answer);
    };
    const error = await call(new Agentjail({ baseUrl: "http://ctl.test", fetch, ...options })).catch((error) => error);
    return [sent, error?.code];
  };
  const list = (aj) => aj.sessions.list();
  const refused = new TypeError("fetch failed");
  assert.deepEqual(await counted([refused, { status: 200 }], list), [2, undefined]);
  assert.deepEqual(await counted([refused], list), [3, "NETWORK"]);
  assert.deepEqual(await counted([refused], list, { retries: 0 }), [1, "NETWORK"]);
  assert.deepEqual(await counted([{ status: 429, headers: { "retry-after": "0.01" } }, { status: 200 }], list), [2, undefined]);
  assert.deepEqual(await counted([{ status: 429 }], list), [1, "RATE_LIMITED"]);
  assert.deepEqual(await counted([{ status: 504 }], list), [1, "TIMEOUT"]);
  assert.deepEqual(await counted([refused, { status: 200 }], (aj) => aj.runs.create({ code: "1" })), [1, "NETWORK"]);
});

test("a request ends when its time is up, or its caller says so", async () => {
  const fetch = (_, init) => new Promise((_, fail) => init.signal.addEventListener("abort", () => fail(init.signal.reason)));
  const aj = new Agentjail({ baseUrl: "http://ctl.test", fetch, timeoutMs: 20 });
  await assert.rejects(aj.sessions.list(), (error) => error.code === "TIMEOUT" && error.status === 408);
  await assert.rejects(aj.sessions.list({ timeoutMs: 5 }), (error) => error.message.includes("5 ms"));
  const stop = new AbortController();
  setTimeout(() => stop.abort(new Error("enough")), 5);
  await assert.rejects(aj.sessions.list({ signal: stop.signal, timeoutMs: 5000 }), /enough/);
});
