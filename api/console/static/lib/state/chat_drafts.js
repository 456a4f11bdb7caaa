// What was typed and attached in each conversation and not sent yet, kept in the browser for each user.
import { signal } from "../ui/preact.js";
import { session } from "../api/client.js";
import { loadUploads, readStored, withoutUploads, writeStored } from "./draft_storage.js";

const MOST = 30;
const EMPTY = { text: "", images: [], model: "" };
const keyOf = () => `dreamery.chats.${session.peek()?.user ?? ""}`;
const drafts = new Map();
let owner = "";

// The draft of a conversation: { text, images, model }. `images` are references of pictures.js.
export function draftOf(id) {
  if (owner !== keyOf()) {
    owner = keyOf();
    drafts.clear();
  }
  if (!drafts.has(id)) {
    const draft = signal({ ...EMPTY, ...readStored("localStorage", keyOf())?.[id] });
    drafts.set(id, draft);
    loadUploads(draft);
  }
  return drafts.get(id);
}

export function changeDraft(id, values) {
  const draft = draftOf(id);
  draft.value = { ...draft.peek(), ...values };
  const { text, images, model } = draft.peek();
  const rest = Object.entries(readStored("localStorage", keyOf()) ?? {}).filter(([known]) => known !== id);
  // The newest come last; the oldest of too many are dropped.
  const kept = text || images.length || model ? [...rest, [id, { text, images: withoutUploads(images), model }]] : rest;
  writeStored("localStorage", keyOf(), Object.fromEntries(kept.slice(-MOST)));
}

// Empty the draft; the choice of the model stays, also for the conversation that it became.
export function clearDraft(id, became = id) {
  const { model } = draftOf(id).peek();
  changeDraft(id, { text: "", images: [], ...(became !== id && { model: "" }) });
  if (became !== id) changeDraft(became, { model });
}
