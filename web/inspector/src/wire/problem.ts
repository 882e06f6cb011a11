/** What a request failed with: a problem document, or as much of one as there was. Status 0: no answer. */
export class Problem extends Error {
  override readonly name = "Problem";
  readonly status: number;
  readonly title: string;
  readonly detail: string | undefined;
  /** The part of the type that tells problems apart, like `conflict`. */
  readonly code: string | undefined;

  constructor(status: number, title: string, detail?: string, code?: string) {
    super(detail === undefined ? title : `${title}: ${detail}`);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.code = code;
  }

  /** Any failure as a problem, for showing. */
  static from(error: unknown): Problem {
    if (error instanceof Problem) return error;
    return new Problem(0, "Something went wrong", error instanceof Error ? error.message : String(error));
  }
}

/** Reads the problem out of an answer that is not a good one. */
export function problemOf(status: number, statusText: string, body: string): Problem {
  let given: Record<string, unknown> = {};
  try {
    const parsed: unknown = JSON.parse(body);
    if (typeof parsed === "object" && parsed !== null) given = parsed as Record<string, unknown>;
  } catch {
    // A gateway's page, or a framework's text.
  }
  const title = said(given.title) ?? (statusText || `Status ${status}`);
  const details = given.details as { stderr?: unknown } | null | undefined;
  const stderr = said(details?.stderr);
  const plain = body.trimStart().startsWith("<") ? undefined : body.trim().slice(0, 500) || undefined;
  const detail = said(given.detail) ?? (given.title === undefined ? plain : undefined);
  const code = said(given.type)?.split(":").pop();
  return new Problem(status, title, [detail, stderr].filter(Boolean).join("\n") || undefined, code);
}

function said(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
