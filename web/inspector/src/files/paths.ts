/** A path's last part. */
export function nameOf(path: string): string {
  return path.replace(/\/+$/, "").split("/").pop() || "/";
}

/** The directory that holds a path; undefined for the root and for what is relative to the home directory. */
export function parentOf(path: string): string | undefined {
  const whole = path.replace(/\/+$/, "");
  const slash = whole.lastIndexOf("/");
  if (slash === -1 || whole === "") return undefined;
  return slash === 0 ? "/" : whole.slice(0, slash);
}

/** A name in a directory; without one it is relative to the home directory, as the server takes it. */
export function join(directory: string | undefined, name: string): string {
  return directory === undefined ? name : `${directory.replace(/\/+$/, "")}/${name}`;
}

/** The directories from the root down to a path, each with its own. */
export function crumbs(path: string): { name: string; path: string }[] {
  const list = [{ name: "/", path: "/" }];
  let at = "";
  for (const name of path.split("/").filter(Boolean)) {
    at += `/${name}`;
    list.push({ name, path: at });
  }
  return list;
}
