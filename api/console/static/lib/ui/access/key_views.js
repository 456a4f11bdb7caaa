// Table and dialogs of API keys, for the caller's own keys (`/v1/keys`) and for those of other users (`/admin/v1/keys`).
import { html, useEffect, useState } from "../preact.js";
import { api, hasScope, session } from "../../api/client.js";
import { t } from "../../state/language.js";
import { Button, CheckboxGroup, confirm, Dialog, ErrorMessage, RelativeTime, Select, StatusBadge, TextField, toast, useAction, useSubmit } from "../components.js";
import { ChangeKeyDialog } from "./key_change.js";
import { useKeySelection } from "./key_selection.js";
import { SecretDialog } from "./secret_dialog.js";

const EXPIRY_DAYS = ["", "7", "30", "90", "365"];
const GRACE_PERIODS = [["0", "keys.grace_none"], ["3600", "keys.grace_hour"], ["86400", "keys.grace_day"], ["604800", "keys.grace_week"]];

const isActive = (key) => key.status === "active";

// `base` = API path of the keys; `editable` = keys can be changed, rotated and revoked.
export function KeyTable({ base, keys, editable, onChanged }) {
  const [rotating, setRotating] = useState(null);
  const [created, setCreated] = useState(null);
  const [changing, setChanging] = useState(null);
  const [revoke] = useAction(async (key) => {
    const text = t(key.current ? "keys.revoke_own_text" : "keys.revoke_text", { name: key.name });
    if (!(await confirm({ title: t("keys.revoke"), text, action: t("keys.revoke_action") }))) return;
    await api.delete(`${base}/${key.id}`);
    toast(t("keys.revoked"));
    onChanged();
  });
  return html`<div class="table-wrap"><table class="table"><thead><tr><th>${t("keys.name")}</th><th>${t("keys.rights")}</th><th>${t("filter.status")}</th><th>${t("keys.last_used")}</th><th>${t("keys.expires")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
    <tbody>${keys.map((key) => html`<tr key=${key.id}><td data-label=${t("keys.name")}><div><strong>${key.name}</strong>${key.current && html` <span class="tag">${t("keys.current")}</span>`}<p class="hint mono">${key.prefix}…</p></div></td>
      <td data-label=${t("keys.rights")}><div>${key.scopes ? key.scopes.map((scope) => t(`scope.${scope}`)).join(t("list.separator")) : t("keys.all_rights")}${key.models && html`<p class="hint clamp-one" title=${key.models.join(", ")}>${t("keys.models")}: ${key.models.join(", ")}</p>`}${key.providers && html`<p class="hint">${t("keys.providers")}: ${key.providers.join(", ")}</p>`}${(key.accounts || key.account_groups) && html`<p class="hint">${t("keys.accounts_n", { accounts: key.accounts?.length ?? 0, groups: (key.account_groups ?? []).join(", ") || "–" })}</p>`}${key.limits.concurrent_jobs && html`<p class="hint">${t("limit.concurrent_jobs")}: ${key.limits.concurrent_jobs}</p>`}</div></td>
      <td data-label=${t("filter.status")}><${StatusBadge} status=${key.status} /></td>
      <td data-label=${t("keys.last_used")}>${key.last_used_at ? html`<${RelativeTime} at=${key.last_used_at} />` : t("keys.never_used")}</td>
      <td data-label=${t("keys.expires")}>${key.expires_at ? html`<${RelativeTime} at=${key.expires_at} />` : t("keys.never")}</td>
      <td class="end">${editable && isActive(key) && html`<div class="row end"><${Button} small kind="quiet" icon="edit" label=${t("keys.change_one", { name: key.name })} onClick=${() => setChanging(key)} /><${Button} small icon="repeat" onClick=${() => setRotating(key)} aria-label=${t("keys.rotate_one", { name: key.name })}>${t("action.rotate")}<//>
        <${Button} small kind="quiet" icon="trash" label=${t("keys.revoke_one", { name: key.name })} onClick=${() => revoke(key)} /></div>`}</td></tr>`)}</tbody></table></div>
    ${rotating && html`<${RotateKeyDialog} base=${base} apiKey=${rotating} onClose=${() => setRotating(null)} onCreated=${(key) => { setRotating(null); setCreated(key); onChanged(); }} />`}
    ${changing && html`<${ChangeKeyDialog} base=${base} apiKey=${changing} onClose=${() => setChanging(null)} onSaved=${() => { setChanging(null); toast(t("keys.change_saved")); onChanged(); }} />`}
    ${created && html`<${NewKeySecret} created=${created} onClose=${() => setCreated(null)} />`}`;
}

