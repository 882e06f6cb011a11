import { useEffect, useRef, useState } from "preact/hooks";
import { useHttp } from "../parts/context.js";
import { memo } from "../parts/memo.js";
import { Endpoint, ProblemNote } from "../parts/page.js";
import { useStickToEnd } from "../parts/scroll.js";
import { type FollowState, follow } from "../wire/follow.js";
import { type Http, path } from "../wire/http.js";
import { Problem } from "../wire/problem.js";
import { fieldsOf, numberOf, textOf } from "../wire/untrusted.js";
import { type Block, bytesOf, LogLines } from "./log-lines.js";

const REDRAW_MS = 60;

/** A process's output as it is written. */
export function Logs({ id, ended }: { id: string; ended: () => void }) {
  const http = useHttp();
  const [lines, setLines] = useState(() => new LogLines());
  const [drawn, setDrawn] = useState(0);
  const [state, setState] = useState<FollowState | "done">("connecting");
  const [problem, setProblem] = useState<Problem>();
  const box = useRef<HTMLDivElement>(null);
  const stick = useStickToEnd(box, drawn);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `ended` is only told.
  useEffect(() => {
    const stop = new AbortController();
    const fresh = new LogLines();
    setLines(fresh);
    setProblem(undefined);
    let redraw: ReturnType<typeof setTimeout> | undefined;
    const changed = () => {
      redraw ??= setTimeout(() => {
        redraw = undefined;
        setDrawn((n) => n + 1);
      }, REDRAW_MS);
    };
    read(http, id, fresh, stop.signal, changed, setState)
      .then(() => {
        if (stop.signal.aborted) return;
        setState("done");
        ended();
      })
      .catch((error: unknown) => {
        if (!stop.signal.aborted) setProblem(Problem.from(error));
      });
    return () => {
      stop.abort();
      clearTimeout(redraw);
    };
  }, [http, id]);

  return (
    <section class="logs" aria-label="Output">
      <header class="pane-head slim">
        <Endpoint text={`GET /v1/processes/${id}/logs?follow=true`} />
        <span class="muted" role="status">
          {STATES[state]}
        </span>
      </header>
      <ProblemNote problem={problem} />
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard. */}
      <div ref={box} class="lines" tabIndex={0} role="log" aria-live="off" aria-label="Lines" onScroll={stick.onScroll}>
        {lines.dropped > 0 && <p class="note">{lines.dropped.toLocaleString()} earlier lines are not shown.</p>}
        {lines.blocks.map((block) => (
          <Lines key={block.key} block={block} />
        ))}
        <Lines block={{ key: -1, lines: lines.unfinished() }} />
        {lines.count === 0 && lines.unfinished().length === 0 && <p class="note">No output yet.</p>}
      </div>
    </section>
  );
}

const STATES = { connecting: "connecting…", open: "following", waiting: "reconnecting…", done: "ended" };

const Lines = memo(({ block }: { block: Block }) => (
  <>
    {block.lines.map((line) => (
      <div key={line.key} class={`line ${line.stream === "stderr" || line.stream === "remark" ? line.stream : ""}`}>
        {line.text}
      </div>
    ))}
  </>
));

/** Follows the logs to the process's end, where the server says when that is; otherwise for good. */
async function read(
  http: Http,
  id: string,
  lines: LogLines,
  signal: AbortSignal,
  changed: () => void,
  tell: (state: FollowState) => void,
): Promise<void> {
  const open = (last: string | undefined) =>
    http.open("GET", path`/v1/processes/${id}/logs`, {
      query: { follow: true },
      headers: { accept: "text/event-stream", ...(last === undefined ? {} : { "last-event-id": last }) },
      signal,
    });
  for await (const frame of follow(open, { signal, tell })) {
    const data = fieldsOf(JSON.parse(frame.data));
    if (frame.event === "log") lines.add(textOf(data.stream) ?? "stdout", bytesOf(textOf(data.data) ?? ""));
    if (frame.event === "gap") lines.remark(`— output ${data.from ?? "?"} to ${data.to ?? "?"} is missing —`);
    if (frame.event === "exit") {
      lines.remark(endOf(numberOf(data.exitCode), data.signal));
      changed();
      return;
    }
    changed();
  }
}

/** How a process ended, in words. */
export function endOf(exitCode: number | undefined, signal: unknown): string {
  if (exitCode !== undefined) return `Exited with code ${exitCode}`;
  return signal === undefined || signal === null ? "Exited" : `Ended by signal ${String(signal)}`;
}
