/** A sandbox agent server for a test, and a client that speaks ACP with an agent of it: plain fetch. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const TOKEN = "T";

/** Milliseconds that an agent may take for an answer. */
const PATIENCE = 45_000;

/** Waits until something is the case, and gives what it gave. */
export async function until(what, condition, ms = 30_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    const shown = typeof what === "function" ? what() : what;
    assert.ok(Date.now() < end, `not within ${ms} ms: ${shown}`);
    await sleep(20);
  }
}

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** The events of a stream. */
async function* eventsOf(response) {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    text += decoder.decode(bytes, { stream: true });
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const event = {};
      for (const line of text.slice(0, end).split("\n")) {
        const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name) event[name] = name in event ? `${event[name]}\n${value}` : value;
      }
      if (event.data !== undefined) yield { ...event, data: JSON.parse(event.data) };
    }
  }
}

/** A server in a home of its own. */
export class Server {
  #process;
  #log = "";

  /**
   * @param options `{program, home, data, env, args}`: `data` is where agents are installed, `env` the
   *   server's whole environment beside what programs cannot do without.
   */
  constructor({ program, home, data, env = {}, args = [] }) {
    this.program = program;
    this.home = home;
    this.args = args;
    this.env = { PATH: process.env.PATH, HOME: home, XDG_DATA_HOME: data, ...env };
    // npm keeps its cache in the home, which is new: ours may have the packages already.
    const cache = execFileSync("npm", ["config", "get", "cache"], { encoding: "utf8" }).trim();
    mkdirSync(home, { recursive: true });
    const config = join(home, "npmrc");
    writeFileSync(config, `cache=${cache}\n`);
    this.env.NPM_CONFIG_USERCONFIG = config;
  }

  async start() {
    this.port ??= await freePort();
    const args = ["server", "-H", "127.0.0.1", "-p", String(this.port), "--token", TOKEN];
    args.push("--state-dir", join(this.home, "state"), ...this.args);
    this.#process = spawn(this.program, args, { env: this.env, stdio: ["ignore", "pipe", "pipe"] });
    this.#process.stdout.on("data", (text) => (this.#log += text));
    this.#process.stderr.on("data", (text) => (this.#log += text));
    await until(
      () => `the server is healthy: ${this.#log}`,
      () => this.get("/v1/health").then((response) => response.ok, () => false),
      10_000,
    );
    return this;
  }

  get pid() {
    return this.#process.pid;
  }

  get log() {
    return this.#log;
  }

  async stop() {
    await this.#end(this.pid, "SIGTERM");
  }

  /** Kills it without a word. What we have started is its keeper: the server is the keeper's child. */
  async crash() {
    const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, "utf8");
    await this.#end(Number.parseInt(children, 10), "SIGKILL");
  }

  async #end(pid, signal) {
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null) return;
    const exit = once(this.#process, "exit");
    process.kill(pid, signal);
    await exit;
  }

  fetch(path, options = {}) {
    const headers = { authorization: `Bearer ${TOKEN}`, ...options.headers };
    return fetch(`http://127.0.0.1:${this.port}${path}`, { ...options, headers });
  }

  get(path, options) {
    return this.fetch(path, options);
  }

  send(method, path, body, options = {}) {
    const headers = { "content-type": "application/json" };
    return this.fetch(path, { ...options, method, headers, body: JSON.stringify(body) });
  }

  /** Installs an agent; gives all events. */
  async install(agent, body = {}) {
    const response = await this.send("POST", `/v1/agents/${agent}/install?stream=1`, body);
    assert.equal(response.status, 200);
    const events = [];
    for await (const event of eventsOf(response)) events.push(event);
    return events;
  }

  /**
   * Processes of this server: those that have its home in their environment, and the server itself not. One
   * that a daemon's trick has taken from below the server is among them.
   */
  processes() {
    const found = [];
    for (const name of readdirSync("/proc")) {
      const pid = Number(name);
      if (!pid || pid === this.pid) continue;
      try {
        const env = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
        if (!env.includes(`HOME=${this.home}`)) continue;
        const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        // A zombie has neither.
        if (command && !command.includes(this.program)) found.push({ pid, command, env });
      } catch {
        // It is gone, or nobody's to see.
      }
    }
    return found;
  }

  /** A connection with an agent. */
  connect(id, agent) {
    return new Connection(this, id, agent);
  }
}

