// Server-sent events with reconnection. `EventSource` reconnects by itself with `Last-Event-ID`; when it gives up, a new
// one is opened with increasing delay. A hidden page closes its connection.
import { signal } from "../ui/preact.js";
import { loadSession, platformUrl, session } from "./client.js";

// False while a stream has been disconnected for a few seconds; the shell shows it.
export const connected = signal(true);

const LOST_AFTER_MS = 3000;
const CLOSE_HIDDEN_AFTER_MS = 20000;
const MAX_RETRY_DELAY_MS = 15000;

// Subscribe to a stream. `handlers` = event name -> function(data). Returns a function that unsubscribes.
export function subscribe(path, handlers) {
  let source = null;
  let lastEventId = "";
  let retryDelay = 500;
  let stopped = false;
  const timers = { reconnect: 0, lost: 0, hidden: 0 };

  function open() {
    if (stopped || source) return;
    const after = lastEventId ? `${path.includes("?") ? "&" : "?"}after=${encodeURIComponent(lastEventId)}` : "";
    source = new EventSource(platformUrl(path + after));
    source.onopen = () => {
      retryDelay = 500;
      clearTimeout(timers.lost);
      connected.value = true;
    };
    source.onerror = () => {
      clearTimeout(timers.lost);
      timers.lost = setTimeout(() => { connected.value = false; }, LOST_AFTER_MS);
      if (source?.readyState !== EventSource.CLOSED) return;
      source = null;
      timers.reconnect = setTimeout(reconnect, retryDelay);
      retryDelay = Math.min(retryDelay * 2, MAX_RETRY_DELAY_MS);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        lastEventId = event.lastEventId || lastEventId;
        handle(JSON.parse(event.data));
      });
    }
  }

  async function reconnect() {
    // `EventSource` does not tell why it was rejected: the session may have ended.
    await loadSession().catch(() => {});
    if (session.value) open();
  }

  function close() {
    source?.close();
    source = null;
    Object.values(timers).forEach(clearTimeout);
  }

  function onVisibilityChange() {
    clearTimeout(timers.hidden);
    if (document.hidden) timers.hidden = setTimeout(close, CLOSE_HIDDEN_AFTER_MS);
    else open();
  }

  document.addEventListener("visibilitychange", onVisibilityChange);
  open();
  return () => {
    stopped = true;
    document.removeEventListener("visibilitychange", onVisibilityChange);
    close();
    connected.value = true;
  };
}
