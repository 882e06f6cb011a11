import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { LogEntry } from "../acp/connection.js";
import { summaryOf } from "../acp/envelope.js";
import { Text } from "../parts/text.js";

const ROW = 26;
const SPARE = 10;

/** The messages as they went over the wire, the last two thousand. Only the rows in view are in the page. */
export function EnvelopeLog({ log, drawn }: { log: LogEntry[]; drawn: number }) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [chosen, setChosen] = useState<LogEntry>();
  const sticks = useRef(true);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `drawn` says when there is more.
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    setHeight(element.clientHeight);
    if (sticks.current) element.scrollTop = element.scrollHeight;
  }, [drawn, chosen]);
  const scrolled = () => {
    const element = box.current;
    if (element === null) return;
    sticks.current = element.scrollHeight - element.scrollTop - element.clientHeight < ROW * 2;
    setTop(element.scrollTop);
  };

  const first = Math.max(0, Math.min(Math.floor(top / ROW), log.length - Math.ceil(height / ROW)) - SPARE);
  const rows = log.slice(first, first + Math.ceil(height / ROW) + 2 * SPARE);
  return (
    <section class="envelopes" aria-label="Messages">
      <header class="pane-head slim">
        <h3>Messages</h3>
        <span class="muted small">
          {log.length.toLocaleString()}
          {(log[0]?.n ?? 1) > 1 && ` of ${log.at(-1)?.n.toLocaleString()}`}
        </span>
      </header>
      <div ref={box} class="rows" onScroll={scrolled}>
        <div class="rows-space" style={{ height: `${log.length * ROW}px` }}>
          {rows.map((entry, n) => (
            <button
              key={entry.n}
              type="button"
              class={`envelope ${entry.sender}`}
              style={{ top: `${(first + n) * ROW}px`, height: `${ROW}px` }}
              aria-pressed={entry === chosen}
              onClick={() => setChosen(entry === chosen ? undefined : entry)}
            >
              <span class="muted number">{entry.eventId ?? ""}</span>
              <span aria-hidden="true">{ARROWS[entry.sender]}</span>
              <span class="hidden">{entry.sender}</span>
              <span class="cut">{"gap" in entry.envelope ? "gap" : summaryOf(entry.envelope)}</span>
            </button>
          ))}
        </div>
      </div>
      {chosen !== undefined && (
        <section class="envelope-text" aria-label="Message">
          <header class="row between">
            <span class="muted small">
              from {chosen.sender}
              {chosen.eventId !== undefined && `, event ${chosen.eventId}`}
            </span>
            <button type="button" class="quiet" aria-label="Close message" onClick={() => setChosen(undefined)}>
              ×
            </button>
          </header>
          <Text key={chosen.n} code text={JSON.stringify(chosen.envelope, null, 2)} />
        </section>
      )}
    </section>
  );
}

const ARROWS = { client: "→", agent: "←", stream: "·" };
