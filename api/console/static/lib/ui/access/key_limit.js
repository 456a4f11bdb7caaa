// The dialog in which administrators change how many jobs of a key run at a time.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { Button, Dialog, ErrorMessage, TextField, useSubmit } from "../components.js";

export function KeyLimitDialog({ base, apiKey, onClose, onSaved }) {
  const [limit, setLimit] = useState(String(apiKey.limits.concurrent_jobs ?? ""));
  const [save, busy, error] = useSubmit(async () => {
    await api.patch(`${base}/${apiKey.id}`, { limits: { concurrent_jobs: limit ? Number(limit) : null } });
    onSaved();
  });
  return html`<${Dialog} title=${t("keys.limit_one", { name: apiKey.name })} onClose=${onClose}><form class="stack" onSubmit=${save}>
    <${TextField} label=${t("limit.concurrent_jobs")} hint=${t("keys.concurrent_hint")} type="number" min="1" max="1000000" value=${limit} onInput=${setLimit} />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div>
  </form><//>`;
}
