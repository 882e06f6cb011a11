import { strict as assert } from "node:assert";
import { after, before, test } from "node:test";

import WebSocket from "ws";

import { Server, soon, until } from "../support.mjs";

let server, client;
before(async () => {
  server = await Server.start();
  client = await server.client();
});
after(() => server.stop());

const decode = (entries) => entries.map((entry) => Buffer.from(entry.data, "base64").toString()).join("");
const sh = (script, rest = {}) => client.createProcess({ command: "/bin/sh", args: ["-c", script], ...rest });
const exited = (id) =>
  until(`the end of ${id}`, async () => {
    const process = await client.getProcess(id);
    return process.status === "exited" && process;
  });
const status = (code) => (error) => {
  assert.equal(error.name, "SandboxAgentError");
  assert.equal(error.status, code);
  assert.match(error.problem.type, /^urn:sandbox-agent:error:/);
  return true;
};

test("a command is run, and its output, code and time are told", async () => {
  const result = await client.runProcess({
    command: "/bin/sh",
    args: ["-c", "echo $GREETING; pwd; echo err >&2; exit 3"],
    cwd: server.dir.work,
    env: { GREETING: "hello" },
  });
  assert.equal(result.exitCode, 3);
  assert.equal(result.stdout, `hello\n${server.dir.work}\n`);
  assert.equal(result.stderr, "err\n");
  assert.equal(result.timedOut, false);
  assert.equal(result.stdoutTruncated, false);
  assert.equal(result.stderrTruncated, false);
  assert.equal(typeof result.durationMs, "number");
});

test("a run ends in time, whatever holds its output", async () => {
  const result = await soon("a timeout", client.runProcess({
    command: "/bin/sh",
    args: ["-c", "sleep 30 & sleep 30"],
    timeoutMs: 200,
  }), 5000);
  assert.equal(result.timedOut, true);
  assert.equal(result.exitCode ?? null, null);
});

test("a run's output is cut where it was asked to be", async () => {
  const result = await client.runProcess({
    command: "/bin/sh",
    args: ["-c", "printf 0123456789"],
    maxOutputBytes: 4,
  });
  assert.equal(result.stdout, "0123");
  assert.equal(result.stdoutTruncated, true);
});

test("what cannot be run is refused as a request", async () => {
  await assert.rejects(client.runProcess({ command: "" }), status(400));
  await assert.rejects(client.runProcess({ command: "/no/such/program" }), status(400));
  await assert.rejects(client.runProcess({ command: "true", cwd: "/no/such/place" }), status(400));
  await assert.rejects(client.createProcess({ command: "/no/such/program" }), status(400));
});

test("a process is created, listed, looked at, stopped and deleted", async () => {
  const made = await sh("sleep 60", { cwd: server.dir.work });
  assert.match(made.id, /^proc_\d+$/);
  assert.equal(made.command, "/bin/sh");
  assert.deepEqual(made.args, ["-c", "sleep 60"]);
  assert.equal(made.cwd, server.dir.work);
  assert.equal(made.status, "running");
  assert.equal(made.tty, false);
  assert.equal(made.interactive, false);
  assert.equal(made.owner, "user");
  assert.ok(made.pid > 0);
  assert.ok(Math.abs(made.createdAtMs - Date.now()) < 60_000);
  const listed = await client.listProcesses();
  assert.ok(listed.processes.some((one) => one.id === made.id));
  assert.ok((await client.listProcesses({ owner: "user" })).processes.some((one) => one.id === made.id));
  assert.deepEqual((await client.listProcesses({ owner: "desktop" })).processes, []);
  await assert.rejects(client.deleteProcess(made.id), status(409));
  const stopped = await client.stopProcess(made.id, { waitMs: 5000 });
  assert.equal(stopped.status, "exited");
  assert.equal(stopped.pid ?? null, null);
  assert.ok(stopped.exitedAtMs >= stopped.createdAtMs);
  assert.equal((await client.stopProcess(made.id)).status, "exited");
  assert.equal(await client.deleteProcess(made.id), undefined);
  await assert.rejects(client.getProcess(made.id), status(404));
});

test("a process that ignores being stopped is killed, and its children with it", async () => {
  const made = await sh("trap '' TERM; sleep 60 & echo $!; while :; do sleep 1; done");
  const child = await until("the child's pid", async () =>
    Number(decode((await client.getProcessLogs(made.id)).entries)));
  assert.equal((await client.stopProcess(made.id)).status, "running");
  assert.equal((await client.killProcess(made.id, { waitMs: 5000 })).status, "exited");
  const state = `read -r _ _ state _ < /proc/${child}/stat 2>/dev/null && echo $state || echo gone`;
  await until("the child's end", async () => {
    const { stdout } = await client.runProcess({ command: "/bin/sh", args: ["-c", state] });
    return /gone|Z|X/.test(stdout);
  });
});

