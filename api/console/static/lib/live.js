// Server-sent events with reconnection. `EventSource` comes again by itself, with `Last-Event-ID`, as long as the server
// answers; where it gives up we begin anew, ever more slowly. A hidden page does not hold a connection.
import { signal, useEffect, useRef } from "./ui.js";
import { here, resume, session } from "./api.js";

// False when a stream has been away for a while; the shell says so.
export const connected = signal(true);

const PATIENCE_MS = 3000;
const HIDDEN_MS = 20000;
const SLOWEST_MS = 15000;

// Follow a stream. `handlers` = event name -> function(data). Returns a function that ends it.
export function follow(path, handlers) {
  let source = null;
  let last = "";
  let pause = 500;
  let over = false;
  const timers = { again: 0, lost: 0, hidden: 0 };

  function open() {
    if (over || source) return;
    const after = last ? `${path.includes("?") ? "&" : "?"}after=${encodeURIComponent(last)}` : "";
    source = new EventSource(here(path + after));
    source.onopen = () => {
      pause = 500;
      clearTimeout(timers.lost);
      connected.value = true;
    };
    source.onerror = () => {
      clearTimeout(timers.lost);
      timers.lost = setTimeout(() => { connected.value = false; }, PATIENCE_MS);
      if (source?.readyState !== EventSource.CLOSED) return;
      source = null;
      timers.again = setTimeout(again, pause);
      pause = Math.min(pause * 2, SLOWEST_MS);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        last = event.lastEventId || last;
        handle(JSON.parse(event.data));
      });
    }
  }

  async function again() {
    // A refused stream does not say why: perhaps the session is over.
    await resume().catch(() => {});
    if (session.value) open();
  }

  function close() {
    source?.close();
    source = null;
    Object.values(timers).forEach(clearTimeout);
  }

  function look() {
    clearTimeout(timers.hidden);
    if (document.hidden) timers.hidden = setTimeout(close, HIDDEN_MS);
    else open();
  }

  document.addEventListener("visibilitychange", look);
  open();
  return () => {
    over = true;
    document.removeEventListener("visibilitychange", look);
    close();
    connected.value = true;
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
