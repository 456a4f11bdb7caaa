// Keeps the draft in the browser, separately for each user: it survives a reload, a closed tab and a new sign-in.
// Values are in the storage of the tab and, for a new tab, of the browser. Uploaded pictures are stored by pictures.js.
import { effect, signal } from "../ui/preact.js";
import { session } from "../api/client.js";
import { toast } from "../ui/components.js";
import { t } from "./language.js";
import { deleteUnusedPictures, loadPicture } from "./pictures.js";

const PREFIX = "dreamery.draft.";

// A value of a storage as JSON; null without one. Storage can be disabled, and its content can be anything.
export function readStored(storage, key) {
  try {
    const value = JSON.parse(globalThis[storage].getItem(key));
    return value && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

export function writeStored(storage, key, value) {
  try {
    globalThis[storage].setItem(key, JSON.stringify(value));
  } catch {
    // Storage is disabled or full.
  }
}

// Uploads are stored apart; their data would fill the storage.
export const withoutUploads = (images) => images.map((image) => (image.upload ? { ...image, source: "" } : image));

// The ids of all uploads that a draft or a template of some user needs.
function usedPictures() {
  const used = new Set();
  for (const storage of ["localStorage", "sessionStorage"]) {
    try {
      for (const key of Object.keys(globalThis[storage]).filter((name) => name.startsWith("dreamery."))) {
        for (const [id] of globalThis[storage].getItem(key).matchAll(/[a-z0-9]+-[a-z0-9]+-[a-z0-9]+/g)) used.add(id);
      }
    } catch {
      // Storage is disabled.
    }
  }
  return used;
}

// Read the uploads among the images of `draft`; those that are gone are removed.
export async function loadUploads(draft) {
  const waiting = draft.peek().images.filter((image) => image.upload && !image.source);
  const sources = new Map(await Promise.all(waiting.map(async ({ id }) => [id, await loadPicture(id)])));
  const lost = [...sources.values()].filter((source) => source === null).length;
  if (!sources.size) return;
  const filled = draft.value.images.map((image) => (sources.has(image.id) ? { ...image, source: sources.get(image.id) } : image));
  draft.value = { ...draft.value, images: filled.filter((image) => image.source !== null) };
  if (lost) toast(t("play.pictures_lost", { n: lost }), "bad");
}

// The user of the draft. A user who signs in again keeps the draft of the page.
const owner = signal("");

export function keepDraft(draft, empty) {
  effect(() => {
    const user = session.value?.user;
    if (!user || user === owner.peek()) return;
    const stored = readStored("sessionStorage", PREFIX + user) ?? readStored("localStorage", PREFIX + user);
    draft.value = { ...empty, ...stored };
    owner.value = user;
    loadUploads(draft);
    deleteUnusedPictures(usedPictures());
  });
  effect(() => {
    const values = { ...draft.value, images: withoutUploads(draft.value.images) };
    if (!owner.value) return;
    for (const storage of ["sessionStorage", "localStorage"]) writeStored(storage, PREFIX + owner.value, values);
  });
}