function RotateKeyDialog({ base, apiKey, onClose, onCreated }) {
  const [grace, setGrace] = useState("0");
  const [rotate, busy, error] = useSubmit(async () => onCreated(await api.post(`${base}/${apiKey.id}/rotate`, { grace_seconds: Number(grace) })));
  return html`<${Dialog} title=${t("keys.rotate")} onClose=${onClose} actions=${html`<${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" busy=${busy} onClick=${rotate}>${t("action.rotate")}<//>`}>
    <p>${t(apiKey.current ? "keys.rotate_own_text" : "keys.rotate_text", { name: apiKey.name })}</p>
    <${Select} label=${t("keys.grace")} value=${grace} onChange=${setGrace} options=${GRACE_PERIODS.map(([value, key]) => [value, t(key)])} />
    ${error && html`<${ErrorMessage} error=${error} />`}<//>`;
}

export function NewKeySecret({ created, onClose }) {
  const curl = `curl ${new URL("v1/images/generations", document.baseURI).href} \\\n  -H "Authorization: Bearer ${created.key}" -H "Content-Type: application/json" \\\n  -d '{"prompt": "a red paper boat"}'`;
  return html`<${SecretDialog} title=${t("keys.created")} text=${t("keys.created_text")} secret=${created.key} label=${t("keys.key")} onClose=${onClose}>
    <details class="more"><summary>curl</summary><pre class="sample" tabindex="0">${curl}</pre></details><//>`;
}

// The dialog that creates a key. `fields` = more fields of the request (administrators send the user).
export function NewKeyDialog({ base, fields = {}, role, onClose, onCreated }) {
  const scopes = ["generate", "read", "admin"].filter((scope) => (role ? scope !== "admin" || role === "admin" : hasScope(scope)));
  const [name, setName] = useState("");
  const [selectedScopes, setSelectedScopes] = useState(scopes.filter((scope) => scope !== "admin"));
  const [days, setDays] = useState("");
  const [models, setModels] = useState([]);
  const [availableModels, setAvailableModels] = useState([]);
  const { fields: selectionFields, values: selection, typed: hasSelection } = useKeySelection(base.startsWith("/admin/"));
  useEffect(() => {
    // If the list cannot be loaded, the key is for all models.
    api.get("/v1/models").then(({ data }) => setAvailableModels(data.filter((item) => !item.alias_of && (role || !session.value.models || session.value.models.includes(item.id)))), () => {});
  }, []);
  const [create, busy, error] = useSubmit(async () => {
    const expires = days ? new Date(Date.now() + Number(days) * 86400e3).toISOString() : undefined;
    onCreated(await api.post(base, { ...fields, name: name.trim() || undefined, scopes: selectedScopes, models: models.length ? models : undefined, ...selection, expires_at: expires }));
  });
  const typed = name || days || models.length || hasSelection;
  return html`<${Dialog} title=${t("keys.new")} unsaved=${Boolean(typed) && !busy} onClose=${onClose}><form class="stack" onSubmit=${create}>
    <${TextField} label=${t("keys.name")} hint=${t("keys.name_hint")} value=${name} onInput=${setName} maxlength="100" placeholder="default" />
    <${CheckboxGroup} label=${t("keys.rights")} options=${scopes.map((scope) => [scope, t(`scope.${scope}`), t(`scope.${scope}_text`)])} selected=${selectedScopes} onChange=${setSelectedScopes} />
    <${Select} label=${t("keys.expires")} value=${days} onChange=${setDays} options=${EXPIRY_DAYS.map((n) => [n, n ? t("keys.days", { n }) : t("keys.never")])} />
    ${availableModels.length > 0 && html`<details class="more"><summary>${models.length ? t("keys.models_n", { n: models.length }) : t("keys.models_all")}</summary>
      <${CheckboxGroup} label=${t("keys.models")} hideLabel options=${availableModels.map((item) => [item.id, item.id])} selected=${models} onChange=${setModels} /></details>`}
    ${selectionFields}
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!selectedScopes.length}>${t("keys.create")}<//></div>
  </form><//>`;
}
