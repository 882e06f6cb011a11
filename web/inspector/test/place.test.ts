import { describe, expect, it } from "vitest";
import { fragmentOf, type Place, placeOf } from "../src/wire/place.js";

describe("a place", () => {
  const places: Place[] = [
    { page: "sessions" },
    { page: "sessions", fresh: "mock" },
    { page: "sessions", server: "a/b c?d#e%" },
    { page: "sessions", record: "x&y" },
    { page: "files" },
    { page: "files", path: "/tmp/a b/ü&?#", file: "/tmp/a b/+.txt" },
    { page: "processes" },
    { page: "processes", id: "proc_1" },
    { page: "agents" },
  ];
  it.each(places.map((place) => [fragmentOf(place), place]))("survives the address: %s", (fragment, place) => {
    expect(placeOf(fragment as string)).toEqual(place);
  });

  it("is the first page when it is not understood", () => {
    for (const fragment of ["", "#", "#/", "#/nothing", "#%"]) expect(placeOf(fragment)).toEqual({ page: "sessions" });
    expect(placeOf("#/processes/%E0%A4%A")).toEqual({ page: "processes", id: "%E0%A4%A" });
  });
});
