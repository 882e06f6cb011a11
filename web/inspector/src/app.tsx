import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Agents } from "./agents/agents.js";
import { Files } from "./files/files.js";
import { HttpProvider } from "./parts/context.js";
import { Processes } from "./processes/processes.js";
import { Sessions } from "./sessions/sessions.js";
import { SignIn } from "./sign-in.js";
import type { Access, Keep } from "./wire/access.js";
import { Http } from "./wire/http.js";
import { fragmentOf, type PageName, type Place, placeOf } from "./wire/place.js";

const PAGES: { name: PageName; title: string }[] = [
  { name: "sessions", title: "Sessions" },
  { name: "files", title: "Files" },
  { name: "processes", title: "Processes" },
  { name: "agents", title: "Agents" },
];

export function App({ root, keep }: { root: URL; keep: Keep }) {
  const [access, setAccess] = useState<Access>(() => keep.read() ?? { headers: {} });
  const [refused, setRefused] = useState(false);
  const http = useMemo(() => new Http(root, access, () => setRefused(true)), [root, access]);
  const place = usePlace();

  const signIn = (token: string) => {
    const next = { ...access, token };
    keep.write(next);
    setAccess(next);
    setRefused(false);
  };
  const signOut = () => {
    keep.write(undefined);
    setAccess({ headers: {} });
    setRefused(true);
  };

  if (refused) return <SignIn root={root} wrong={access.token !== undefined} enter={signIn} />;
  return (
    <HttpProvider value={http}>
      <header class="top">
        <a class="skip" href={fragmentOf(place)} onClick={skip}>
          Skip to content
        </a>
        <span class="brand">
          <span aria-hidden="true" class="mark" />
          Sandbox agent
        </span>
        <nav aria-label="Pages">
          {PAGES.map(({ name, title }) => (
            <a key={name} href={fragmentOf({ page: name })} aria-current={place.page === name ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        {access.token !== undefined && (
          <button type="button" class="quiet" onClick={signOut}>
            Sign out
          </button>
        )}
      </header>
      <Shown place={place} />
    </HttpProvider>
  );
}

function Shown({ place }: { place: Place }) {
  switch (place.page) {
    case "sessions":
      return <Sessions place={place} />;
    case "files":
      return <Files place={place} />;
    case "processes":
      return <Processes place={place} />;
    case "agents":
      return <Agents />;
  }
}

function usePlace(): Place {
  const [place, setPlace] = useState(() => placeOf(location.hash));
  const page = useRef(place.page);
  useEffect(() => {
    const read = () => setPlace(placeOf(location.hash));
    addEventListener("hashchange", read);
    // It may have changed since the first drawing.
    read();
    return () => removeEventListener("hashchange", read);
  }, []);
  useEffect(() => {
    document.title = `${PAGES.find(({ name }) => name === place.page)?.title} · Sandbox agent`;
    // Whoever reads with a screen reader is told of the new page.
    if (page.current !== place.page) document.getElementById("main")?.focus({ preventScroll: true });
    page.current = place.page;
  }, [place.page]);
  return place;
}

function skip(event: Event): void {
  // The fragment is the page's state, so the target is focused by hand.
  event.preventDefault();
  document.getElementById("main")?.focus();
}
