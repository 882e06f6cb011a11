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
    [() => aj.audit.recent(), "GET", "/v1/audit"],
    [() => aj.audit.recent(50), "GET", "/v1/audit?limit=50"],
    [() => aj.jails.list(), "GET", "/v1/jails"],
    [() => aj.jails.list({ limit: 10, status: "error" }), "GET", "/v1/jails?limit=10&status=error"],
    [() => aj.jails.get(7), "GET", "/v1/jails/7"],
    [() => aj.settings.get(), "GET", "/v1/config"],
    [() => aj.settings.whoami(), "GET", "/v1/whoami"],
    [() => aj.settings.flavors(), "GET", "/v1/flavors"],
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
