// The service worker: keeps the files of the page, shows the page without a connection, and receives what a phone shares.
// The server puts VERSION, ROOT (the path of the platform) and FILES before this text. Nothing of a user is cached: no answer
// of the API, no picture, and the page only as the server gives it to a stranger.
const PREFIX = "dreamery-shell-";
const CACHE = PREFIX + VERSION;
const STATIC = `${ROOT}/console/static/${VERSION}/`;
const OFFLINE = `${ROOT}/console/offline`;
const SHARE = `${ROOT}/console/share`;
const GATEWAY_ERRORS = [502, 503, 504];
const SHARED_FILES = 20;
const SHARED_HOURS = 24;

// All files or none: a page with a part of its modules is worse than the browser's own message.
async function install() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((path) => STATIC + path));
  const page = await fetch(OFFLINE, { credentials: "omit", cache: "no-store" });
  if (!page.ok) throw new Error(`The page could not be stored: status ${page.status}.`);
  await cache.put(OFFLINE, page);
  await skipWaiting();
}

async function activate() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)));
  await clients.claim();
}

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));

const fromCache = async (request) => (await (await caches.open(CACHE)).match(request)) ?? fetch(request);

async function showPage(request) {
  try {
    const response = await fetch(request);
    if (!GATEWAY_ERRORS.includes(response.status)) return response;
  } catch {
    // The server, or the network before it, does not respond.
  }
  return fromCache(OFFLINE);
}

// The files wait in the browser until the playground takes them (`lib/state/shared_files.js`).
const openInbox = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open("dreamery-shared", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("shares", { keyPath: "id", autoIncrement: true });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function keep(share) {
  const inbox = await openInbox();
  try {
    await new Promise((resolve, reject) => {
      const change = inbox.transaction("shares", "readwrite");
      const store = change.objectStore("shares");
      // What nobody took is deleted later.
      store.openCursor().onsuccess = ({ target: { result: cursor } }) => {
        if (!cursor) return;
        if (cursor.value.at < Date.now() - SHARED_HOURS * 3600000) cursor.delete();
        cursor.continue();
      };
      store.add(share);
      change.oncomplete = resolve;
      change.onerror = change.onabort = () => reject(change.error);
    });
  } finally {
    inbox.close();
  }
}

async function receive(request) {
  let outcome = "lost";
  try {
    const form = await request.formData();
    const files = form.getAll("files").filter((item) => typeof item !== "string" && item.size);
    const text = ["title", "text", "url"].map((name) => form.get(name)).filter((item) => typeof item === "string" && item.trim());
    await keep({ at: Date.now(), files: files.slice(0, SHARED_FILES), left: Math.max(0, files.length - SHARED_FILES), text: [...new Set(text)].join("\n") });
    outcome = "yes";
  } catch {
    // Storage is full or disabled: the page says that nothing arrived.
  }
  return Response.redirect(new URL(`${ROOT}/console?shared=${outcome}`, location.href).href, 303);
}

addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== location.origin) return;
  if (request.method === "POST" && url.pathname === SHARE) event.respondWith(receive(request));
  else if (request.method !== "GET") return;
  else if (url.pathname.startsWith(STATIC)) event.respondWith(fromCache(request));
  else if (request.mode === "navigate" && (url.pathname === `${ROOT}/console` || url.pathname.startsWith(`${ROOT}/console/`)) && url.pathname !== OFFLINE) event.respondWith(showPage(request));
});

// A click on a notification goes to its job.
addEventListener("notificationclick", (event) => {
  event.notification.close();
  const { path } = event.notification.data ?? {};
  if (path) event.waitUntil(clients.openWindow(new URL(path, location.href).href));
});
