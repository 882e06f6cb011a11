import { strict as assert } from "node:assert";
import { after, before, test } from "node:test";

import { SandboxAgent, SandboxAgentError } from "sandbox-agent";

import { Server, text } from "../support.mjs";

let server;
before(async () => (server = await Server.start()));
after(() => server.stop());

test("a client connects and finds the server healthy", async () => {
  const client = await server.client();
  assert.equal((await client.getHealth()).status, "ok");
});

test("a wrong token is refused with a problem the client can show", async () => {
  for (const token of [undefined, "another"]) {
    const client = await SandboxAgent.connect({ baseUrl: server.url, token, skipHealthCheck: true });
    await assert.rejects(client.listAgents(), (error) => {
      assert.ok(error instanceof SandboxAgentError);
      assert.equal(error.status, 401);
      assert.equal(error.problem.type, "urn:sandbox-agent:error:token_invalid");
      assert.equal(typeof error.problem.title, "string");
      return true;
    });
    await client.dispose();
  }
});

test("a client waits for a server that is not there yet", async () => {
  const late = await Server.prepare();
  const client = await late.client();
  const agents = client.listAgents();
  await late.launch();
  assert.ok((await agents).agents.length > 0);
  await late.stop();
});

test("a client that has only a way to fetch reaches the server by it", async () => {
  const client = await server.client({
    baseUrl: undefined,
    fetch: (input, init) => fetch(String(input).replace("http://sandbox-agent", server.url), init),
  });
  const session = await client.createSession({ agent: "mock", cwd: server.dir.work });
  assert.equal((await session.prompt(text("hello"))).stopReason, "end_turn");
});

test("the inspector's page is served to whoever follows the client's link", async () => {
  const client = await server.client();
  assert.equal(client.inspectorUrl, `${server.url}/ui/`);
  const response = await fetch(client.inspectorUrl);
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type"), /^text\/html/);
  assert.match(await response.text(), /<!doctype html>/i);
});

test("the root names the server without a token", async () => {
  const answer = await (await fetch(`${server.url}/`)).json();
  assert.equal(answer.name, "Sandbox Agent");
});

test("an open server serves a client without a token", async () => {
  const open = await Server.start({ token: null });
  try {
    const client = await open.client({ token: undefined });
    assert.equal((await client.getHealth()).status, "ok");
    assert.ok(Array.isArray((await client.listAgents()).agents));
  } finally {
    await open.stop();
  }
});

test("the desktop's state is told, and everything else of it is refused by name", async () => {
  const client = await server.client();
  const status = await client.getDesktopStatus();
  assert.equal(status.state, "install_required");
  assert.ok(Array.isArray(status.missingDependencies));
  const calls = [
    () => client.startDesktop({ width: 800, height: 600 }),
    () => client.stopDesktop(),
    () => client.getDesktopDisplayInfo(),
    () => client.takeDesktopScreenshot({ format: "png" }),
    () => client.takeDesktopRegionScreenshot({ x: 0, y: 0, width: 1, height: 1 }),
    () => client.getDesktopMousePosition(),
    () => client.moveDesktopMouse({ x: 1, y: 1 }),
    () => client.clickDesktop({ x: 1, y: 1 }),
    () => client.mouseDownDesktop({}),
    () => client.mouseUpDesktop({}),
    () => client.dragDesktopMouse({ startX: 0, startY: 0, endX: 1, endY: 1 }),
    () => client.scrollDesktop({ x: 0, y: 0 }),
    () => client.typeDesktopText({ text: "a" }),
    () => client.pressDesktopKey({ key: "a" }),
    () => client.keyDownDesktop({ key: "a" }),
    () => client.keyUpDesktop({ key: "a" }),
    () => client.listDesktopWindows(),
    () => client.getDesktopFocusedWindow(),
    () => client.focusDesktopWindow("1"),
    () => client.moveDesktopWindow("1", { x: 0, y: 0 }),
    () => client.resizeDesktopWindow("1", { width: 1, height: 1 }),
    () => client.getDesktopClipboard(),
    () => client.setDesktopClipboard({ text: "a" }),
    () => client.launchDesktopApp({ app: "a" }),
    () => client.openDesktopTarget({ target: "a" }),
    () => client.getDesktopStreamStatus(),
    () => client.startDesktopStream(),
    () => client.stopDesktopStream(),
    () => client.startDesktopRecording(),
    () => client.stopDesktopRecording(),
    () => client.listDesktopRecordings(),
    () => client.getDesktopRecording("1"),
    () => client.downloadDesktopRecording("1"),
    () => client.deleteDesktopRecording("1"),
  ];
  for (const call of calls) {
    await assert.rejects(call(), (error) => {
      assert.equal(error.status, 501, String(call));
      assert.equal(error.problem.type, "urn:sandbox-agent:error:mode_not_supported");
      return true;
    });
  }
});
