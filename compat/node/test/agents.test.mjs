import { strict as assert } from "node:assert";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Server } from "../support.mjs";

let server, client;
before(async () => {
  server = await Server.start();
  client = await server.client();
});
after(() => server.stop());

const CAPABILITIES = [
  "planMode", "permissions", "questions", "toolCalls", "toolResults", "textMessages", "images", "fileAttachments",
  "sessionLifecycle", "errorEvents", "reasoning", "status", "commandExecution", "fileChanges", "mcpTools",
  "streamingDeltas", "itemStarted", "sharedProcess",
];
const byName = (a, b) => a.localeCompare(b);

test("the original's agents are listed in its order, each with all capabilities", async () => {
  const { agents } = await client.listAgents();
  const known = ["claude", "codex", "opencode", "amp", "pi", "cursor", "mock"];
  assert.deepEqual(agents.map((agent) => agent.id).filter((id) => known.includes(id)), known);
  for (const agent of agents) {
    assert.equal(typeof agent.installed, "boolean");
    assert.equal(typeof agent.credentialsAvailable, "boolean");
    assert.deepEqual(Object.keys(agent.capabilities).sort(byName), [...CAPABILITIES].sort(byName), agent.id);
    assert.ok(Object.values(agent.capabilities).every((value) => typeof value === "boolean"));
  }
});

test("the built-in agent can be used at once", async () => {
  const mock = await client.getAgent("mock");
  assert.equal(mock.id, "mock");
  assert.equal(mock.installed, true);
  assert.equal(mock.credentialsAvailable, true);
  assert.equal(mock.capabilities.sharedProcess, false);
  assert.equal(mock.capabilities.permissions, true);
});

test("what can be set of an agent is told when it is asked for", async () => {
  for (const options of [{ config: true }, { config: true, noCache: true }]) {
    const mock = await client.getAgent("mock", options);
    assert.deepEqual(
      mock.configOptions.map((option) => option.category).sort(byName),
      ["mode", "model", "thought_level"],
    );
    const listed = (await client.listAgents(options)).agents.find((agent) => agent.id === "mock");
    assert.deepEqual(listed.configOptions, mock.configOptions);
  }
  assert.equal((await client.getAgent("mock", { config: false })).configOptions, undefined);
});

test("an agent that runs is told to", async () => {
  await client.createSession({ agent: "mock", cwd: server.dir.work });
  const mock = await client.getAgent("mock");
  assert.equal(mock.serverStatus.status, "running");
  assert.equal(typeof mock.serverStatus.uptimeMs, "number");
  const { servers } = await client.listAcpServers();
  assert.equal(servers.length, 1);
  assert.match(servers[0].serverId, /^sdk-mock-/);
  assert.equal(servers[0].agent, "mock");
  assert.ok(servers[0].createdAtMs > 0);
});

test("the built-in agent is installed already", async () => {
  for (const request of [undefined, { reinstall: false }]) {
    const answer = await client.installAgent("mock", request);
    assert.equal(answer.already_installed, true);
    assert.ok(Array.isArray(answer.artifacts));
  }
});

test("an agent that nobody knows is refused by each call", async () => {
  for (const call of [
    () => client.getAgent("nobody"),
    () => client.installAgent("nobody"),
  ]) {
    await assert.rejects(call(), (error) => {
      assert.equal(error.status, 400);
      assert.equal(error.problem.type, "urn:sandbox-agent:error:unsupported_agent");
      return true;
    });
  }
});

test("a server for tools is configured for a directory, read back and taken away", async () => {
  const local = {
    type: "local", command: "tool", args: ["--stdio"], env: { A: "b" }, cwd: "/", enabled: true, timeoutMs: 1000,
  };
  const remote = {
    type: "remote", url: "https://tools.example/mcp", transport: "http", headers: { "x-a": "b" },
    envHeaders: { "x-key": "KEY" }, bearerTokenEnvVar: "TOKEN", oauth: false, enabled: true, timeoutMs: 5,
  };
  const directory = server.dir.work;
  for (const [mcpName, config] of [["here", local], ["there", remote]]) {
    const query = { directory, mcpName };
    assert.equal(await client.setMcpConfig(query, config), undefined);
    const told = await client.getMcpConfig(query);
    for (const [key, value] of Object.entries(config)) assert.deepEqual(told[key], value, key);
    await client.deleteMcpConfig(query);
    await assert.rejects(client.getMcpConfig(query), (error) => error.status === 404);
    await client.deleteMcpConfig(query);
  }
});

test("many servers for tools set at once are all kept", async () => {
  const names = Array.from({ length: 20 }, (_, index) => `tool-${index}`);
  const directory = join(server.dir.work, "many");
  await client.mkdirFs({ path: directory });
  await Promise.all(names.map((mcpName) =>
    client.setMcpConfig({ directory, mcpName }, { type: "local", command: mcpName })));
  for (const mcpName of names) {
    assert.equal((await client.getMcpConfig({ directory, mcpName })).command, mcpName);
  }
});

test("skills are configured for a directory, read back and taken away", async () => {
  const config = {
    sources: [
      { type: "github", source: "owner/skills", ref: "main", subpath: "a", skills: ["one"] },
      { type: "local", source: "/skills" },
    ],
  };
  const query = { directory: server.dir.work, skillName: "mine" };
  assert.equal(await client.setSkillsConfig(query, config), undefined);
  assert.deepEqual(await client.getSkillsConfig(query), config);
  await client.deleteSkillsConfig(query);
  await assert.rejects(client.getSkillsConfig(query), (error) => error.status === 404);
  await client.deleteSkillsConfig(query);
});

test("a configuration of no known kind is refused", async () => {
  const query = { directory: server.dir.work, mcpName: "odd" };
  for (const config of [{ type: "carrier-pigeon" }, { type: "remote" }]) {
    await assert.rejects(client.setMcpConfig(query, config), (error) => error.status === 400);
  }
  await assert.rejects(
    client.getMcpConfig({ directory: "", mcpName: "odd" }),
    (error) => error.status === 400 && /mcpName|directory/.test(error.problem.detail),
  );
});
