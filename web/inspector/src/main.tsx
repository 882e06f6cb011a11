import { render } from "preact";
import { App } from "./app.js";
import "./style.css";
import { accessOf, Keep } from "./wire/access.js";

// The page is served at `<root>/ui/`; all that it asks for is below `<root>/v1/`.
const root = new URL("../", location.href.replace(/[?#].*$/, ""));
const keep = new Keep(root);

/** Takes the token out of the address, before anybody can read it there. */
function takeAccess(): boolean {
  const { access, clean } = accessOf(new URL(location.href));
  if (access === undefined) return false;
  keep.write(access);
  history.replaceState(null, "", clean);
  return true;
}

takeAccess();
// A link with a token may be opened in a tab that already shows the page.
addEventListener("hashchange", () => {
  if (takeAccess()) location.reload();
});

const target = document.getElementById("app");
if (target !== null) render(<App root={root} keep={keep} />, target);
