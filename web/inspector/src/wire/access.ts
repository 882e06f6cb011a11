/** What a request needs to be let in: a token, and headers that a gateway before the server may want. */
export interface Access {
  token?: string;
  headers: Record<string, string>;
}

/**
 * Takes the access out of a link. The fragment (`#token=…`, or `token` among a place's parameters) wins over the
 * query (`?token=…&headers=…`, what the published clients make), since a query reaches logs and a fragment does not.
 *
 * `clean` is the link without it, to be shown instead.
 */
export function accessOf(link: URL): { access: Access | undefined; clean: URL } {
  const clean = new URL(link);
  const query = taken(link.search.slice(1));
  clean.search = query.rest;
  const fragment = link.hash.slice(1);
  // `#token=…` is nothing but parameters; `#/files?…` has them behind a place.
  const mark = fragment.startsWith("/") ? fragment.indexOf("?") : -1;
  const bare = fragment.startsWith("/") ? mark !== -1 : true;
  const hash = bare ? taken(fragment.slice(mark + 1)) : { token: undefined, headers: undefined, rest: "" };
  if (bare) clean.hash = fragment.slice(0, mark + 1) + hash.rest;
  const token = hash.token ?? query.token;
  const headers = hash.headers ?? query.headers;
  if (token === undefined && headers === undefined) return { access: undefined, clean };
  return { access: { ...(token === undefined ? {} : { token }), headers: headers ?? {} }, clean };
}

/** Parameters without `token` and `headers`, and those two. */
function taken(parameters: string) {
  let token: string | undefined;
  let headers: Record<string, string> | undefined;
  const rest: string[] = [];
  for (const part of parameters.split("&")) {
    const sign = part.indexOf("=");
    const name = sign === -1 ? part : part.slice(0, sign);
    const value = sign === -1 ? "" : part.slice(sign + 1);
    // A plus sign in a token is one: no token has spaces, but a base64 one typed by hand has these.
    if (name === "token") token = decoded(value) || undefined;
    else if (name === "headers") headers = headersOf(decoded(value.replaceAll("+", " ")));
    else if (part !== "") rest.push(part);
  }
  return { token, headers, rest: rest.join("&") };
}

/** The entries of a JSON object that can be headers; none if it is something else. */
export function headersOf(json: string): Record<string, string> {
  let given: unknown;
  try {
    given = JSON.parse(json);
  } catch {
    return {};
  }
  if (typeof given !== "object" || given === null || Array.isArray(given)) return {};
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    if (typeof value !== "string") continue;
    try {
      new Headers([[name, value]]);
      headers[name] = value;
    } catch {
      // Not a header: a link cannot make every request fail.
    }
  }
  return headers;
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

/** Remembers the access for as long as the tab lives. Each server below an origin has its own. */
export class Keep {
  readonly #name: string;

  constructor(root: URL) {
    this.#name = `inspector:${root.pathname}`;
  }

  read(): Access | undefined {
    try {
      const text = sessionStorage.getItem(this.#name);
      if (text === null) return undefined;
      const { token, headers } = JSON.parse(text) as { token?: unknown; headers?: unknown };
      return {
        ...(typeof token === "string" ? { token } : {}),
        headers: headersOf(JSON.stringify(headers ?? {})),
      };
    } catch {
      // Storage may be switched off; then a reload asks again.
      return undefined;
    }
  }

  write(access: Access | undefined): void {
    try {
      if (access === undefined) sessionStorage.removeItem(this.#name);
      else sessionStorage.setItem(this.#name, JSON.stringify(access));
    } catch {
      // As above.
    }
  }
}
