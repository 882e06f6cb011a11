import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Problem } from "../wire/problem.js";

export interface Loaded<T> {
  value: T | undefined;
  problem: Problem | undefined;
  reload: () => void;
}

/**
 * Loads something now, again when `key` changes, and every `everyMs` while the page is visible (never, if 0). What
 * was loaded last stays while the next is on its way, and when it fails.
 */
export function useLoaded<T>(load: (signal: AbortSignal) => Promise<T>, key: string, everyMs = 0): Loaded<T> {
  const [state, setState] = useState<{ key: string; value: T | undefined; problem: Problem | undefined }>();
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  const reload = useCallback(() => setTurn((n) => n + 1), []);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `turn` asks for it once more.
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const step = async () => {
      clearTimeout(timer);
      try {
        const value = await latest.current(stop.signal);
        if (stop.signal.aborted) return;
        setState({ key, value, problem: undefined });
      } catch (error) {
        if (stop.signal.aborted) return;
        setState((last) => ({ key, value: last?.key === key ? last.value : undefined, problem: Problem.from(error) }));
      }
      if (everyMs > 0 && !document.hidden) timer = setTimeout(step, everyMs);
    };
    const wake = () => {
      clearTimeout(timer);
      if (!document.hidden) void step();
    };
    void step();
    if (everyMs > 0) document.addEventListener("visibilitychange", wake);
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", wake);
    };
  }, [key, everyMs, turn]);

  const current = state?.key === key ? state : undefined;
  return { value: current?.value, problem: current?.problem, reload };
}

/** Something that a button starts: whether it is under way, and what it failed with. */
export function useTask() {
  const [running, setRunning] = useState<string>();
  const [problem, setProblem] = useState<Problem>();
  const run = useCallback(async (name: string, work: () => Promise<void>) => {
    setRunning(name);
    setProblem(undefined);
    try {
      await work();
    } catch (error) {
      setProblem(Problem.from(error));
    } finally {
      setRunning(undefined);
    }
  }, []);
  const dismiss = useCallback(() => setProblem(undefined), []);
  return { running, problem, run, dismiss };
}
