export type AgentjailErrorCode =
  | "BAD_REQUEST"
  | "UNAUTHORIZED"
  | "FORBIDDEN"
  | "NOT_FOUND"
  | "CONFLICT"
  | "RATE_LIMITED"
  | "TIMEOUT"
  | "SERVER_ERROR"
  | "NETWORK"
  | "UNKNOWN";

/** What a call failed with: a status the server answered, or 0 if it could not be reached. */
export class AgentjailError extends Error {
  override readonly name = "AgentjailError";
  /** The HTTP status; 0 when there was no answer. */
  readonly status: number;
  readonly code: AgentjailErrorCode;
  /** The body, parsed if it is JSON. */
  readonly body: unknown;
  /** The server's id of the request, for its operator to look up. */
  readonly requestId: string | undefined;

  constructor(
    status: number,
    body: unknown,
    fallback: string,
    options?: { cause?: unknown; requestId?: string | undefined },
  ) {
    super(`agentjail ${status}: ${said(body) ?? fallback}`, options?.cause === undefined ? undefined : { cause: options.cause });
    this.status = status;
    this.code = codeOf(status);
    this.body = body;
    this.requestId = options?.requestId;
  }
}

function said(body: unknown): string | undefined {
  if (typeof body === "object" && body !== null && "error" in body && typeof body.error === "string") {
    return body.error;
  }
  return undefined;
}

const CODES: Readonly<Record<number, AgentjailErrorCode>> = {
  0: "NETWORK",
  400: "BAD_REQUEST",
  401: "UNAUTHORIZED",
  403: "FORBIDDEN",
  404: "NOT_FOUND",
  408: "TIMEOUT",
  409: "CONFLICT",
  429: "RATE_LIMITED",
  504: "TIMEOUT",
};

function codeOf(status: number): AgentjailErrorCode {
  const known = CODES[status];
  if (known !== undefined) return known;
  if (status >= 500 && status < 600) return "SERVER_ERROR";
  if (status >= 400 && status < 500) return "BAD_REQUEST";
  return "UNKNOWN";
}
