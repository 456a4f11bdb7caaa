// Server-sent events with reconnection. `EventSource` reconnects by itself with `Last-Event-ID`; when it gives up, a new
// one is opened with increasing delay. A hidden page closes its connection after a while.
import { effect, signal } from "../ui/preact.js";
import { isSigningOut, loadSession, platformUrl, session } from "./client.js";

// False while a stream has been disconnected for a few seconds; the shell shows it.
export const connected = signal(true);

const LOST_AFTER_MS = 3000;
const CLOSE_HIDDEN_AFTER_MS = 20000;
const MAX_RETRY_DELAY_MS = 15000;

// Subscribe to a stream. `handlers` = event name -> function(data). Returns a function that unsubscribes. `keepOpen()` = a
// hidden page still needs the stream.
export function subscribe(path, handlers, { keepOpen = () => false } = {}) {
  let source = null;
  let lastEventId = "";
  let retryDelay = 500;
  let stopped = false;
  const timers = { reconnect: 0, lost: 0, hidden: 0 };

  function open() {
    if (stopped || source || isSigningOut.peek() || !session.peek()) return;
    const after = lastEventId ? `${path.includes("?") ? "&" : "?"}after=${encodeURIComponent(lastEventId)}` : "";
    source = new EventSource(platformUrl(path + after));
    source.onopen = () => {
      retryDelay = 500;
      stop("lost");
      connected.value = true;
    };
    source.onerror = () => {
      // Errors follow each other faster than the patience, so the first of them starts it.
      timers.lost ||= setTimeout(() => { connected.value = false; }, LOST_AFTER_MS);
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
    open();
  }

  function stop(timer) {
    clearTimeout(timers[timer]);
    timers[timer] = 0;
  }

  function close() {
    source?.close();
    source = null;
    Object.keys(timers).forEach(stop);
  }

  function onVisibilityChange() {
    stop("hidden");
    if (document.hidden) closeLater();
    else open();
  }

  function closeLater() {
    timers.hidden = setTimeout(() => (keepOpen() ? closeLater() : close()), CLOSE_HIDDEN_AFTER_MS);
  }

  // The browser knows at once that the network is gone; an open connection would notice it after minutes.
  function onOffline() {
    connected.value = false;
  }

  function onOnline() {
    close();
    if (!document.hidden) open();
  }

  const listeners = [[document, "visibilitychange", onVisibilityChange], [window, "offline", onOffline], [window, "online", onOnline]];
  for (const [target, name, listener] of listeners) target.addEventListener(name, listener);
  // A sign-out that fails opens it again.
  const unwatch = effect(() => (isSigningOut.value ? close() : open()));
  return () => {
    stopped = true;
    unwatch();
    for (const [target, name, listener] of listeners) target.removeEventListener(name, listener);
    close();
    connected.value = true;
  };
}
