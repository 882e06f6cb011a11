/** A server for tools, on standard streams: one tool. Writes its process id to the file that is its argument. */

import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

writeFileSync(process.argv[2], String(process.pid));

const tool = {
  name: "tell_the_number",
  description: "Tells the number",
  inputSchema: { type: "object", properties: {} },
};

function answer(method, params) {
  switch (method) {
    case "initialize":
      return {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: {} },
        serverInfo: { name: "number", version: "1.0.0" },
      };
    case "tools/list":
      return { tools: [tool] };
    case "tools/call":
      return { content: [{ type: "text", text: "the number is 42" }] };
    case "ping":
      return {};
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) continue;
  const result = answer(method, params);
  const outcome = result ? { result } : { error: { code: -32601, message: `no ${method} here` } };
  process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", id, ...outcome })}\n`);
}
