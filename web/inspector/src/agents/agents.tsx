import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { go, useHttp } from "../parts/context.js";
import { duration } from "../parts/figures.js";
import { useLoaded, useTask } from "../parts/loading.js";
import { Badge, Empty, Page, ProblemNote } from "../parts/page.js";
import { type Http, path } from "../wire/http.js";
import { Problem } from "../wire/problem.js";
import { frames } from "../wire/sse.js";
import { fieldsOf, listOf, textOf } from "../wire/untrusted.js";

export interface Agent {
  id: string;
  installed: boolean;
  credentialsAvailable: boolean;
  version?: string;
  path?: string;
  capabilities?: Record<string, boolean>;
  serverStatus?: { status: string; uptimeMs?: number };
  configError?: string;
}

export async function listAgents(http: Http, config: boolean, signal: AbortSignal): Promise<Agent[]> {
  const query = config ? { config } : {};
  const { agents } = await http.json<{ agents: Agent[] }>("GET", "/v1/agents", { query, signal });
  return agents;
}

export function Agents() {
  const http = useHttp();
  const agents = useLoaded((signal) => listAgents(http, true, signal), "agents", 15_000);
  return (
    <Page
      title="Agents"
      endpoint="GET /v1/agents?config=true"
      actions={
        <button type="button" onClick={agents.reload}>
          Refresh
        </button>
      }
    >
      <ProblemNote problem={agents.problem} />
      {agents.value === undefined && agents.problem === undefined && <Empty>Loading…</Empty>}
      <ul class="cards">
        {agents.value?.map((agent) => (
          <AgentCard key={agent.id} agent={agent} changed={agents.reload} />
        ))}
      </ul>
    </Page>
  );
}

function AgentCard({ agent, changed }: { agent: Agent; changed: () => void }) {
  const http = useHttp();
  const task = useTask();
  const [progress, setProgress] = useState<string[]>([]);
  const add = (line: string) => setProgress((lines) => [...lines.slice(-99), line]);
  const start = () =>
    task.run("install", async () => {
      setProgress([]);
      await install(http, agent.id, add);
      changed();
    });
  const can = Object.entries(agent.capabilities ?? {});
  return (
    <li class="card stack" aria-label={agent.id}>
      <div class="row between">
        <h2>{agent.id}</h2>
        <Badge tone={agent.installed ? "good" : "still"}>{agent.installed ? "installed" : "not installed"}</Badge>
      </div>
      <dl class="facts">
        {agent.version !== undefined && <Fact name="Version">{agent.version}</Fact>}
        {agent.path !== undefined && <Fact name="Path">{agent.path}</Fact>}
        <Fact name="Credentials">{agent.credentialsAvailable ? "available" : "none found"}</Fact>
        {agent.serverStatus !== undefined && (
          <Fact name="Process">
            {agent.serverStatus.status}
            {agent.serverStatus.uptimeMs !== undefined && ` for ${duration(agent.serverStatus.uptimeMs)}`}
          </Fact>
        )}
      </dl>
      {agent.configError !== undefined && <p class="muted">{agent.configError}</p>}
      {can.length > 0 && (
        <details>
          <summary>
            {can.filter(([, yes]) => yes).length} of {can.length} capabilities
          </summary>
          <ul class="chips">
            {can.map(([name, yes]) => (
              <li key={name} class={yes ? "chip" : "chip off"}>
                {name}
                <span class="hidden">{yes ? "" : " (no)"}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
      <ProblemNote problem={task.problem} dismiss={task.dismiss} />
      {progress.length > 0 && (
        <pre class="progress" role="log" aria-label={`Installing ${agent.id}`}>
          {progress.join("\n")}
        </pre>
      )}
      <div class="actions">
        {agent.installed ? (
          <button type="button" onClick={() => go({ page: "sessions", fresh: agent.id })}>
            New session
          </button>
        ) : (
          <button type="button" class="primary" disabled={task.running !== undefined} onClick={start}>
            {task.running === undefined ? "Install" : "Installing…"}
          </button>
        )}
      </div>
    </li>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** Installs an agent and tells how it goes, where the server says so; others answer when it is done. */
async function install(http: Http, id: string, tell: (line: string) => void): Promise<void> {
  const response = await http.open("POST", path`/v1/agents/${id}/install`, {
    query: { stream: 1 },
    headers: { accept: "text/event-stream, application/json" },
    body: {},
  });
  if (!response.headers.get("content-type")?.startsWith("text/event-stream") || response.body === null) {
    return tell(installed(JSON.parse(await response.text())));
  }
  for await (const frame of frames(response.body)) {
    const data = fieldsOf(JSON.parse(frame.data));
    if (frame.event === "progress") tell(textOf(data.message) ?? "");
    if (frame.event === "done") return tell(installed(data));
    if (frame.event === "error") {
      throw new Problem(Number(data.status) || 0, textOf(data.title) ?? "Install failed", textOf(data.detail));
    }
  }
  throw new Problem(0, "Install broken off", "The server stopped answering before it was done.");
}

function installed(answer: unknown): string {
  const fields = fieldsOf(answer);
  if (fields.already_installed === true) return "Already installed.";
  const parts = listOf(fields.artifacts).map((artifact) => {
    const { kind, version } = fieldsOf(artifact);
    return [textOf(kind), textOf(version)].filter(Boolean).join(" ");
  });
  return `Installed${parts.length > 0 ? `: ${parts.join(", ")}` : ""}.`;
}
