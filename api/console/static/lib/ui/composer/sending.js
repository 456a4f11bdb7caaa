// Sends a request of the form. With uploads it is a form of files, which is smaller than JSON, and its progress is shown.
import { api, upload } from "../../api/client.js";

const isUpload = (source) => source.startsWith("data:");

// The page's security policy forbids to fetch a data URL.
function toFile(source, name) {
  const comma = source.indexOf(",");
  const text = atob(source.slice(comma + 1));
  const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
  return new File([bytes], name || "upload", { type: source.slice("data:".length, source.indexOf(";")) });
}

// The body as a form: values as text, each input as a part of its own, in order.
function toForm(body, images) {
  const form = new FormData();
  const names = new Map(images.map(({ source, name }) => [source, name]));
  for (const [field, value] of Object.entries(body)) {
    if (!Array.isArray(value)) form.append(field, String(value));
    else for (const source of value) form.append(field, isUpload(source) ? toFile(source, names.get(source)) : source);
  }
  return form;
}

// Returns the accepted job or jobs. `onProgress` gets the sent share, 0 to 1.
export async function sendRequest({ endpoint, body, headers }, images, onProgress) {
  const asked = { ...body, async: true };
  if (!images.some(({ source }) => isUpload(source))) return api.post(endpoint, asked, { headers });
  onProgress(0);
  return upload(endpoint, toForm(asked, images), { headers, onProgress });
}
