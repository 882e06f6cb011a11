/**
 * A stand-in for the model APIs that coding agents speak to, on loopback: Anthropic Messages, OpenAI Responses
 * and Chat Completions, Gemini. It plays a fixed script by what the conversation asks last:
 *
 *     make the file    a call of the agent's own shell tool; after its result, "done: " and the result
 *     mend the project the same, with a command that mends a bug in Python and runs the tests
 *     make it loud     the same, with one that the tests do not like
 *     start a daemon   the same, with a command that leaves a process behind
 *     use the number   the same, with the tool `tell_the_number` of a server that the agent was given
 *     run it in a jail the same, with the tool `run_code` of the platform
 *     what did I ask   what was asked before in this conversation
 *     count slowly     a number every 100 ms, until the caller hangs up
 *     anything else    pong
 *
 * Model names, lists of tools and the number of requests a turn are the agent's business: none is assumed.
 */

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

/** What the model wants to run, by what it is asked. The daemon outlives its shell, session and all. */
const COMMANDS = {
  "make the file": "echo made by an agent > made.txt && echo it is written",
  "mend the project": "sed -i 's/a - b/a + b/' calc.py && python3 -m unittest 2>&1 | tail -1",
  "make it loud": "sed -i 's/a + b/-(a + b)/' calc.py && python3 -m unittest 2>&1 | tail -1",
  "start a daemon": "(setsid sleep 3600 < /dev/null > /dev/null 2>&1 &) ; echo it is started",
};

/** Tools that are no agent's own, and what they are called with. */
const GIVEN = {
  "use the number": { name: "tell_the_number", input: {} },
  "run it in a jail": { name: "run_code", input: { code: "print(6 * 7, 'from a jail')", language: "python" } },
};

const CUES = [...Object.keys(COMMANDS), ...Object.keys(GIVEN), "what did I ask", "count slowly", "say pong"];

/** Names that agents give their shell, and the argument that takes a line for it. */
const SHELLS = ["bash", "exec_command", "shell_command", "shell", "run_shell_command", "local_shell", "exec"];
const LINES = ["command", "cmd", "script", "code"];

/** Numbers that are counted if nobody hangs up. */
const COUNTED = 300;

