/** `agentjail mcp`, by the official client, on standard streams and over HTTP; and by Claude Code, if it is there. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

import { KEY, program, startPlane } from "./plane.mjs";

let plane;
before(async () => (plane = await startPlane()));
after(() => plane?.stop());

const server = () => ({ command: program, args: ["mcp"], env: { AGENTJAIL_URL: plane.url, AGENTJAIL_KEY: KEY } });

async function connect(test, transport) {
  const client = new Client({ name: "test", version: "1.0.0" });
  test.after(() => client.close());
  await client.connect(transport);
  const call = async (name, args = {}) => {
    const result = await client.callTool({ name, arguments: args });
    assert.ok(!result.isError, JSON.stringify(result.content));
    return result.structuredContent;
  };
  const refused = async (name, args = {}) => {
    const result = await client.callTool({ name, arguments: args });
    assert.ok(result.isError, JSON.stringify(result));
    return result.content[0].text;
  };
  return { client, call, refused };
}

test("on standard streams: run, write, exec, snapshot, compare, fork, put back, start an agent", async (t) => {
  const { client, call, refused } = await connect(t, new StdioClientTransport(server()));
  const { tools } = await client.listTools();
  const names = tools.map(({ name }) => name).sort();
  assert.deepEqual(names, [
    "agent_end", "agent_start", "diff", "exec", "fork", "list_files", "read_file", "restore", "run_code", "snapshot",
    "workspace_create", "workspace_delete", "workspace_list", "write_file",
  ]);
  for (const { name, description, inputSchema } of tools) {
    assert.ok(description.length > 20, name);
    assert.equal(inputSchema.type, "object", name);
  }
  const ran = await call("run_code", { code: "print(6 * 7)", language: "python" });
  assert.deepEqual([ran.exit_code, ran.stdout], [0, "42\n"]);
  const shut = await call("run_code", { code: "curl -s -m 2 https://example.com || echo shut", language: "bash" });
  assert.equal(shut.stdout, "shut\n");

  const { id } = await call("workspace_create", { label: "by mcp" });
  const odd = "-n a 'b\n$(c)";
  await call("write_file", { workspace_id: id, path: `deep/${odd}`, content: "grüße\n" });
  const read = await call("read_file", { workspace_id: id, path: `/workspace/deep/${odd}` });
  assert.deepEqual([read.text, read.size], ["grüße\n", 8]);
  const { entries } = await call("list_files", { workspace_id: id, path: "/workspace/deep" });
  assert.deepEqual(entries.map(({ name, type }) => [name, type]), [[odd, "file"]]);
  await call("exec", { workspace_id: id, command: "head -c 600000 /dev/urandom > big; printf '\\377' > one" });
  const first = await call("read_file", { workspace_id: id, path: "big" });
  assert.deepEqual([first.size, first.next_offset], [600000, 524288]);
  const rest = await call("read_file", { workspace_id: id, path: "big", offset: first.next_offset });
  assert.equal(rest.next_offset, undefined);
  const bytes = Buffer.concat([first, rest].map(({ base64 }) => Buffer.from(base64, "base64")));
  const sum = await call("exec", { workspace_id: id, command: "cat | wc -c; wc -c < big", stdin: "four" });
  assert.equal(sum.stdout, `4\n${bytes.length}\n`);
  assert.equal((await call("read_file", { workspace_id: id, path: "one" })).base64, "/w==");

  const before = await call("snapshot", { workspace_id: id, name: "before" });
  await call("exec", { workspace_id: id, command: "rm big; echo new > new; echo x > one" });
  const later = await call("snapshot", { workspace_id: id });
  const diff = await call("diff", { snapshot_id: later.id, against: before.id });
  assert.deepEqual([diff.added, diff.changed, diff.removed], [["/workspace/new"], ["/workspace/one"], ["/workspace/big"]]);
  const { forks } = await call("fork", { workspace_id: id, count: 2 });
  assert.equal(forks.length, 2);
  await call("restore", { workspace_id: id, snapshot_id: before.id });
  assert.match((await call("exec", { workspace_id: id, command: "ls" })).stdout, /big/);
  assert.match((await call("exec", { workspace_id: forks[0].id, command: "ls" })).stdout, /new/);

  const agent = await call("agent_start", { workspace_id: id, services: ["openai"] });
  const health = await fetch(`${agent.url}/v1/health`, { headers: { authorization: `Bearer ${agent.token}` } });
  assert.equal(health.status, 200);
  await call("agent_end", { workspace_id: id });
  const { workspaces } = await call("workspace_list", { q: "by mcp" });
  assert.ok(workspaces.some((row) => row.id === id));
  await call("workspace_delete", { workspace_id: id });

  // What goes wrong is told in words that a model can act on.
  assert.match(await refused("exec", { workspace_id: id, command: "true" }), /workspace/);
  assert.match(await refused("exec", { workspace_id: "../../credentials", command: "true" }), /not an id/);
  assert.match(await refused("read_file", { workspace_id: forks[0].id, path: "nothing" }), /No such file/);
  assert.match(await refused("read_file", { workspace_id: forks[0].id, path: "/workspace" }), /is a directory/);
  assert.match(await refused("write_file", { workspace_id: forks[0].id, path: "/etc/passwd", content: "x" }), /path: only files below/);
  assert.match(await refused("agent_start", { workspace_id: forks[0].id, agents: ["claude"] }), /agents install claude/);
  assert.match(await refused("run_code", { code: "1", language: "cobol" }), /language/);
  assert.match(await refused("run_code", { language: "python" }), /code/);
  await client.close();
});

test("over HTTP each client comes with its own key", async (t) => {
  const child = spawn(program, ["mcp", "--http", "127.0.0.1:0"], {
    env: { AGENTJAIL_URL: plane.url, AGENTJAIL_KEY: KEY },
    stdio: ["ignore", "ignore", "pipe"],
  });
  try {
    const [line] = await once(child.stderr.setEncoding("utf8"), "data");
    const url = new URL(/http:\/\/\S+/.exec(line)[0]);
    const with_ = (key) => ({ requestInit: { headers: key ? { authorization: `Bearer ${key}` } : {} } });
    const { client, call } = await connect(t, new StreamableHTTPClientTransport(url, with_(KEY)));
    assert.equal((await call("run_code", { code: "print(1)", language: "python" })).stdout, "1\n");
    await client.close();
    // The server's own key is nobody's.
    const { client: wrong, refused } = await connect(t, new StreamableHTTPClientTransport(url, with_("wrong")));
    assert.match(await refused("workspace_list"), /invalid api key/);
    await wrong.close();
    await assert.rejects(connect(t, new StreamableHTTPClientTransport(url, with_(undefined))), /API key/);
    const headers = { "content-type": "application/json", authorization: `Bearer ${KEY}` };
    const page = await fetch(url, { method: "POST", headers: { ...headers, origin: "https://evil.example" }, body: "{}" });
    assert.equal(page.status, 403);
  } finally {
    child.kill("SIGINT");
    await once(child, "exit");
  }
});

const claude = join(
  process.env.AGENTS_STATE ?? "/nowhere",
  "flavors/agent-claude/bin/agent_processes/claude/node_modules/@anthropic-ai/claude-code-linux-x64/claude",
);

test("Claude Code runs code in a jail with it", { skip: !existsSync(claude) && "Claude Code is not there" }, async () => {
  const home = mkdtempSync(join(tmpdir(), "claude-"));
  try {
    const config = join(home, "mcp.json");
    writeFileSync(config, JSON.stringify({ mcpServers: { agentjail: { type: "stdio", ...server() } } }));
    const words = ["-p", "run it in a jail", "--mcp-config", config, "--allowedTools", "mcp__agentjail__run_code"];
    const env = {
      PATH: process.env.PATH, HOME: home, ANTHROPIC_BASE_URL: plane.model.url, ANTHROPIC_API_KEY: "k",
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1", DISABLE_AUTOUPDATER: "1", IS_SANDBOX: "1",
    };
    const running = promisify(execFile)(claude, words, { env, cwd: home, timeout: 60_000 });
    running.child.stdin.end();
    const { stdout } = await running;
    assert.match(stdout, /42 from a jail/);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});
