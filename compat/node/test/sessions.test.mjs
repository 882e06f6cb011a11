import { strict as assert } from "node:assert";
import { after, before, test } from "node:test";

import {
  InMemorySessionPersistDriver,
  UnsupportedSessionConfigOptionError,
  UnsupportedSessionValueError,
} from "sandbox-agent";

import { Server, attentive, listen, relay, severableFetch, soon, text, until } from "../support.mjs";

let server;
before(async () => (server = await Server.start()));
after(() => server.stop());

const create = async (client, request = {}) => {
  const session = await client.createSession({ agent: "mock", cwd: server.dir.work, ...request });
  return [session, listen(session)];
};

test("a session is created, prompted, and hears the answer in pieces", async (t) => {
  const check = attentive(t);
  const client = await server.client();
  const [session, heard] = await create(client);
  assert.equal(session.agent, "mock");
  assert.ok(session.agentSessionId);
  const answer = await session.prompt(text("one two three"));
  assert.equal(answer.stopReason, "end_turn");
  await until("the answer", () => heard.text === "You said: one two three");
  assert.ok(heard.updates.length > 1, "it came in one piece");
  assert.equal(heard.events.filter((event) => event.sender === "client").at(-1).payload.method, "session/prompt");
  assert.equal((await client.getSession(session.id)).id, session.id);
  assert.deepEqual((await client.listSessions()).items.map((one) => one.id), [session.id]);
  const { items } = await client.getEvents({ sessionId: session.id });
  assert.deepEqual(items.map((event) => event.eventIndex), items.map((_, index) => index + 1));
  check();
});

test("a prompt may be large", async () => {
  const [session, heard] = await create(await server.client());
  const long = "x".repeat(3 * 1024 * 1024);
  assert.equal((await session.prompt(text(long))).stopReason, "end_turn");
  await until("the answer", () => heard.text.length === long.length + "You said: ".length);
});

test("thoughts, plans and tool calls reach the session", async (t) => {
  const check = attentive(t);
  const [session, heard] = await create(await server.client());
  await session.prompt(text("think plan tool"));
  await until("a tool call's end", () =>
    heard.updates.some((update) => update.sessionUpdate === "tool_call_update" && update.status === "completed"));
  const kinds = new Set(heard.updates.map((update) => update.sessionUpdate));
  const wanted = ["agent_thought_chunk", "plan", "tool_call", "agent_message_chunk"];
  for (const kind of wanted) assert.ok(kinds.has(kind), kind);
  check();
});

for (const [reply, said, reason] of [
  ["once", "It was allowed.", "end_turn"],
  ["always", "It was allowed.", "end_turn"],
  ["reject", "It was not allowed.", "end_turn"],
]) {
  test(`a permission is asked for and answered with ${reply}`, async (t) => {
    const check = attentive(t);
    const [session, heard] = await create(await server.client());
    const asked = [];
    session.onPermissionRequest((request) => {
      asked.push(request);
      void session.respondPermission(request.id, reply);
    });
    const answer = await soon("the prompt's end", session.prompt(text("permission please")));
    assert.equal(answer.stopReason, reason);
    assert.equal(asked.length, 1);
    assert.equal(asked[0].sessionId, session.id);
    assert.deepEqual(asked[0].availableReplies, ["once", "always", "reject"]);
    assert.ok(asked[0].toolCall.toolCallId);
    await until("the answer", () => heard.text.endsWith(said));
    check();
  });
}

test("a permission is answered raw, or cancelled where nobody listens", async () => {
  const client = await server.client();
  const [session, heard] = await create(client);
  const unheard = await soon("the prompt's end", session.prompt(text("permission unheard")));
  assert.equal(unheard.stopReason, "cancelled");
  session.onPermissionRequest((request) => {
    const { optionId } = request.options.find((option) => option.kind === "allow_once");
    void session.rawRespondPermission(request.id, { outcome: { outcome: "selected", optionId } });
  });
  assert.equal((await session.prompt(text("permission heard"))).stopReason, "end_turn");
  await until("the answer", () => heard.text.endsWith("It was allowed."));
});

