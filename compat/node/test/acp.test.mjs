import { strict as assert } from "node:assert";
import { after, before, test } from "node:test";

import { AcpHttpClient, AcpRpcError, PROTOCOL_VERSION } from "acp-http-client";

import { Server, TOKEN, attentive, soon, text, until } from "../support.mjs";

let server;
before(async () => (server = await Server.start()));
after(() => server.stop());

function connect(id, { agent = "mock", token = TOKEN, client = {} } = {}) {
  const heard = { text: "", updates: [], notices: [], envelopes: [] };
  const acp = new AcpHttpClient({
    baseUrl: server.url,
    token,
    transport: { path: `/v1/acp/${encodeURIComponent(id)}`, bootstrapQuery: agent ? { agent } : undefined },
    onEnvelope: (envelope, direction) => heard.envelopes.push([direction, envelope]),
    client: {
      sessionUpdate: async ({ update }) => {
        heard.updates.push(update);
        if (update.sessionUpdate === "agent_message_chunk") heard.text += update.content.text;
      },
      extNotification: async (method, params) => void heard.notices.push([method, params]),
      ...client,
    },
  });
  return { acp, heard };
}

const begin = async (acp) => {
  await acp.initialize();
  return (await acp.newSession({ cwd: server.dir.work, mcpServers: [] })).sessionId;
};

test("a raw client initializes, prompts and disconnects", async (t) => {
  const check = attentive(t);
  const { acp, heard } = connect("raw one/two");
  const opened = await acp.initialize({ protocolVersion: PROTOCOL_VERSION });
  assert.equal(opened.protocolVersion, PROTOCOL_VERSION);
  assert.equal(opened.agentCapabilities.loadSession, true);
  const made = await acp.newSession({ cwd: server.dir.work, mcpServers: [] });
  assert.ok(made.sessionId);
  assert.equal(made.modes.currentModeId, "normal");
  const answer = await acp.prompt({ sessionId: made.sessionId, prompt: text("hello there") });
  assert.equal(answer.stopReason, "end_turn");
  await until("the answer", () => heard.text === "You said: hello there");
  await soon("the disconnect", acp.disconnect(), 2000);
  check();
});

test("a prompt is cancelled and its session goes on", async () => {
  const { acp, heard } = connect("cancel");
  const sessionId = await begin(acp);
  const prompt = acp.prompt({ sessionId, prompt: text("wait") });
  await until("a beginning", () => heard.text !== "");
  await acp.cancel({ sessionId });
  assert.equal((await soon("the prompt's end", prompt)).stopReason, "cancelled");
  assert.equal((await acp.prompt({ sessionId, prompt: text("on") })).stopReason, "end_turn");
  await acp.disconnect();
});

test("a permission is asked for over the stream", async (t) => {
  const check = attentive(t);
  const asked = [];
  const requestPermission = async (request) => {
    asked.push(request);
    return { outcome: { outcome: "selected", optionId: request.options[0].optionId } };
  };
  const { acp, heard } = connect("permission", { client: { requestPermission } });
  const sessionId = await begin(acp);
  await soon("the prompt's end", acp.prompt({ sessionId, prompt: text("permission") }));
  assert.equal(asked.length, 1);
  assert.equal(asked[0].sessionId, sessionId);
  await until("the answer", () => heard.text.endsWith("It was allowed."));
  await acp.disconnect();
  check();
});

test("mode, option and extensions pass through", async () => {
  const { acp, heard } = connect("settings");
  const sessionId = await begin(acp);
  await acp.setSessionMode({ sessionId, modeId: "plan" });
  const { configOptions } = await acp.setSessionConfigOption({ sessionId, configId: "model", value: "mock-fast" });
  assert.equal(configOptions.find((option) => option.id === "model").currentValue, "mock-fast");
  assert.equal(configOptions.find((option) => option.id === "mode").currentValue, "plan");
  const echo = await acp.extMethod("example/ask", { a: 1 });
  assert.deepEqual(echo.echoed.params, { a: 1 });
  await acp.extNotification("example/tell", { b: 2 });
  await until("an echo", () => heard.notices.some(([method, params]) =>
    method === "mock/echo" && params.message.method === "example/tell"));
  const { sessions } = await acp.listSessions({});
  assert.ok(sessions.some((one) => one.sessionId === sessionId));
  await acp.disconnect();
});

