// Long lists with cursor pagination: the next page loads near the end of the list, and the job feed updates the items.
import { useEffect, useRef, useState } from "../ui/preact.js";
import { api } from "./client.js";
import { useJobEvents } from "./jobs.js";

const INITIAL = { items: [], next: null, hasMore: true, loading: true, error: null };

const MOST_REFRESHED = 100;

// A page for `usePages`, of a response whose next page begins after its last object.
export const pageOf = ({ data, has_more: hasMore }) => ({ items: data, next: data.at(-1)?.id ?? null, hasMore });

// A list that is loaded page by page: [state, setState, { latest, loadMore(), reload() }] with state = { items, next, hasMore, loading, error }.
// `loadPage(after)` returns { items, next, hasMore }; `next` = the `after` of the next page. Another `key` begins an empty list.
export function usePages(key, loadPage) {
  const [state, setState] = useState({ ...INITIAL, key });
  const [reloadCount, setReloadCount] = useState(0);
  const latestRequest = useRef("");
  const latest = useRef(state);
  latest.current = state;

  async function load(after) {
    const request = `${key}#${reloadCount}#${after ?? ""}`;
    latestRequest.current = request;
    setState((before) => ({ ...(after ? before : { ...INITIAL, key, items: before.key === key ? before.items : [] }), loading: true, error: null }));
    try {
      const page = await loadPage(after);
      if (latestRequest.current !== request) return;
      setState((before) => {
        const loaded = new Set(after ? before.items.map((item) => item.id) : []);
        const items = after ? [...before.items, ...page.items.filter((item) => !loaded.has(item.id))] : page.items;
        return { ...page, key, items, loading: false, error: null };
      });
    } catch (error) {
      if (latestRequest.current === request) setState((before) => ({ ...before, loading: false, error }));
    }
  }

  useEffect(() => {
    load(null);
    return () => {
      latestRequest.current = "";
    };
  }, [key, reloadCount]);

  return [state, setState, {
    latest,
    loadMore: () => latest.current.hasMore && !latest.current.loading && !latest.current.error && load(latest.current.next),
    reload: () => setReloadCount((before) => before + 1),
  }];
}

// Jobs of `path?query`, newest first: { items, loading, error, loadMore(), reload(), update(job) }. `matches(job)` = the job belongs
// to the list. The feed updates one's own jobs; with `refreshSeconds` the newest jobs are loaded again at this interval.
export function useJobPages(path, query, matches, { refreshSeconds = 0 } = {}) {
  const key = JSON.stringify([path, query]);
  const [state, setState, { latest, loadMore, reload }] = usePages(key, async (after) => pageOf(await api.get(path, { ...query, after })));

  useJobEvents(({ job, deletedId, reset }) => {
    if (reset) reload();
    else setState((before) => ({ ...before, items: mergeJob(before, job, deletedId, matches) }));
  });

  useEffect(() => {
    if (!refreshSeconds) return undefined;
    let stopped = false;
    const refresh = async () => {
      const { items, loading, error } = latest.current;
      if (document.hidden || loading || error) return;
      // Without a connection the rows stay as they are; the shell shows it.
      const page = await api.get(path, { ...query, limit: Math.min(Math.max(query.limit, items.length), MOST_REFRESHED) }).catch(() => null);
      if (page && !stopped) setState((before) => withNewest(before, page));
    };
    const timer = setInterval(refresh, refreshSeconds * 1000);
    return () => {
      stopped = true;
      clearInterval(timer);
    };
  }, [key, refreshSeconds]);

  return {
    ...state,
    update: (job) => setState((before) => ({ ...before, items: mergeJob(before, job, null, matches) })),
    loadMore,
    reload,
  };
}

// The list with its newest jobs replaced by those of a page.
function withNewest(state, page) {
  const oldest = page.data.at(-1)?.id;
  const older = page.has_more ? state.items.filter((item) => item.id < oldest) : [];
  const known = new Map(state.items.map((item) => [item.id, item]));
  const newest = page.data.map((item) => (JSON.stringify(known.get(item.id)) === JSON.stringify(item) ? known.get(item.id) : item));
  const end = older.length ? { next: state.next, hasMore: state.hasMore } : { next: oldest ?? null, hasMore: page.has_more };
  return { ...state, ...end, items: [...newest, ...older] };
}

function mergeJob({ items, hasMore }, job, deletedId, matches) {
  if (deletedId) return items.filter((item) => item.id !== deletedId);
  const known = items.findIndex((item) => item.id === job.id);
  if (known >= 0) {
    // What only administrators get (such as the user) stays.
    const merged = { ...items[known], ...job };
    return matches(merged) ? items.with(known, merged) : items.toSpliced(known, 1);
  }
  if (!matches(job)) return items;
  // Ids sort by time. A job older than the last loaded page comes with its own page.
  const index = items.findIndex((item) => item.id < job.id);
  if (index < 0) return hasMore ? items : [...items, job];
  return items.toSpliced(index, 0, job);
}

// Rows that a list adds in one frame: those of a whole page at once would hold up scrolling, and the first rows of the screen.
const DRAWN_AT_ONCE = 12;

// A long list on the screen: [drawn, end]. `drawn` = its first items, more with each frame; `end` = the ref of the element behind them.
// When that comes near the screen, the next page is loaded.
export function useLongList({ items, loading, loadMore }) {
  const [end, setEnd] = useState(null);
  const [count, setCount] = useState(DRAWN_AT_ONCE);
  const latest = useRef(loadMore);
  latest.current = loadMore;
  const isDrawn = count >= items.length;
  useEffect(() => {
    if (isDrawn) return undefined;
    const frame = requestAnimationFrame(() => setCount(count + DRAWN_AT_ONCE));
    return () => cancelAnimationFrame(frame);
  }, [count, isDrawn]);
  useEffect(() => {
    if (items.length < count) setCount(Math.max(items.length, DRAWN_AT_ONCE));
  }, [items.length]);
  useEffect(() => {
    if (!isDrawn || !end) return undefined;
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && latest.current(), { rootMargin: "800px" });
    // Reports at once whether the element is near: a page that does not fill the screen is followed by the next one.
    observer.observe(end);
    return () => observer.disconnect();
  }, [end, isDrawn, items.length, loading]);
  return [isDrawn ? items : items.slice(0, count), setEnd];
}
