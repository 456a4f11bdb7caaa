// Long lists: pages by cursor, the feed's news merged in, the next page as the end comes near.
import { html, useEffect, useRef, useState } from "./ui.js";
import { api } from "./api.js";
import { useJobNews } from "./jobs.js";
import { Icon } from "./parts.js";

const NOTHING = { items: [], last: null, more: true, loading: true, error: null };

// Jobs of `path?query`, newest first: { items, loading, error, more(), reload() }. `fits(job)` = it belongs on the list.
export function usePages(path, query, fits) {
  const key = JSON.stringify([path, query]);
  const [state, setState] = useState({ ...NOTHING, key });
  const [turn, setTurn] = useState(0);
  const asked = useRef("");
  const newest = useRef(state);
  newest.current = state;

  async function load(after) {
    asked.current = `${key}#${turn}#${after ?? ""}`;
    const mine = asked.current;
    setState((before) => ({ ...(after ? before : { ...NOTHING, key, items: before.key === key ? before.items : [] }), loading: true, error: null }));
    try {
      const page = await api.get(path, { ...query, after });
      if (asked.current !== mine) return;
      setState((before) => {
        const seen = new Set(after ? before.items.map((one) => one.id) : []);
        const items = after ? [...before.items, ...page.data.filter((one) => !seen.has(one.id))] : page.data;
        return { key, items, last: page.last_id ?? after, more: page.has_more, loading: false, error: null };
      });
    } catch (error) {
      if (asked.current === mine) setState((before) => ({ ...before, loading: false, error }));
    }
  }

  useEffect(() => {
    load(null);
    return () => {
      asked.current = "";
    };
  }, [key, turn]);

  useJobNews(({ job, gone, reset }) => {
    if (reset) setTurn((before) => before + 1);
    else setState((before) => ({ ...before, items: merged(before, job, gone, fits) }));
  });

  return {
    ...state,
    more: () => newest.current.more && !newest.current.loading && !newest.current.error && load(newest.current.last),
    reload: () => setTurn((before) => before + 1),
  };
}

function merged({ items, more }, job, gone, fits) {
  if (gone) return items.filter((one) => one.id !== gone);
  const at = items.findIndex((one) => one.id === job.id);
  if (at >= 0) return fits(job) ? items.with(at, job) : items.toSpliced(at, 1);
  if (!fits(job)) return items;
  // Ids sort by time. What lies beyond the last page comes with its own page.
  const place = items.findIndex((one) => one.id < job.id);
  if (place < 0) return more ? items : [...items, job];
  return items.toSpliced(place, 0, job);
}

// A reference for an element at the end of a list: `more` is called when it comes near.
export function useEnd(more) {
  const end = useRef(null);
  const newest = useRef(more);
  newest.current = more;
  useEffect(() => {
    const watch = new IntersectionObserver(([one]) => one.isIntersecting && newest.current(), { rootMargin: "800px" });
    watch.observe(end.current);
    return () => watch.disconnect();
  }, []);
  // A page that does not fill the screen calls for the next one.
  useEffect(() => {
    if (end.current.getBoundingClientRect().top < innerHeight + 800) newest.current();
  });
  return end;
}

export function SearchField({ label, value, onChange }) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => setText(value), [value]);
  const input = (event) => {
    setText(event.target.value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onChange(event.target.value.trim()), 300);
  };
  return html`<div class="field"><label for="search">${label}</label><div class="search"><${Icon} name="search" size=${18} />
    <input id="search" type="search" class="with-icon" maxlength="200" value=${text} onInput=${input} /></div></div>`;
}
