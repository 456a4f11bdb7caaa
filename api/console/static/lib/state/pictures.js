// Uploaded pictures, clips and sounds: checked in the browser, and stored in it (IndexedDB) so that a reload does not lose them.
import { shrinkPicture } from "./shrinking.js";

const STORE = "pictures";
const UNUSED_DAYS = 7;
// The server converts these formats; few browsers show them.
const HEIF_BRANDS = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1", "heif"];
const TIFF_STARTS = ["II*\0", "MM\0*"];

let lastId = 0;
// Ids are unique in all tabs and after a reload.
export const createId = () => `${Date.now().toString(36)}-${(++lastId).toString(36)}-${Math.random().toString(36).slice(2, 8)}`;

// A reference: `source` is a link or the data URL of a file, empty until it is read; `media` = image, video or audio;
// `preview` = the browser can show it. The page's security policy forbids pictures from elsewhere.
export const createReference = (source, name, media = "image") => ({ id: createId(), media, source, name: name || source.split("?")[0].split("/").at(-1), upload: false, preview: source.includes("/v1/") });

let opening = null;
function openDatabase() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("dreamery", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

const resultOf = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const openStore = async (mode) => (await openDatabase()).transaction(STORE, mode).objectStore(STORE);

const readDataUrl = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

// The type of a picture that this browser cannot show but the server reads; empty for other files.
async function typeForServer(file) {
  const start = String.fromCharCode(...new Uint8Array(await file.slice(0, 12).arrayBuffer()));
  if (start.slice(4, 8) === "ftyp" && HEIF_BRANDS.includes(start.slice(8, 12))) return "image/heic";
  return TIFF_STARTS.includes(start.slice(0, 4)) ? "image/tiff" : "";
}

async function isShown(file) {
  try {
    (await createImageBitmap(file)).close();
    return true;
  } catch {
    return false;
  }
}

// The reference of a file; null if it is no picture, whatever its name says. The server checks clips and sounds. `limits` = what
// the model takes of each kind; a larger picture is made smaller, and `shrunk` says so.
async function readReference(file, limits) {
  const [kind] = file.type.split("/");
  const media = kind === "video" || kind === "audio" ? kind : "image";
  const preview = media !== "image" || (await isShown(file));
  const type = preview ? file.type : await typeForServer(file);
  if (!preview && !type) return null;
  const shrunk = media === "image" && preview ? await shrinkPicture(file, limits?.image) : null;
  const blob = shrunk?.blob ?? file.slice(0, file.size, type);
  const reference = { id: createId(), media, source: await readDataUrl(blob), name: file.name ?? "", upload: true, preview };
  await storePicture(reference.id, blob);
  return { reference, shrunk };
}

async function storePicture(id, blob) {
  try {
    await resultOf((await openStore("readwrite")).put({ id, blob, at: Date.now() }));
  } catch {
    // No room, or storage is disabled: the picture lives as long as the page.
  }
}

// Read files: { references, refused, shrunk }, where `refused` are the names of files that are no pictures, clips or sounds, and
// `shrunk` = [{ name, from, to }] what was made smaller.
export async function readReferences(files, limits) {
  const read = await Promise.all(files.map((file) => readReference(file, limits).catch(() => null)));
  const found = read.filter(Boolean);
  return {
    references: found.map(({ reference }) => reference),
    refused: files.filter((_, n) => !read[n]).map((file) => file.name),
    shrunk: found.filter(({ shrunk }) => shrunk).map(({ reference, shrunk: { from, to } }) => ({ name: reference.name, from, to })),
  };
}

// The data URL of a stored picture; null if it is not stored.
export async function loadPicture(id) {
  try {
    const found = await resultOf((await openStore("readonly")).get(id));
    return found ? await readDataUrl(found.blob) : null;
  } catch {
    return null;
  }
}

// Delete pictures that were added some days ago and are not `used` (ids) any more.
export async function deleteUnusedPictures(used) {
  try {
    const before = Date.now() - UNUSED_DAYS * 86400000;
    const store = await openStore("readwrite");
    const request = store.openCursor();
    request.onsuccess = () => {
      const cursor = request.result;
      if (!cursor) return;
      if (cursor.value.at < before && !used.has(cursor.key)) cursor.delete();
      cursor.continue();
    };
  } catch {
    // Storage is disabled.
  }
}
