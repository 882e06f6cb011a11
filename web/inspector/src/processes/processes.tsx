import { useId, useState } from "preact/hooks";
import { go, useHttp } from "../parts/context.js";
import { Ask } from "../parts/dialog.js";
import { duration, moment } from "../parts/figures.js";
import { useLoaded, useTask } from "../parts/loading.js";
import { Badge, Empty, Page, ProblemNote } from "../parts/page.js";
import { path } from "../wire/http.js";
import { fragmentOf, type Place } from "../wire/place.js";
import { commandOf, lineOf } from "./command.js";
import { endOf, Logs } from "./logs.js";
import { Terminal } from "./terminal.js";

interface ProcessInfo {
  id: string;
  command: string;
  args: string[];
  cwd?: string;
  tty: boolean;
  interactive: boolean;
  owner?: string;
  status: "running" | "exited";
  pid?: number;
  exitCode?: number;
  createdAtMs: number;
  exitedAtMs?: number;
}

const POLL_MS = 2_000;

export function Processes({ place }: { place: Extract<Place, { page: "processes" }> }) {
  const http = useHttp();
  const processes = useLoaded(
    async (signal) => (await http.json<{ processes: ProcessInfo[] }>("GET", "/v1/processes", { signal })).processes,
    "processes",
    POLL_MS,
  );
  const newestFirst = [...(processes.value ?? [])].sort((a, b) => b.createdAtMs - a.createdAtMs);
  const shown = newestFirst.find((process) => process.id === place.id);
  return (
    <Page title="Processes" endpoint="GET /v1/processes">
      <Start
        started={(id) => {
          processes.reload();
          go({ page: "processes", id });
        }}
      />
      <ProblemNote problem={processes.problem} />
      <div class={place.id === undefined ? "split one" : "split"}>
        <section class="card flush" aria-label="All processes">
          <table class="list">
            <thead>
              <tr>
                <th scope="col">Command</th>
                <th scope="col">State</th>
                <th scope="col" class="wide-only">
                  Started
                </th>
              </tr>
            </thead>
            <tbody>
              {newestFirst.map((process) => (
                <Row key={process.id} process={process} chosen={process.id === place.id} />
              ))}
            </tbody>
          </table>
          {processes.value === undefined && processes.problem === undefined && <Empty>Loading…</Empty>}
          {processes.value?.length === 0 && <Empty>No processes. Start one above.</Empty>}
        </section>
        {place.id !== undefined && shown === undefined && processes.value !== undefined && (
          <section class="card">
            <Empty>There is no process {place.id}.</Empty>
          </section>
        )}
        {shown !== undefined && <Detail key={shown.id} process={shown} changed={processes.reload} />}
      </div>
    </Page>
  );
}

function Row({ process, chosen }: { process: ProcessInfo; chosen: boolean }) {
  return (
    <tr class={chosen ? "chosen" : undefined}>
      <td>
        <a
          class="name"
          href={fragmentOf({ page: "processes", id: process.id })}
          aria-current={chosen ? "true" : undefined}
        >
          <span class="stacked">
            <span class="mono cut">{lineOf(process)}</span>
            <span class="muted small">
              {process.id}
              {process.tty && " · terminal"}
              {process.owner !== undefined && process.owner !== "user" && ` · ${process.owner}`}
            </span>
          </span>
        </a>
      </td>
      <td>
        <State process={process} />
      </td>
      <td class="wide-only muted">
        <time dateTime={new Date(process.createdAtMs).toISOString()}>{moment(process.createdAtMs)}</time>
      </td>
    </tr>
  );
}

function State({ process }: { process: ProcessInfo }) {
  if (process.status === "running") return <Badge tone="good">running</Badge>;
  if (process.exitCode === 0) return <Badge tone="still">exited 0</Badge>;
  return <Badge tone="bad">{process.exitCode === undefined ? "killed" : `exited ${process.exitCode}`}</Badge>;
}

