import { useEffect, useRef } from "preact/hooks";
import { Connection } from "../acp/connection.js";
import { useHttp } from "../parts/context.js";
import { moment } from "../parts/figures.js";
import { useLoaded } from "../parts/loading.js";
import { Badge, Empty, Page, ProblemNote } from "../parts/page.js";
import type { Http } from "../wire/http.js";
import { fragmentOf, type Place } from "../wire/place.js";
import { Problem } from "../wire/problem.js";
import { LiveSession } from "./live-session.js";
import { NewSession } from "./new-session.js";
import { StoredSession } from "./stored-session.js";

export interface Server {
  serverId: string;
  agent: string;
  createdAtMs: number;
}

export interface SessionRecord {
  id: string;
  agent: string;
  agentSessionId?: string;
  lastConnectionId?: string;
  createdAt: number;
  destroyedAt?: number;
}

const POLL_MS = 4_000;
const PER_PAGE = 50;

/** This tab's connections: what was sent from here is known nowhere else on some servers. */
const connections = new WeakMap<Http, Map<string, Connection>>();
const MOST_CONNECTIONS = 20;

export function connectionTo(http: Http, serverId: string): Connection {
  let all = connections.get(http);
  if (all === undefined) {
    all = new Map();
    connections.set(http, all);
  }
  const connection = all.get(serverId) ?? new Connection(http, serverId);
  // The one used longest ago goes first.
  all.delete(serverId);
  all.set(serverId, connection);
  for (const [id, other] of all) {
    if (all.size <= MOST_CONNECTIONS) break;
    other.close();
    all.delete(id);
  }
  return connection;
}

/** A server that was ended and its connection. */
export function forget(http: Http, serverId: string): void {
  connections.get(http)?.get(serverId)?.close();
  connections.get(http)?.delete(serverId);
}

export function Sessions({ place }: { place: Extract<Place, { page: "sessions" }> }) {
  const http = useHttp();
  const servers = useLoaded(
    async (signal) => (await http.json<{ servers: Server[] }>("GET", "/v1/acp", { signal })).servers,
    "servers",
    POLL_MS,
  );
  const records = useLoaded((signal) => stored(http, signal), "records", POLL_MS);
  const server = servers.value?.find(({ serverId }) => serverId === place.server);
  const past = records.value?.sessions ?? [];
  const open = place.server ?? place.record ?? place.fresh;
  const pane = useRef<HTMLDivElement>(null);
  // On a narrow screen the list is above: what was opened comes into view.
  useEffect(() => {
    if (open !== undefined && matchMedia("(max-width: 800px)").matches) pane.current?.scrollIntoView();
  }, [open]);

  return (
    <Page
      title="Sessions"
      endpoint="GET /v1/acp"
      actions={
        <a class="button primary" href={fragmentOf({ page: "sessions", fresh: "any" })}>
          New session
        </a>
      }
    >
      <ProblemNote problem={servers.problem} />
      <div class="split side">
        <section class="card flush" aria-label="All sessions">
          <h2 class="list-head">Running agents</h2>
          <ul class="list">
            {servers.value?.map((each) => (
              <li key={each.serverId} class={each.serverId === place.server ? "chosen" : undefined}>
                <a
                  href={fragmentOf({ page: "sessions", server: each.serverId })}
                  aria-current={each.serverId === place.server ? "true" : undefined}
                >
                  <span class="row between">
                    <strong>{each.agent}</strong>
                    <span class="muted small">{moment(each.createdAtMs)}</span>
                  </span>
                  <span class="muted small mono cut">{each.serverId}</span>
                </a>
              </li>
            ))}
          </ul>
          {servers.value?.length === 0 && <Empty>None is running.</Empty>}
          {servers.value === undefined && servers.problem === undefined && <Empty>Loading…</Empty>}
          <Records records={records.value} servers={servers.value ?? []} chosen={place.record} />
          <ProblemNote problem={records.problem} />
        </section>
        <div ref={pane} class="pane">
          {place.fresh !== undefined ? (
            <NewSession key={place.fresh} wished={place.fresh} started={servers.reload} />
          ) : place.server !== undefined ? (
            <LiveSession
              key={place.server}
              serverId={place.server}
              agent={server?.agent ?? past.find(({ lastConnectionId }) => lastConnectionId === place.server)?.agent}
              gone={servers.value !== undefined && server === undefined}
              ended={() => {
                servers.reload();
                records.reload();
              }}
            />
          ) : place.record !== undefined ? (
            <StoredSession key={place.record} id={place.record} />
          ) : (
            <section class="card">
              <Empty>Open a session, or start one.</Empty>
            </section>
          )}
        </div>
      </div>
    </Page>
  );
}

function Records(props: {
  servers: Server[];
  records: { sessions: SessionRecord[]; total: number } | undefined;
  chosen: string | undefined;
}) {
  if (props.records === undefined) return null;
  const { total } = props.records;
  // What a running agent has said is seen with the agent.
  const running = new Set(props.servers.map(({ serverId }) => serverId));
  const sessions = props.records.sessions.filter(
    (record) => record.destroyedAt !== undefined || !running.has(record.lastConnectionId ?? ""),
  );
  return (
    <>
      <h2 class="list-head">
        Stored sessions <code class="endpoint">GET /v1/sessions</code>
      </h2>
      <ul class="list">
        {sessions.map((record) => (
          <li key={record.id} class={record.id === props.chosen ? "chosen" : undefined}>
            <a
              href={fragmentOf({ page: "sessions", record: record.id })}
              aria-current={record.id === props.chosen ? "true" : undefined}
            >
              <span class="row between">
                <strong>{record.agent}</strong>
                {record.destroyedAt !== undefined && <Badge tone="still">ended</Badge>}
                <span class="muted small">{moment(record.createdAt * 1000)}</span>
              </span>
              <span class="muted small mono cut">{record.id}</span>
            </a>
          </li>
        ))}
      </ul>
      {sessions.length === 0 && <Empty>None is stored.</Empty>}
      {total > props.records.sessions.length && (
        <p class="note">
          The newest {props.records.sessions.length} of {total.toLocaleString()}.
        </p>
      )}
    </>
  );
}

/** The newest stored sessions; nothing where the server stores none. */
async function stored(
  http: Http,
  signal: AbortSignal,
): Promise<{ sessions: SessionRecord[]; total: number } | undefined> {
  try {
    const query = { page: 1, perPage: PER_PAGE };
    const { sessions, total } = await http.json<{ sessions: SessionRecord[]; total: number }>("GET", "/v1/sessions", {
      query,
      signal,
    });
    return { sessions: [...sessions].sort((a, b) => b.createdAt - a.createdAt), total };
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return undefined;
    throw error;
  }
}
