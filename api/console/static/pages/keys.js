// One's own API keys: make (shown once), replace, revoke.
import { html, useState } from "../lib/ui.js";
import { api, may } from "../lib/api.js";
import { KeyTable, NewKey, NewKeyShown } from "../lib/keys.js";
import { t } from "../lib/language.js";
import { Button, Failure, Loading, PageHead, useLoaded } from "../lib/parts.js";

const dead = (key) => key.status === "revoked" || key.status === "expired";

export default function Keys() {
  const loaded = useLoaded(() => api.get("/v1/keys", { limit: 1000 }));
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState(null);
  const [all, setAll] = useState(false);
  const changes = may("generate");
  const keys = [...(loaded.data?.data ?? [])].reverse();
  const hidden = keys.filter(dead).length;
  return html`<${PageHead} title=${t("nav.keys")} lead=${t("keys.lead")}>${changes && html`<${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("keys.new")}<//>`}<//>
    ${loaded.error && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    ${keys.length > 0 && html`<section class="card flush"><${KeyTable} base="/v1/keys" keys=${all ? keys : keys.filter((key) => !dead(key))} changes=${changes} onChanged=${loaded.reload} /></section>`}
    ${hidden > 0 && html`<p class="below"><${Button} small kind="quiet" onClick=${() => setAll(!all)}>${all ? t("keys.hide_dead") : t("keys.show_dead", { n: hidden })}<//></p>`}
    ${adding && html`<${NewKey} base="/v1/keys" onClose=${() => setAdding(false)} onMade=${(key) => { setAdding(false); setMade(key); loaded.reload(); }} />`}
    ${made && html`<${NewKeyShown} made=${made} onClose=${() => setMade(null)} />`}`;
}
