import { describe, expect, it } from "vitest";
import { Conversation } from "../src/acp/conversation.js";
import { canonical, summaryOf } from "../src/acp/envelope.js";

const update = (update: object, sessionId = "s") => ({
  jsonrpc: "2.0",
  method: "session/update",
  params: { sessionId, update },
});
const chunk = (text: string, sessionUpdate = "agent_message_chunk") =>
  update({ sessionUpdate, content: { type: "text", text } });
const prompt = (id: unknown, text: string) => ({
  id,
  method: "session/prompt",
  params: { sessionId: "s", prompt: [{ type: "text", text }] },
});
const said = (conversation: Conversation, id = "s") =>
  conversation.sessions.get(id)?.items.map(({ key: _, ...item }) => item) ?? [];

function talk(...messages: object[]) {
  const conversation = new Conversation();
  for (const message of messages) conversation.received(message as Record<string, unknown>);
  return conversation;
}

describe("a conversation", () => {
  it("joins chunks of one speaker and marks the end of a turn", () => {
    const conversation = new Conversation();
    conversation.sent(prompt("p", "Hello"));
    expect(conversation.sessions.get("s")?.busy).toBe(true);
    for (const message of [chunk("hm", "agent_thought_chunk"), chunk("Hi"), chunk(" there")]) {
      conversation.received(message);
    }
    const answer = { id: "p", result: { stopReason: "end_turn" } };
    conversation.received(answer);
    // The POST brings it once more.
    conversation.received(answer);
    expect(said(conversation)).toEqual([
      { kind: "user", text: "Hello", messageId: undefined },
      { kind: "thought", text: "hm", messageId: undefined },
      { kind: "agent", text: "Hi there", messageId: undefined },
      { kind: "stop", reason: "end_turn" },
    ]);
    expect(conversation.sessions.get("s")?.busy).toBe(false);
  });

  it("does not repeat a prompt that the agent repeats", () => {
    const conversation = new Conversation();
    conversation.sent(prompt(1, "Hello"));
    conversation.received(chunk("Hello", "user_message_chunk"));
    expect(said(conversation)).toHaveLength(1);
  });

  it("keeps sessions apart", () => {
    const conversation = talk(chunk("a"), update({ sessionUpdate: "plan", entries: [] }, "other"), chunk("b"));
    expect(said(conversation)).toEqual([{ kind: "agent", text: "ab", messageId: undefined }]);
    expect(said(conversation, "other")).toEqual([{ kind: "plan", entries: [] }]);
  });

  it("brings a tool call up to date", () => {
    const conversation = talk(
      update({ sessionUpdate: "tool_call", toolCallId: "t", title: "Edit", kind: "edit", rawInput: { a: 1 } }),
      update({
        sessionUpdate: "tool_call_update",
        toolCallId: "t",
        status: "completed",
        content: [
          { type: "diff", path: "/f", oldText: null, newText: "x" },
          { type: "content", content: { type: "text", text: "done" } },
        ],
        locations: [{ path: "/f", line: 3 }],
      }),
    );
    expect(said(conversation)).toEqual([
      {
        kind: "tool",
        call: {
          id: "t",
          title: "Edit",
          kind: "edit",
          status: "completed",
          content: [
            { type: "diff", path: "/f", before: "", after: "x" },
            { type: "text", text: "done" },
          ],
          locations: ["/f:3"],
          input: { a: 1 },
          output: undefined,
        },
      },
    ]);
  });

  it("replaces a plan within its turn only", () => {
    const plan = (content: string) => update({ sessionUpdate: "plan", entries: [{ content, status: "pending" }] });
    const conversation = talk(plan("a"), chunk("x"), plan("b"));
    expect(said(conversation).map(({ kind }) => kind)).toEqual(["plan", "agent"]);
    conversation.received({ id: 1, result: { stopReason: "end_turn" } });
    conversation.received(plan("c"));
    expect(said(conversation).map(({ kind }) => kind)).toEqual(["plan", "agent", "stop", "plan"]);
  });

  const permission = {
    id: 5,
    method: "session/request_permission",
    params: {
      sessionId: "s",
      toolCall: { toolCallId: "t", title: "Run" },
      options: [{ optionId: "yes", name: "Allow", kind: "allow_once" }],
    },
  };
  const outcome = (conversation: Conversation) => {
    const item = conversation.sessions.get("s")?.items.find(({ kind }) => kind === "permission");
    return item?.kind === "permission" ? item.permission.outcome : "none";
  };

  it("asks for permission until it is answered", () => {
    const conversation = talk(permission);
    expect(outcome(conversation)).toBeUndefined();
    // The text "5" is another id than the number.
    conversation.sent({ id: "5", result: { outcome: { outcome: "selected", optionId: "yes" } } });
    expect(outcome(conversation)).toBeUndefined();
    conversation.sent({ id: 5, result: { outcome: { outcome: "selected", optionId: "yes" } } });
    expect(outcome(conversation)).toBe("Allow");
  });

  it("takes a permission for answered when the agent goes on", () => {
    const going = update({ sessionUpdate: "tool_call_update", toolCallId: "t", status: "in_progress" });
    const conversation = talk(permission, going);
    expect(outcome(conversation)).toBe("answered");
    conversation.sent({ id: 5, result: { outcome: { outcome: "selected", optionId: "yes" } } });
    expect(outcome(conversation)).toBe("Allow");
    expect(outcome(talk(permission, { id: 1, result: { stopReason: "cancelled" } }))).toBe("no longer asked");
  });

  it("knows modes and options, flat or in groups", () => {
    const conversation = new Conversation();
    conversation.sent({ id: 1, method: "session/new", params: {} });
    conversation.received({
      id: 1,
      result: {
        sessionId: "s",
        modes: { currentModeId: "a", availableModes: [{ id: "a", name: "A" }, { id: "b" }] },
        configOptions: [
          {
            id: "model",
            name: "Model",
            category: "model",
            type: "select",
            currentValue: "x",
            options: [
              { name: "Fast", options: [{ name: "X", value: "x" }] },
              { name: "Y", value: "y" },
            ],
          },
        ],
      },
    });
    const session = conversation.sessions.get("s");
    expect(session?.modes.map(({ name }) => name)).toEqual(["A", "b"]);
    expect(session?.options[0]?.choices).toEqual([
      { id: "x", name: "X", group: "Fast" },
      { id: "y", name: "Y" },
    ]);
    conversation.sent({ id: 2, method: "session/set_mode", params: { sessionId: "s", modeId: "b" } });
    conversation.received({ id: 2, result: {} });
    conversation.received(update({ sessionUpdate: "current_mode_update", currentModeId: "b" }));
    expect(said(conversation)).toEqual([{ kind: "change", text: "Mode is now b" }]);
  });

  it("shows errors, gaps and the agent's end", () => {
    const conversation = new Conversation();
    conversation.sent(prompt(1, "x"));
    conversation.received({ id: 1, error: { code: -1, message: "no", data: { agentStderr: "why" } } });
    conversation.missed("3", "9");
    conversation.received({ method: "_adapter/agent_exited", params: { success: false, code: 2 } });
    expect(said(conversation).slice(1)).toEqual([
      { kind: "error", title: "The agent refused session/prompt", detail: "no\nwhy" },
      { kind: "gap", from: "3", to: "9" },
      { kind: "error", title: "The agent's process has ended", detail: "Exit code 2" },
    ]);
  });

  it("survives messages of any shape", () => {
    const odd = [null, 1, "x", [], {}, { type: 1 }, [null]];
    for (const value of odd) {
      for (const kind of ["agent_message_chunk", "tool_call", "plan", "config_option_update", "nonsense"]) {
        const fields = { sessionUpdate: kind, content: value, entries: value, configOptions: value, locations: value };
        expect(() => talk(update(fields), { method: "session/update", params: value })).not.toThrow();
      }
      const asks = { id: value, method: "session/request_permission", params: { sessionId: "s", options: value } };
      expect(() => talk(asks, { id: value, result: value }, { id: value, error: value })).not.toThrow();
    }
  });

  it("lets go of what is very old", () => {
    const conversation = new Conversation();
    for (let n = 0; n < 6_000; n++)
      conversation.received(chunk("x", n % 2 === 0 ? "agent_message_chunk" : "agent_thought_chunk"));
    const session = conversation.sessions.get("s");
    expect((session?.items.length ?? 0) + (session?.dropped ?? 0)).toBe(6_000);
    expect(session?.items.length).toBeLessThan(5_600);
  });
});

describe("a message", () => {
  it("is the same whatever the order of its keys", () => {
    expect(canonical({ b: [{ d: 1, c: 2 }], a: null })).toBe(canonical({ a: null, b: [{ c: 2, d: 1 }] }));
  });

  it("is told in a few words", () => {
    expect(summaryOf(chunk("x"))).toBe("session/update · agent_message_chunk");
    expect(summaryOf({ id: 3, result: { stopReason: "end_turn" } })).toBe("result #3 · end_turn");
    expect(summaryOf({ id: "a", error: { message: "no" } })).toBe("error #a · no");
  });
});
