/**
 * What was said, made out of the messages that went by.
 *
 * Messages come in the order in which the agent sent them; the client's own are put between when they are sent (or
 * where the server stored them). Nothing here trusts a message's shape, and nothing here knows of HTTP or the page.
 */

import { type Fields, fieldsOf, listOf, numberOf, textOf } from "../wire/untrusted.js";
import { type Envelope, keyOf } from "./envelope.js";

export interface Choice {
  id: string;
  name: string;
  group?: string;
  description?: string;
}

export interface ConfigOption {
  id: string;
  name: string;
  category: string | undefined;
  current: string;
  choices: Choice[];
}

export type ToolContent =
  | { type: "text"; text: string }
  | { type: "diff"; path: string; before: string; after: string }
  | { type: "terminal"; terminalId: string };

export interface ToolCall {
  id: string;
  title: string;
  kind: string | undefined;
  status: string;
  content: ToolContent[];
  locations: string[];
  input: unknown;
  output: unknown;
}

export interface PermissionOption {
  id: string;
  name: string;
  kind: string | undefined;
}

export interface Permission {
  requestId: unknown;
  title: string;
  toolCallId: string | undefined;
  input: unknown;
  content: ToolContent[];
  options: PermissionOption[];
  /** What was answered, in words; undefined while the agent waits. */
  outcome: string | undefined;
}

export type Item = { key: number } & (
  | { kind: "user" | "agent" | "thought"; text: string; messageId: string | undefined }
  | { kind: "tool"; call: ToolCall }
  | { kind: "plan"; entries: { text: string; status: string; priority: string | undefined }[] }
  | { kind: "permission"; permission: Permission }
  | { kind: "change"; text: string }
  | { kind: "stop"; reason: string }
  | { kind: "error"; title: string; detail: string | undefined }
  | { kind: "gap"; from: string; to: string }
);

type Said<T> = T extends unknown ? Omit<T, "key"> : never;

/** One ACP session: what was said in it and what it offers. */
export interface Session {
  id: string;
  items: Item[];
  /** How many items were let go from the front. */
  dropped: number;
  /** Whether the agent is at work on a prompt. */
  busy: boolean;
  title: string | undefined;
  modes: Choice[];
  mode: string | undefined;
  options: ConfigOption[];
  commands: { name: string; description: string | undefined }[];
  usage: { used: number; size: number } | undefined;
}

/** More than anybody scrolls through; the rest is let go. */
const MOST_ITEMS = 5_000;

export class Conversation {
  readonly sessions = new Map<string, Session>();
  /** The agent's own name and version, if it gave them. */
  agentName: string | undefined;
  #asked = new Map<string, { method: string; sessionId: string | undefined; params: Fields }>();
  #answered = new Set<string>();
  #nextKey = 1;

  /** Takes a message of the client's: this page's, or another's that the server kept. */
  sent(envelope: Envelope): void {
    const method = textOf(envelope.method);
    const params = fieldsOf(envelope.params);
    const sessionId = textOf(params.sessionId);
    if (method === undefined) return this.#settle(envelope);
    if ("id" in envelope) this.#asked.set(keyOf(envelope.id), { method, sessionId, params });
    if (method !== "session/prompt" || sessionId === undefined) return;
    const session = this.#session(sessionId);
    const prompt = params.prompt;
    const text = typeof prompt === "string" ? prompt : listOf(prompt).map(blockText).join("\n");
    session.busy = true;
    this.#add(session, { kind: "user", text, messageId: undefined });
  }

