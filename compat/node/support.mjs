// Starts servers to test against, and waits for what is to be seen.

import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { SandboxAgent } from "sandbox-agent";

export const TOKEN = "a-token-for-tests";

/** The program under test. */
export function binary() {
  const path = process.env.SANDBOX_AGENT_BIN;
  assert.ok(path, "SANDBOX_AGENT_BIN must name the sandbox-agent program");
  return resolve(path);
}

/** The condition's value, as soon as there is one. */
export async function until(what, condition, milliseconds = 10_000) {
  const end = Date.now() + milliseconds;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < end, `in vain waited for: ${what}`);
    await new Promise((done) => setTimeout(done, 15));
  }
}

/** A promise that must not take for ever. */
export async function soon(what, promise, milliseconds = 10_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took too long: ${what}`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A directory of its own: a server's home, its state and work beside each other. */
export async function scratch() {
  const path = await mkdtemp(join(tmpdir(), "compat-"));
  for (const name of ["home", "state", "work"]) await mkdir(join(path, name));
  return {
    path,
    home: join(path, "home"),
    state: join(path, "state"),
    work: join(path, "work"),
    remove: () => rm(path, { recursive: true, force: true, maxRetries: 5 }),
  };
}

const running = new Set();
process.once("SIGTERM", () => process.exit(1));
process.once("exit", () => {
  for (const child of running) child.kill("SIGTERM");
});

/** A server, in a directory of its own. */
export class Server {
  #child;
  #clients = [];
  log = "";

  /** One that is still to be launched. */
  static async prepare({ token = TOKEN, env = {} } = {}) {
    const server = new Server();
    server.program = binary();
    server.token = token;
    server.env = env;
    server.dir = await scratch();
    server.port = await freePort();
    return server;
  }

  static async start(options) {
    const server = await Server.prepare(options);
    await server.launch();
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async launch() {
    const open = this.token ? ["--token", this.token] : ["--no-token"];
    const args = ["server", "-H", "127.0.0.1", "-p", String(this.port), "--state-dir", this.dir.state, ...open];
    const child = spawn(this.program, args, {
      env: { PATH: process.env.PATH, HOME: this.dir.home, ...this.env },
      cwd: this.dir.work,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    running.add(child);
    child.once("exit", () => running.delete(child));
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (this.log += data));
    await until("a healthy server", async () => {
      assert.equal(child.exitCode, null, `the server ended:\n${this.log}`);
      const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
      const response = await fetch(`${this.url}/v1/health`, { headers }).catch(() => null);
      return response?.ok;
    });
  }

  /** `kill -9` of the program and of what it started to serve, and the same server again. */
  async crash() {
    const { pid } = this.#child;
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
    await this.#end("SIGKILL", children.split(" ").filter(Boolean).map(Number));
    await this.launch();
  }

  /** `kill -9` of the program alone, and the same server again. */
  async kill() {
    await this.#end("SIGKILL");
    await this.launch();
  }

  async #end(signal, others = []) {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    for (const pid of others) process.kill(pid, signal);
    child.kill(signal);
    await soon("the server's end", ended);
    await until("a port that is free again", async () => !(await fetch(this.url).catch(() => null)));
  }

  /** A client, disposed of when the server is stopped. */
  async client(options = {}) {
    const waitForHealth = { timeoutMs: 10_000 };
    const client = await SandboxAgent.connect({ baseUrl: this.url, token: this.token, waitForHealth, ...options });
    this.#clients.push(client);
    return client;
  }

  async stop() {
    // A client whose connection failed may wait for ever; that is told by the test that made it fail.
    const disposals = Promise.allSettled(this.#clients.map((client) => client.dispose()));
    await soon("the disposals", disposals, 3000).catch(() => {});
    await this.#end("SIGTERM");
    await this.dir.remove();
  }
}

/** What an agent said to a session, from its events. */
export function listen(session) {
  const heard = { events: [], text: "", updates: [] };
  session.onEvent((event) => {
    heard.events.push(event);
    if (event.sender !== "agent" || event.payload.method !== "session/update") return;
    const { update } = event.payload.params;
    heard.updates.push(update);
    if (update.sessionUpdate === "agent_message_chunk") heard.text += update.content.text;
  });
  return heard;
}

export const text = (said) => [{ type: "text", text: said }];

/** A `fetch` whose event streams of agents can be ended, as a proxy between would. */
export function severableFetch() {
  const streams = new Set();
  const ids = [];
  const severable = async (input, init = {}) => {
    const headers = new Headers(init.headers);
    const response = await fetch(input, init);
    const isStream = (init.method ?? "GET") === "GET" && headers.get("accept") === "text/event-stream";
    if (!isStream || !response.ok) return response;
    ids.push(headers.get("last-event-id"));
    const reader = response.body.getReader();
    const ended = {};
    ended.promise = new Promise((done) => (ended.resolve = done));
    const end = () => ended.resolve({ done: true });
    streams.add(end);
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await Promise.race([reader.read(), ended.promise]);
        if (!done) return controller.enqueue(value);
        streams.delete(end);
        controller.close();
        await reader.cancel().catch(() => {});
      },
      cancel: () => reader.cancel(),
    });
    return new Response(body, { status: response.status, headers: response.headers });
  };
  severable.lastEventIds = ids;
  severable.streams = streams;
  severable.sever = () => {
    for (const end of [...streams]) end();
  };
  return severable;
}

/** A relay in front of a server: it can cut the connections that carry event streams. */
export async function relay(server) {
  const streaming = new Set();
  const all = new Set();
  const listener = createServer((near) => {
    const far = connect(server.port, "127.0.0.1");
    const cut = () => {
      near.resetAndDestroy();
      far.destroy();
    };
    all.add(cut);
    near.on("data", (data) => {
      if (data.includes("text/event-stream")) streaming.add(cut);
    });
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        all.delete(cut);
        streaming.delete(cut);
      });
      from.pipe(to);
    }
  }).listen(0, "127.0.0.1");
  await once(listener, "listening");
  return {
    url: `http://127.0.0.1:${listener.address().port}`,
    streams: () => streaming.size,
    cutStreams: () => {
      for (const cut of [...streaming]) cut();
    },
    close: async () => {
      for (const cut of [...all]) cut();
      listener.close();
      await once(listener, "close");
    },
  };
}

/** Fails if the client complained: of an answer that is no ACP, for one. */
export function attentive(t) {
  const complaints = t.mock.method(console, "error", () => {});
  return () => {
    const said = complaints.mock.calls.map((call) => call.arguments.map(String).join(" "));
    assert.deepEqual(said, [], "the client complained");
  };
}
