// A real server on a fresh state, for tests.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Agentjail } from "../dist/index.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));
export const program = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug/agentjail");

const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

/** Starts one, with flavors made of directories; gives a client of tenant `sdk`, its base URL, and how to stop it. */
export async function startServer({ flags = [], flavors = {} } = {}) {
  assert.ok(existsSync(program), `${program} is not built: run \`cargo build -p agentjail\``);
  const state = mkdtempSync(join(tmpdir(), "agentjail-sdk-"));
  for (const [name, from] of Object.entries(flavors)) {
    execFileSync(program, ["flavors", "add", name, "--from", from, "--state-dir", state]);
  }
  const [api, proxy] = [await freePort(), await freePort()];
  const addresses = ["--ctl-addr", `127.0.0.1:${api}`, "--proxy-addr", `127.0.0.1:${proxy}`, "--state-dir", state];
  const env = { PATH: process.env.PATH, AGENTJAIL_API_KEY: "sdk-key@sdk:operator,root-key@sdk:admin" };
  const child = spawn(program, ["serve", ...addresses, ...flags], { env, stdio: "ignore" });
  const baseUrl = `http://127.0.0.1:${api}`;
  const aj = new Agentjail({ baseUrl, apiKey: "sdk-key" });
  const stop = async () => {
    child.kill("SIGTERM");
    await new Promise((done) => child.once("exit", done));
    rmSync(state, { recursive: true, force: true });
  };
  for (let n = 0; n < 200; n++) {
    if (await aj.public.health().then(() => true, () => false)) return { aj, baseUrl, stop };
    await new Promise((done) => setTimeout(done, 50));
  }
  await stop();
  throw new Error("the server did not come up");
}