test("unknown processes are not found, by any call", async () => {
  for (const call of [
    () => client.getProcess("proc_999"),
    () => client.stopProcess("proc_999"),
    () => client.killProcess("proc_999"),
    () => client.deleteProcess("proc_999"),
    () => client.getProcessLogs("proc_999"),
    () => client.followProcessLogs("proc_999", () => {}),
    () => client.sendProcessInput("proc_999", { data: "" }),
    () => client.resizeProcessTerminal("proc_999", { cols: 80, rows: 24 }),
  ]) {
    await assert.rejects(call(), status(404), String(call));
  }
});

test("logs are told by stream, by tail and from a sequence on", async () => {
  const { id } = await sh("echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three");
  await exited(id);
  const all = await client.getProcessLogs(id);
  assert.equal(all.processId, id);
  assert.equal(all.stream, "combined");
  assert.equal(decode(all.entries), "one\ntwo\nthree\n");
  assert.deepEqual(all.entries.map((entry) => entry.sequence), [1, 2, 3]);
  assert.deepEqual(all.entries.map((entry) => entry.stream), ["stdout", "stderr", "stdout"]);
  assert.ok(all.entries.every((entry) => entry.encoding === "base64" && entry.timestampMs > 0));
  assert.equal(decode((await client.getProcessLogs(id, { stream: "stdout" })).entries), "one\nthree\n");
  assert.equal(decode((await client.getProcessLogs(id, { stream: "stderr" })).entries), "two\n");
  assert.equal(decode((await client.getProcessLogs(id, { tail: 1 })).entries), "three\n");
  assert.equal(decode((await client.getProcessLogs(id, { since: 1 })).entries), "two\nthree\n");
});

test("logs are followed from the first line to the end", async () => {
  const { id } = await sh("echo early; read go; for i in 1 2 3; do echo line $i; done", { interactive: true });
  await until("history", async () => (await client.getProcessLogs(id)).entries.length > 0);
  const heard = [];
  const following = await client.followProcessLogs(id, (entry) => heard.push(entry));
  await until("history in the stream", () => heard.length > 0);
  await client.sendProcessInput(id, { data: "go\n", encoding: "utf8" });
  await soon("the stream's end", following.closed);
  assert.equal(decode(heard), "early\nline 1\nline 2\nline 3\n");
  assert.deepEqual(heard.map((entry) => entry.sequence), heard.map((_, index) => index + 1));
});

test("a follower that closes leaves the process running", async () => {
  const { id } = await sh("echo ready; sleep 60");
  const heard = [];
  const following = await client.followProcessLogs(id, (entry) => heard.push(entry));
  await until("a line", () => heard.length > 0);
  following.close();
  await soon("the close", following.closed.catch(() => {}));
  assert.equal((await client.getProcess(id)).status, "running");
  await client.killProcess(id);
});

test("input arrives in each encoding, and is counted", async () => {
  const { id } = await sh("read a; read b; read c; echo $a-$b-$c", { interactive: true });
  const one = Buffer.from("one\n").toString("base64");
  assert.deepEqual(await client.sendProcessInput(id, { data: one }), { bytesWritten: 4 });
  assert.deepEqual(await client.sendProcessInput(id, { data: one, encoding: "base64" }), { bytesWritten: 4 });
  assert.deepEqual(await client.sendProcessInput(id, { data: "zwö\n", encoding: "utf8" }), { bytesWritten: 5 });
  await exited(id);
  assert.equal(decode((await client.getProcessLogs(id)).entries), "one-one-zwö\n");
  await assert.rejects(client.sendProcessInput(id, { data: one }), status(409));
});

test("input beyond the limit or in no encoding is refused", async () => {
  const { id } = await client.createProcess({ command: "cat", interactive: true });
  const { maxInputBytesPerRequest } = await client.getProcessConfig();
  const data = "x".repeat(maxInputBytesPerRequest + 1);
  await assert.rejects(client.sendProcessInput(id, { data, encoding: "utf8" }), status(413));
  await assert.rejects(client.sendProcessInput(id, { data: "x", encoding: "rot13" }), status(400));
  await client.killProcess(id);
});

