/**
 * The page in a browser, against a server that is running already, whichever it is:
 *
 *   AGENT_URL=http://127.0.0.1:2468 AGENT_TOKEN=… npm run test:browser
 *
 * CHROMIUM names the browser, SCREENSHOTS a directory for pictures.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const url = process.env.AGENT_URL;
const token = process.env.AGENT_TOKEN;
assert.ok(url && token, "AGENT_URL and AGENT_TOKEN say which server is tested");

const origin = new URL(url).origin;
const root = `${url.replace(/\/+$/, "")}/ui/`;
const unique = `inspector-${Date.now().toString(36)}`;
const directory = `/tmp/${unique}`;
const QUIET = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
];

let browser;
let page;
/** What must not happen on any page. */
const wrong = [];

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: QUIET });
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  page.on("console", (message) => {
    if (message.type() === "error" || message.text().includes("policy")) wrong.push(message.text());
  });
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (!["data:", "blob:"].includes(to.protocol) && to.origin !== origin) wrong.push(`request to ${to.href}`);
  });
});

after(async () => {
  await api("DELETE", `/v1/fs/entry?path=${directory}&recursive=true`).catch(() => undefined);
  await browser?.close();
});

/** Asks the server directly, to see what the page has done. */
async function api(method, path, body) {
  const response = await fetch(`${url.replace(/\/+$/, "")}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}` },
    ...(body === undefined ? {} : { body }),
  });
  return response.text();
}

async function picture(name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: width === 1280 ? 900 : 844 });
      await page.waitForTimeout(250);
      await page.screenshot({ path: `${folder}/${name}-${colorScheme}-${width}.png`, fullPage: true });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}

/** What goes wrong is said by the test in which it went wrong. */
function nothingWrong() {
  assert.deepEqual(wrong.splice(0), []);
}

/** Whether the page is wider than the window. */
async function fits(width) {
  await page.setViewportSize({ width, height: 844 });
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await page.setViewportSize({ width: 1280, height: 900 });
  assert.ok(over <= 0, `the page is ${over} px too wide at ${width} px`);
}

test("a server that wants a token asks for it", async () => {
  await page.goto(root);
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("does not take this token").waitFor();
  await picture("sign-in");
  // The browser itself reports each 401.
  assert.deepEqual(
    wrong.splice(0).filter((text) => !text.includes("401")),
    [],
  );
});

test("the fragment signs in and leaves the address", async () => {
  await page.goto(`${root}?x=1#token=${encodeURIComponent(token)}`);
  await page.getByRole("heading", { name: "Sessions", level: 1 }).waitFor();
  assert.ok(!page.url().includes(token), page.url());
  await page.reload();
  await page.getByRole("heading", { name: "Sessions", level: 1 }).waitFor();
  nothingWrong();
});