test("mode, model, thought level and options are set and stay set", async (t) => {
  const check = attentive(t);
  const client = await server.client();
  const [session] = await create(client);
  assert.equal((await session.getModes()).currentModeId, "normal");
  await session.setMode("plan");
  assert.equal((await session.getModes()).currentModeId, "plan");
  const current = async (category) =>
    (await session.getConfigOptions()).find((option) => option.category === category).currentValue;
  assert.equal(await current("mode"), "plan");
  await session.setModel("mock-fast");
  assert.equal(await current("model"), "mock-fast");
  await session.setThoughtLevel("high");
  assert.equal(await current("thought_level"), "high");
  await session.setConfigOption("thought_level", "medium");
  assert.equal(await current("thought_level"), "medium");
  assert.equal(await current("model"), "mock-fast");
  await assert.rejects(session.setModel("other"), UnsupportedSessionValueError);
  await assert.rejects(session.setMode("other"), UnsupportedSessionValueError);
  await assert.rejects(session.setConfigOption("colour", "red"), UnsupportedSessionConfigOptionError);
  const again = await client.createSession({
    agent: "mock", cwd: server.dir.work, mode: "plan", model: "mock-fast", thoughtLevel: "medium",
  });
  assert.equal((await again.getModes()).currentModeId, "plan");
  assert.deepEqual(
    (await again.getConfigOptions()).map((option) => [option.category, option.currentValue]),
    [["model", "mock-fast"], ["mode", "plan"], ["thought_level", "medium"]],
  );
  check();
});

test("a prompt that would go on for ever is cancelled by destroying its session", async () => {
  const client = await server.client();
  const [session, heard] = await create(client);
  const prompt = session.prompt(text("wait"));
  await until("a beginning", () => heard.text !== "");
  const destroyed = await client.destroySession(session.id);
  assert.ok(destroyed.destroyedAt);
  assert.equal((await soon("the prompt's end", prompt)).stopReason, "cancelled");
});

test("a method that the agent does not know leaves the connection standing", async () => {
  const [session] = await create(await server.client());
  await session.rawSend("example/unknown", { some: "thing" });
  await session.rawSend("example/notice", {}, { notification: true });
  assert.equal((await session.prompt(text("still"))).stopReason, "end_turn");
});

test("a method that fails is that method's failure alone", async () => {
  const client = await server.client();
  const [session] = await create(client);
  const [other] = await create(client);
  await assert.rejects(session.rawSend("session/prompt", { prompt: "no blocks", sessionId: "x" })
    .then((answer) => { if (answer.stopReason) throw new Error("the agent took it"); }));
  assert.equal((await other.prompt(text("unmoved"))).stopReason, "end_turn");
});

test("two sessions of one client do not hear each other", async () => {
  const client = await server.client();
  const [[one, ofOne], [two, ofTwo]] = await Promise.all([create(client), create(client)]);
  await Promise.all([one.prompt(text("apples")), two.prompt(text("pears"))]);
  await until("one", () => ofOne.text === "You said: apples");
  await until("two", () => ofTwo.text === "You said: pears");
});

test("two clients at once have agents of their own", async () => {
  const [here, there] = [await server.client(), await server.client()];
  const [[one, ofOne], [two, ofTwo]] = await Promise.all([create(here), create(there)]);
  await Promise.all([one.prompt(text("left")), two.prompt(text("right"))]);
  await until("left", () => ofOne.text === "You said: left");
  await until("right", () => ofTwo.text === "You said: right");
  await here.dispose();
  await two.prompt(text("on"));
  await until("right", () => ofTwo.text === "You said: rightYou said: on");
});

test("a stream that a proxy ends is taken up where it ended, nothing lost and nothing twice", async (t) => {
  const check = attentive(t);
  const severable = severableFetch();
  const [session, heard] = await create(await server.client({ fetch: severable }));
  await session.prompt(text("before"));
  await until("the first answer", () => heard.text === "You said: before");
  const seen = severable.lastEventIds.length;
  severable.sever();
  await session.prompt(text("between"));
  await until("a new stream", () => severable.lastEventIds.length > seen);
  await until("the second answer", () => heard.text === "You said: beforeYou said: between");
  assert.ok(Number(severable.lastEventIds.at(-1)) > 0);
  session.onPermissionRequest((request) => void session.respondPermission(request.id, "once"));
  const prompt = session.prompt(text("permission"));
  severable.sever();
  assert.equal((await soon("the prompt's end", prompt)).stopReason, "end_turn");
  await until("the third answer", () => heard.text.endsWith("You said: permission It was allowed."));
  assert.equal(heard.text.match(/You said/g).length, 3);
  check();
});

