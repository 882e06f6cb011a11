import { useEffect, useRef, useState } from "preact/hooks";
import { go, useHttp } from "../parts/context.js";
import { Ask } from "../parts/dialog.js";
import { bytes, moment } from "../parts/figures.js";
import { useLoaded, useTask } from "../parts/loading.js";
import { Empty, Page, ProblemNote } from "../parts/page.js";
import { fragmentOf, type Place, queryOf } from "../wire/place.js";
import { Problem } from "../wire/problem.js";
import { FileView } from "./file-view.js";
import { crumbs, join, nameOf, parentOf } from "./paths.js";
import { download, type Entry, has, type Listing, list, PAGE } from "./requests.js";

type Asked =
  | { what: "mkdir" }
  | { what: "move"; entry: Entry }
  | { what: "delete"; entry: Entry }
  | { what: "overwrite"; file: File; path: string; rest: File[] };

export function Files({ place }: { place: Extract<Place, { page: "files" }> }) {
  const http = useHttp();
  const first = useLoaded((signal) => list(http, place.path, undefined, signal), place.path ?? "");
  const [further, setFurther] = useState<Listing[]>([]);
  const [shown, setShown] = useState(PAGE);
  const [asked, setAsked] = useState<Asked>();
  const [over, setOver] = useState(false);
  const task = useTask();
  const picker = useRef<HTMLInputElement>(null);

  // Further pages belong to the first: a new first one starts over.
  // biome-ignore lint/correctness/useExhaustiveDependencies: see above.
  useEffect(() => {
    setFurther([]);
    setShown(PAGE);
  }, [first.value]);

  const pages = first.value === undefined ? [] : [first.value, ...further];
  const loaded = pages.flatMap((page) => page.entries);
  const entries = [...loaded].sort(byKindAndName);
  const more = pages.at(-1)?.more === true || entries.length > shown;
  const directory = place.path ?? (loaded[0] && parentOf(loaded[0].path));
  const up = directory === undefined ? undefined : parentOf(directory);

  const showMore = () =>
    task.run("more", async () => {
      const last = pages.at(-1);
      if (entries.length <= shown && last?.more) {
        const next = await list(http, place.path, last.entries.at(-1)?.name);
        const known = new Set(loaded.map((entry) => entry.name));
        const fresh = next.entries.filter((entry) => !known.has(entry.name));
        // A server that knows no pages sends the same again.
        setFurther([...further, { entries: fresh, more: next.more && fresh.length > 0 }]);
      }
      setShown(shown + PAGE);
    });

  const upload = (files: File[]) =>
    task.run("upload", async () => {
      for (const [n, file] of files.entries()) {
        const path = join(directory, file.name);
        if (await has(http, place.path, file.name)) {
          setAsked({ what: "overwrite", file, path, rest: files.slice(n + 1) });
          break;
        }
        await put(file, path);
      }
      first.reload();
    });
  const put = (file: File, path: string) =>
    http.json<void>("PUT", "/v1/fs/file", {
      query: { path },
      bytes: file,
      headers: { "content-type": "application/octet-stream" },
    });

  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const items = [...(event.dataTransfer?.items ?? [])];
    const folders = items.some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    const files = [...(event.dataTransfer?.files ?? [])];
    void task.run("upload", async () => {
      if (folders) throw new Problem(0, "No folders", "Drop files; a folder can be made here first.");
      await upload(files);
    });
  };

  const act = async (text: string) => {
    if (asked?.what === "mkdir") {
      await http.json("POST", "/v1/fs/mkdir", { query: { path: text.startsWith("/") ? text : join(directory, text) } });
    } else if (asked?.what === "move") {
      const to = text.startsWith("/") ? text : join(directory, text);
      await http.json("POST", "/v1/fs/move", { body: { from: asked.entry.path, to } });
      if (place.file === asked.entry.path) go({ ...place, file: to }, "replace");
    } else if (asked?.what === "delete") {
      const { path, entryType } = asked.entry;
      const recursive = entryType === "directory" ? true : undefined;
      await http.json("DELETE", "/v1/fs/entry", { query: { path, recursive } });
      if (place.file === path) closeFile();
    } else if (asked?.what === "overwrite") {
      await put(asked.file, asked.path);
      if (asked.rest.length > 0) void upload(asked.rest);
    }
    first.reload();
  };
  const closeFile = () => {
    const { file: _, ...rest } = place;
    go(rest, "replace");
  };

  return (
    <Page
      title="Files"
      endpoint={`GET /v1/fs/entries${queryOf({ path: place.path })}`}
      actions={
        <>
          <button type="button" onClick={() => setAsked({ what: "mkdir" })}>
            New folder
          </button>
          <button
            type="button"
            class="primary"
            disabled={task.running === "upload"}
            onClick={() => picker.current?.click()}
          >
            {task.running === "upload" ? "Uploading…" : "Upload"}
          </button>
          <input
            ref={picker}
            type="file"
            multiple
            class="hidden"
            aria-label="Files to upload"
            tabIndex={-1}
            onChange={(event) => {
              const files = [...(event.currentTarget.files ?? [])];
              event.currentTarget.value = "";
              void upload(files);
            }}
          />
          <button type="button" onClick={first.reload}>
            Refresh
          </button>
        </>
      }
    >
      <PathBar path={directory} />
      <ProblemNote problem={task.problem} dismiss={task.dismiss} />
      <ProblemNote problem={first.problem} />
      <div class={place.file === undefined ? "split one" : "split"}>
        <section
          class={`card flush drop ${over ? "over" : ""} ${place.file === undefined ? "" : "tight"}`}
          aria-label="Directory"
          onDragOver={(event) => {
            event.preventDefault();
            setOver(true);
          }}
          onDragLeave={() => setOver(false)}
          onDrop={drop}
        >
          <table class="list">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col" class="number">
                  Size
                </th>
                <th scope="col" class="wide-only">
                  Modified
                </th>
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {up !== undefined && (
                <tr>
                  <td colSpan={4}>
                    <a class="name" href={fragmentOf({ page: "files", path: up })}>
                      <Glyph kind="directory" />
                      ..<span class="hidden"> (parent directory)</span>
                    </a>
                  </td>
                </tr>
              )}
              {entries.slice(0, shown).map((entry) => (
                <Row key={entry.name} entry={entry} place={place} directory={directory} ask={setAsked} save={save} />
              ))}
            </tbody>
          </table>
          {first.value === undefined && first.problem === undefined && <Empty>Loading…</Empty>}
          {first.value !== undefined && entries.length === 0 && <Empty>Nothing here. Drop files to upload them.</Empty>}
          {more && (
            <div class="more">
              <button type="button" disabled={task.running === "more"} onClick={showMore}>
                Show more
              </button>
              <span class="muted">{Math.min(shown, entries.length).toLocaleString()} shown</span>
            </div>
          )}
        </section>
        {place.file !== undefined && (
          <FileView key={place.file} path={place.file} close={closeFile} save={(path) => save(path, nameOf(path))} />
        )}
      </div>
      {asked !== undefined && <Question asked={asked} act={act} close={() => setAsked(undefined)} />}
    </Page>
  );

  function save(path: string, name: string): void {
    void task.run("download", () => download(http, path, name));
  }
}

