/**
 * Real coding agents from npm, behind the real server, before a stand-in for their models.
 *
 *     SANDBOX_AGENT_BIN=target/release/sandbox-agent node --test compat/agents/agents.test.mjs
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";

import { startModel } from "./model.mjs";
import { Server, until } from "./server.mjs";

/** What the agents differ in. `keys`: what they may see of the server's keys. */
const AGENTS = {
  claude: { keys: ["ANTHROPIC_API_KEY"] },
  // It asks before whatever its sandbox would refuse, which in this mode is all writing.
  codex: { keys: ["OPENAI_API_KEY"], mode: "read-only" },
  opencode: { keys: ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"] },
  // It names its records by minute: a session that is loaded in the minute of its beginning is written over.
  gemini: { keys: ["GEMINI_API_KEY"], method: "gemini-api-key", forgetful: true },
  // It asks for nothing, and takes no servers for tools.
  pi: { keys: ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"], asks: false, tools: false },
};

const KEYS = {
  ANTHROPIC_API_KEY: "phm_anthropic",
  OPENAI_API_KEY: "phm_openai",
  GEMINI_API_KEY: "phm_gemini",
};

/** What no agent may see. */
const CANARY = { AWS_SECRET_ACCESS_KEY: "canary", GITHUB_TOKEN: "canary", DATABASE_URL: "canary" };

/** Without it OpenCode runs whatever its model wants. */
const OPENCODE = JSON.stringify({ permission: { bash: "ask" } });

const MADE = "made by an agent\n";

const program = resolve(process.env.SANDBOX_AGENT_BIN ?? "target/release/sandbox-agent");
const chosen = process.env.AGENTS?.split(",") ?? Object.keys(AGENTS);
const root = mkdtempSync(join(tmpdir(), "agents-"));
/** Where all agents are installed. One that is given is kept: a second run finds them there. */
const data = process.env.AGENTS_DATA ?? join(root, "data");

after(() => rmSync(root, { recursive: true, force: true, maxRetries: 5 }));

for (const agent of chosen) {
  const { keys, mode, method, asks = true, tools = true, forgetful = false } = AGENTS[agent];

  describe(agent, () => {
    const home = join(root, agent);
    const repository = join(home, "repository");
    const made = join(repository, "made.txt");
    let model, server, connection, sessionId, begun;
    let answers = false;

    /** What needs no trying with an agent that does not answer. */
    function further(name, body, options = {}) {
      test(name, options, (context) => (answers ? body() : context.skip("it does not answer")));
    }

    before(async () => {
      model = await startModel();
      server = new Server({
        program,
        home,
        data,
        args: ["--env", `OPENCODE_CONFIG_CONTENT=${OPENCODE}`],
        env: {
          ...KEYS,
          ...CANARY,
          ANTHROPIC_BASE_URL: model.url,
          OPENAI_BASE_URL: `${model.url}/v1`,
          GOOGLE_GEMINI_BASE_URL: model.url,
        },
      });
      await server.start();
      mkdirSync(repository);
      execFileSync("git", ["init", "--quiet"], { cwd: repository });
    });

    after(async () => {
      await connection?.close();
      await server?.stop();
      await model?.close();
    });

    test("two installs at once are one, and the next finds it there", async () => {
      const fresh = !existsSync(join(data, "sandbox-agent/bin/agent_processes", `${agent}-acp`));
      const both = await Promise.all([server.install(agent), server.install(agent)]);
      const [one, other] = both.map((events) => events.at(-1));
      assert.equal(one.event, "done", JSON.stringify(one.data));
      assert.deepEqual(one, other);
      if (fresh) {
        assert.equal(one.data.already_installed, false);
        const kinds = one.data.artifacts.map((artifact) => artifact.kind);
        assert.deepEqual(kinds, ["native_agent", "agent_process"]);
        for (const events of both) assert.equal(events[0].event, "progress");
        assert.ok(both[0].some(({ data }) => data.message?.startsWith("fetched ")));
      }
      const again = await (await server.send("POST", `/v1/agents/${agent}/install`, {})).json();
      assert.equal(again.already_installed, true);
      const info = await (await server.get(`/v1/agents/${agent}?config=true`)).json();
      assert.equal(info.installed, true);
      assert.equal(info.credentialsAvailable, true);
      assert.match(info.version, /^\d+\.\d+\.\d+/);
    });

    test("its tools are configured, it begins a session, and it answers", async () => {
      const query = new URLSearchParams({ directory: repository, mcpName: "number" });
      const local = {
        type: "local",
        command: process.execPath,
        args: [join(import.meta.dirname, "mcp-server.mjs"), join(home, "number.pid")],
      };
      assert.equal((await server.send("PUT", `/v1/config/mcp?${query}`, local)).status, 204);

      connection = server.connect(`${agent}-1`, agent).listen();
      const { protocolVersion, agentCapabilities, authMethods } = await connection.initialize();
      assert.equal(protocolVersion, 1);
      assert.equal(agentCapabilities.loadSession, true);
      if (method) {
        assert.ok(authMethods.some(({ id }) => id === method));
        await connection.call("authenticate", { methodId: method });
      }
      ({ sessionId } = await connection.call("session/new", { cwd: repository, mcpServers: [] }));
      begun = minute();
      if (mode) await connection.call("session/set_mode", { sessionId, modeId: mode });

      const { stopReason, said } = await connection.prompt(sessionId, "say pong");
      assert.equal(stopReason, "end_turn");
      assert.match(said, /^\s*pong$/);
      answers = true;
    });

    const itsTool = async () => {
      await until("the server for tools runs", () => existsSync(join(home, "number.pid")), 10_000);
      const { said } = await connection.prompt(sessionId, "use the number", "allow_once");
      assert.match(said, /done: .*42/s);
    };
    further("the model can use the tool of a configured server", itsTool, { skip: !tools });

    further("it does what it is permitted to", async () => {
      const { stopReason, said, asked } = await connection.prompt(sessionId, "make the file", "allow_once");
      assert.equal(asked, asks ? 1 : 0);
      assert.equal(stopReason, "end_turn");
      assert.match(said, /done: .*it is written/s);
      assert.equal(readFileSync(made, "utf8"), MADE);
      rmSync(made);
      const calls = connection.heard.filter(({ params }) => params?.update?.sessionUpdate?.startsWith("tool_call"));
      assert.ok(calls.some(({ params }) => params.update.status === "completed"));
    });

    const refused = async () => {
      const { stopReason, asked } = await connection.prompt(sessionId, "make the file", "reject_once");
      assert.equal(asked, 1);
      assert.ok(["end_turn", "cancelled"].includes(stopReason), stopReason);
      assert.ok(!existsSync(made));
    };
    further("it does not do what is refused", refused, { skip: !asks });

    further("it can be interrupted", async () => {
      const from = connection.heard.length;
      const [turn] = await Promise.all([
        connection.prompt(sessionId, "count slowly"),
        until("it counts", () => connection.text(from).includes("3 ")).then(() =>
          connection.notify("session/cancel", { sessionId }),
        ),
      ]);
      assert.equal(turn.stopReason, "cancelled");
      assert.doesNotMatch(turn.said, /\b50\b/);
      assert.equal((await connection.prompt(sessionId, "say pong")).said.trim(), "pong");
    });

    further("it sees its own provider's key and nothing else of the server's", () => {
      const processes = server.processes();
      assert.ok(processes.length > 0);
      const hidden = [...Object.keys(KEYS), ...Object.keys(CANARY)].filter((name) => !keys.includes(name));
      for (const { command, env } of processes) {
        const names = env.map((line) => line.split("=")[0]);
        for (const name of hidden) assert.ok(!names.includes(name), `${name} is seen by ${command}`);
        assert.ok(!env.some((line) => line.includes("canary")), command);
      }
      assert.ok(processes.some(({ env }) => env.includes(`${keys[0]}=${KEYS[keys[0]]}`)));
    });

    further("a session goes on after the server was killed", async () => {
      if (forgetful) await until("the next minute", () => minute() !== begun, 61_000);
      await server.crash();
      await connection.close();
      const left = () => server.processes();
      await until(() => `what it ran ends with it: ${shown(left())}`, () => left().length === 0, 2000);
      await server.start();
      connection.listen();
      const from = connection.heard.length;
      const { stopReason, said } = await connection.prompt(sessionId, "what did I ask");
      assert.equal(stopReason, "end_turn");
      assert.match(said, /you asked: say pong, .*make the file/);
      // The history was told before, and is not told again.
      assert.equal(connection.text(from).trim(), said.trim());
    });

    further("it ends within two seconds, and so does all below it", async () => {
      if (mode) await connection.call("session/set_mode", { sessionId, modeId: mode });
      await connection.prompt(sessionId, "start a daemon", "allow_once");
      await until("the daemon runs", () => server.processes().some(isDaemon), 5000);
      const left = () => server.processes().filter((process) => !isDaemon(process));
      await connection.end();
      await until(() => `all have ended: ${shown(left())}`, () => left().length === 0, 2000);
      const { servers } = await (await server.get("/v1/acp")).json();
      assert.deepEqual(servers, []);
    });

    further("a daemon that it started ends with it", async () => {
      const left = () => server.processes();
      await until(() => `all have ended: ${shown(left())}`, () => left().length === 0, 1000);
    });

    further("the model was shown the phantom key only", () => {
      const asked = model.requests.filter(({ method }) => method === "POST");
      assert.ok(asked.length > 0);
      for (const { path, headers } of asked) {
        const shown = [headers.authorization?.replace(/^Bearer /, ""), headers["x-api-key"], headers["x-goog-api-key"]];
        const known = keys.map((name) => KEYS[name]);
        assert.ok(shown.some(Boolean), path);
        for (const key of shown.filter(Boolean)) assert.ok(known.includes(key), `${path}: ${key}`);
      }
      assert.ok(!JSON.stringify(model.requests).includes("canary"));
    });
  });
}

function minute() {
  return new Date().getMinutes();
}

function isDaemon({ command }) {
  return command === "sleep 3600";
}

function shown(processes) {
  return processes.map(({ pid, command }) => `${pid} ${command}`).join("; ");
}
