// A git server that says it is github.com: real repositories, git's own http-backend, TLS.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Starts one on an address; `repository` is made of what a script does in a work tree. */
export async function startGit(address, path, script) {
  const root = mkdtempSync(join(tmpdir(), "agentjail-git-"));
  const run = (command, args, cwd = root) => execFileSync(command, args, { cwd, stdio: ["ignore", "pipe", "ignore"] });
  const subject = ["-subj", "/CN=github.com", "-addext", "subjectAltName=DNS:github.com", "-addext", "basicConstraints=critical,CA:TRUE"];
  run("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key.pem", "-out", "ca.pem", ...subject]);
  const bare = join(root, path);
  const identity = "git config user.name tester; git config user.email tester@example.com";
  run("sh", ["-euc", `mkdir work; cd work; git init -q --initial-branch=main .; ${identity}\n${script}\ngit add -A; git commit -qm first; git clone -q --bare . '${bare}'`]);
  const server = createServer({ key: readFileSync(join(root, "key.pem")), cert: readFileSync(join(root, "ca.pem")) }, (request, response) => {
    const url = new URL(request.url, "https://github.com");
    const env = {
      PATH: process.env.PATH,
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: "1",
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: "safe.directory",
      GIT_CONFIG_VALUE_0: "*",
      REQUEST_METHOD: request.method,
      PATH_INFO: url.pathname,
      QUERY_STRING: url.search.slice(1),
      CONTENT_TYPE: request.headers["content-type"] ?? "",
      HTTP_CONTENT_ENCODING: request.headers["content-encoding"] ?? "",
      HTTP_GIT_PROTOCOL: request.headers["git-protocol"] ?? "",
    };
    const backend = spawn("git", ["http-backend"], { env, stdio: ["pipe", "pipe", "ignore"] });
    request.pipe(backend.stdin);
    const pieces = [];
    backend.stdout.on("data", (piece) => pieces.push(piece)).on("end", () => {
      const whole = Buffer.concat(pieces);
      const end = whole.indexOf("\r\n\r\n");
      for (const line of whole.subarray(0, end).toString().split("\r\n")) {
        const [name, value] = line.split(": ");
        if (name === "Status") response.statusCode = Number.parseInt(value, 10);
        else response.setHeader(name, value);
      }
      response.end(whole.subarray(end + 4));
    });
  });
  await new Promise((done) => server.listen(443, address, done));
  const stop = () => {
    server.close();
    rmSync(root, { recursive: true, force: true });
  };
  const flags = ["--egress-resolve", `github.com=${address}`, "--egress-allow-private", `${address}/32`, "--git-ca", join(root, "ca.pem")];
  return { flags, stop };
}

/** A Node project: one package of its own as a dependency, a test and a lint that fails until it is mended. */
export const PROJECT = `
mkdir -p packages/greet .github
echo '{ "name": "app", "type": "module", "dependencies": { "greet": "file:./packages/greet" }, "scripts": { "lint": "node lint.mjs", "test": "node test.mjs" } }' > package.json
echo '{ "name": "greet", "version": "1.0.0", "type": "module", "main": "index.js" }' > packages/greet/package.json
echo 'export const greet = (name) => "hello " + name;' > packages/greet/index.js
echo 'import { existsSync } from "node:fs"; if (!existsSync("mended")) { console.error("not mended"); process.exit(1); } console.log("clean");' > lint.mjs
echo 'import { greet } from "greet"; console.log(greet("world"));' > test.mjs
`;
