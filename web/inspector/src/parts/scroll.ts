import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

/** Keeps a box at its end while it grows, unless the reader has scrolled away from it. */
export function useStickToEnd<T extends HTMLElement>(
  box: RefObject<T | null>,
  grown: unknown,
): { onScroll: () => void } {
  const sticks = useRef(true);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `grown` says when there is more.
  useLayoutEffect(() => {
    const element = box.current;
    if (element !== null && sticks.current) element.scrollTop = element.scrollHeight;
  }, [grown]);
  return {
    onScroll: () => {
      const element = box.current;
      if (element === null) return;
      sticks.current = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
    },
  };
}
