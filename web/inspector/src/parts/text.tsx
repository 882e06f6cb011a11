import { useState } from "preact/hooks";

const MOST = 20_000;

/** Text that may be long: its beginning, and the rest when asked for. Always text, never markup. */
export function Text({ text, code }: { text: string; code?: boolean }) {
  const [whole, setWhole] = useState(false);
  const cut = !whole && text.length > MOST + 1_000;
  return (
    // A box of code scrolls, so it must be reachable by keyboard.
    <div class={code ? "text code" : "text"} tabIndex={code ? 0 : undefined}>
      {cut ? text.slice(0, MOST) : text}
      {cut && (
        <button type="button" class="link" onClick={() => setWhole(true)}>
          … {(text.length - MOST).toLocaleString()} characters more
        </button>
      )}
    </div>
  );
}

/** Any value as indented JSON. */
export function json(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
}
