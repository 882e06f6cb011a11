import { describe, expect, it } from "vitest";
import { follow } from "../src/wire/follow.js";
import { Problem } from "../src/wire/problem.js";

function answer(text: string): Response {
  return new Response(text);
}

describe("following a stream", () => {
  it("goes on after the last event when it breaks", async () => {
    const stop = new AbortController();
    const asked: (string | undefined)[] = [];
    const answers = [answer("id: 1\ndata: a\n\nid: 2\ndata: b\n\n"), undefined, answer("id: 3\ndata: c\n\n")];
    const open = async (last: string | undefined) => {
      asked.push(last);
      const next = answers.shift();
      if (next === undefined) throw new Problem(0, "No answer");
      return next;
    };
    const seen: string[] = [];
    for await (const { data } of follow(open, { signal: stop.signal })) {
      seen.push(data);
      if (data === "c") stop.abort();
    }
    expect(seen).toEqual(["a", "b", "c"]);
    expect(asked).toEqual([undefined, "2", "2"]);
  });

  it("ends with a refusal", async () => {
    const open = () => Promise.reject(new Problem(404, "Not Found"));
    const stream = follow(open, { signal: new AbortController().signal });
    await expect(stream.next()).rejects.toThrow("Not Found");
  });
});
