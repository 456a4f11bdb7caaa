// The API keys of the signed-in user: create, rotate, revoke.
import { html, useState } from "../lib/ui/preact.js";
import { api, hasScope } from "../lib/api/client.js";
import { useLoaded } from "../lib/api/loading.js";
import { t } from "../lib/state/language.js";
import { Button, ErrorMessage, Loading, PageHeader } from "../lib/ui/components.js";
import { KeyTable, NewKeyDialog, NewKeySecret } from "../lib/ui/access/key_views.js";

const isInactive = (key) => key.status === "revoked" || key.status === "expired";

export default function Keys() {
  const loaded = useLoaded(() => api.get("/v1/keys", { limit: 1000 }));
  const [adding, setAdding] = useState(false);
  const [created, setCreated] = useState(null);
  const [showInactive, setShowInactive] = useState(false);
  const editable = hasScope("generate");
  const keys = [...(loaded.data?.data ?? [])].reverse();
  const hidden = keys.filter(isInactive).length;
  return html`<${PageHeader} title=${t("nav.keys")} lead=${t("keys.lead")}>${editable && html`<${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("keys.new")}<//>`}<//>
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    ${keys.length > 0 && html`<section class="card flush"><${KeyTable} base="/v1/keys" keys=${showInactive ? keys : keys.filter((key) => !isInactive(key))} editable=${editable} onChanged=${loaded.reload} /></section>`}
    ${hidden > 0 && html`<p class="below"><${Button} small kind="quiet" onClick=${() => setShowInactive(!showInactive)}>${showInactive ? t("keys.hide_inactive") : t("keys.show_inactive", { n: hidden })}<//></p>`}
    ${adding && html`<${NewKeyDialog} base="/v1/keys" onClose=${() => setAdding(false)} onCreated=${(key) => { setAdding(false); setCreated(key); loaded.reload(); }} />`}
    ${created && html`<${NewKeySecret} created=${created} onClose=${() => setCreated(null)} />`}`;
}
