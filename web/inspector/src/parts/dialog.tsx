import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { useTask } from "./loading.js";
import { ProblemNote } from "./page.js";

/** A window above the page. Escape and its backdrop close it; the browser keeps the focus inside. */
export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const title = useId();
  useEffect(() => {
    const dialog = element.current;
    const opener = document.activeElement;
    dialog?.showModal();
    return () => {
      dialog?.close();
      if (opener instanceof HTMLElement) opener.focus();
    };
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the key for it is Escape, which the browser turns into `cancel`.
    <dialog
      ref={element}
      aria-labelledby={title}
      onCancel={(event) => {
        event.preventDefault();
        props.close();
      }}
      onClick={(event) => {
        if (event.target === element.current) props.close();
      }}
    >
      <div class="dialog-body">
        <h2 id={title}>{props.title}</h2>
        {props.children}
      </div>
    </dialog>
  );
}

/** Asks before something that cannot be undone, or for a name. Stays open, with the reason, when it fails. */
export function Ask(props: {
  title: string;
  text?: ComponentChildren;
  /** Asks for a line of text, which starts as this. */
  initial?: string;
  label?: string;
  verb: string;
  danger?: boolean;
  act: (text: string) => Promise<void>;
  close: () => void;
}) {
  const [text, setText] = useState(props.initial ?? "");
  const task = useTask();
  const input = useRef<HTMLInputElement>(null);
  const asksText = props.initial !== undefined;
  useEffect(() => {
    input.current?.focus();
    input.current?.select();
  }, []);
  const submit = (event: Event) => {
    event.preventDefault();
    void task.run("act", async () => {
      await props.act(text);
      props.close();
    });
  };
  return (
    <Dialog title={props.title} close={props.close}>
      <form class="stack" onSubmit={submit}>
        {props.text !== undefined && <p>{props.text}</p>}
        {asksText && (
          <label class="field">
            <span>{props.label}</span>
            <input
              ref={input}
              class="mono"
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
              required
              spellcheck={false}
              autocomplete="off"
            />
          </label>
        )}
        <ProblemNote problem={task.problem} />
        <div class="actions end">
          <button type="button" onClick={props.close}>
            Cancel
          </button>
          <button type="submit" class={props.danger ? "danger" : "primary"} disabled={task.running !== undefined}>
            {props.verb}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
