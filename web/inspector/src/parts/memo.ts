import { Component, type ComponentChild, h } from "preact";

/** A component that is drawn again only when one of its properties is another. (The library's own is in `compat`.) */
export function memo<P extends object>(draw: (props: P) => ComponentChild) {
  // biome-ignore lint/correctness/noComponentHookFactories: made once for each component, at its definition.
  class Memo extends Component<P> {
    override shouldComponentUpdate(next: P): boolean {
      const now = this.props as Record<string, unknown>;
      return Object.entries(next).some(([name, value]) => now[name] !== value);
    }
    override render(props: P): ComponentChild {
      return draw(props);
    }
  }
  return (props: P) => h(Memo, props as never);
}
