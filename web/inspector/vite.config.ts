import { defineConfig } from "vitest/config";

/** The server that `vite` shows the page of while it is being worked on. */
const agent = process.env.AGENT_URL ?? "http://127.0.0.1:2468";

export default defineConfig({
  // The page does not know below which prefix it is served.
  base: "./",
  build: {
    target: "es2022",
    sourcemap: false,
    // Nothing inline: the page runs under `script-src 'self'`.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: { "/v1": { target: agent, ws: true } },
  },
  test: {
    include: ["test/**/*.test.ts"],
  },
});
