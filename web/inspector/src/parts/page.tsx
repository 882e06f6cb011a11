import type { ComponentChildren } from "preact";
import type { Problem } from "../wire/problem.js";

/** A page's frame: what it is, which endpoint it shows, what can be done. */
export function Page(props: {
  title: string;
  endpoint: string;
  actions?: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <main id="main" tabIndex={-1}>
      <header class="page-head">
        <div class="page-title">
          <h1>{props.title}</h1>
          <Endpoint text={props.endpoint} />
        </div>
        <div class="actions">{props.actions}</div>
      </header>
      {props.children}
    </main>
  );
}

/** The request behind what is shown. */
export function Endpoint({ text }: { text: string }) {
  return (
    <code class="endpoint" title={`Shown from ${text}`}>
      {text}
    </code>
  );
}

export function ProblemNote({ problem, dismiss }: { problem: Problem | undefined; dismiss?: () => void }) {
  if (problem === undefined) return null;
  return (
    <div class="problem" role="alert">
      <div>
        <strong>{problem.title}</strong>
        {problem.status > 0 && <span class="muted"> {problem.status}</span>}
        {problem.detail !== undefined && <p>{problem.detail}</p>}
      </div>
      {dismiss && (
        <button type="button" class="quiet" onClick={dismiss} aria-label="Dismiss">
          ×
        </button>
      )}
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export type Tone = "good" | "busy" | "bad" | "still";

/** A state in a word. The colour only repeats what the word says. */
export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}
