import { useEffect, useMemo, useState } from "preact/hooks";
import type { Connection, ConnectionState } from "../acp/connection.js";
import type { ConfigOption, Permission, Session } from "../acp/conversation.js";
import { go, useHttp } from "../parts/context.js";
import { Ask } from "../parts/dialog.js";
import { useTask } from "../parts/loading.js";
import { Badge, Empty, Endpoint, ProblemNote, type Tone } from "../parts/page.js";
import { ConversationView } from "./conversation-view.js";
import { EnvelopeLog } from "./envelope-log.js";
import { PromptBox } from "./prompt-box.js";
import { connectionTo, forget } from "./sessions.js";

const STATES: Record<ConnectionState, { tone: Tone; text: string }> = {
  connecting: { tone: "busy", text: "connecting" },
  open: { tone: "good", text: "connected" },
  waiting: { tone: "busy", text: "reconnecting" },
  closed: { tone: "still", text: "closed" },
  ended: { tone: "bad", text: "ended" },
};

/** A running agent: the conversation, beside it the messages it was made of, and what can be said. */
export function LiveSession(props: { serverId: string; agent: string | undefined; gone: boolean; ended: () => void }) {
  const { serverId } = props;
  const http = useHttp();
  const connection = useMemo(() => connectionTo(http, serverId), [http, serverId]);
  connection.agent = props.agent ?? connection.agent;
  const drawn = useConnection(connection);
  const [chosen, setChosen] = useState<string>();
  const [raw, setRaw] = useState(() => matchMedia("(min-width: 1100px)").matches);
  const [asks, setAsks] = useState(false);
  const task = useTask();

  const sessions = [...connection.conversation.sessions.values()];
  const session = sessions.find(({ id }) => id === chosen) ?? sessions.at(-1);
  const state = STATES[connection.state];
  const endpoint = `GET /v1/acp/${serverId}`;

  const prompt = async (text: string) => {
    let id = session?.id;
    if (id === undefined) {
      const created = await connection.call("session/new", { cwd: "/", mcpServers: [] });
      id = String(created.sessionId);
    }
    // A prompt's answer may be hours away and is part of the conversation: its failure, too.
    void connection.call("session/prompt", { sessionId: id, prompt: [{ type: "text", text }] }).catch(() => undefined);
  };
  const answer = (permission: Permission, optionId: string | undefined) =>
    task.run("answer", () =>
      connection.respond(permission.requestId, {
        outcome: optionId === undefined ? { outcome: "cancelled" } : { outcome: "selected", optionId },
      }),
    );

  return (
    <section class="card flush session" aria-label={`Session ${serverId}`}>
      <header class="pane-head">
        <div class="grow">
          <h2>
            {session?.title ?? connection.conversation.agentName ?? props.agent ?? serverId}{" "}
            <Badge tone={state.tone}>{state.text}</Badge>
          </h2>
          <Endpoint text={endpoint} />
        </div>
        <div class="actions">
          <button type="button" aria-pressed={raw} onClick={() => setRaw(!raw)}>
            Messages
          </button>
          {!props.gone && (
            <button type="button" class="danger" onClick={() => setAsks(true)}>
              End
            </button>
          )}
        </div>
      </header>
      <ProblemNote problem={connection.problem} />
      <ProblemNote problem={task.problem} dismiss={task.dismiss} />
      {session !== undefined && (
        <Choices
          session={session}
          sessions={sessions}
          choose={setChosen}
          set={(method, params) =>
            task.run("set", async () => {
              await connection.call(method, { sessionId: session.id, ...params });
            })
          }
        />
      )}
      <div class={raw ? "columns" : "columns one"}>
        <div class="talk">
          {session === undefined ? (
            <Empty>
              {props.gone
                ? "No agent runs here."
                : connection.state === "connecting"
                  ? "Loading…"
                  : "Nothing was said yet."}
            </Empty>
          ) : (
            <ConversationView session={session} drawn={drawn} answer={answer} />
          )}
          {connection.state !== "ended" && !(props.gone && session === undefined) && (
            <PromptBox
              busy={session?.busy ?? false}
              send={prompt}
              cancel={() =>
                task.run("cancel", async () => {
                  if (session !== undefined) await connection.notify("session/cancel", { sessionId: session.id });
                })
              }
              commands={session?.commands ?? []}
            />
          )}
        </div>
        {raw && <EnvelopeLog log={connection.log} drawn={drawn} />}
      </div>
      {asks && (
        <Ask
          title="End this agent?"
          text={`${serverId}: its process and all that it started will be ended.`}
          verb="End"
          danger
          close={() => setAsks(false)}
          act={async () => {
            await connection.end();
            forget(http, serverId);
            props.ended();
            go({ page: "sessions" }, "replace");
          }}
        />
      )}
    </section>
  );
}

/** Reads a connection while the component is shown; a number that is another after each change. */
function useConnection(connection: Connection): number {
  const [drawn, setDrawn] = useState(0);
  useEffect(() => {
    const leave = connection.subscribe(() => setDrawn((n) => n + 1));
    connection.open();
    return () => {
      leave();
      connection.close();
    };
  }, [connection]);
  return drawn;
}

/** What the session lets one choose. */
function Choices(props: {
  session: Session;
  sessions: Session[];
  choose: (id: string) => void;
  set: (method: string, params: Record<string, string>) => void;
}) {
  const { session, sessions } = props;
  // Options have taken the place of modes in the protocol: an agent that offers both means the same by them.
  const modes = session.options.some((option) => option.category === "mode") ? [] : session.modes;
  const { usage } = session;
  if (sessions.length < 2 && modes.length === 0 && session.options.length === 0 && usage === undefined) return null;
  return (
    <div class="choices">
      {sessions.length > 1 && (
        <label>
          Session{" "}
          <select value={session.id} onChange={(event) => props.choose(event.currentTarget.value)}>
            {sessions.map(({ id, title }) => (
              <option key={id} value={id}>
                {title ?? id}
              </option>
            ))}
          </select>
        </label>
      )}
      {modes.length > 0 && (
        <label>
          Mode{" "}
          <select
            aria-label="Mode"
            value={session.mode}
            onChange={(event) => props.set("session/set_mode", { modeId: event.currentTarget.value })}
          >
            {modes.map(({ id, name }) => (
              <option key={id} value={id}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      {session.options.map((option) => (
        <label key={option.id}>
          {option.name}{" "}
          <select
            aria-label={option.name}
            value={option.current}
            onChange={(event) =>
              props.set("session/set_config_option", { configId: option.id, value: event.currentTarget.value })
            }
          >
            <OptionChoices option={option} />
          </select>
        </label>
      ))}
      {usage !== undefined && usage.size > 0 && (
        <span class="muted small">
          {Math.round((usage.used / usage.size) * 100)}% of {usage.size.toLocaleString()} tokens used
        </span>
      )}
    </div>
  );
}

function OptionChoices({ option }: { option: ConfigOption }) {
  const groups = [...new Set(option.choices.map((choice) => choice.group))];
  return (
    <>
      {groups.map((group) => {
        const choices = option.choices
          .filter((choice) => choice.group === group)
          .map(({ id, name }) => (
            <option key={id} value={id}>
              {name}
            </option>
          ));
        if (group === undefined) return choices;
        return (
          <optgroup key={group} label={group}>
            {choices}
          </optgroup>
        );
      })}
    </>
  );
}