test("a session is loaded by another connection", async () => {
  const first = connect("load-a");
  const sessionId = await begin(first.acp);
  await first.acp.prompt({ sessionId, prompt: text("remember me") });
  await first.acp.disconnect();
  const second = connect("load-b");
  await second.acp.initialize();
  await second.acp.loadSession({ sessionId, cwd: server.dir.work, mcpServers: [] });
  await until("the history", () => second.heard.text === "You said: remember me");
  assert.equal((await second.acp.prompt({ sessionId, prompt: text("on") })).stopReason, "end_turn");
  await second.acp.disconnect();
});

test("what the agent refuses is an error of that request alone", async () => {
  const { acp } = connect("refused");
  const sessionId = await begin(acp);
  await assert.rejects(acp.prompt({ sessionId: "nobody", prompt: text("x") }), (error) => {
    assert.ok(error instanceof AcpRpcError);
    assert.equal(error.code, -32002);
    return true;
  });
  assert.equal((await acp.prompt({ sessionId, prompt: text("x") })).stopReason, "end_turn");
  await acp.disconnect();
});

test("an agent's end is told on the stream, and the next request starts it again", async () => {
  const { acp, heard } = connect("ends");
  const sessionId = await begin(acp);
  await assert.rejects(acp.prompt({ sessionId, prompt: text("crash") }), AcpRpcError);
  const [, params] = await until("the end", () => heard.notices.find(([method]) => method === "_adapter/agent_exited"));
  assert.deepEqual(params, { success: false, code: 3 });
  assert.equal((await acp.prompt({ sessionId, prompt: text("on") })).stopReason, "end_turn");
  await acp.disconnect();
});

// Asked as the client asks: it turns such an answer into a rejection that no caller can catch.
for (const [what, query, token, status, code] of [
  ["a first word without an agent", "", TOKEN, 400, "invalid_request"],
  ["an agent that nobody knows", "?agent=nobody", TOKEN, 400, "unsupported_agent"],
  ["a wrong token", "?agent=mock", "wrong", 401, "token_invalid"],
]) {
  test(`${what} is refused with a problem`, async () => {
    const response = await fetch(`${server.url}/v1/acp/refused-${status}${query}`, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ jsonrpc: "2.0", id: 0, method: "example/first", params: {} }),
    });
    assert.equal(response.status, status);
    assert.match(response.headers.get("content-type"), /^application\/problem\+json/);
    assert.equal((await response.json()).type, `urn:sandbox-agent:error:${code}`);
  });
}

test("two streams of one server hear the same, in order and from the first", async () => {
  const { acp } = connect("shared");
  const sessionId = await begin(acp);
  const hear = (headers = {}) => {
    const abort = new AbortController();
    const heard = { ids: [], data: [] };
    const done = (async () => {
      const response = await fetch(`${server.url}/v1/acp/shared`, {
        headers: { accept: "text/event-stream", authorization: `Bearer ${TOKEN}`, ...headers },
        signal: abort.signal,
      });
      assert.equal(response.status, 200);
      assert.match(response.headers.get("content-type"), /^text\/event-stream/);
      let rest = "";
      for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
        const events = (rest + piece).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const id = event.match(/^id: ?(\d+)$/m);
          if (!id) continue;
          assert.match(event, /^event: ?message$/m);
          heard.ids.push(Number(id[1]));
          heard.data.push(event.match(/^data: ?(.*)$/m)[1]);
        }
      }
    })().catch((error) => assert.equal(error.name, "AbortError"));
    return { heard, close: () => (abort.abort(), done) };
  };
  const [one, two] = [hear(), hear()];
  await acp.prompt({ sessionId, prompt: text("to all") });
  const ended = ({ heard }) => heard.data.some((data) => data.includes("end_turn"));
  for (const stream of [one, two]) await until("the end", () => ended(stream));
  assert.deepEqual(one.heard.ids, one.heard.ids.map((_, index) => index + 1));
  assert.deepEqual(two.heard, one.heard);
  const late = hear({ "last-event-id": "2" });
  await until("the rest", () => ended(late));
  assert.deepEqual(late.heard.data, one.heard.data.slice(2));
  for (const stream of [one, two, late]) await stream.close();
  await acp.disconnect();
});
