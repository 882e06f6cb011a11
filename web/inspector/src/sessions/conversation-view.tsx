import { useRef, useState } from "preact/hooks";
import type { Item, Permission, Session, ToolCall, ToolContent } from "../acp/conversation.js";
import { diff } from "../acp/diff.js";
import { memo } from "../parts/memo.js";
import { Badge, type Tone } from "../parts/page.js";
import { useStickToEnd } from "../parts/scroll.js";
import { json, Text } from "../parts/text.js";

type Answer = (permission: Permission, optionId: string | undefined) => void;

/** How many items are drawn at first, and how many more at each wish for earlier ones. */
const WINDOW = 200;

/** What was said, oldest first. All of it is text. `drawn` is another number when the session has changed. */
export function ConversationView(props: { session: Session; drawn: number; answer?: Answer }) {
  const { session } = props;
  const [shown, setShown] = useState(WINDOW);
  const box = useRef<HTMLDivElement>(null);
  const stick = useStickToEnd(box, props.drawn);
  // One function for all drawings, so that an item that has not changed is not drawn again.
  const answer = useRef(props.answer);
  answer.current = props.answer;
  const stable = useRef<Answer>((permission, optionId) => answer.current?.(permission, optionId));
  const hidden = Math.max(0, session.items.length - shown);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard.
    <div ref={box} class="conversation" role="log" aria-label="Conversation" tabIndex={0} onScroll={stick.onScroll}>
      {session.dropped > 0 && hidden === 0 && (
        <p class="note">{session.dropped.toLocaleString()} earlier items are not kept.</p>
      )}
      {hidden > 0 && (
        <button type="button" class="quiet" onClick={() => setShown(shown + WINDOW)}>
          Show earlier ({hidden.toLocaleString()})
        </button>
      )}
      {session.items.slice(hidden).map((item) => (
        <ItemView key={item.key} item={item} answer={props.answer === undefined ? undefined : stable.current} />
      ))}
    </div>
  );
}

const ItemView = memo(({ item, answer }: { item: Item; answer: Answer | undefined }) => {
  switch (item.kind) {
    case "user":
      return (
        <article class="said user" aria-label="You">
          <Text text={item.text} />
        </article>
      );
    case "agent":
      return (
        <article class="said agent" aria-label="Agent">
          <Text text={item.text} />
        </article>
      );
    case "thought":
      return (
        <details class="thought">
          <summary>Thought</summary>
          <Text text={item.text} />
        </details>
      );
    case "tool":
      return <Tool call={item.call} />;
    case "plan":
      return (
        <article class="plan" aria-label="Plan">
          <h3>Plan</h3>
          <ol>
            {item.entries.map((entry, n) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: entries have no other name, and come as a whole.
              <li key={n} class={entry.status}>
                {entry.text} <span class="muted small">{entry.status.replaceAll("_", " ")}</span>
              </li>
            ))}
          </ol>
        </article>
      );
    case "permission":
      return <PermissionView permission={item.permission} answer={answer} />;
    case "change":
      return <p class="mark-line">{item.text}</p>;
    case "stop":
      return <p class="mark-line">{STOPS[item.reason] ?? item.reason}</p>;
    case "gap":
      return (
        <p class="mark-line warn">
          Messages {item.from} to {item.to} are missing
        </p>
      );
    case "error":
      return (
        <div class="problem" role="alert">
          <div>
            <strong>{item.title}</strong>
            {item.detail !== undefined && <p>{item.detail}</p>}
          </div>
        </div>
      );
  }
});

const STOPS: Record<string, string> = {
  end_turn: "End of turn",
  max_tokens: "Stopped: no tokens left",
  max_turn_requests: "Stopped: too many requests in one turn",
  refusal: "Stopped: the agent refused",
  cancelled: "Cancelled",
};

const TONES: Record<string, Tone> = { pending: "still", in_progress: "busy", completed: "good", failed: "bad" };

function Tool({ call }: { call: ToolCall }) {
  const diffs = call.content.some(({ type }) => type === "diff");
  return (
    <article class="tool" aria-label={`Tool call ${call.title}`}>
      <header class="row between">
        <h3>
          {call.kind !== undefined && <span class="muted">{call.kind} </span>}
          <span class="mono">{call.title || call.id}</span>
        </h3>
        <Badge tone={TONES[call.status] ?? "still"}>{call.status.replaceAll("_", " ")}</Badge>
      </header>
      {call.locations.length > 0 && <p class="muted small mono">{call.locations.join(", ")}</p>}
      {call.content.length > 0 && (
        <details open={diffs}>
          <summary>Content</summary>
          <Contents content={call.content} />
        </details>
      )}
      {call.input !== undefined && <Value name="Input" value={call.input} />}
      {call.output !== undefined && <Value name="Output" value={call.output} />}
    </article>
  );
}

function Value({ name, value }: { name: string; value: unknown }) {
  return (
    <details>
      <summary>{name}</summary>
      <Text code text={json(value)} />
    </details>
  );
}

function Contents({ content }: { content: ToolContent[] }) {
  return (
    <>
      {content.map((part, n) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: parts have no other name, and come as a whole.
        <Part key={n} part={part} />
      ))}
    </>
  );
}

function Part({ part }: { part: ToolContent }) {
  switch (part.type) {
    case "text":
      return <Text code text={part.text} />;
    case "diff":
      return <Diff path={part.path} before={part.before} after={part.after} />;
    case "terminal":
      return <p class="muted small">Terminal {part.terminalId}</p>;
  }
}

const SIGNS = { same: " ", removed: "-", added: "+", fold: "⋯" };
const MOST_LINES = 1_000;

const Diff = memo(({ path, before, after }: { path: string; before: string; after: string }) => {
  const lines = diff(before, after);
  const changed = (kind: string) => lines.filter((line) => line.kind === kind).length;
  return (
    <figure class="diff">
      <figcaption class="mono small">
        {path} <span class="added">+{changed("added")}</span> <span class="removed">−{changed("removed")}</span>
      </figcaption>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard. */}
      <pre tabIndex={0}>
        {lines.slice(0, MOST_LINES).map((line, n) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: the lines of one diff do not move.
          <div key={n} class={line.kind}>
            {SIGNS[line.kind]} {line.text}
          </div>
        ))}
        {lines.length > MOST_LINES && <div class="fold">⋯ {lines.length - MOST_LINES} lines more</div>}
      </pre>
    </figure>
  );
});

function PermissionView({ permission, answer }: { permission: Permission; answer: Answer | undefined }) {
  const waits = permission.outcome === undefined && answer !== undefined;
  return (
    <article class={waits ? "permission waits" : "permission"} aria-label="Permission request">
      <h3>
        <span class="muted">Permission </span>
        <span class="mono">{permission.title}</span>
      </h3>
      <Contents content={permission.content} />
      {permission.input !== undefined && <Value name="Input" value={permission.input} />}
      {waits ? (
        <div class="actions">
          {permission.options.map((option) => (
            <button
              key={option.id}
              type="button"
              class={
                option.kind?.startsWith("reject") ? "danger" : option.kind === "allow_once" ? "primary" : undefined
              }
              onClick={() => answer(permission, option.id)}
            >
              {option.name}
            </button>
          ))}
          <button type="button" class="quiet" onClick={() => answer(permission, undefined)}>
            Dismiss
          </button>
        </div>
      ) : (
        <p class="muted small">{permission.outcome ?? "not answered"}</p>
      )}
    </article>
  );
}
