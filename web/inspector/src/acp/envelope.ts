import { type Fields, fieldsOf, textOf } from "../wire/untrusted.js";

/** A JSON-RPC 2.0 message, as far as it can be relied on. */
export type Envelope = Fields;

export type Sender = "client" | "agent";

/** An id as a key: the number 1 and the text "1" are two ids. */
export function keyOf(id: unknown): string {
  return JSON.stringify(id ?? null);
}

/** A message's text with its keys in order, so that two servers' writings of it are equal. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** A message in a few words, for a list. */
export function summaryOf(envelope: Envelope): string {
  const method = textOf(envelope.method);
  const id = "id" in envelope ? ` #${String(envelope.id)}` : "";
  if (method !== undefined) {
    const kind = textOf(fieldsOf(fieldsOf(envelope.params).update).sessionUpdate);
    return `${method}${kind === undefined ? "" : ` · ${kind}`}${id}`;
  }
  if ("error" in envelope) return `error${id} · ${textOf(fieldsOf(envelope.error).message) ?? ""}`;
  const stop = textOf(fieldsOf(envelope.result).stopReason);
  return `result${id}${stop === undefined ? "" : ` · ${stop}`}`;
}
