import { useEffect, useRef, useState } from "preact/hooks";
import { useHttp } from "../parts/context.js";
import { Endpoint } from "../parts/page.js";
import { path } from "../wire/http.js";
import type { TerminalLink } from "./terminal-link.js";

/** A process's terminal. What draws it is loaded when the first one is opened. */
export function Terminal({ id, ended }: { id: string; ended: () => void }) {
  const http = useHttp();
  const box = useRef<HTMLDivElement>(null);
  const leave = useRef<HTMLButtonElement>(null);
  const [status, setStatus] = useState("connecting…");

  // biome-ignore lint/correctness/useExhaustiveDependencies: `ended` is only told.
  useEffect(() => {
    let link: TerminalLink | undefined;
    let gone = false;
    void import("./terminal-link.js")
      .then(({ TerminalLink }) => {
        if (gone || box.current === null) return;
        link = new TerminalLink(box.current, (since) => http.socket(path`/v1/processes/${id}/terminal/ws`, { since }), {
          status: setStatus,
          ended,
          leave: () => leave.current?.focus(),
        });
      })
      .catch(() => setStatus("the terminal could not be loaded"));
    return () => {
      gone = true;
      link?.close();
    };
  }, [http, id]);

  return (
    <section class="terminal" aria-label="Terminal">
      <header class="pane-head slim">
        <Endpoint text={`WebSocket /v1/processes/${id}/terminal/ws`} />
        <span class="muted" role="status">
          {status}
        </span>
        <button ref={leave} type="button" class="quiet" onClick={() => box.current?.querySelector("textarea")?.focus()}>
          Type here
        </button>
      </header>
      <div ref={box} class="screen" />
      <p class="note">Shift+Escape leaves the terminal.</p>
    </section>
  );
}
