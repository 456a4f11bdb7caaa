// Long lists with cursor pagination: the next page loads near the end of the list, and the job feed updates the items.
import { useEffect, useRef, useState } from "../ui/preact.js";
import { api } from "./client.js";
import { useJobEvents } from "./jobs.js";

const INITIAL = { items: [], lastId: null, hasMore: true, loading: true, error: null };

// Jobs of `path?query`, newest first: { items, loading, error, loadMore(), reload() }. `matches(job)` = the job belongs to the list.
export function useJobPages(path, query, matches) {
  const key = JSON.stringify([path, query]);
  const [state, setState] = useState({ ...INITIAL, key });
  const [reloadCount, setReloadCount] = useState(0);
  const latestRequest = useRef("");
  const latest = useRef(state);
  latest.current = state;

  async function load(after) {
    latestRequest.current = `${key}#${reloadCount}#${after ?? ""}`;
    const request = latestRequest.current;
    setState((before) => ({ ...(after ? before : { ...INITIAL, key, items: before.key === key ? before.items : [] }), loading: true, error: null }));
    try {
      const page = await api.get(path, { ...query, after });
      if (latestRequest.current !== request) return;
      setState((before) => {
        const seen = new Set(after ? before.items.map((item) => item.id) : []);
        const items = after ? [...before.items, ...page.data.filter((item) => !seen.has(item.id))] : page.data;
        return { key, items, lastId: page.last_id ?? after, hasMore: page.has_more, loading: false, error: null };
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

  useJobEvents(({ job, deletedId, reset }) => {
    if (reset) setReloadCount((before) => before + 1);
    else setState((before) => ({ ...before, items: mergeJob(before, job, deletedId, matches) }));
  });

  return {
    ...state,
    loadMore: () => latest.current.hasMore && !latest.current.loading && !latest.current.error && load(latest.current.lastId),
    reload: () => setReloadCount((before) => before + 1),
  };
}

function mergeJob({ items, hasMore }, job, deletedId, matches) {
  if (deletedId) return items.filter((item) => item.id !== deletedId);
  const known = items.findIndex((item) => item.id === job.id);
  if (known >= 0) return matches(job) ? items.with(known, job) : items.toSpliced(known, 1);
  if (!matches(job)) return items;
  // Ids sort by time. A job older than the last loaded page comes with its own page.
  const index = items.findIndex((item) => item.id < job.id);
  if (index < 0) return hasMore ? items : [...items, job];
  return items.toSpliced(index, 0, job);
}

// A ref for the element at the end of a list: `loadMore` is called when it comes near the screen.
export function useInfiniteScroll(loadMore) {
  const end = useRef(null);
  const latest = useRef(loadMore);
  latest.current = loadMore;
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && latest.current(), { rootMargin: "800px" });
    observer.observe(end.current);
    return () => observer.disconnect();
  }, []);
  // If the list does not fill the screen, load the next page at once.
  useEffect(() => {
    if (end.current.getBoundingClientRect().top < innerHeight + 800) latest.current();
  });
  return end;
}
