/** Client for the agentjail control plane. Zero dependencies; needs a global `fetch`. */

export { Agentjail } from "./client.js";
export type { AgentjailConfig } from "./client.js";
export { AgentjailError } from "./error.js";
export type { AgentjailErrorCode } from "./error.js";
export type { RequestOptions } from "./http.js";
export type * from "./types.js";
