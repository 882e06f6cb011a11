import { strict as assert } from "node:assert";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

import { SandboxAgent } from "sandbox-agent";
import { local } from "sandbox-agent/local";

import { binary, listen, scratch, text, until } from "../support.mjs";

const gone = async (url) => (await fetch(url).catch(() => null)) === null;

test("the local provider starts the program, uses it and ends it", async () => {
  binary();
  const dir = await scratch();
  try {
    const sandbox = local({ log: "silent", env: { HOME: dir.home, SANDBOX_AGENT_STATE_DIR: dir.state } });
    const client = await SandboxAgent.start({ sandbox });
    assert.match(client.sandboxId, /^local\/127\.0\.0\.1:\d+$/);
    assert.equal(client.sandbox, sandbox);
    assert.equal((await client.getHealth()).status, "ok");
    await client.writeFsFile({ path: "hello" }, "x");
    const result = await client.runProcess({ command: "cat", args: ["hello"], cwd: dir.home });
    assert.equal(result.stdout, "x");
    const session = await client.createSession({ agent: "mock", cwd: dir.work });
    const heard = listen(session);
    await session.prompt(text("hello"));
    await until("the answer", () => heard.text === "You said: hello");
    const second = await SandboxAgent.start({ sandbox, sandboxId: client.sandboxId });
    assert.equal(second.sandboxId, client.sandboxId);
    assert.equal((await second.runProcess({ command: "cat", args: ["hello"], cwd: dir.home })).stdout, "x");
    await second.dispose();
    const url = client.inspectorUrl;
    await client.destroySandbox();
    await until("the server's end", () => gone(url));
  } finally {
    await dir.remove();
  }
});

for (const call of ["pauseSandbox", "killSandbox"]) {
  test(`the local provider's server ends with ${call}`, async () => {
    const dir = await scratch();
    try {
      const sandbox = local({
        host: "127.0.0.1",
        token: "mine",
        log: "silent",
        env: { HOME: dir.home, SANDBOX_AGENT_STATE_DIR: dir.state },
      });
      const client = await SandboxAgent.start({ sandbox });
      const { id } = await client.createProcess({ command: "sleep", args: ["60"] });
      assert.equal((await client.getProcess(id)).status, "running");
      const url = client.inspectorUrl;
      await client[call]();
      await until("the server's end", () => gone(url));
    } finally {
      await dir.remove();
    }
  });
}

test("the program installs agents as providers ask it to", async () => {
  const dir = await scratch();
  try {
    const install = (agent) =>
      promisify(execFile)(binary(), ["install-agent", agent], { env: { PATH: process.env.PATH, HOME: dir.home } });
    await install("mock");
    await assert.rejects(install("nobody"), (error) => error.code !== 0 && error.stderr.includes("nobody"));
  } finally {
    await dir.remove();
  }
});
