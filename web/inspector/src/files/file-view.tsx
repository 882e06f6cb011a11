import { useHttp } from "../parts/context.js";
import { bytes } from "../parts/figures.js";
import { useLoaded } from "../parts/loading.js";
import { Empty, Endpoint, ProblemNote } from "../parts/page.js";
import { queryOf } from "../wire/place.js";
import { nameOf } from "./paths.js";
import { read, VIEW_BYTES } from "./requests.js";

/** A file's text, or what there is instead. */
export function FileView(props: { path: string; close: () => void; save: (path: string) => void }) {
  const http = useHttp();
  const file = useLoaded((signal) => read(http, props.path, signal), props.path);
  const content = file.value;
  return (
    <section class="card flush viewer" aria-label={`File ${nameOf(props.path)}`}>
      <header class="pane-head">
        <div class="grow">
          <h2>{nameOf(props.path)}</h2>
          <Endpoint text={`GET /v1/fs/file${queryOf({ path: props.path })}`} />
        </div>
        <div class="actions">
          <button type="button" class="quiet" onClick={file.reload}>
            Refresh
          </button>
          <button type="button" class="quiet" onClick={() => props.save(props.path)}>
            Download
          </button>
          <button type="button" class="quiet" aria-label="Close file" onClick={props.close}>
            ×
          </button>
        </div>
      </header>
      <ProblemNote problem={file.problem} />
      {content === undefined && file.problem === undefined && <Empty>Loading…</Empty>}
      {content?.cut && content.text !== undefined && (
        <p class="note">
          The first {bytes(VIEW_BYTES)}
          {content.size !== undefined && ` of ${bytes(content.size)}`}. Download it to see the rest.
        </p>
      )}
      {content !== undefined && content.text === undefined && (
        <Empty>Not a text{content.size !== undefined && ` (${bytes(content.size)})`}. Download it to see it.</Empty>
      )}
      {content?.text === "" && <Empty>The file is empty.</Empty>}
      {content?.text !== undefined && content.text !== "" && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard.
        <pre class="file" tabIndex={0}>
          {content.text}
        </pre>
      )}
    </section>
  );
}
