/** A control plane whose models are stand-ins. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Agentjail } from "@agentjail/sdk";

import { startModel } from "../agents/model.mjs";

export const program = resolve(process.env.AGENTJAIL_BIN ?? join(import.meta.dirname, "../../target/debug/agentjail"));

/** Real keys, which must be found nowhere but at the model. */
export const CANARIES = { ANTHROPIC_API_KEY: "sk-ant-canary-51f0c2", OPENAI_API_KEY: "sk-canary-7be94d" };

export const KEY = "joined-key";

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Starts one, with the agents that are installed in a directory of flavors. */
export async function startPlane(flavors) {
  const state = mkdtempSync(join(tmpdir(), "joined-"));
  mkdirSync(join(state, "flavors"));
  for (const name of flavors ? readdirSync(flavors) : []) symlinkSync(join(flavors, name), join(state, "flavors", name));
  const model = await startModel();
  const [api, proxy] = [await freePort(), await freePort()];
  const addresses = ["--ctl-addr", `127.0.0.1:${api}`, "--proxy-addr", `127.0.0.1:${proxy}`, "--state-dir", state];
  const upstreams = ["anthropic", "openai"].flatMap((name) => ["--upstream", `${name}=${model.url}`]);
  const log = openSync(join(state, "log"), "w");
  const env = { PATH: process.env.PATH, AGENTJAIL_API_KEY: `${KEY}@dev:operator`, ...CANARIES };
  const child = spawn(program, ["serve", ...addresses, ...upstreams], { env, stdio: ["ignore", log, log] });
  const url = `http://127.0.0.1:${api}`;
  const aj = new Agentjail({ baseUrl: url, apiKey: KEY });
  const end = Date.now() + 20_000;
  while (!(await aj.public.health().then(() => true, () => false))) {
    assert.ok(Date.now() < end && child.exitCode === null, "the server did not come up");
    await sleep(20);
  }
  return {
    aj,
    url,
    model,
    async stop() {
      child.kill("SIGTERM");
      await once(child, "exit");
      await model.close();
      rmSync(state, { recursive: true, force: true });
    },
  };
}