test("files are made, written, seen, renamed and deleted", async () => {
  await page.goto(`${root}#/files?path=/tmp`);
  await page.getByRole("button", { name: "New folder" }).click();
  await page.getByLabel("Name or path").fill(unique);
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByRole("link", { name: unique, exact: true }).first().click();
  await page.getByText("Nothing here").waitFor();

  const text = "Grüße <b>not bold</b>\nsecond line\n";
  const upload = page.getByLabel("Files to upload");
  await upload.setInputFiles({ name: "note <i>.txt", mimeType: "text/plain", buffer: Buffer.from(text) });
  await page.getByRole("link", { name: "note <i>.txt" }).click();
  const view = page.getByRole("region", { name: "File note <i>.txt" });
  assert.equal(await view.locator("pre").textContent(), text);
  assert.equal(await api("GET", `/v1/fs/file?path=${directory}/${encodeURIComponent("note <i>.txt")}`), text);
  await picture("files");
  await fits(390);

  const saved = page.waitForEvent("download");
  await view.getByRole("button", { name: "Download" }).click();
  const stream = await (await saved).createReadStream();
  let bytes = "";
  for await (const part of stream) bytes += part;
  assert.equal(bytes, text);

  // What exists is not overwritten without a question.
  await upload.setInputFiles({ name: "note <i>.txt", mimeType: "text/plain", buffer: Buffer.from("new") });
  await page.getByRole("button", { name: "Replace" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await view.getByRole("button", { name: "Refresh" }).click();
  await view.getByText("new", { exact: true }).waitFor();

  await upload.setInputFiles({ name: "data.bin", mimeType: "x/y", buffer: Buffer.from([0, 1, 2, 255]) });
  await page.getByRole("link", { name: "data.bin" }).click();
  await page.getByText("Not a text (4 B)").waitFor();

  await page.getByRole("button", { name: "Rename data.bin" }).click();
  await page.getByLabel("New path").fill("renamed.bin");
  await page.getByRole("button", { name: "Move" }).click();
  await page.getByRole("link", { name: "renamed.bin" }).waitFor();
  await page.getByRole("button", { name: "Delete renamed.bin" }).click();
  await page.getByText("cannot be undone").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Delete renamed.bin" }).click();
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("link", { name: "renamed.bin" }).waitFor({ state: "detached" });
  nothingWrong();
});

test("a large file is shown as far as it goes", async () => {
  await api("PUT", `/v1/fs/file?path=${directory}/large.txt`, "0123456789abcde\n".repeat(100_000));
  await page.goto(`${root}#/files?path=${directory}&file=${directory}/large.txt`);
  await page.getByText("The first 1.00 MiB of 1.53 MiB").waitFor();
  nothingWrong();
});

test("a failure shows its problem", async () => {
  await page.goto(`${root}#/files?path=/no/such/place`);
  await page.getByRole("alert").getByText("path not found").waitFor();
  // The browser itself reports each refusal.
  assert.deepEqual(
    wrong.splice(0).filter((text) => !text.includes("400")),
    [],
  );
});

test("a process is started, followed and ended", async () => {
  await page.goto(`${root}#/processes`);
  const command = page.getByLabel("Command", { exact: true });
  await command.fill("for i in 1 2 3; do echo line $i; sleep 0.2; done; echo '<b>oops</b>' >&2; sleep 60");
  await page.getByRole("button", { name: "Start" }).click();
  const lines = page.getByRole("log", { name: "Lines" });
  await lines.getByText("line 3").waitFor();
  await lines.getByText("<b>oops</b>").waitFor();
  await picture("process");
  await fits(390);
  await page.getByRole("button", { name: "Kill" }).click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  nothingWrong();
});

test("much output stays bounded", async () => {
  const command = page.getByLabel("Command", { exact: true });
  await command.fill("seq 1 20000");
  await page.getByRole("button", { name: "Start" }).click();
  const lines = page.getByRole("log", { name: "Lines" });
  await lines.getByText("20000", { exact: true }).waitFor();
  await page.getByText("earlier lines are not shown").waitFor();
  assert.ok((await lines.locator(".line").count()) <= 5_001);
  nothingWrong();
});

test("a terminal answers what is typed", async () => {
  const command = page.getByLabel("Command", { exact: true });
  await command.fill("sh");
  await page.getByLabel("Terminal", { exact: true }).first().check();
  await page.getByRole("button", { name: "Start" }).click();
  await page.getByText("connected", { exact: true }).waitFor();
  await page.locator(".screen").click();
  await page.keyboard.type("echo answer-$((40 + 2)); stty size\n");
  await page.locator(".xterm-rows").getByText("answer-42", { exact: true }).waitFor();
  // The terminal was told its size.
  const size = page.locator(".xterm-rows").getByText(/^\d+ \d+$/);
  await size.waitFor();
  assert.notEqual((await size.textContent()).trim(), "24 80");
  await picture("terminal");
  await page.locator(".screen").click();
  await page.keyboard.press("Shift+Escape");
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Type here");
  await page.keyboard.press("Enter");
  await page.keyboard.type("exit 3\n");
  await page.getByText("exited 3").first().waitFor();
  nothingWrong();
});

test("agents are listed", async () => {
  await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: "Agents" }).click();
  await page.getByRole("listitem", { name: "mock" }).getByText("installed").waitFor();
  await picture("agents");
  await fits(390);
  nothingWrong();
});

test("an agent is prompted and given permission", async () => {
  await page.goto(`${root}#/sessions?new=1`);
  await page.getByLabel("Agent").selectOption("mock");
  await page.getByLabel("Working directory").fill("/tmp");
  await page.getByRole("button", { name: "Start" }).click();
  const talk = page.getByRole("log", { name: "Conversation" });
  const prompt = page.getByRole("textbox", { name: "Prompt" });
  await prompt.fill("Hello <i>there</i>");
  await prompt.press("Enter");
  await talk.getByText("Hello <i>there</i>").first().waitFor();
  await talk.getByText("End of turn").waitFor();
  assert.ok((await talk.getByRole("article", { name: "Agent" }).first().textContent()).length > 0);

  const mode = page.getByRole("combobox", { name: "Mode", exact: true });
  const [chosen] = await mode.selectOption({ index: 1 });
  // Until the agent has agreed, the page shows what was.
  await page.waitForTimeout(600);
  assert.equal(await mode.inputValue(), chosen);

  await prompt.fill("Please ask for permission and make a plan");
  await prompt.press("Enter");
  const request = talk.getByRole("article", { name: "Permission request" });
  await request.waitFor();
  await picture("permission");
  await fits(390);
  await request.getByRole("button").first().click();
  await request.getByRole("button").first().waitFor({ state: "detached" });
  await talk.getByText("End of turn").nth(1).waitFor();

  const messages = page.getByRole("region", { name: "Messages" });
  await messages.getByText("session/request_permission").first().click();
  await page.getByRole("region", { name: "Message", exact: true }).getByText('"optionId"').waitFor();
  await picture("session");
  nothingWrong();
});

test("a reload brings the conversation back, once", async () => {
  const talk = page.getByRole("log", { name: "Conversation" });
  const before = await talk.getByRole("article", { name: "Agent" }).allTextContents();
  await page.reload();
  await talk.getByText("End of turn").nth(1).waitFor();
  await page.waitForTimeout(500);
  assert.deepEqual(await talk.getByRole("article", { name: "Agent" }).allTextContents(), before);
  assert.equal(await talk.getByText("End of turn").count(), 2);
  nothingWrong();
});

test("an agent is ended", async () => {
  await page.getByRole("button", { name: "End", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "End" }).click();
  await page.getByText("Open a session, or start one.").waitFor();
  nothingWrong();
});
