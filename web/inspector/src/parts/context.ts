import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Http } from "../wire/http.js";
import { fragmentOf, type Place } from "../wire/place.js";

const HttpContext = createContext<Http | undefined>(undefined);

export const HttpProvider = HttpContext.Provider;

export function useHttp(): Http {
  const http = useContext(HttpContext);
  if (http === undefined) throw new Error("no server to talk to");
  return http;
}

/** Shows another place. `replace` leaves no step to go back to. */
export function go(place: Place, how: "push" | "replace" = "push"): void {
  const fragment = fragmentOf(place);
  if (how === "replace") location.replace(fragment);
  else location.hash = fragment;
}
