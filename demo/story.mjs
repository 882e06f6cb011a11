// The story of the README, with real parts: the server, the SDK, the official OpenAI and Anthropic
// clients in jails. Only the models are stand-ins. Every claim is checked; a false one ends the demo.
import { spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startModel as startCodingModel } from "../compat/agents/model.mjs";
import { startModel } from "./model.mjs";

// Where agents are installed, and the Python that has the SDK; without them the last act is left out.
const [program, sdk, flavor, agents, python] = process.argv.slice(2);
const { Agentjail } = await import(join(sdk, "dist/index.js"));

const bold = (text) => (process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text);
const tell = (title) => console.log(`\n${bold(title)}`);
const show = (name, value) => console.log(`  ${name.padEnd(28)} ${value}`);
const check = (holds, claim) => {
  if (!holds) throw new Error(`not so: ${claim}`);
  console.log(`  \u2713 ${claim}`);
};
const port = () =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

const REAL = { openai: "sk-real-openai-0123456789", anthropic: "sk-ant-real-0123456789", github: "ghp_real0123456789" };
const state = mkdtempSync(join(tmpdir(), "agentjail-demo-"));
const model = await startModel();
const [api, proxy] = [await port(), await port()];
mkdirSync(join(state, "flavors"), { recursive: true });
cpSync(flavor, join(state, "flavors/demo"), { recursive: true, verbatimSymlinks: true });

const coding = await startCodingModel();

const upstreams = Object.keys(REAL).flatMap((service) => ["--upstream", `${service}=${model.url}`]);
const server = spawn(
  program,
  ["serve", "--ctl-addr", `127.0.0.1:${api}`, "--proxy-addr", `127.0.0.1:${proxy}`, "--state-dir", state, "--log", "warn", ...upstreams],
  { stdio: ["ignore", "ignore", "pipe"], env: { PATH: process.env.PATH } },
);
let log = "";
server.stderr.on("data", (data) => (log += data));

/** A server of its own, whose model knows what coding agents ask. */
async function lastAct(key) {
  const port_ = await port();
  const own = mkdtempSync(join(tmpdir(), "agentjail-demo-agent-"));
  mkdirSync(join(own, "flavors"));
  for (const name of readdirSync(agents)) symlinkSync(join(agents, name), join(own, "flavors", name));
  const addresses = ["--ctl-addr", `127.0.0.1:${port_}`, "--proxy-addr", `127.0.0.1:${await port()}`, "--state-dir", own];
  const env = { PATH: process.env.PATH, AGENTJAIL_API_KEY: `${key}@dev:admin`, ANTHROPIC_API_KEY: REAL.anthropic };
  const second = spawn(program, ["serve", ...addresses, "--log", "warn", "--upstream", `anthropic=${coding.url}`], { env, stdio: ["ignore", "ignore", "pipe"] });
  second.stderr.on("data", (data) => (log += data));
  const url = `http://127.0.0.1:${port_}`;
  try {
    for (let n = 0; n < 200 && !(await fetch(`${url}/healthz`).then((r) => r.ok, () => false)); n++) {
      await new Promise((done) => setTimeout(done, 50));
    }
    const script = new URL("agent.py", import.meta.url).pathname;
    const act = spawn(python, [script, url, key, coding.url, REAL.anthropic], { stdio: "inherit" });
    const code = await new Promise((done) => act.once("exit", done));
    if (code !== 0) throw new Error("the last act failed");
  } finally {
    second.kill("SIGTERM");
    await new Promise((done) => second.once("exit", done));
    rmSync(own, { recursive: true, force: true });
  }
}