test("the limits are told and set, and kept to", async () => {
  const before = await client.getProcessConfig();
  assert.deepEqual(before, {
    maxConcurrentProcesses: 64,
    defaultRunTimeoutMs: 30000,
    maxRunTimeoutMs: 300000,
    maxOutputBytes: 1048576,
    maxLogBytesPerProcess: 10485760,
    maxInputBytesPerRequest: 65536,
  });
  const running = (await client.listProcesses()).processes.filter((one) => one.status === "running").length;
  const config = { ...before, maxConcurrentProcesses: running + 1 };
  assert.deepEqual(await client.setProcessConfig(config), config);
  const { id } = await sh("sleep 60");
  await assert.rejects(sh("sleep 60"), status(409));
  await assert.rejects(client.setProcessConfig({ ...before, maxOutputBytes: 0 }), status(400));
  await client.killProcess(id, { waitMs: 5000 });
  assert.deepEqual(await client.setProcessConfig(before), before);
});

function terminal(id) {
  const session = client.connectProcessTerminal(id, { WebSocket });
  const heard = { text: "", frames: [], errors: [] };
  session.onReady((frame) => heard.frames.push(frame));
  session.onExit((frame) => heard.frames.push(frame));
  session.onData((data) => (heard.text += Buffer.from(data).toString()));
  session.onError((error) => heard.errors.push(error));
  return { session, heard };
}

test("a terminal takes input and sizes, and tells of the end", async () => {
  const made = await client.createProcess({ command: "/bin/sh", tty: true, interactive: true });
  assert.equal(made.tty, true);
  const { session, heard } = terminal(made.id);
  await until("ready", () => heard.frames.length > 0);
  assert.deepEqual(heard.frames[0], { type: "ready", processId: made.id });
  session.resize({ cols: 101, rows: 37 });
  session.sendInput("stty size; echo text-$((1 + 1))\n");
  await until("output", () => heard.text.includes("text-2"));
  assert.match(heard.text, /37 101/);
  session.sendInput(new TextEncoder().encode("echo bytes-$((2 + 2))\n"));
  await until("output", () => heard.text.includes("bytes-4"));
  assert.deepEqual(await client.resizeProcessTerminal(made.id, { cols: 90, rows: 20 }), { cols: 90, rows: 20 });
  session.sendInput("stty size; exit 4\n");
  await soon("the close", session.closed);
  assert.match(heard.text, /20 90/);
  assert.equal(heard.frames.at(-1).type, "exit");
  assert.equal(heard.frames.at(-1).exitCode, 4);
  assert.deepEqual(heard.errors, []);
  const logs = await client.getProcessLogs(made.id);
  assert.equal(logs.stream, "pty");
  assert.doesNotMatch(decode(logs.entries), /I\/O error/);
});

test("several may look at one terminal, and who comes late sees what was", async () => {
  const { id } = await client.createProcess({ command: "/bin/sh", tty: true, interactive: true });
  const first = terminal(id);
  await until("ready", () => first.heard.frames.length > 0);
  first.session.sendInput("echo marker-$((3 + 4))\n");
  await until("output", () => first.heard.text.includes("marker-7"));
  const second = terminal(id);
  await until("a replay", () => second.heard.text.includes("marker-7"));
  second.session.sendInput("echo other-$((4 + 5))\n");
  for (const { heard } of [first, second]) await until("output", () => heard.text.includes("other-9"));
  first.session.close();
  await soon("the close", first.session.closed);
  assert.equal((await client.getProcess(id)).status, "running");
  await client.killProcess(id);
  await soon("the end", second.session.closed);
  assert.equal(second.heard.frames.at(-1).type, "exit");
  assert.deepEqual([...first.heard.errors, ...second.heard.errors], []);
});

test("a terminal of a process that has ended says so and closes", async () => {
  const { id } = await client.createProcess({ command: "true", tty: true });
  await exited(id);
  const { session, heard } = terminal(id);
  await soon("the close", session.closed);
  assert.deepEqual(heard.frames.map((frame) => frame.type), ["ready", "exit"]);
  assert.equal(heard.frames[1].exitCode, 0);
});

test("a terminal needs a tty, and its token", async () => {
  const { id } = await sh("sleep 60");
  await assert.rejects(client.resizeProcessTerminal(id, { cols: 80, rows: 24 }), status(409));
  const refused = (url) =>
    soon("a refusal", new Promise((resolve) => {
      const socket = new WebSocket(url);
      socket.on("unexpected-response", (_, response) => resolve(response.statusCode));
      socket.on("open", () => resolve("open"));
      socket.on("error", () => {});
    }));
  assert.equal(await refused(client.buildProcessTerminalWebSocketUrl(id)), 409);
  assert.equal(await refused(client.buildProcessTerminalWebSocketUrl("proc_999")), 404);
  assert.equal(await refused(client.buildProcessTerminalWebSocketUrl(id, { accessToken: "wrong" })), 401);
  await client.killProcess(id);
});
