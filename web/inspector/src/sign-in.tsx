import { useState } from "preact/hooks";
import { Endpoint } from "./parts/page.js";

/** Asks for the token, after the server has refused a request without one, or with a wrong one. */
export function SignIn({ root, wrong, enter }: { root: URL; wrong: boolean; enter: (token: string) => void }) {
  const [token, setToken] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    const given = token.trim();
    if (given !== "") enter(given);
  };
  return (
    <main class="sign-in">
      <form class="card stack" onSubmit={submit}>
        <span class="brand">
          <span aria-hidden="true" class="mark" />
          Sandbox agent
        </span>
        <h1>Sign in</h1>
        <p class="muted">
          This server wants the token that it was started with. It is kept in this tab and sent to this server only.
        </p>
        {wrong && (
          <p class="problem" role="alert">
            The server does not take this token.
          </p>
        )}
        <label class="field">
          <span>Token</span>
          <input
            type="password"
            class="mono"
            value={token}
            onInput={(event) => setToken(event.currentTarget.value)}
            autocomplete="off"
            spellcheck={false}
            required
            // biome-ignore lint/a11y/noAutofocus: the page is this one field.
            autoFocus
          />
        </label>
        <button type="submit" class="primary">
          Sign in
        </button>
        <Endpoint text={root.href} />
      </form>
    </main>
  );
}
