// A loopback stand-in for the model APIs: streams a greeting, and remembers which key it was given.
import { createServer } from "node:http";

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const words = ["Hello", " from", " the", " model", "."];

function* openai() {
  for (const content of words) {
    const choices = [{ index: 0, delta: { content }, finish_reason: null }];
    yield `data: ${JSON.stringify({ id: "c1", object: "chat.completion.chunk", created: 1, model: "stand-in", choices })}\n\n`;
  }
  yield "data: [DONE]\n\n";
}

function* anthropic() {
  const event = (type, rest) => `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;
  const usage = { input_tokens: 1, output_tokens: 1 };
  const message = { id: "m1", type: "message", role: "assistant", model: "stand-in", content: [], stop_reason: null, stop_sequence: null, usage };
  yield event("message_start", { message });
  yield event("content_block_start", { index: 0, content_block: { type: "text", text: "" } });
  for (const text of words) yield event("content_block_delta", { index: 0, delta: { type: "text_delta", text } });
  yield event("content_block_stop", { index: 0 });
  yield event("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 5 } });
  yield event("message_stop", {});
}

/** Starts the stand-in; gives its URL and what it saw. */
export async function startModel() {
  const seen = [];
  const server = createServer(async (request, response) => {
    for await (const _ of request);
    seen.push({ path: request.url, key: request.headers.authorization ?? request.headers["x-api-key"] });
    const pieces = request.url.startsWith("/v1/messages") ? anthropic() : openai();
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const piece of pieces) {
      response.write(piece);
      await sleep(15);
    }
    response.end();
  });
  await new Promise((up) => server.listen(0, "127.0.0.1", up));
  return { url: `http://127.0.0.1:${server.address().port}`, seen, close: () => server.close() };
}