/** Starts it on a free port, or on one that is given. */
export async function startModel({ port = 0 } = {}) {
  const requests = [];
  const server = createServer((request, response) => {
    answer(request, response, requests).catch((error) => {
      if (!response.headersSent) response.writeHead(500);
      response.end(String(error?.stack ?? error));
    });
  });
  // Codex tries a WebSocket first; refused in these words it goes on without.
  server.on("upgrade", (request, socket) => {
    requests.push(record(request));
    socket.end("HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** All that came: method, path, headers, body. */
    requests,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

function record(request, body = undefined) {
  return { method: request.method, path: request.url, headers: { ...request.headers }, body };
}

async function answer(request, response, requests) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const text = Buffer.concat(pieces).toString();
  const body = parsed(text);
  requests.push(record(request, body ?? text));
  const path = new URL(request.url, "http://model").pathname;
  // For a test in another process: what came, but for this.
  if (path === "/requests") return json(response, requests.slice(0, -1));

  if (request.method === "POST" && body) {
    if (path.endsWith("/count_tokens") || path.endsWith(":countTokens")) {
      return json(response, { input_tokens: 10, totalTokens: 10 });
    }
    const dialect = dialectOf(path);
    if (dialect) return speak(dialect, path, body, request, response);
  }
  if (path.endsWith("/models")) return json(response, { object: "list", data: [], has_more: false });
  if (request.method === "HEAD" || path === "/") return json(response, {});
  return json(response, { error: { type: "not_found_error", message: `no ${path} here` } }, 404);
}

function dialectOf(path) {
  if (path.endsWith("/messages")) return anthropic;
  if (path.endsWith("/responses")) return responses;
  if (path.endsWith("/chat/completions")) return chat;
  if (/:(streamGenerateContent|generateContent)$/.test(path)) return gemini;
  return undefined;
}

async function speak(dialect, path, body, request, response) {
  const turn = script(dialect.read(body));
  const streamed = dialect.streams(body, path);
  if (!streamed) {
    return json(response, dialect.whole(turn, body));
  }
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  const send = (event) => {
    if (dialect.names) response.write(`event: ${event.type}\n`);
    response.write(`data: ${JSON.stringify(event)}\n\n`);
  };
  for await (const event of dialect.stream(turn, body, () => response.destroyed || request.socket.destroyed)) {
    send(event);
  }
  if (dialect.last) response.write(dialect.last);
  response.end();
}

function json(response, body, status = 200) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * What the model says next.
 *
 * @param conversation `{said: [{user} | {result}], tools, json}`: what was said, oldest first; the tools that
 *   are offered, as `{name, schema, namespace?, custom?}`; whether the answer has to be JSON.
 * @returns `{text}`, `{slowly: true}` or `{call: {tool, input}}`
 */
function script({ said, tools, json }) {
  const asked = [];
  for (const [at, { user }] of said.entries()) {
    const cues = CUES.filter((cue) => user?.includes(cue));
    // A message that holds several is somebody's summary of the others.
    if (cues.length === 1) asked.push({ cue: cues[0], at });
  }
  const last = asked.at(-1);
  if (json) return { text: JSON.stringify({ title: "A short title" }) };
  // A side request, such as one for a title: whoever is to work is given tools.
  if (tools.length === 0 && last && last.cue !== "say pong") return { text: "A short title" };
  switch (last?.cue) {
    case "make the file":
    case "mend the project":
    case "make it loud":
    case "start a daemon":
    case "run it in a jail":
    case "use the number": {
      const results = said.slice(last.at).flatMap(({ result }) => (result === undefined ? [] : [result]));
      const wanted = COMMANDS[last.cue];
      const call = wanted ? results.length === 0 && shellCall(tools, wanted) : givenCall(tools, results, GIVEN[last.cue]);
      if (call) return { call };
      return { text: results.length > 0 ? `done: ${results.at(-1).trim().slice(0, 300)}` : "there is no such tool" };
    }
    case "what did I ask":
      return { text: `you asked: ${asked.slice(0, -1).map(({ cue }) => cue).join(", ")}` };
    case "count slowly":
      return { slowly: true };
    default:
      return { text: "pong" };
  }
}

/** A call of the agent's shell. */
function shellCall(tools, command) {
  const tool = SHELLS.map((name) => tools.find((tool) => tool.name.toLowerCase() === name)).find(Boolean);
  if (!tool) return undefined;
  // Codex runs a command in its own sandbox unless the model asks to leave it.
  const leave = { sandbox_permissions: "require_escalated", justification: "May it be done?" };
  // It has newer models write JavaScript, in which its shell is a function.
  if (tool.custom) {
    const wanted = JSON.stringify({ cmd: command, ...leave });
    return { tool, input: `const { output } = await tools.exec_command(${wanted});\ntext(output);` };
  }
  const known = tool.schema?.properties ?? {};
  const line = LINES.find((name) => known[name]) ?? "command";
  const input = { [line]: known[line]?.type === "array" ? ["bash", "-lc", command] : command };
  if (known.description) input.description = "Does what was asked";
  if (known.sandbox_permissions) Object.assign(input, leave);
  return { tool, input };
}

/** A call of the tool that is no agent's own, of which agents do not tell much until they are asked. */
function givenCall(tools, results, given) {
  const tool = tools.find(({ name }) => name.endsWith(given.name));
  const search = tools.find(({ name }) => name === "ToolSearch");
  const script = tools.find(({ name, custom }) => custom && name === "exec");
  if (results.length === 0) {
    if (tool) return { tool, input: given.input };
    // Claude's: what it finds may be called from then on.
    if (search) return { tool: search, input: { query: given.name, max_results: 5 } };
    // Codex's: a script finds it and calls it.
    const find = `const { name } = ALL_TOOLS.find(({ name }) => name.endsWith("${given.name}"));`;
    return script && { tool: script, input: `${find}\ntext(JSON.stringify(await tools[name](${JSON.stringify(given.input)})));` };
  }
  const found = new RegExp(`\\w+__${given.name}`).exec(results.at(-1))?.[0];
  if (search && results.length === 1 && found) return { tool: { name: found }, input: given.input };
  return undefined;
}

/** A text in pieces, as models send them. */
async function* pieces(turn, gone) {
  if (!turn.slowly) {
    const half = Math.ceil(turn.text.length / 2);
    yield turn.text.slice(0, half);
    yield turn.text.slice(half);
    return;
  }
  for (let number = 1; number <= COUNTED && !gone(); number += 1) {
    yield `${number} `;
    await sleep(100);
  }
}

function flat(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((part) => (typeof part === "string" ? part : (part.text ?? part.tool_name ?? ""))).join("\n");
}

/** `POST /v1/messages` */
const anthropic = {
  names: true,
  streams: (body) => body.stream === true,

  read(body) {
    const said = [];
    for (const { role, content } of body.messages ?? []) {
      const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
      for (const part of parts) {
        if (part.type === "tool_result") said.push({ result: flat(part.content) });
        else if (role === "user" && part.type === "text") said.push({ user: part.text });
      }
    }
    const tools = (body.tools ?? []).map(({ name, input_schema: schema }) => ({ name, schema }));
    const format = body.output_config?.format ?? body.output_format;
    return { said, tools, json: format?.type === "json_schema" };
  },

  message: (body) => ({
    id: `msg_${randomUUID()}`,
    type: "message",
    role: "assistant",
    model: body.model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: { input_tokens: 10, output_tokens: 1 },
  }),

  block: ({ call, text }) =>
    call
      ? { type: "tool_use", id: `toolu_${randomUUID()}`, name: call.tool.name, input: call.input }
      : { type: "text", text },

  reason: ({ call }) => (call ? "tool_use" : "end_turn"),

  whole(turn, body) {
    const content = [this.block({ text: "1 2 3", ...turn })];
    return { ...this.message(body), content, stop_reason: this.reason(turn) };
  },

  async *stream(turn, body, gone) {
    yield { type: "message_start", message: this.message(body) };
    const whole = this.block(turn);
    const empty = turn.call ? { ...whole, input: {} } : { type: "text", text: "" };
    yield { type: "content_block_start", index: 0, content_block: empty };
    if (turn.call) {
      const delta = { type: "input_json_delta", partial_json: JSON.stringify(turn.call.input) };
      yield { type: "content_block_delta", index: 0, delta };
    } else {
      for await (const text of pieces(turn, gone)) {
        yield { type: "content_block_delta", index: 0, delta: { type: "text_delta", text } };
      }
    }
    yield { type: "content_block_stop", index: 0 };
    const delta = { stop_reason: this.reason(turn), stop_sequence: null };
    yield { type: "message_delta", delta, usage: { output_tokens: 5 } };
    yield { type: "message_stop" };
  },
};

/** `POST /v1/responses` */
const responses = {
  names: true,
  streams: (body) => body.stream === true,

  read(body) {
    const items = typeof body.input === "string" ? [{ role: "user", content: body.input }] : (body.input ?? []);
    const said = [];
    for (const item of items) {
      if (item.type?.endsWith("_output")) {
        said.push({ result: flat(item.output) });
      } else if (item.role === "user") {
        for (const part of [item.content].flat()) said.push({ user: part.text ?? part });
      }
    }
    const more = items.filter((item) => item.type === "additional_tools").flatMap((item) => item.tools);
    const tools = [...(body.tools ?? []), ...more].flatMap((tool) =>
      tool.type === "namespace"
        ? tool.tools.map((inner) => ({ ...this.tool(inner), namespace: tool.name }))
        : [this.tool(tool)],
    );
    return { said, tools, json: body.text?.format?.type === "json_schema" };
  },

  tool: ({ type, name, parameters }) => ({ name: name ?? type, schema: parameters, custom: type === "custom" }),

  item({ call, text = "" }) {
    if (!call) {
      const content = [{ type: "output_text", text, annotations: [] }];
      return { type: "message", id: `msg_${randomUUID()}`, role: "assistant", status: "completed", content };
    }
    const { name, namespace, custom } = call.tool;
    const common = { id: `fc_${randomUUID()}`, call_id: `call_${randomUUID()}`, name, status: "completed" };
    if (namespace) common.namespace = namespace;
    return custom
      ? { type: "custom_tool_call", ...common, input: call.input }
      : { type: "function_call", ...common, arguments: JSON.stringify(call.input) };
  },

  response: (body, output) => ({
    id: `resp_${randomUUID()}`,
    object: "response",
    created_at: Math.floor(Date.now() / 1000),
    status: "completed",
    model: body.model,
    output,
    usage: {
      input_tokens: 10,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: 5,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 15,
    },
  }),

  whole(turn, body) {
    return this.response(body, [this.item(turn)]);
  },

  async *stream(turn, body, gone) {
    let number = 0;
    const event = (type, members) => ({ type, sequence_number: number++, ...members });
    const response = { ...this.response(body, []), status: "in_progress", usage: null };
    yield event("response.created", { response });
    const item = this.item(turn);
    const place = { output_index: 0, item_id: item.id };
    if (turn.call) {
      const field = turn.call.tool.custom ? "input" : "arguments";
      const kind = turn.call.tool.custom ? "custom_tool_call_input" : "function_call_arguments";
      const begun = { ...item, [field]: "", status: "in_progress" };
      yield event("response.output_item.added", { output_index: 0, item: begun });
      yield event(`response.${kind}.delta`, { ...place, delta: item[field] });
      yield event(`response.${kind}.done`, { ...place, [field]: item[field] });
    } else {
      const begun = { ...item, content: [], status: "in_progress" };
      yield event("response.output_item.added", { output_index: 0, item: begun });
      const part = { type: "output_text", text: "", annotations: [] };
      yield event("response.content_part.added", { ...place, content_index: 0, part });
      let text = "";
      for await (const delta of pieces(turn, gone)) {
        text += delta;
        yield event("response.output_text.delta", { ...place, content_index: 0, delta });
      }
      item.content[0].text = text;
      yield event("response.output_text.done", { ...place, content_index: 0, text });
      yield event("response.content_part.done", { ...place, content_index: 0, part: item.content[0] });
    }
    yield event("response.output_item.done", { output_index: 0, item });
    yield event("response.completed", { response: { ...this.response(body, [item]), id: response.id } });
  },
};

/** `POST /v1/chat/completions` */
const chat = {
  last: "data: [DONE]\n\n",
  streams: (body) => body.stream === true,

  read(body) {
    const said = [];
    for (const { role, content } of body.messages ?? []) {
      if (role === "tool") said.push({ result: flat(content) });
      else if (role === "user") said.push({ user: flat(content) });
    }
    const tools = (body.tools ?? []).map(({ function: { name, parameters } }) => ({ name, schema: parameters }));
    return { said, tools, json: body.response_format?.type === "json_schema" };
  },

  calls: ({ tool, input }) => [
    {
      index: 0,
      id: `call_${randomUUID()}`,
      type: "function",
      function: { name: tool.name, arguments: JSON.stringify(input) },
    },
  ],

  chunk: (body, kind, choice) => ({
    id: "chatcmpl-1",
    object: kind,
    created: Math.floor(Date.now() / 1000),
    model: body.model,
    choices: [{ index: 0, finish_reason: null, ...choice }],
    usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 },
  }),

  whole({ call, text = "1 2 3" }, body) {
    const message = { role: "assistant", content: text };
    if (call) message.tool_calls = this.calls(call);
    return this.chunk(body, "chat.completion", { message, finish_reason: call ? "tool_calls" : "stop" });
  },

  async *stream(turn, body, gone) {
    const chunk = (choice) => this.chunk(body, "chat.completion.chunk", choice);
    if (turn.call) {
      yield chunk({ delta: { role: "assistant", tool_calls: this.calls(turn.call) } });
    } else {
      for await (const content of pieces(turn, gone)) yield chunk({ delta: { role: "assistant", content } });
    }
    yield chunk({ delta: {}, finish_reason: turn.call ? "tool_calls" : "stop" });
  },
};

/** `POST /v1beta/models/{model}:streamGenerateContent` */
const gemini = {
  streams: (_, path) => path.endsWith(":streamGenerateContent"),

  read(body) {
    const said = [];
    for (const { role, parts = [] } of body.contents ?? []) {
      for (const part of parts) {
        if (part.functionResponse) said.push({ result: JSON.stringify(part.functionResponse.response) });
        else if (role !== "model" && part.text) said.push({ user: part.text });
      }
    }
    const declared = (body.tools ?? []).flatMap((tool) => tool.functionDeclarations ?? []);
    const tools = declared.map(({ name, parameters, parametersJsonSchema }) => ({
      name,
      schema: parametersJsonSchema ?? parameters,
    }));
    return { said, tools, json: body.generationConfig?.responseMimeType === "application/json" };
  },

  candidate: (parts, finishReason) => ({
    candidates: [{ index: 0, content: { role: "model", parts }, ...(finishReason && { finishReason }) }],
    usageMetadata: { promptTokenCount: 10, candidatesTokenCount: 5, totalTokenCount: 15 },
  }),

  call: ({ tool, input }) => [{ functionCall: { name: tool.name, args: input } }],

  whole({ call, text = "1 2 3" }) {
    return this.candidate(call ? this.call(call) : [{ text }], "STOP");
  },

  async *stream(turn, _, gone) {
    if (turn.call) {
      yield this.candidate(this.call(turn.call), "STOP");
      return;
    }
    for await (const text of pieces(turn, gone)) yield this.candidate([{ text }]);
    yield this.candidate([{ text: "" }], "STOP");
  },
};

if (import.meta.filename === process.argv[1]) {
  const model = await startModel({ port: Number(process.argv[2] ?? 0) });
  console.log(model.url);
}
