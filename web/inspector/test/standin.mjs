/**
 * A stand-in for a sandbox agent, to work on the page without one: it serves the built page under the policy that the
 * real server sends, plays a small agent over ACP, and passes files and processes on to another server.
 *
 *   UPSTREAM_URL=http://127.0.0.1:2468 TOKEN=t PORT=2470 node test/standin.mjs
 */
import { readFile } from "node:fs/promises";
import { createServer, request as httpRequest } from "node:http";
import { connect } from "node:net";
import { extname, join, normalize } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const upstream = new URL(process.env.UPSTREAM_URL ?? "http://127.0.0.1:2468");
const token = process.env.TOKEN ?? "t";
const prefix = process.env.PREFIX ?? "";
const port = Number(process.env.PORT ?? 2470);
const dist = new URL("../dist/", import.meta.url).pathname;

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:; " +
  "img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css" };

const MODES = {
  currentModeId: "normal",
  availableModes: [
    { id: "normal", name: "Normal" },
    { id: "plan", name: "Plan" },
  ],
};
const OPTIONS = [
  {
    id: "model",
    name: "Model",
    category: "model",
    type: "select",
    currentValue: "mock",
    options: [
      { name: "Mock", value: "mock" },
      { name: "Mock, fast", value: "mock-fast" },
    ],
  },
];
const CAPABILITIES = { planMode: true, permissions: true, toolCalls: true, images: false, sharedProcess: false };

/** Each agent server: its messages, who reads them, and what it waits for. */
const servers = new Map();
/** Every session's messages, the client's too. */
const sessions = new Map();
const installed = new Set(["mock"]);

class Agent {
  constructor(serverId, agent) {
    Object.assign(this, { serverId, agent, createdAtMs: Date.now(), messages: [], readers: new Set() });
    this.waiting = new Map();
    this.sessions = new Map();
    this.asked = 0;
  }

  emit(envelope) {
    this.messages.push(envelope);
    for (const reader of this.readers) reader(this.messages.length, envelope);
    this.#store("agent", envelope);
  }

  update(sessionId, update) {
    this.emit({ jsonrpc: "2.0", method: "session/update", params: { sessionId, update } });
  }

  ask(method, params) {
    const id = ++this.asked;
    this.emit({ jsonrpc: "2.0", id, method, params });
    return new Promise((done) => this.waiting.set(id, done));
  }

  async take(envelope) {
    this.#store("client", envelope);
    if (envelope.method === undefined) {
      this.waiting.get(envelope.id)?.(envelope.result);
      this.waiting.delete(envelope.id);
      return undefined;
    }
    if (envelope.id === undefined) {
      if (envelope.method === "session/cancel") this.sessions.get(envelope.params.sessionId)?.abort();
      return undefined;
    }
    const answer = { jsonrpc: "2.0", id: envelope.id };
    try {
      answer.result = await this.#call(envelope.method, envelope.params ?? {});
    } catch (error) {
      answer.error = { code: -32603, message: error.message };
    }
    this.emit(answer);
    return answer;
  }

