import { afterEach, describe, expect, it, vi } from "vitest";
import { Connection } from "../src/acp/connection.js";
import { Http } from "../src/wire/http.js";

const root = new URL("http://box.test/p/");

/** A server as a function from a request to its answer. */
function server(answer: (method: string, path: string, init: RequestInit) => Response | Promise<Response>) {
  const asked: { method: string; url: string; headers: Headers }[] = [];
  vi.stubGlobal("fetch", async (url: URL, init: RequestInit) => {
    asked.push({ method: init.method ?? "GET", url: url.href, headers: new Headers(init.headers) });
    return answer(init.method ?? "GET", `${url.pathname}${url.search}`, init);
  });
  return asked;
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("a request", () => {
  it("goes below the page's own prefix, with the token and the given headers", async () => {
    const asked = server(() => Response.json({ ok: true }));
    const http = new Http(
      root,
      { token: "t", headers: { "x-box": "1", authorization: "Bearer other" } },
      () => undefined,
    );
    await http.json("GET", "/v1/health", { query: { a: "b c", none: undefined } });
    expect(asked[0]?.url).toBe("http://box.test/p/v1/health?a=b+c");
    expect(asked[0]?.headers.get("authorization")).toBe("Bearer t");
    expect(asked[0]?.headers.get("x-box")).toBe("1");
    expect(http.socket("/v1/x", { since: 5 })).toBe("ws://box.test/p/v1/x?since=5&access_token=t");
  });

  it("reads JSON behind white space, and nothing", async () => {
    const answers = [new Response("\n  \n{}"), new Response(null, { status: 202 })];
    server(() => answers.shift() ?? new Response());
    const http = new Http(root, { headers: {} }, () => undefined);
    expect(await http.json("POST", "/v1/acp/x")).toEqual({});
    expect(await http.json("POST", "/v1/acp/x")).toBeUndefined();
  });

  it("tells of a token that is not taken", async () => {
    server(() => Response.json({ title: "Token Invalid", detail: "wrong" }, { status: 401 }));
    const refused = vi.fn();
    await expect(new Http(root, { headers: {} }, refused).json("GET", "/v1/acp")).rejects.toThrow(
      "Token Invalid: wrong",
    );
    expect(refused).toHaveBeenCalledOnce();
  });

  it("is not answered by a network that is down", async () => {
    server(() => Promise.reject(new TypeError("fetch failed")));
    const asked = new Http(root, { headers: {} }, () => undefined).json("GET", "/v1/acp");
    await expect(asked).rejects.toMatchObject({ status: 0, title: "No answer" });
  });
});

describe("a connection", () => {
  const chunk = (text: string) => ({
    jsonrpc: "2.0",
    method: "session/update",
    params: { sessionId: "s", update: { sessionUpdate: "agent_message_chunk", content: { type: "text", text } } },
  });
  const prompt = { jsonrpc: "2.0", id: 1, method: "session/prompt", params: { sessionId: "s", prompt: "Hello" } };
  const end = { jsonrpc: "2.0", id: 1, result: { stopReason: "end_turn" } };
  const stored = [
    { sender: "client", payload: prompt },
    { sender: "agent", payload: chunk("ha ") },
    { sender: "agent", payload: chunk("ha ") },
    { sender: "agent", payload: end },
  ];

  /** Serves the store, and a stream that ends after what it is given. */
  function box(events: object[], withStore: boolean) {
    return server((_, path) => {
      if (path.startsWith("/p/v1/sessions?")) {
        const sessions = [{ id: "r", lastConnectionId: "a", createdAt: 1 }];
        return withStore ? Response.json({ sessions, total: 1 }) : new Response("", { status: 404 });
      }
      if (path.startsWith("/p/v1/sessions/r/events")) return Response.json({ events: stored, total: stored.length });
      const text = events
        .map((event, n) => `event: message\nid: ${n + 1}\ndata: ${JSON.stringify(event)}\n\n`)
        .join("");
      return new Response(`${text}event: gap\ndata: {"from":7,"to":9}\n\n`);
    });
  }

  async function said(connection: Connection) {
    connection.open();
    await vi.waitFor(() => expect(connection.state).toBe("waiting"));
    connection.close();
    return connection.conversation.sessions
      .get("s")
      ?.items.map((item) => ("text" in item ? item.text : item.kind === "gap" ? `${item.from}-${item.to}` : item.kind));
  }

  it("does not say twice what the store and the stream both have, nor swallow what is new and equal", async () => {
    box([chunk("ha "), chunk("ha "), end, chunk("new"), chunk("ha ")], true);
    const connection = new Connection(new Http(root, { headers: {} }, () => undefined), "a");
    expect(await said(connection)).toEqual(["Hello", "ha ha ", "stop", "newha ", "7-9"]);
  });

  it("does without a store, and goes on after the last event when it is opened again", async () => {
    const asked = box([chunk("ha "), end], false);
    const connection = new Connection(new Http(root, { headers: {} }, () => undefined), "a");
    expect(await said(connection)).toEqual(["ha ", "stop", "7-9"]);
    connection.open();
    await vi.waitFor(() => expect(asked.at(-1)?.headers.get("last-event-id")).toBe("2"));
    connection.close();
  });

  it("knows a new session as soon as it is answered", async () => {
    server((_, __, init) => {
      const { id } = JSON.parse(String(init.body)) as { id: string };
      return Response.json({ jsonrpc: "2.0", id, result: { sessionId: "s" } });
    });
    const connection = new Connection(new Http(root, { headers: {} }, () => undefined), "a");
    expect(await connection.call("session/new", { cwd: "/", mcpServers: [] })).toEqual({ sessionId: "s" });
    expect([...connection.conversation.sessions.keys()]).toEqual(["s"]);
  });

  it("ends with a stream that is refused", async () => {
    server(() => Response.json({ title: "Session Not Found" }, { status: 404 }));
    const connection = new Connection(new Http(root, { headers: {} }, () => undefined), "a");
    connection.open();
    await vi.waitFor(() => expect(connection.state).toBe("ended"));
    expect(connection.problem?.title).toBe("Session Not Found");
  });
});
