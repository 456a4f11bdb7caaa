// What a phone shared with the installed console: the service worker stores it (`service_worker.js`), the playground takes it.
const open = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open("dreamery-shared", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("shares", { keyPath: "id", autoIncrement: true });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

async function inStore(mode, use) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const change = database.transaction("shares", mode);
      const request = use(change.objectStore("shares"));
      change.oncomplete = () => resolve(request?.result);
      change.onerror = change.onabort = () => reject(change.error);
    });
  } finally {
    database.close();
  }
}

// Everything that waits: [{ id, files, left, text }], where `left` = how many files were too many.
export const readShares = () => inStore("readonly", (store) => store.getAll()).catch(() => []);

export async function deleteShares(ids) {
  try {
    await inStore("readwrite", (store) => {
      for (const id of ids) store.delete(id);
    });
  } catch {
    // Storage is disabled.
  }
}

// The next user of this browser does not get what was shared before.
export async function forgetShares() {
  if (!("indexedDB" in globalThis)) return;
  await deleteShares((await readShares()).map(({ id }) => id));
}