try {
  tell("agentjail serve: SQLite, a fresh state directory, one admin key made at first start");
  const baseUrl = `http://127.0.0.1:${api}`;
  for (let n = 0; ; n++) {
    if (n === 200 || server.exitCode !== null) throw new Error(`the server did not come up:\n${log}`);
    if (await fetch(`${baseUrl}/healthz`).then((r) => r.ok, () => false)) break;
    await new Promise((done) => setTimeout(done, 50));
  }
  const apiKey = readFileSync(join(state, "admin.key"), "utf8").trim();
  const aj = new Agentjail({ baseUrl, apiKey });
  show("health", await aj.public.health());
  for (const [service, secret] of Object.entries(REAL)) {
    const record = await aj.credentials.put({ service, secret });
    show(`credential ${service}`, `fingerprint ${record.fingerprint}`);
  }

  tell("a session: phantom tokens instead of keys");
  const session = await aj.sessions.create({
    services: ["openai", "anthropic", "github"],
    ttlSecs: 600,
    scopes: { github: ["/repos/my-org/*/issues*"] },
  });
  for (const [name, value] of Object.entries(session.env)) show(name, value.replace(/^(phm_.{8}).*/, "$1…"));

  tell("sessions.exec: a Node script with the official `openai` client, in a jail with network none");
  const node = await aj.sessions.exec(session.id, { cmd: "ask-openai", flavors: ["demo"] });
  show("it printed", node.stdout.trim() || node.stderr.trim());
  show("the jail saw", session.env.OPENAI_API_KEY.slice(0, 12) + "…");
  show("the upstream saw", model.seen.at(-1)?.key);
  show("took", `${node.duration_ms} ms, ${((node.stats?.memory_peak_bytes ?? 0) / 2 ** 20).toFixed(0)} MiB`);
  check(node.stdout.trim() === "Hello from the model.", "the answer came through, streamed");
  check(model.seen.at(-1).key === `Bearer ${REAL.openai}`, "the upstream was given the real key");
  check(!JSON.stringify(node).includes(REAL.openai), "the jail never had it");

  tell("runs.stream: a Python script with the official `anthropic` client");
  const code = readFileSync(new URL("ask-anthropic.py", import.meta.url), "utf8");
  const lines = [];
  let completed;
  for await (const event of aj.runs.stream({ code, language: "python", sessionId: session.id, flavors: ["demo"] })) {
    if (event.type === "stdout" || event.type === "stderr") lines.push(event.line);
    if (event.type === "completed") completed = event;
  }
  show("it printed", lines.join("\n"));
  show("the upstream saw", model.seen.at(-1)?.key);
  show("took", `${completed.duration_ms} ms`);
  check(lines.join("") === "Hello from the model.", "the answer came through, streamed");
  check(model.seen.at(-1).key === REAL.anthropic, "the upstream was given the real key");

  tell("what is refused, from inside a jail");
  const before = model.seen.length;
  const script = `
    curl -s -o /output/body -w '%{http_code} ' -H "authorization: Bearer $GITHUB_TOKEN" $GITHUB_API_URL/user; cat /output/body; echo
    curl -s -m 3 ${model.url}/direct && echo reached the upstream || echo "direct dial: refused (curl $?)"
    env | grep -c -e sk- -e ghp_`;
  const refused = await aj.sessions.exec(session.id, { cmd: "sh", args: ["-c", script] });
  const [outOfScope, direct, keys] = refused.stdout.trim().split("\n");
  show("GET /user, out of scope", outOfScope);
  show("past the proxy", direct);
  show("real keys in its environment", keys);
  check(outOfScope === "403 path not in scope", "out of scope is 403");
  check(direct.startsWith("direct dial: refused"), "the direct way out is shut");
  check(keys === "0", "no real key is in the environment");
  check(model.seen.length === before, "the upstream heard nothing of it");

  tell("the audit: every decision, by session");
  const audit = await aj.audit.recent(10);
  for (const row of audit.rows.reverse()) {
    show(`${row.status} ${row.method} ${row.service}`, `${row.path}  ${row.reject_reason ?? `upstream ${row.upstream_ms} ms, ${row.response_bytes ?? "?"} bytes`}`);
  }
  check(audit.total === 3, "three calls, three rows");

  tell("how fast");
  const times = [];
  for (let n = 0; n < 30; n++) {
    const began = performance.now();
    await aj.runs.create({ code: "true", language: "bash" });
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  show("POST /v1/runs of a no-op", `${times[15].toFixed(1)} ms at the median of 30 (unoptimised build)`);
  console.log("\nThe jails had phantoms, the upstream had the keys.");

  if (agents) await lastAct(apiKey);
} catch (error) {
  console.error(`\n${error.stack}\n\nserver log:\n${log}`);
  process.exitCode = 1;
} finally {
  await coding.close();
  server.kill("SIGTERM");
  await new Promise((done) => server.once("exit", done));
  model.close();
  rmSync(state, { recursive: true, force: true });
}