/** What was said between a client and an agent. */
export class Connection {
  #server;
  #path;
  #agent;
  #next = 1;
  #reading;
  #hangUp;
  #permit;

  constructor(server, id, agent) {
    this.#server = server;
    this.#path = `/v1/acp/${id}`;
    this.#agent = agent;
    /** Envelopes of the stream, in order. */
    this.heard = [];
    /** The id of the last event, to go on after it. */
    this.last = undefined;
  }

  /** Listens to the stream from now on, or from where it broke off. */
  listen() {
    const headers = { accept: "text/event-stream", ...(this.last && { "last-event-id": this.last }) };
    this.#hangUp = new AbortController();
    this.#reading = (async () => {
      try {
        const response = await this.#server.get(this.#path, { headers, signal: this.#hangUp.signal });
        for await (const { id, data } of eventsOf(response)) {
          this.last = id;
          this.heard.push(data);
          if (data.method === "session/request_permission") await this.#answer(data);
        }
      } catch {
        // It ends with the server or with us.
      }
    })();
    return this;
  }

  async post(envelope) {
    const path = `${this.#path}?agent=${this.#agent}`;
    const signal = AbortSignal.timeout(PATIENCE);
    const response = await this.#server.send("POST", path, { jsonrpc: "2.0", ...envelope }, { signal });
    const text = await response.text();
    assert.ok(response.ok, `${envelope.method}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** Asks the agent; gives the whole answer. */
  ask(method, params) {
    return this.post({ id: this.#next++, method, params });
  }

  /** Asks the agent for something that it must not refuse. */
  async call(method, params) {
    const answer = await this.ask(method, params);
    assert.ok(answer.result, `${method}: ${JSON.stringify(answer.error)}`);
    return answer.result;
  }

  notify(method, params) {
    return this.post({ method, params });
  }

  respond(id, result) {
    return this.post({ id, result });
  }

  initialize() {
    return this.call("initialize", {
      protocolVersion: 1,
      clientCapabilities: { fs: { readTextFile: false, writeTextFile: false }, terminal: false },
      clientInfo: { name: "compat", version: "1.0.0" },
    });
  }

  /**
   * Prompts. Gives the answer, what was said meanwhile, and how often a permission was asked for: `permit` is
   * the kind of option that is chosen then.
   */
  async prompt(sessionId, text, permit = undefined) {
    const from = this.heard.length;
    this.#permit = permit;
    const result = await this.call("session/prompt", { sessionId, prompt: [{ type: "text", text }] });
    const heard = () => this.heard.slice(from);
    const isAnswer = (envelope) => envelope.result?.stopReason !== undefined;
    await until("the stream tells the end of the turn", () => heard().some(isAnswer), 5000);
    const asked = heard().filter(({ method }) => method === "session/request_permission").length;
    return { ...result, said: this.text(from), asked };
  }

  async #answer({ id, params }) {
    const option = params.options.find(({ kind }) => kind === this.#permit);
    assert.ok(option, `a permission is asked for, and ${this.#permit} is none of ${JSON.stringify(params.options)}`);
    await this.respond(id, { outcome: { outcome: "selected", optionId: option.optionId } });
  }

  /** What the agent has said, from an envelope on. */
  text(from = 0) {
    const updates = this.heard.slice(from).map((envelope) => envelope.params?.update);
    const chunks = updates.filter((update) => update?.sessionUpdate === "agent_message_chunk");
    return chunks.map((update) => update.content.text).join("");
  }

  async end() {
    const response = await this.#server.fetch(this.#path, { method: "DELETE" });
    assert.equal(response.status, 204);
    await this.close();
  }

  async close() {
    this.#hangUp?.abort();
    await this.#reading;
  }
}