function Question({ asked, act, close }: { asked: Asked; act: (text: string) => Promise<void>; close: () => void }) {
  switch (asked.what) {
    case "mkdir":
      return <Ask title="New folder" label="Name or path" initial="" verb="Create" act={act} close={close} />;
    case "move":
      return (
        <Ask title="Rename or move" label="New path" initial={asked.entry.path} verb="Move" act={act} close={close} />
      );
    case "delete": {
      const folder = asked.entry.entryType === "directory";
      const text = `${asked.entry.path} ${folder ? "and everything in it " : ""}will be gone. This cannot be undone.`;
      const title = `Delete ${folder ? "folder" : "file"}?`;
      return <Ask title={title} text={text} verb="Delete" danger act={act} close={close} />;
    }
    case "overwrite": {
      const text = `${asked.path} exists. Its content will be replaced.`;
      return <Ask title="Replace file?" text={text} verb="Replace" danger act={act} close={close} />;
    }
  }
}

function Row(props: {
  entry: Entry;
  place: Extract<Place, { page: "files" }>;
  directory: string | undefined;
  ask: (asked: Asked) => void;
  save: (path: string, name: string) => void;
}) {
  const { entry, place, directory } = props;
  const folder = entry.entryType === "directory";
  const inside = directory === undefined ? {} : { path: directory };
  const link = folder
    ? fragmentOf({ page: "files", path: entry.path })
    : fragmentOf({ page: "files", ...inside, file: entry.path });
  return (
    <tr class={place.file === entry.path ? "chosen" : undefined}>
      <td>
        <a class="name" href={link} aria-current={place.file === entry.path ? "true" : undefined}>
          <Glyph kind={entry.entryType} />
          <span class="cut">{entry.name}</span>
        </a>
      </td>
      <td class="number">{folder ? "" : bytes(entry.size)}</td>
      <td class="wide-only muted">
        {entry.modified !== undefined && <time dateTime={entry.modified}>{moment(entry.modified)}</time>}
      </td>
      <td class="row-actions">
        {!folder && (
          <button
            type="button"
            class="quiet wide-only"
            aria-label={`Download ${entry.name}`}
            onClick={() => props.save(entry.path, entry.name)}
          >
            Download
          </button>
        )}
        <button
          type="button"
          class="quiet"
          aria-label={`Rename ${entry.name}`}
          onClick={() => props.ask({ what: "move", entry })}
        >
          Rename
        </button>
        <button
          type="button"
          class="quiet danger"
          aria-label={`Delete ${entry.name}`}
          onClick={() => props.ask({ what: "delete", entry })}
        >
          Delete
        </button>
      </td>
    </tr>
  );
}