  async #call(method, params) {
    switch (method) {
      case "initialize":
        return {
          protocolVersion: 1,
          agentCapabilities: {},
          authMethods: [],
          agentInfo: { name: "mock", version: "1" },
        };
      case "session/new": {
        const sessionId = `session-${sessions.size + 1}`;
        sessions.set(sessionId, { server: this, createdAt: Math.floor(Date.now() / 1000), events: [] });
        this.sessions.set(sessionId, new AbortController());
        return { sessionId, modes: MODES, configOptions: OPTIONS };
      }
      case "session/set_mode":
        return {};
      case "session/set_config_option":
        return { configOptions: OPTIONS.map((option) => ({ ...option, currentValue: params.value })) };
      case "session/prompt":
        return this.#prompt(params.sessionId, params.prompt.map((block) => block.text).join(""));
      default:
        throw new Error(`no method ${method}`);
    }
  }

  async #prompt(sessionId, text) {
    const cancel = new AbortController();
    this.sessions.set(sessionId, cancel);
    const say = async (words, sessionUpdate = "agent_message_chunk") => {
      for (const word of words.split(/(?<= )/)) {
        if (cancel.signal.aborted) return;
        this.update(sessionId, { sessionUpdate, content: { type: "text", text: word } });
        await pause(15);
      }
    };
    await say("The user wrote something. It should be repeated. ", "agent_thought_chunk");
    if (text.includes("plan")) {
      const entries = ["Read the file", "Change it", "Run the tests"].map((content, n) => ({
        content,
        priority: "medium",
        status: n === 0 ? "completed" : n === 1 ? "in_progress" : "pending",
      }));
      this.update(sessionId, { sessionUpdate: "plan", entries });
    }
    await say(`You said: ${text} `);
    if (text.includes("permission")) {
      const toolCallId = `call-${this.asked + 1}`;
      const call = { toolCallId, title: "Edit greeting.txt", kind: "edit", status: "pending" };
      this.update(sessionId, { sessionUpdate: "tool_call", ...call, rawInput: { path: "/tmp/greeting.txt" } });
      const { outcome } = await this.ask("session/request_permission", {
        sessionId,
        toolCall: { toolCallId, title: call.title },
        options: [
          { optionId: "allow", name: "Allow once", kind: "allow_once" },
          { optionId: "reject", name: "Reject", kind: "reject_once" },
        ],
      });
      const allowed = outcome.optionId === "allow";
      const diff = {
        type: "diff",
        path: "/tmp/greeting.txt",
        oldText: "hello\nworld\n",
        newText: "hello\nthere\nworld\n",
      };
      this.update(sessionId, {
        sessionUpdate: "tool_call_update",
        toolCallId,
        status: allowed ? "completed" : "failed",
        ...(allowed ? { content: [diff] } : {}),
      });
      await say(allowed ? "The edit is made." : "The edit is not made.");
    }
    if (text.includes("slow")) {
      for (let n = 0; n < 600 && !cancel.signal.aborted; n++) await pause(50);
    }
    return { stopReason: cancel.signal.aborted ? "cancelled" : "end_turn" };
  }

  #store(sender, payload) {
    const id = payload.params?.sessionId ?? payload.result?.sessionId ?? [...this.sessions.keys()].at(-1);
    sessions.get(id)?.events.push({ sender, payload, sessionId: id, connectionId: this.serverId });
  }
}

function problem(response, status, title, detail, code = "invalid_request") {
  response.writeHead(status, { "content-type": "application/problem+json" });
  response.end(JSON.stringify({ type: `urn:sandbox-agent:error:${code}`, title, status, detail }));
}

function json(response, value) {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

async function bodyOf(request) {
  let text = "";
  for await (const part of request) text += part;
  return text === "" ? undefined : JSON.parse(text);
}

async function acp(request, response, serverId, url) {
  let server = servers.get(serverId);
  if (request.method === "DELETE") {
    servers.delete(serverId);
    for (const record of sessions.values()) {
      if (record.server === server) record.destroyedAt = Math.floor(Date.now() / 1000);
    }
    response.writeHead(204).end();
  } else if (request.method === "POST") {
    const agent = url.searchParams.get("agent");
    if (server === undefined && agent === null) return problem(response, 400, "Invalid Request", "agent is missing");
    server ??= new Agent(serverId, agent);
    servers.set(serverId, server);
    const answer = await server.take(await bodyOf(request));
    if (answer === undefined) return response.writeHead(202).end();
    response.writeHead(200, { "content-type": "application/json" });
    // The real server keeps a long answer alive with white space.
    response.end(`\n \n${JSON.stringify(answer)}`);
  } else {
    if (server === undefined) return problem(response, 404, "Session Not Found", serverId, "session_not_found");
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    const write = (id, envelope) => response.write(`event: message\nid: ${id}\ndata: ${JSON.stringify(envelope)}\n\n`);
    const last = Number(request.headers["last-event-id"] ?? 0);
    response.write(": hello\n\n");
    server.messages.slice(last).forEach((envelope, n) => {
      write(last + n + 1, envelope);
    });
    server.readers.add(write);
    response.on("close", () => server.readers.delete(write));
  }
}

async function install(response, id) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const message of [`looking for ${id}`, "fetching", "verifying"]) {
    response.write(`event: progress\ndata: ${JSON.stringify({ message })}\n\n`);
    await pause(100);
  }
  if (id === "claude") {
    installed.add(id);
    const artifacts = [{ kind: "agent_process", path: "/opt/claude", source: "registry", version: "1.0.0" }];
    response.end(`event: done\ndata: ${JSON.stringify({ already_installed: false, artifacts })}\n\n`);
  } else {
    const data = { type: "x", title: "Install Failed", status: 500, detail: `no ${id} here` };
    response.end(`event: error\ndata: ${JSON.stringify(data)}\n\n`);
  }
}

