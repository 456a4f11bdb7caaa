// Requests of albums and share links.
import { api } from "../../api/client.js";

const PAGE = 100;

// Every entry of a list with cursor pages.
export async function loadAll(path, query, signal) {
  const items = [];
  for (;;) {
    const page = await api.get(path, { ...query, limit: PAGE, after: items.at(-1)?.id }, { signal });
    items.push(...page.data);
    if (!page.has_more) return items;
  }
}

export const loadAlbums = (query, signal) => loadAll("/v1/albums", query, signal);
