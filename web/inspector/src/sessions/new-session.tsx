import { useEffect, useState } from "preact/hooks";
import { listAgents } from "../agents/agents.js";
import { go, useHttp } from "../parts/context.js";
import { useLoaded, useTask } from "../parts/loading.js";
import { Endpoint, ProblemNote } from "../parts/page.js";
import { fragmentOf } from "../wire/place.js";
import { connectionTo } from "./sessions.js";

/** Starts an agent and opens a session with it. */
export function NewSession({ wished, started }: { wished: string; started: () => void }) {
  const http = useHttp();
  const agents = useLoaded((signal) => listAgents(http, false, signal), "agents");
  const [agent, setAgent] = useState<string>();
  const [cwd, setCwd] = useState("");
  const home = useLoaded(async (signal) => {
    const entries = await http.json<{ path: string }[]>("GET", "/v1/fs/entries", { query: { limit: 1 }, signal });
    return entries[0]?.path.replace(/\/[^/]*$/, "") || "/";
  }, "home");
  useEffect(() => setCwd((now) => now || (home.value ?? "")), [home.value]);
  const task = useTask();

  const all = agents.value ?? [];
  const installed = all.filter((each) => each.installed);
  const chosen = agent ?? (installed.find((each) => each.id === wished) ?? installed[0])?.id;
  const submit = (event: Event) => {
    event.preventDefault();
    if (chosen === undefined) return;
    void task.run("start", async () => {
      const serverId = `inspector-${crypto.getRandomValues(new Uint32Array(1))[0]?.toString(36)}`;
      const connection = connectionTo(http, serverId);
      connection.agent = chosen;
      await connection.call("initialize", INITIALIZE);
      await connection.call("session/new", { cwd: cwd.trim() || "/", mcpServers: [] });
      started();
      go({ page: "sessions", server: serverId }, "replace");
    });
  };

  return (
    <form class="card stack new" aria-label="New session" onSubmit={submit}>
      <h2>New session</h2>
      <ProblemNote problem={agents.problem} />
      <label class="field">
        <span>Agent</span>
        <select
          value={chosen}
          onChange={(event) => setAgent(event.currentTarget.value)}
          disabled={installed.length === 0}
        >
          {installed.map((each) => (
            <option key={each.id} value={each.id}>
              {each.id}
              {each.credentialsAvailable || each.id === "mock" ? "" : " (no credentials found)"}
            </option>
          ))}
        </select>
      </label>
      {agents.value !== undefined && installed.length < all.length && (
        <p class="muted small">
          {installed.length === 0 ? "No agent is installed. " : ""}
          More can be installed under <a href={fragmentOf({ page: "agents" })}>Agents</a>.
        </p>
      )}
      <label class="field">
        <span>Working directory</span>
        <input
          class="mono"
          value={cwd}
          onInput={(event) => setCwd(event.currentTarget.value)}
          placeholder="/"
          spellcheck={false}
          autocomplete="off"
        />
      </label>
      <ProblemNote problem={task.problem} dismiss={task.dismiss} />
      <div class="actions">
        <button type="submit" class="primary" disabled={chosen === undefined || task.running !== undefined}>
          {task.running === undefined ? "Start" : "Starting…"}
        </button>
        <Endpoint text={`POST /v1/acp/{server_id}?agent=${chosen ?? ""}`} />
      </div>
    </form>
  );
}

export const INITIALIZE = {
  protocolVersion: 1,
  clientInfo: { name: "inspector", title: "Inspector", version: "1" },
  clientCapabilities: {},
};
