import { describe, expect, it } from "vitest";
import { crumbs, join, nameOf, parentOf } from "../src/files/paths.js";
import { textOf } from "../src/files/requests.js";
import { bytes, duration } from "../src/parts/figures.js";
import { problemOf } from "../src/wire/problem.js";

describe("a path", () => {
  it("has a parent, a name and all that lies between it and the root", () => {
    expect([parentOf("/a/b/"), parentOf("/a"), parentOf("/"), parentOf("a")]).toEqual([
      "/a",
      "/",
      undefined,
      undefined,
    ]);
    expect([nameOf("/a/b"), nameOf("/")]).toEqual(["b", "/"]);
    expect([join("/", "a"), join("/a", "b"), join(undefined, "b")]).toEqual(["/a", "/a/b", "b"]);
    expect(crumbs("/a/b").map(({ path }) => path)).toEqual(["/", "/a", "/a/b"]);
  });
});

describe("a file's bytes", () => {
  it("are text if they can be", () => {
    const grüße = new TextEncoder().encode("grü");
    expect(textOf(grüße, false)).toBe("grü");
    expect(textOf(grüße.subarray(0, 3), true)).toBe("gr");
    expect(textOf(grüße.subarray(0, 3), false)).toBeUndefined();
    expect(textOf(Uint8Array.of(65, 0), false)).toBeUndefined();
  });
});

describe("figures", () => {
  it("are readable", () => {
    expect([bytes(0), bytes(1_023), bytes(1_536), bytes(200 * 1024 ** 2)]).toEqual([
      "0 B",
      "1023 B",
      "1.50 KiB",
      "200 MiB",
    ]);
    expect([duration(900), duration(61_000), duration(3_700_000)]).toEqual(["1 s", "1 min 1 s", "1 h 1 min"]);
  });
});

describe("a problem", () => {
  it("is read from its document, or from what there is", () => {
    const body = JSON.stringify({ type: "urn:sandbox-agent:error:conflict", title: "Conflict", detail: "conflict: x" });
    expect(problemOf(409, "", body)).toMatchObject({ title: "Conflict", detail: "conflict: x", code: "conflict" });
    expect(problemOf(502, "Bad Gateway", "<html>")).toMatchObject({ title: "Bad Gateway", detail: undefined });
    expect(problemOf(400, "", "plain")).toMatchObject({ title: "Status 400", detail: "plain" });
    expect(problemOf(500, "", "null")).toMatchObject({ title: "Status 500" });
  });
});