/** Where we are, as links; and any other place, by typing it. */
function PathBar({ path }: { path: string | undefined }) {
  const [typed, setTyped] = useState<string>();
  const submit = (event: Event) => {
    event.preventDefault();
    const to = typed?.trim();
    if (to) go({ page: "files", path: to });
    setTyped(undefined);
  };
  if (typed !== undefined) {
    return (
      <form class="path-bar" onSubmit={submit}>
        <input
          class="mono grow"
          aria-label="Path"
          value={typed}
          onInput={(event) => setTyped(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") setTyped(undefined);
          }}
          spellcheck={false}
          autocomplete="off"
          // biome-ignore lint/a11y/noAutofocus: the button that opened it asked for it.
          autoFocus
        />
        <button type="submit">Go</button>
      </form>
    );
  }
  return (
    <nav class="path-bar" aria-label="Path">
      <ol class="crumbs">
        {crumbs(path ?? "/").map((crumb) => (
          <li key={crumb.path}>
            <a
              href={fragmentOf({ page: "files", path: crumb.path })}
              aria-current={crumb.path === path ? "page" : undefined}
            >
              {crumb.name}
            </a>
          </li>
        ))}
      </ol>
      <a class="button quiet" href={fragmentOf({ page: "files" })}>
        Home
      </a>
      <button type="button" class="quiet" onClick={() => setTyped(path ?? "/")}>
        Go to…
      </button>
    </nav>
  );
}

function Glyph({ kind }: { kind: Entry["entryType"] }) {
  return (
    <svg class="glyph" viewBox="0 0 16 16" aria-hidden="true">
      {kind === "directory" ? (
        <path d="M1.5 3.5h4.2l1.6 1.8h7.2v7.7h-13z" />
      ) : (
        <path d="M3.5 1.5h6l3 3v10h-9z M9.5 1.5v3h3" class="outline" />
      )}
    </svg>
  );
}

function byKindAndName(a: Entry, b: Entry): number {
  if (a.entryType !== b.entryType) return a.entryType === "directory" ? -1 : 1;
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}
