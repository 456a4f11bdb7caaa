// Server-sent events with reconnection. `EventSource` repeats what was lost by itself (Last-Event-ID) as long as the
// server answers; where it gives up, we begin anew, ever more slowly.
import { signal, useEffect, useRef } from "./ui.js";
import { here, resume, session } from "./api.js";

// Whether the newest stream is open; the shell shows when it is not.
export const connected = signal(true);

const SLOWEST_MS = 15000;

// Follow a stream. `handlers` = event name -> function(data). Returns a function that ends it.
export function follow(path, handlers) {
  let source = null;
  let timer = 0;
  let pause = 500;
  let over = false;

  function open() {
    source = new EventSource(here(path));
    source.onopen = () => {
      pause = 500;
      connected.value = true;
    };
    source.onerror = () => {
      if (over) return;
      connected.value = false;
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(again, pause);
      pause = Math.min(pause * 2, SLOWEST_MS);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
  }

  async function again() {
    // A refused stream does not say why: perhaps the session is over.
    await resume().catch(() => {});
    if (!over && session.value) open();
  }

  open();
  return () => {
    over = true;
    clearTimeout(timer);
    source.close();
  };
}

// The same as a hook: follows while the component is there and `path` is set. Handlers may change at each rendering.
export function useLive(path, handlers) {
  const newest = useRef(handlers);
  newest.current = handlers;
  useEffect(() => {
    if (!path) return undefined;
    const names = Object.keys(newest.current);
    return follow(path, Object.fromEntries(names.map((name) => [name, (data) => newest.current[name](data)])));
  }, [path]);
}
