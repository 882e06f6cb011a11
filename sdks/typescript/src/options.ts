import { set } from "./http.js";
import type { ExecOptions } from "./types.js";

interface Limits extends ExecOptions {
  timeoutSecs?: number;
  memoryMb?: number;
}

/** The options that every way of running shares, under their wire names. */
export function execOptions(params: Limits): Record<string, unknown> {
  return set({
    timeout_secs: params.timeoutSecs,
    memory_mb: params.memoryMb,
    network: params.network,
    seccomp: params.seccomp,
    cpu_percent: params.cpuPercent,
    max_pids: params.maxPids,
    flavors: params.flavors,
    image: params.image,
  });
}