function recordOf([id, { server, createdAt, destroyedAt }]) {
  return { id, agent: server.agent, agentSessionId: id, lastConnectionId: server.serverId, createdAt, destroyedAt };
}

async function page(response, path) {
  const file = normalize(path).replace(/^\/ui\/?/, "") || "index.html";
  try {
    const bytes = await readFile(join(dist, file));
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, {
      "content-type": type,
      "content-security-policy": POLICY,
      "x-content-type-options": "nosniff",
    });
    response.end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}

function pass(request, response) {
  const { hostname, port } = upstream;
  const forward = httpRequest({ hostname, port, path: request.url, method: request.method, headers: request.headers });
  forward.on("response", (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  forward.on("error", () => problem(response, 502, "Stream Error", "upstream is away", "stream_error"));
  response.on("close", () => forward.destroy());
  request.pipe(forward);
}

/** A gateway may serve the whole below a prefix, which it takes off. */
function stripped(url) {
  return prefix !== "" && url.startsWith(`${prefix}/`) ? url.slice(prefix.length) : url;
}

const http = createServer(async (request, response) => {
  request.url = stripped(request.url);
  const url = new URL(request.url, "http://x");
  const [, , resource, id, ...rest] = url.pathname.split("/").map(decodeURIComponent);
  if (url.pathname.startsWith("/ui/")) return page(response, url.pathname);
  if (request.headers.authorization !== `Bearer ${token}`) {
    return problem(response, 401, "Token Invalid", "missing or invalid bearer token", "token_invalid");
  }
  if (resource === "acp" && id === undefined) {
    const list = [...servers.values()].map(({ serverId, agent, createdAtMs }) => ({ serverId, agent, createdAtMs }));
    return json(response, { servers: list });
  }
  if (resource === "acp") return acp(request, response, id, url);
  if (resource === "agents" && rest[0] === "install") return install(response, id);
  if (resource === "agents") {
    const agents = ["claude", "codex", "mock"].map((agent) => ({
      id: agent,
      installed: installed.has(agent),
      credentialsAvailable: agent === "mock",
      ...(installed.has(agent) ? { version: "1.0.0", path: `/opt/agents/${agent}` } : {}),
      capabilities: CAPABILITIES,
    }));
    return json(response, { agents });
  }
  if (resource === "sessions" && id === undefined) {
    const list = [...sessions].map(recordOf).reverse();
    return json(response, { sessions: list, page: 1, perPage: 50, total: list.length });
  }
  if (resource === "sessions") {
    const events = sessions.get(id)?.events;
    if (events === undefined) return problem(response, 404, "Session Not Found", id, "session_not_found");
    const number = Number(url.searchParams.get("page"));
    const perPage = Number(url.searchParams.get("perPage"));
    const some = events.slice((number - 1) * perPage, number * perPage);
    return json(response, { events: some, page: number, perPage, total: events.length });
  }
  pass(request, response);
});

http.on("upgrade", (request, socket, head) => {
  const forward = connect(Number(upstream.port), upstream.hostname, () => {
    const headers = [];
    for (let n = 0; n < request.rawHeaders.length; n += 2)
      headers.push(`${request.rawHeaders[n]}: ${request.rawHeaders[n + 1]}`);
    forward.write(`GET ${stripped(request.url)} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`);
    forward.write(head);
    socket.pipe(forward).pipe(socket);
  });
  forward.on("error", () => socket.destroy());
  socket.on("error", () => forward.destroy());
});

http.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}${prefix}/ui/#token=${token}`));