  /** Takes a message of the agent's. */
  received(envelope: Envelope): void {
    const method = textOf(envelope.method);
    if (method === undefined) return this.#answer(envelope);
    const params = fieldsOf(envelope.params);
    const sessionId = textOf(params.sessionId);
    if (method === "session/update" && sessionId !== undefined) {
      this.#update(this.#session(sessionId), fieldsOf(params.update));
    } else if (method === "session/request_permission" && sessionId !== undefined) {
      this.#permission(this.#session(sessionId), envelope.id, params);
    } else if (method === "_adapter/agent_exited") {
      const code = numberOf(params.code);
      this.#everywhere({
        kind: "error",
        title: "The agent's process has ended",
        detail: code === undefined ? undefined : `Exit code ${code}`,
      });
      for (const session of this.sessions.values()) this.#turnOver(session);
    }
  }

  /** Takes note that messages are missing here. */
  missed(from: string, to: string): void {
    this.#everywhere({ kind: "gap", from, to });
  }

  /** Takes a failure that is not the agent's: a request that did not get through. */
  failed(sessionId: string | undefined, title: string, detail: string | undefined): void {
    const session = this.#named(sessionId);
    if (session === undefined) return;
    session.busy = false;
    this.#add(session, { kind: "error", title, detail });
  }

  #answer(envelope: Envelope): void {
    const key = keyOf(envelope.id);
    // The answer comes in the stream and to the POST that asked; other clients' ids may repeat, this page's do not.
    const asked = this.#asked.get(key);
    if (this.#answered.has(key)) return;
    if (asked !== undefined) {
      this.#asked.delete(key);
      this.#answered.add(key);
    }
    if ("error" in envelope) return this.#refusal(asked?.method, asked?.sessionId, fieldsOf(envelope.error));
    const result = fieldsOf(envelope.result);
    const info = fieldsOf(result.agentInfo);
    const name = textOf(info.title) ?? textOf(info.name);
    if (name !== undefined) this.agentName = [name, textOf(info.version)].filter(Boolean).join(" ");
    const created = textOf(result.sessionId);
    const session = created === undefined ? this.#named(asked?.sessionId) : this.#session(created);
    if (session === undefined) return;
    offers(session, result);
    if (asked?.method === "session/set_mode") this.#mode(session, textOf(asked.params.modeId));
    const reason = textOf(result.stopReason);
    if (reason === undefined) return;
    this.#turnOver(session);
    this.#add(session, { kind: "stop", reason });
  }

  #refusal(method: string | undefined, sessionId: string | undefined, error: Fields): void {
    const session = this.#named(sessionId);
    const data = fieldsOf(error.data);
    const detail = [textOf(error.message), textOf(error.data) ?? textOf(data.details), textOf(data.agentStderr)]
      .filter(Boolean)
      .join("\n");
    const title = method === undefined ? "The agent refused" : `The agent refused ${method}`;
    if (session === undefined) return this.#everywhere({ kind: "error", title, detail });
    if (method === undefined || method === "session/prompt") this.#turnOver(session);
    this.#add(session, { kind: "error", title, detail });
  }

  #update(session: Session, update: Fields): void {
    const kind = textOf(update.sessionUpdate);
    switch (kind) {
      case "user_message_chunk":
        return this.#chunk(session, "user", update);
      case "agent_message_chunk":
        session.busy = true;
        return this.#chunk(session, "agent", update);
      case "agent_thought_chunk":
        session.busy = true;
        return this.#chunk(session, "thought", update);
      case "tool_call":
      case "tool_call_update":
        session.busy = true;
        return this.#tool(session, update);
      case "plan":
        return this.#plan(session, update);
      case "current_mode_update":
        return this.#mode(session, textOf(update.currentModeId));
      case "config_option_update":
        return offers(session, update);
      case "available_commands_update":
        session.commands = listOf(update.availableCommands).map((given) => {
          const command = fieldsOf(given);
          return { name: textOf(command.name) ?? "", description: textOf(command.description) };
        });
        return;
      case "session_info_update":
        session.title = textOf(update.title) ?? session.title;
        return;
      case "usage_update": {
        const used = numberOf(update.used);
        const size = numberOf(update.size);
        if (used !== undefined && size !== undefined) session.usage = { used, size };
        return;
      }
    }
  }

  #chunk(session: Session, kind: "user" | "agent" | "thought", update: Fields): void {
    const text = blockText(update.content);
    const messageId = textOf(update.messageId);
    const last = session.items.at(-1);
    if (last?.kind !== kind || last.messageId !== messageId) return this.#add(session, { kind, text, messageId });
    // An agent that repeats the prompt repeats what this page has already put there.
    if (kind === "user" && last.text === text) return;
    session.items[session.items.length - 1] = { ...last, text: last.text + text };
  }

  #tool(session: Session, update: Fields): void {
    const id = textOf(update.toolCallId) ?? "";
    const at = lastIndex(session.items, (item) => item.kind === "tool" && item.call.id === id);
    const found = session.items[at];
    const before = found?.kind === "tool" ? found.call : undefined;
    const call = merged(before, id, update);
    if (found?.kind === "tool") session.items[at] = { ...found, call };
    else this.#add(session, { kind: "tool", call });
    if (call.status !== "pending") this.#close(session, (permission) => permission.toolCallId === id, "answered");
  }

  #plan(session: Session, update: Fields): void {
    const entries = listOf(update.entries).map((given) => {
      const entry = fieldsOf(given);
      return {
        text: textOf(entry.content) ?? "",
        status: textOf(entry.status) ?? "pending",
        priority: textOf(entry.priority),
      };
    });
    // A plan is sent whole each time: this turn's takes the place of its former self.
    const turn = lastIndex(session.items, (item) => item.kind === "user" || item.kind === "stop");
    const at = lastIndex(session.items, (item) => item.kind === "plan");
    const found = session.items[at];
    if (found?.kind === "plan" && at > turn) session.items[at] = { ...found, entries };
    else this.#add(session, { kind: "plan", entries });
  }

  #permission(session: Session, requestId: unknown, params: Fields): void {
    const call = merged(undefined, textOf(fieldsOf(params.toolCall).toolCallId) ?? "", fieldsOf(params.toolCall));
    const known = session.items.find((item) => item.kind === "tool" && item.call.id === call.id);
    const title = call.title || (known?.kind === "tool" ? known.call.title : "") || "The agent asks for permission";
    const options = listOf(params.options).map((given) => {
      const option = fieldsOf(given);
      const id = textOf(option.optionId) ?? "";
      return { id, name: textOf(option.name) ?? id, kind: textOf(option.kind) };
    });
    session.busy = true;
    this.#add(session, {
      kind: "permission",
      permission: {
        requestId,
        title,
        toolCallId: call.id || undefined,
        input: call.input,
        content: call.content,
        options,
        outcome: undefined,
      },
    });
  }

  /** A response of a client's: the answer to a permission request. */
  #settle(envelope: Envelope): void {
    const key = keyOf(envelope.id);
    const outcome = fieldsOf(fieldsOf(envelope.result).outcome);
    const optionId = textOf(outcome.optionId);
    for (const session of this.sessions.values()) {
      const asks = (permission: Permission) => keyOf(permission.requestId) === key;
      const at = lastIndex(session.items, (item) => item.kind === "permission" && asks(item.permission));
      const found = session.items[at];
      if (found?.kind !== "permission") continue;
      const chosen = found.permission.options.find((option) => option.id === optionId)?.name;
      // The agent may have gone on already, and that it was answered is less than how.
      const answer = chosen ?? optionId ?? textOf(outcome.outcome) ?? "answered";
      session.items[at] = { ...found, permission: { ...found.permission, outcome: answer } };
    }
  }

  #close(session: Session, which: (permission: Permission) => boolean, outcome: string): void {
    session.items.forEach((item, at) => {
      if (item.kind !== "permission" || item.permission.outcome !== undefined || !which(item.permission)) return;
      session.items[at] = { ...item, permission: { ...item.permission, outcome } };
    });
  }

  #turnOver(session: Session): void {
    session.busy = false;
    this.#close(session, () => true, "no longer asked");
  }

  #mode(session: Session, mode: string | undefined): void {
    if (mode === undefined || mode === session.mode) return;
    session.mode = mode;
    const name = session.modes.find((choice) => choice.id === mode)?.name ?? mode;
    this.#add(session, { kind: "change", text: `Mode is now ${name}` });
  }

  /** The session of that name, or the latest when nobody said which. */
  #named(sessionId: string | undefined): Session | undefined {
    if (sessionId !== undefined) return this.#session(sessionId);
    const all = [...this.sessions.values()];
    return all.filter((session) => session.busy).at(-1) ?? all.at(-1);
  }

  #session(id: string): Session {
    let session = this.sessions.get(id);
    if (session === undefined) {
      session = {
        id,
        items: [],
        dropped: 0,
        busy: false,
        title: undefined,
        modes: [],
        mode: undefined,
        options: [],
        commands: [],
        usage: undefined,
      };
      this.sessions.set(id, session);
    }
    return session;
  }

  #add(session: Session, item: Said<Item>): void {
    session.items.push({ ...item, key: this.#nextKey++ } as Item);
    const over = session.items.length - MOST_ITEMS;
    if (over < 500) return;
    session.items.splice(0, over);
    session.dropped += over;
  }

  #everywhere(item: Said<Item>): void {
    for (const session of this.sessions.values()) this.#add(session, item);
  }
}

