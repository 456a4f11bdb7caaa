// The dialog that changes a key: its name, whose accounts its jobs may use and, for administrators, how many run at a time.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { Button, Dialog, ErrorMessage, TextField, useSubmit } from "../components.js";
import { useKeySelection } from "./key_selection.js";

const isEqual = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export function ChangeKeyDialog({ base, apiKey, onClose, onSaved }) {
  const [name, setName] = useState(apiKey.name);
  const { fields, values, typed } = useKeySelection(base.startsWith("/admin/"), apiKey);
  const [save, busy, error] = useSubmit(async () => {
    // Only what was changed: an account that is gone meanwhile must not stop the change of the name.
    const { limits, ...selection } = values;
    const change = Object.fromEntries(Object.entries(selection).filter(([field, value]) => !isEqual(value, apiKey[field] ?? null)));
    if (limits && limits.concurrent_jobs !== apiKey.limits.concurrent_jobs) change.limits = limits;
    await api.patch(`${base}/${apiKey.id}`, { ...change, name: name.trim() || undefined });
    onSaved();
  });
  return html`<${Dialog} title=${t("keys.change_one", { name: apiKey.name })} unsaved=${(typed || name !== apiKey.name) && !busy} onClose=${onClose}><form class="stack" onSubmit=${save}>
    <p class="hint">${t("keys.change_text")}</p>
    <${TextField} label=${t("keys.name")} hint=${t("keys.name_hint")} value=${name} onInput=${setName} maxlength="100" />
    ${fields}
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div>
  </form><//>`;
}
