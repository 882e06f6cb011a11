/** Rows of all pages, fetched as they are asked for. */
export async function* pages<T>(
  pageSize: number | undefined,
  fetch: (limit: number, offset: number) => Promise<{ rows: T[]; total: number }>,
): AsyncGenerator<T, void, void> {
  const limit = pageSize ?? 100;
  for (let offset = 0; ; offset += limit) {
    const { rows, total } = await fetch(limit, offset);
    yield* rows;
    if (rows.length === 0 || offset + rows.length >= total) return;
  }
}