/** Takes over the modes and options that a result or an update names. */
function offers(session: Session, given: Fields): void {
  const modes = fieldsOf(given.modes);
  if (Array.isArray(modes.availableModes)) {
    session.modes = modes.availableModes.map((each) => choiceOf(fieldsOf(each), "id"));
    session.mode = textOf(modes.currentModeId) ?? session.mode;
  }
  if (!Array.isArray(given.configOptions)) return;
  session.options = given.configOptions.map(fieldsOf).flatMap((option) => {
    const id = textOf(option.id);
    const current = textOf(option.currentValue);
    if (id === undefined || current === undefined || !Array.isArray(option.options)) return [];
    const choices = option.options.map(fieldsOf).flatMap((entry) => {
      const group = textOf(entry.name);
      if (!Array.isArray(entry.options)) return [choiceOf(entry, "value")];
      return entry.options.map((each) => ({ ...choiceOf(fieldsOf(each), "value"), ...(group && { group }) }));
    });
    return [{ id, name: textOf(option.name) ?? id, category: textOf(option.category), current, choices }];
  });
}

function choiceOf(given: Fields, idName: string): Choice {
  const id = textOf(given[idName]) ?? "";
  const description = textOf(given.description);
  return { id, name: textOf(given.name) ?? id, ...(description === undefined ? {} : { description }) };
}

