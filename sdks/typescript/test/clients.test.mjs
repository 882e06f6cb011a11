// The official clients of the four services, unchanged, with a session's environment: each reaches its
// upstream through the phantom proxy, with the real key, and never sees it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { Octokit } from "@octokit/rest";
import OpenAI from "openai";
import Stripe from "stripe";
import { startModel } from "../../../demo/model.mjs";
import { startServer } from "./server.mjs";

const services = ["openai", "anthropic", "github", "stripe"];
const keyOf = (service) => `real-key-of-${service}`;
let model, aj, stop, session;

before(async () => {
  model = await startModel();
  ({ aj, stop } = await startServer({ flags: services.flatMap((service) => ["--upstream", `${service}=${model.url}`]) }));
  for (const service of services) await aj.credentials.put({ service, secret: keyOf(service) });
  session = await aj.sessions.create({ services, scopes: { github: ["/repos/my-org/*/issues*"] } });
});

after(async () => {
  await stop();
  model.close();
});

test("openai streams a chat completion", async () => {
  const { OPENAI_API_KEY: apiKey, OPENAI_BASE_URL: baseURL } = session.env;
  const client = new OpenAI({ apiKey, baseURL });
  const messages = [{ role: "user", content: "hello" }];
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model: "m", stream: true, messages })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, "Hello from the model.");
  assert.deepEqual(model.seen.at(-1), { path: "/v1/chat/completions", key: `Bearer ${keyOf("openai")}` });
});

test("@anthropic-ai/sdk streams a message", async () => {
  const { ANTHROPIC_API_KEY: apiKey, ANTHROPIC_BASE_URL: baseURL } = session.env;
  const client = new Anthropic({ apiKey, baseURL });
  const messages = [{ role: "user", content: "hello" }];
  const message = await client.messages.stream({ model: "m", max_tokens: 9, messages }).finalMessage();
  assert.equal(message.content[0].text, "Hello from the model.");
  assert.deepEqual(model.seen.at(-1), { path: "/v1/messages", key: keyOf("anthropic") });
});

test("octokit works within its scope, and is told 403 outside", async () => {
  const { GITHUB_TOKEN: auth, GITHUB_API_URL: baseUrl } = session.env;
  const octokit = new Octokit({ auth, baseUrl, log: { debug() {}, info() {}, warn() {}, error() {} } });
  await octokit.issues.listForRepo({ owner: "my-org", repo: "app" });
  assert.deepEqual(model.seen.at(-1), { path: "/repos/my-org/app/issues", key: `Bearer ${keyOf("github")}` });
  const seen = model.seen.length;
  await assert.rejects(octokit.users.getAuthenticated(), { status: 403 });
  assert.equal(model.seen.length, seen);
});

test("stripe creates a charge", async () => {
  const { STRIPE_API_KEY: key, STRIPE_API_BASE: base } = session.env;
  const { hostname, port, protocol, pathname } = new URL(base);
  // Stripe's client takes host and port, and no path before its own: the proxy's prefix goes into each.
  const client = new Stripe(key, { host: hostname, port, protocol: protocol.slice(0, -1), maxNetworkRetries: 0 });
  const response = await client.rawRequest("POST", `${pathname}/v1/charges`, { amount: 100 }).catch((error) => error);
  assert.ok(response, "an answer");
  assert.deepEqual(model.seen.at(-1), { path: "/v1/charges", key: `Bearer ${keyOf("stripe")}` });
});

test("the audit has a row for each", async () => {
  const { rows } = await aj.audit.recent(20);
  for (const service of services) {
    assert.ok(rows.some((row) => row.service === service && row.session_id === session.id && row.status === 200), service);
  }
  assert.ok(!JSON.stringify(rows).includes("real-key"));
});
