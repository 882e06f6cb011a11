/**
 * Real coding agents at work in jails, driven through the TypeScript SDK and the published client of sandbox agents.
 *
 *     AGENTS_STATE=DIR node --test joined.test.mjs
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { SandboxAgent } from "sandbox-agent";

import { CANARIES, KEY, startPlane } from "./plane.mjs";

const AGENTS = {
  claude: { services: ["anthropic"] },
  codex: { services: ["openai"], mode: "read-only" },
  opencode: {
    services: ["anthropic", "openai"],
    env: [["OPENCODE_CONFIG_CONTENT", JSON.stringify({ permission: { bash: "ask" } })]],
  },
};

const PROJECT = {
  "calc.py": "def add(a, b):\n    return a - b\n",
  "test_calc.py":
    "import unittest\n\nfrom calc import add\n\n\nclass Add(unittest.TestCase):\n    def test_adds(self):\n        self.assertEqual(add(2, 3), 5)\n",
};

const chosen = process.env.AGENTS?.split(",") ?? Object.keys(AGENTS);
const text = (words) => [{ type: "text", text: words }];
let plane;

before(async () => {
  assert.ok(process.env.AGENTS_STATE, "AGENTS_STATE must name a state directory with agents in it");
  plane = await startPlane(join(process.env.AGENTS_STATE, "flavors"));
});

after(() => plane?.stop());

/** Prompts, allowing what is asked for, until what is said is what is wanted; gives that, and how often it asked. */
async function ask(client, session, words, wanted) {
  let said = "";
  let asked = 0;
  const stop = client.onSessionEvent(session.id, ({ payload }) => {
    const update = payload.params?.update;
    if (update?.sessionUpdate === "agent_message_chunk") said += update.content.text;
  });
  const stopAsking = client.onPermissionRequest(session.id, (request) => {
    asked += 1;
    void client.respondPermission(request.id, "once");
  });
  const { stopReason } = await session.prompt(text(words));
  // The client hears the answer beside the stream, and may hear it first.
  for (const end = Date.now() + 10_000; !wanted.test(said); await sleep(20)) assert.ok(Date.now() < end, `it said: ${said}`);
  stopAsking();
  stop();
  assert.equal(stopReason, "end_turn");
  return { said, asked };
}

for (const agent of chosen) {
  const { services, mode, env } = AGENTS[agent];

  test(`${agent} mends a project in a jail, and its fork ends differently`, async () => {
    const { aj } = plane;
    const workspace = await aj.workspaces.create({ label: agent });
    for (const [name, content] of Object.entries(PROJECT)) {
      await aj.workspaces.exec(workspace.id, { cmd: "sh", args: ["-c", `cat > ${name}`], stdin: content });
    }
    const before = plane.model.requests.length;
    const started = await aj.workspaces.agent(workspace.id, { services, agents: [agent], ...(env && { env }) });
    assert.equal(started.url, `${plane.url}/v1/workspaces/${workspace.id}/agent`);
    const client = await SandboxAgent.connect({ baseUrl: started.url, token: started.token });
    const session = await client.createSession({ agent, cwd: "/workspace" });
    if (mode) await session.setMode(mode);
    const mended = await ask(client, session, "mend the project", /OK/);
    assert.equal(mended.asked, 1);

    // A command of the workspace joins the agent's jail, and sees what it did.
    const tests = await aj.workspaces.exec(workspace.id, { cmd: "python3", args: ["-m", "unittest"] });
    assert.equal(tests.exit_code, 0, tests.stderr);
    const seen = await aj.workspaces.exec(workspace.id, { cmd: "env", sessionId: started.session_id });
    assert.match(seen.stdout, /_API_KEY=phm_/);
    const look = `grep -rlE '${Object.values(CANARIES).join("|")}' /workspace /home /tmp /proc/[0-9]*/environ 2>/dev/null; true`;
    assert.equal((await aj.workspaces.exec(workspace.id, { cmd: "sh", args: ["-c", look] })).stdout, "");
    const calls = plane.model.requests.slice(before).filter(({ method }) => method === "POST");
    assert.ok(calls.length > 0);
    for (const { headers } of calls) {
      assert.ok(Object.values(CANARIES).some((key) => JSON.stringify(headers).includes(key)));
      assert.ok(!JSON.stringify(headers).includes("phm_"));
    }
    const { rows } = await aj.audit.recent(500);
    const own = rows.filter((row) => row.session_id === started.session_id && row.method === "POST" && row.status === 200);
    assert.equal(own.length, calls.length);

    const snapshot = await aj.snapshots.create(workspace.id, { name: "mended" });
    assert.ok(snapshot.freeze_ms < 1000);
    const { forks } = await aj.workspaces.fork(workspace.id, { count: 1, agent: {} });
    assert.notEqual(forks[0].agent.session_id, started.session_id);
    const other = await SandboxAgent.connect({ baseUrl: forks[0].agent.url, token: forks[0].agent.token });
    // The conversation is in the fork's own server.
    const record = await fetch(`${forks[0].agent.url}/v1/sessions`, {
      headers: { authorization: `Bearer ${forks[0].agent.token}` },
    });
    const [{ agentSessionId, lastConnectionId }] = (await record.json()).sessions;
    const post = async (method, params, id) => {
      const response = await fetch(`${forks[0].agent.url}/v1/acp/${lastConnectionId}?agent=${agent}`, {
        method: "POST",
        headers: { authorization: `Bearer ${forks[0].agent.token}`, "content-type": "application/json" },
        body: JSON.stringify({ jsonrpc: "2.0", id, method, params }),
      });
      return response.json();
    };
    const asked = plane.model.requests.length;
    const again = await post("session/prompt", { sessionId: agentSessionId, prompt: text("what did I ask") }, "again");
    assert.equal(again.result?.stopReason, "end_turn", JSON.stringify(again));
    const heard = JSON.stringify(plane.model.requests.slice(asked).map(({ body }) => body));
    assert.match(heard, /mend the project/, "what was said before is told to the model");
    // Each goes its own way.
    const loud = { cmd: "sed", args: ["-i", "s/a + b/-(a + b)/", "calc.py"] };
    await aj.workspaces.exec(forks[0].id, loud);
    const read = async (id) => (await aj.workspaces.exec(id, { cmd: "cat", args: ["calc.py"] })).stdout;
    assert.notEqual(await read(forks[0].id), await read(workspace.id));

    assert.equal((await aj.workspaces.setAgent(workspace.id, "paused")).state, "paused");
    await ask(client, session, "what did I ask", /mend the project/);
    assert.equal((await aj.workspaces.getAgent(workspace.id)).state, "running");
    await other.dispose();
    await client.dispose();
    await aj.workspaces.deleteAgent(workspace.id);
    for (const { id } of [workspace, ...forks]) await aj.workspaces.delete(id);
    const status = await fetch(`${started.url}/v1/health`, { headers: { authorization: `Bearer ${KEY}` } });
    assert.equal(status.status, 404);
  });
}