test("a connection that is cut is taken up again at the next word", async (t) => {
  t.mock.method(console, "error", () => {});
  const between = await relay(server);
  try {
    const client = await server.client({ baseUrl: between.url });
    const [session, heard] = await create(client);
    await session.prompt(text("before"));
    await until("the first answer", () => heard.text === "You said: before");
    between.cutStreams();
    await until("the cut", () => between.streams() === 0);
    await session.prompt(text("after"));
    await until("the second answer", () => heard.text === "You said: beforeYou said: after");
    await client.dispose();
  } finally {
    await between.close();
  }
});

test("a server that was killed and started again goes on with its sessions", async (t) => {
  t.mock.method(console, "error", () => {});
  const own = await Server.start();
  try {
    const client = await own.client();
    const session = await client.createSession({ agent: "mock", cwd: own.dir.work });
    const heard = listen(session);
    await session.setMode("plan");
    await session.prompt(text("before"));
    await until("the first answer", () => heard.text === "You said: before");
    await own.crash();
    const resumed = await client.resumeSession(session.id);
    assert.equal(resumed.id, session.id);
    assert.equal((await soon("the prompt's end", resumed.prompt(text("after")))).stopReason, "end_turn");
    await until("the second answer", () => heard.text === "You said: beforeYou said: after");
    assert.equal(resumed.agentSessionId, session.agentSessionId);
    const options = (await resumed.setThoughtLevel("high")).configOptions;
    assert.equal(options.find((option) => option.category === "mode").currentValue, "plan");
  } finally {
    await own.stop();
  }
});

test("a new client resumes a session after the server was killed and started again", async () => {
  const own = await Server.start();
  try {
    const persist = new InMemorySessionPersistDriver();
    const first = await own.client({ persist });
    const session = await first.createSession({ agent: "mock", id: "mine", cwd: own.dir.work });
    await session.prompt(text("apples"));
    await until("events on record", async () =>
      (await first.getEvents({ sessionId: "mine" })).items.some((event) => event.payload.result?.stopReason));
    await own.kill();
    const second = await own.client({ persist });
    const resumed = await second.resumeSession("mine");
    const heard = listen(resumed);
    await resumed.prompt(text("pears"));
    await until("an answer that knows both", () => /apples.*pears/s.test(heard.text));
    const either = await second.resumeOrCreateSession({ id: "mine", agent: "mock", mode: "plan" });
    assert.equal(either.id, "mine");
    assert.equal((await either.getModes()).currentModeId, "plan");
    const fresh = await second.resumeOrCreateSession({ id: "fresh", agent: "mock", cwd: own.dir.work });
    assert.equal(fresh.id, "fresh");
  } finally {
    await own.stop();
  }
});

test("an agent that crashes fails its prompt alone, and the session goes on", async (t) => {
  t.mock.method(console, "error", () => {});
  const [session, heard] = await create(await server.client());
  await session.prompt(text("before"));
  await assert.rejects(soon("the failure", session.prompt(text("crash")), 5000), (error) => {
    assert.equal(error.name, "AcpRpcError", `${error}`);
    assert.match(JSON.stringify([error.message, error.data]), /exited/);
    return true;
  });
  assert.equal((await soon("the prompt's end", session.prompt(text("after")))).stopReason, "end_turn");
  await until("the answer", () => heard.text.endsWith("You said: after"));
});

test("an agent that cannot be started fails what was asked of it, and nothing else", async (t) => {
  t.mock.method(console, "error", () => {});
  const own = await Server.start({ env: { SANDBOX_AGENT_REQUIRE_PREINSTALL: "true" } });
  try {
    const client = await own.client();
    const refused = client.createSession({ agent: "claude", cwd: own.dir.work });
    await assert.rejects(soon("the failure", refused, 5000), (error) => error.name === "AcpRpcError");
    const session = await client.createSession({ agent: "mock", cwd: own.dir.work });
    assert.equal((await session.prompt(text("unmoved"))).stopReason, "end_turn");
  } finally {
    await own.stop();
  }
});

test("a session may be asked for in a directory that is not there", async () => {
  const [session] = await create(await server.client(), { cwd: "/nobody/made/this" });
  assert.equal((await session.prompt(text("here"))).stopReason, "end_turn");
});

test("disposing ends the agent", async () => {
  const client = await server.client();
  await create(client);
  const other = await server.client();
  const mine = async () => (await other.listAcpServers()).servers.length;
  const before = await mine();
  await soon("the disposal", client.dispose(), 2000);
  await until("one agent less", async () => (await mine()) === before - 1);
});
