/** What the page shows, as the URL's fragment says it. The fragment is the only state that a link carries. */
export type Place =
  /** `fresh` asks for a new session, with the agent of that name if there is one. */
  | { page: "sessions"; server?: string; record?: string; fresh?: string }
  | { page: "files"; path?: string; file?: string }
  | { page: "processes"; id?: string }
  | { page: "agents" };

export type PageName = Place["page"];

/** Reads a fragment, with or without its `#`. What is not understood is the first page. */
export function placeOf(fragment: string): Place {
  const text = fragment.replace(/^#/, "");
  const mark = text.indexOf("?");
  const [, page, id] = (mark === -1 ? text : text.slice(0, mark)).split("/");
  const query = new URLSearchParams(mark === -1 ? "" : text.slice(mark + 1));
  const given = (name: string) => query.get(name) || undefined;
  switch (page) {
    case "files":
      return present({ page: "files", path: given("path"), file: given("file") });
    case "processes":
      return present({ page: "processes", id: decoded(id) });
    case "agents":
      return { page: "agents" };
    default:
      return present({
        page: "sessions",
        server: decoded(id),
        record: given("record"),
        fresh: given("new"),
      });
  }
}

/** The fragment that leads to a place, with its `#`. */
export function fragmentOf(place: Place): string {
  switch (place.page) {
    case "files":
      return `#/files${queryOf({ path: place.path, file: place.file })}`;
    case "processes":
      return place.id === undefined ? "#/processes" : `#/processes/${encodeURIComponent(place.id)}`;
    case "agents":
      return "#/agents";
    case "sessions": {
      const id = place.server === undefined ? "" : `/${encodeURIComponent(place.server)}`;
      return `#/sessions${id}${queryOf({ record: place.record, new: place.fresh })}`;
    }
  }
}

/** A query string of the values that are set, with its `?` unless it is empty. */
export function queryOf(query: Record<string, string | number | boolean | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) search.set(name, String(value));
  }
  // A slash needs no escape here, and paths are for people.
  const text = search.toString().replaceAll("%2F", "/");
  return text === "" ? "" : `?${text}`;
}

type Present<T> = { [K in keyof T]: Exclude<T[K], undefined> };

/** Leaves out what is undefined, so that equal places are equal objects. */
function present<T extends Record<string, unknown>>(entries: T): Present<T> {
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined)) as Present<T>;
}

function decoded(part: string | undefined): string | undefined {
  if (!part) return undefined;
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
