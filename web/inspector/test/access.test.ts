import { describe, expect, it } from "vitest";
import { accessOf, headersOf } from "../src/wire/access.js";

function taken(link: string) {
  const { access, clean } = accessOf(new URL(link, "http://box.test"));
  return { access, clean: clean.href.replace("http://box.test", "") };
}

describe("a link's access", () => {
  it("is taken from the fragment and leaves no trace", () => {
    expect(taken("/ui/#token=a%2Bb+c==")).toEqual({ access: { token: "a+b+c==", headers: {} }, clean: "/ui/" });
    expect(taken("/ui/#/files?path=%2Ftmp&token=t")).toEqual({
      access: { token: "t", headers: {} },
      clean: "/ui/#/files?path=%2Ftmp",
    });
  });

  it("is taken from the query, as the published clients write it", () => {
    const query = new URLSearchParams({ token: "t/+=", headers: JSON.stringify({ "x-box": "a b" }) });
    expect(taken(`/p/ui/?${query}#/agents`)).toEqual({
      access: { token: "t/+=", headers: { "x-box": "a b" } },
      clean: "/p/ui/#/agents",
    });
  });

  it("prefers the fragment, and keeps what is not its own", () => {
    expect(taken("/ui/?a=1&token=query#token=fragment")).toEqual({
      access: { token: "fragment", headers: {} },
      clean: "/ui/?a=1",
    });
  });

  it("is nothing where there is none", () => {
    expect(taken("/ui/#/files")).toEqual({ access: undefined, clean: "/ui/#/files" });
    expect(taken("/ui/#/files?path=%2F")).toEqual({ access: undefined, clean: "/ui/#/files?path=%2F" });
  });
});

describe("given headers", () => {
  it("are those that can be headers", () => {
    expect(headersOf('{"X-A":"1","bad name":"2","n":3,"x-b":"a\\nb"}')).toEqual({ "X-A": "1" });
    for (const json of ["", "[]", "null", "{", '"x"']) expect(headersOf(json)).toEqual({});
  });
});