function Start({ started }: { started: (id: string) => void }) {
  const http = useHttp();
  const [line, setLine] = useState("");
  const [cwd, setCwd] = useState("");
  const [tty, setTty] = useState(false);
  const task = useTask();
  const hint = useId();
  const command = commandOf(line);
  const submit = (event: Event) => {
    event.preventDefault();
    if (command === undefined) return;
    void task.run("start", async () => {
      const body = { ...command, tty, interactive: tty, ...(cwd.trim() === "" ? {} : { cwd: cwd.trim() }) };
      const process = await http.json<ProcessInfo>("POST", "/v1/processes", { body });
      setLine("");
      started(process.id);
    });
  };
  return (
    <form class="card stack" aria-label="Start a process" onSubmit={submit}>
      <div class="row wrap">
        <label class="field grow">
          <span>Command</span>
          <input
            class="mono"
            value={line}
            onInput={(event) => setLine(event.currentTarget.value)}
            placeholder="npm test"
            aria-describedby={hint}
            spellcheck={false}
            autocomplete="off"
            autocapitalize="off"
          />
        </label>
        <label class="field">
          <span>Working directory</span>
          <input
            class="mono"
            value={cwd}
            onInput={(event) => setCwd(event.currentTarget.value)}
            placeholder="default"
            spellcheck={false}
            autocomplete="off"
          />
        </label>
        <label class="check">
          <input type="checkbox" checked={tty} onChange={(event) => setTty(event.currentTarget.checked)} />
          Terminal
        </label>
        <button type="submit" class="primary" disabled={command === undefined || task.running !== undefined}>
          Start
        </button>
      </div>
      <p id={hint} class="muted small hint">
        {command?.command === "sh" && command.args[0] === "-c"
          ? "Runs through sh -c, for what only a shell understands."
          : "POST /v1/processes"}
      </p>
      <ProblemNote problem={task.problem} dismiss={task.dismiss} />
    </form>
  );
}

function Detail({ process, changed }: { process: ProcessInfo; changed: () => void }) {
  const http = useHttp();
  const task = useTask();
  const [pane, setPane] = useState<"logs" | "terminal">(process.tty ? "terminal" : "logs");
  const [asks, setAsks] = useState(false);
  const running = process.status === "running";
  const signal = (verb: "stop" | "kill") =>
    task.run(verb, async () => {
      await http.json("POST", path`/v1/processes/${process.id}/${verb}`, { query: { waitMs: 2_000 } });
      changed();
    });
  const took = (process.exitedAtMs ?? Date.now()) - process.createdAtMs;
  return (
    <section class="card flush detail" aria-label={`Process ${process.id}`}>
      <header class="pane-head">
        <div class="grow">
          <h2 class="mono cut">{lineOf(process)}</h2>
          <p class="muted small">
            {process.id}
            {process.pid !== undefined && ` · pid ${process.pid}`}
            {process.cwd !== undefined && ` · in ${process.cwd}`}
            {running ? ` · for ${duration(took)}` : ` · ${endOf(process.exitCode, undefined)} after ${duration(took)}`}
          </p>
        </div>
        <div class="actions">
          {running ? (
            <>
              <button type="button" disabled={task.running !== undefined} onClick={() => signal("stop")}>
                Stop
              </button>
              <button type="button" class="danger" disabled={task.running !== undefined} onClick={() => signal("kill")}>
                Kill
              </button>
            </>
          ) : (
            <button type="button" class="danger" onClick={() => setAsks(true)}>
              Delete
            </button>
          )}
          <a class="button quiet" href={fragmentOf({ page: "processes" })} aria-label="Close process">
            ×
          </a>
        </div>
      </header>
      <ProblemNote problem={task.problem} dismiss={task.dismiss} />
      {process.tty && (
        <fieldset class="tabs">
          <legend class="hidden">Show</legend>
          {(["terminal", "logs"] as const).map((name) => (
            <button key={name} type="button" aria-pressed={pane === name} onClick={() => setPane(name)}>
              {name === "terminal" ? "Terminal" : "Logs"}
            </button>
          ))}
        </fieldset>
      )}
      {pane === "terminal" ? <Terminal id={process.id} ended={changed} /> : <Logs id={process.id} ended={changed} />}
      {asks && (
        <Ask
          title="Delete process?"
          text={`${process.id} and its output will be gone.`}
          verb="Delete"
          danger
          close={() => setAsks(false)}
          act={async () => {
            await http.json("DELETE", path`/v1/processes/${process.id}`);
            changed();
            go({ page: "processes" }, "replace");
          }}
        />
      )}
    </section>
  );
}
