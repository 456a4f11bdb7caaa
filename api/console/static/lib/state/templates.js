// Named templates of the form, in this browser, for each user.
import { effect, signal } from "../ui/preact.js";
import { session } from "../api/client.js";
import { readStored, withoutUploads, writeStored } from "./draft_storage.js";

const keyOf = (user) => `dreamery.templates.${user}`;
// [{ name, runOn, values }], by name. Older ones have no `runOn`.
export const templates = signal([]);

effect(() => {
  const user = session.value?.user;
  const stored = user ? readStored("localStorage", keyOf(user)) : null;
  templates.value = Array.isArray(stored) ? stored : [];
});

function change(list) {
  templates.value = [...list].sort((first, second) => first.name.localeCompare(second.name));
  writeStored("localStorage", keyOf(session.value.user), templates.value);
}

// Save a draft and the choice of accounts under a name; a template of that name is replaced.
export function saveTemplate(name, runOn, { modeSettings: _, missingUploads: __, ...values }) {
  change([...templates.value.filter((item) => item.name !== name), { name, runOn, values: { ...values, images: withoutUploads(values.images) } }]);
}

export const deleteTemplate = (name) => change(templates.value.filter((item) => item.name !== name));
