import type { Http } from "../wire/http.js";
import { Problem } from "../wire/problem.js";
import { join } from "./paths.js";

export interface Entry {
  name: string;
  path: string;
  entryType: "file" | "directory";
  size: number;
  modified?: string;
}

/** How many entries are asked for, and shown, at a time. */
export const PAGE = 500;
/** How much of a file is shown. */
export const VIEW_BYTES = 1024 * 1024;

export interface Listing {
  entries: Entry[];
  more: boolean;
}

/** A page of a directory. A server that knows no pages sends the whole; then it is the last. */
export async function list(
  http: Http,
  path: string | undefined,
  after: string | undefined,
  signal?: AbortSignal,
): Promise<Listing> {
  const query = { path, limit: PAGE, after };
  const entries = await http.json<Entry[]>("GET", "/v1/fs/entries", { query, ...(signal && { signal }) });
  return { entries, more: entries.length === PAGE };
}

export interface Content {
  /** The text, if it is one. */
  text: string | undefined;
  /** The whole file's size, as far as the answer tells. */
  size: number | undefined;
  /** Whether `text` is only the file's beginning. */
  cut: boolean;
}

/** Reads a file's beginning. */
export async function read(http: Http, path: string, signal: AbortSignal): Promise<Content> {
  let response: Response;
  try {
    response = await http.open("GET", "/v1/fs/file", {
      query: { path },
      headers: { accept: "application/octet-stream", range: `bytes=0-${VIEW_BYTES - 1}` },
      signal,
    });
  } catch (error) {
    // No byte of an empty file can be asked for.
    if (error instanceof Problem && error.status === 416) return { text: "", size: 0, cut: false };
    throw error;
  }
  const { bytes, cut } = await beginning(response, VIEW_BYTES);
  const range = response.headers.get("content-range")?.split("/")[1];
  const whole = response.status === 206 ? range : response.headers.get("content-length");
  const size = whole && /^\d+$/.test(whole) ? Number(whole) : cut ? undefined : bytes.length;
  const rest = cut || (size !== undefined && size > bytes.length);
  return { text: textOf(bytes, rest), size, cut: rest };
}

/** The first bytes of an answer; a server that knows no ranges is stopped there. */
async function beginning(response: Response, limit: number): Promise<{ bytes: Uint8Array; cut: boolean }> {
  const reader = response.body?.getReader();
  if (reader === undefined) return { bytes: new Uint8Array(), cut: false };
  const parts: Uint8Array[] = [];
  let length = 0;
  while (length <= limit) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
  }
  await reader.cancel().catch(() => undefined);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return { bytes: bytes.subarray(0, limit), cut: length > limit };
}

/** Bytes as text, or nothing if they are something else. Where the text is `cut`, half a character may be left. */
export function textOf(bytes: Uint8Array, cut: boolean): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: cut });
  } catch {
    return undefined;
  }
}

/** Saves a file with the browser. The token goes in a header, so a plain link would not do. */
export async function download(http: Http, path: string, name: string): Promise<void> {
  const response = await http.open("GET", "/v1/fs/file", { query: { path } });
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Whether a directory has an entry of that name already. */
export async function has(http: Http, directory: string | undefined, name: string): Promise<boolean> {
  const first = await list(http, directory, undefined);
  if (first.entries.some((entry) => entry.name === name)) return true;
  if (!first.more) return false;
  try {
    const path = join(directory, name);
    await http.json("GET", "/v1/fs/stat", { query: { path } });
    return true;
  } catch (error) {
    // "Not found" is a 400 here.
    if (error instanceof Problem && (error.status === 400 || error.status === 404)) return false;
    throw error;
  }
}
