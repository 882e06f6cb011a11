import { useState } from "preact/hooks";
import { useTask } from "../parts/loading.js";
import { ProblemNote } from "../parts/page.js";

/** Where one writes to the agent. */
export function PromptBox(props: {
  busy: boolean;
  send: (text: string) => Promise<void>;
  cancel: () => void;
  commands: { name: string; description: string | undefined }[];
}) {
  const [text, setText] = useState("");
  const task = useTask();
  const submit = (event: Event) => {
    event.preventDefault();
    const said = text.trim();
    if (said === "") return;
    void task.run("send", async () => {
      await props.send(said);
      setText("");
    });
  };
  const commands = text.startsWith("/")
    ? props.commands.filter(({ name }) => `/${name}`.startsWith(text.split(" ")[0] ?? ""))
    : [];
  return (
    <form class="prompt" onSubmit={submit}>
      <ProblemNote problem={task.problem} dismiss={task.dismiss} />
      {commands.length > 0 && (
        <ul class="commands" aria-label="Commands">
          {commands.slice(0, 8).map(({ name, description }) => (
            <li key={name}>
              <button type="button" class="link mono" onClick={() => setText(`/${name} `)}>
                /{name}
              </button>{" "}
              <span class="muted small">{description}</span>
            </li>
          ))}
        </ul>
      )}
      <label class="hidden" for="prompt">
        Prompt
      </label>
      <textarea
        id="prompt"
        rows={3}
        value={text}
        placeholder="Write to the agent"
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          submit(event);
        }}
      />
      <div class="row between">
        <span class="muted small wide-only">Enter sends, Shift+Enter starts a line.</span>
        <span class="muted small" role="status">
          {props.busy ? "The agent is at work…" : ""}
        </span>
        <div class="actions">
          {props.busy && (
            <button type="button" onClick={props.cancel}>
              Cancel
            </button>
          )}
          <button type="submit" class="primary" disabled={text.trim() === "" || task.running !== undefined}>
            Send
          </button>
        </div>
      </div>
    </form>
  );
}
