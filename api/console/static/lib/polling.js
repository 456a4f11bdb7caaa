// For what has no events: read again now and then, quietly, and not while nobody looks.
import { useEffect, useRef, useState } from "./ui.js";

// { data, error, reload(), setData() }: `load()` now, when `inputs` change and every `seconds` while the page is seen.
// A failure is told only when nothing is there to show; a failed repeat leaves what was there.
export function usePolled(load, seconds, inputs = []) {
  const [state, setState] = useState({ data: null, error: null });
  const newest = useRef(load);
  newest.current = load;
  const again = useRef(() => {});
  useEffect(() => {
    let over = false;
    let turn = 0;
    let timer = 0;
    async function read() {
      clearTimeout(timer);
      const mine = ++turn;
      try {
        const data = await newest.current();
        if (!over && mine === turn) setState({ data, error: null });
      } catch (error) {
        if (!over && mine === turn) setState((before) => ({ ...before, error }));
      }
      if (!over && mine === turn) timer = setTimeout(tick, seconds * 1000);
    }
    const tick = () => {
      if (!document.hidden) read();
    };
    again.current = read;
    document.addEventListener("visibilitychange", tick);
    read();
    return () => {
      over = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", tick);
    };
  }, [seconds, ...inputs]);
  return {
    ...state,
    reload: () => again.current(),
    setData: (change) => setState((before) => ({ ...before, data: typeof change === "function" ? change(before.data) : change })),
  };
}
