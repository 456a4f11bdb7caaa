// Loads data for a component, once or repeatedly.
import { effect, useEffect, useRef, useState } from "../ui/preact.js";
import { session } from "./client.js";

// The last data of pages that show it at once at the next visit; nothing of it remains for another user.
const remembered = new Map();
effect(() => {
  if (!session.value) remembered.clear();
});

// Calls `load(signal)` when the component appears and when `inputs` change: { data, error, loading, reload(), setData() }.
export function useLoaded(load, inputs = []) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const [reloadCount, setReloadCount] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    setState((before) => ({ ...before, loading: true, error: null }));
    load(controller.signal).then(
      (data) => !controller.signal.aborted && setState({ data, error: null, loading: false }),
      (error) => !controller.signal.aborted && setState((before) => ({ ...before, error, loading: false })),
    );
    return () => controller.abort();
  }, [...inputs, reloadCount]);
  return {
    ...state,
    reload: () => setReloadCount((before) => before + 1),
    setData: (change) => setState((before) => ({ ...before, data: typeof change === "function" ? change(before.data) : change })),
  };
}

// Calls `load()` now, when `inputs` change and every `seconds` while the page is visible: { data, error, reload(), setData() }.
// A failed reload keeps the data, so that pages show an error only when there is no data. `remember` = a name under which the last
// data is kept for the next visit of the page.
export function usePolling(load, seconds, inputs = [], { remember = "" } = {}) {
  const [state, setState] = useState({ data: remembered.get(remember) ?? null, error: null });
  const latest = useRef(load);
  latest.current = load;
  const reload = useRef(() => {});
  useEffect(() => {
    let stopped = false;
    let lastRequest = 0;
    let timer = 0;
    async function read() {
      clearTimeout(timer);
      const request = ++lastRequest;
      try {
        const data = await latest.current();
        if (remember && session.value) remembered.set(remember, data);
        if (!stopped && request === lastRequest) setState({ data, error: null });
      } catch (error) {
        if (!stopped && request === lastRequest) setState((before) => ({ ...before, error }));
      }
      if (!stopped && request === lastRequest) timer = setTimeout(readIfVisible, seconds * 1000);
    }
    const readIfVisible = () => {
      if (!document.hidden) read();
    };
    reload.current = read;
    document.addEventListener("visibilitychange", readIfVisible);
    read();
    return () => {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", readIfVisible);
    };
  }, [seconds, ...inputs]);
  return {
    ...state,
    reload: () => reload.current(),
    setData: (change) => setState((before) => ({ ...before, data: typeof change === "function" ? change(before.data) : change })),
  };
}
