// Dialogs that any page opens for files: add them to an album, or share them by a link.
import { html, signal } from "../preact.js";
import { hasScope } from "../../api/client.js";
import { AddToAlbum } from "./add_to_album.js";
import { ShareByLink } from "./share_by_link.js";

const opened = signal(null);
const close = () => {
  opened.value = null;
};

// Whether the signed-in user may change albums and share.
export const mayShare = () => hasScope("generate") && hasScope("read");

// `files` = ids of own results (`file_...`). `onDone(album)` is called after they were added.
export const openAddToAlbum = (files, { onDone } = {}) => {
  opened.value = { kind: "add", files, onDone };
};

// What to share: `{ files }` with ids of own results, or `{ album }`.
export const openShareByLink = ({ files, album }) => {
  opened.value = { kind: "share", files, album };
};

export function AlbumDialogs() {
  const dialog = opened.value;
  if (!dialog) return null;
  if (dialog.kind === "share") return html`<${ShareByLink} files=${dialog.files} album=${dialog.album} onClose=${close} />`;
  return html`<${AddToAlbum} files=${dialog.files} onDone=${dialog.onDone} onClose=${close} />`;
}
