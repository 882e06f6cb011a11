/** What the TypeScript SDK's README says of agents, as it stands there; with the built-in one, or Claude Code if it is installed. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { SandboxAgent } from "sandbox-agent";

import { startPlane } from "./plane.mjs";

const state = process.env.AGENTS_STATE;
let plane;

before(async () => {
  plane = await startPlane(state && join(state, "flavors"));
});

after(() => plane?.stop());

test("the README's agent works, is paused, forked and ended", async () => {
  const readme = readFileSync(new URL("../../sdks/typescript/README.md", import.meta.url), "utf8");
  const examples = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]);
  const example = examples.find((text) => text.includes("workspaces.agent("));
  const body = example
    .replace(/^import .*$/gm, "")
    .replace("process.env.ANTHROPIC_API_KEY!", '"sk-ant-readme"')
    .replaceAll('"claude"', state ? '"claude"' : '"mock"');
  const { aj } = plane;
  const ws = await aj.workspaces.create({});
  const said = [];
  const heard = [];
  const connect = async (options) => {
    const client = await SandboxAgent.connect(options);
    const create = client.createSession.bind(client);
    client.createSession = async (request) => {
      const session = await create(request);
      client.onSessionEvent(session.id, ({ payload }) => heard.push(payload.params?.update?.sessionUpdate));
      return session;
    };
    return client;
  };
  const AsyncFunction = (async () => {}).constructor;
  const run = new AsyncFunction("SandboxAgent", "aj", "ws", "console", body);
  await run({ connect }, aj, ws, { log: (...words) => said.push(words.join(" ")) });
  assert.ok(heard.includes("agent_message_chunk"), heard.join(" "));
  assert.match(said.at(-1), /\/v1\/workspaces\/wrk_[0-9a-f]+\/agent$/);
  await assert.rejects(aj.workspaces.getAgent(ws.id), (error) => error.code === "NOT_FOUND");
});