/** A tool call with what an update says of it; what it does not say stays. */
function merged(before: ToolCall | undefined, id: string, update: Fields): ToolCall {
  const content = update.content;
  const locations = update.locations;
  return {
    id,
    title: textOf(update.title) ?? before?.title ?? "",
    kind: textOf(update.kind) ?? before?.kind,
    status: textOf(update.status) ?? before?.status ?? "pending",
    content: Array.isArray(content) ? content.map(contentOf) : (before?.content ?? []),
    locations: Array.isArray(locations) ? locations.map(locationOf) : (before?.locations ?? []),
    input: update.rawInput ?? before?.input,
    output: update.rawOutput ?? before?.output,
  };
}

function contentOf(given: unknown): ToolContent {
  const content = fieldsOf(given);
  if (content.type === "diff") {
    return {
      type: "diff",
      path: textOf(content.path) ?? "",
      before: textOf(content.oldText) ?? "",
      after: textOf(content.newText) ?? "",
    };
  }
  if (content.type === "terminal") return { type: "terminal", terminalId: textOf(content.terminalId) ?? "" };
  return { type: "text", text: blockText(content.content) };
}

function locationOf(given: unknown): string {
  const location = fieldsOf(given);
  const line = numberOf(location.line);
  return `${textOf(location.path) ?? ""}${line === undefined ? "" : `:${line}`}`;
}

/** A content block as text; what is no text is named. */
export function blockText(given: unknown): string {
  const block = fieldsOf(given);
  switch (block.type) {
    case "text":
      return textOf(block.text) ?? "";
    case "image":
    case "audio":
      return `[${block.type} ${textOf(block.mimeType) ?? ""}, ${textOf(block.data)?.length ?? 0} characters of base64]`;
    case "resource_link":
      return `[${textOf(block.name) ?? "resource"}: ${textOf(block.uri) ?? ""}]`;
    case "resource": {
      const resource = fieldsOf(block.resource);
      return textOf(resource.text) ?? `[resource ${textOf(resource.uri) ?? ""}]`;
    }
    default:
      return given === undefined ? "" : `[${textOf(block.type) ?? "content"}]`;
  }
}

function lastIndex<T>(list: T[], test: (each: T) => boolean): number {
  for (let at = list.length - 1; at >= 0; at--) {
    if (test(list[at] as T)) return at;
  }
  return -1;
}
