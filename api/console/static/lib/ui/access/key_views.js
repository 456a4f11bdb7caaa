// Table and dialogs of API keys, for the caller's own keys (`/v1/keys`) and for those of other users (`/admin/v1/keys`).
import { html, useEffect, useState } from "../preact.js";
import { api, hasScope, session } from "../../api/client.js";
import { t } from "../../state/language.js";
import { Button, CheckboxGroup, confirm, Dialog, ErrorMessage, RelativeTime, Select, StatusBadge, TextField, toast, useAction, useSubmit } from "../components.js";
import { KeyLimitDialog } from "./key_limit.js";
import { SecretDialog } from "./secret_dialog.js";

const EXPIRY_DAYS = ["", "7", "30", "90", "365"];
const GRACE_PERIODS = [["0", "keys.grace_none"], ["3600", "keys.grace_hour"], ["86400", "keys.grace_day"], ["604800", "keys.grace_week"]];

const isActive = (key) => key.status === "active";

// `base` = API path of the keys; `editable` = keys can be rotated and revoked.
export function KeyTable({ base, keys, editable, onChanged }) {
  const [rotating, setRotating] = useState(null);
  const [created, setCreated] = useState(null);
  const [limited, setLimited] = useState(null);
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
      <td class="end">${editable && isActive(key) && html`<div class="row end">${base.startsWith("/admin/") && html`<${Button} small kind="quiet" icon="edit" label=${t("keys.limit_one", { name: key.name })} onClick=${() => setLimited(key)} />`}<${Button} small icon="repeat" onClick=${() => setRotating(key)} aria-label=${t("keys.rotate_one", { name: key.name })}>${t("action.rotate")}<//>
        <${Button} small kind="quiet" icon="trash" label=${t("keys.revoke_one", { name: key.name })} onClick=${() => revoke(key)} /></div>`}</td></tr>`)}</tbody></table></div>
    ${rotating && html`<${RotateKeyDialog} base=${base} apiKey=${rotating} onClose=${() => setRotating(null)} onCreated=${(key) => { setRotating(null); setCreated(key); onChanged(); }} />`}
    ${limited && html`<${KeyLimitDialog} base=${base} apiKey=${limited} onClose=${() => setLimited(null)} onSaved=${() => { setLimited(null); onChanged(); }} />`}
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
  const [providers, setProviders] = useState([]);
  const [allProviders, setAllProviders] = useState([]);
  const [accounts, setAccounts] = useState([]);
  const [allAccounts, setAllAccounts] = useState([]);
  const [groups, setGroups] = useState("");
  const [concurrent, setConcurrent] = useState("");
  const administers = base.startsWith("/admin/");
  useEffect(() => {
    // Administrators choose among the accounts of the platform, others among their own.
    api.get(administers ? "/admin/v1/accounts" : "/v1/accounts", { limit: 1000 }).then(({ data }) => setAllAccounts(data.filter((item) => item.state !== "retired")), () => {});
  }, []);
  useEffect(() => {
    // If the list cannot be loaded, the key is for all models.
    api.get("/v1/models").then(({ data }) => setAvailableModels(data.filter((item) => !item.alias_of && (role || !session.value.models || session.value.models.includes(item.id)))), () => {});
    api.get("/v1/accounts/providers").then(({ data }) => setAllProviders(data), () => {});
  }, []);
  // Groups and the limit are those of administrators. Groups are names with spaces or commas between them.
  const selection = () => {
    const names = groups.split(/[\s,]+/).filter(Boolean);
    return { accounts: accounts.length ? accounts : undefined, account_groups: names.length ? names : undefined, limits: administers && concurrent ? { concurrent_jobs: Number(concurrent) } : undefined };
  };
  const [create, busy, error] = useSubmit(async () => {
    const expires = days ? new Date(Date.now() + Number(days) * 86400e3).toISOString() : undefined;
    onCreated(await api.post(base, { ...fields, name: name.trim() || undefined, scopes: selectedScopes, models: models.length ? models : undefined, providers: providers.length ? providers : undefined, ...selection(), expires_at: expires }));
  });
  return html`<${Dialog} title=${t("keys.new")} onClose=${onClose}><form class="stack" onSubmit=${create}>
    <${TextField} label=${t("keys.name")} hint=${t("keys.name_hint")} value=${name} onInput=${setName} maxlength="100" placeholder="default" />
    <${CheckboxGroup} label=${t("keys.rights")} options=${scopes.map((scope) => [scope, t(`scope.${scope}`), t(`scope.${scope}_text`)])} selected=${selectedScopes} onChange=${setSelectedScopes} />
    <${Select} label=${t("keys.expires")} value=${days} onChange=${setDays} options=${EXPIRY_DAYS.map((n) => [n, n ? t("keys.days", { n }) : t("keys.never")])} />
    ${availableModels.length > 0 && html`<details class="more"><summary>${models.length ? t("keys.models_n", { n: models.length }) : t("keys.models_all")}</summary>
      <${CheckboxGroup} label=${t("keys.models")} hideLabel options=${availableModels.map((item) => [item.id, item.id])} selected=${models} onChange=${setModels} /></details>`}
    ${allProviders.length > 1 && html`<details class="more"><summary>${providers.length ? t("keys.providers_n", { n: providers.length }) : t("keys.providers_all")}</summary>
      <${CheckboxGroup} label=${t("keys.providers")} hideLabel options=${allProviders.map((item) => [item.name, item.title])} selected=${providers} onChange=${setProviders} /></details>`}
    ${(allAccounts.length > 0 || administers) && html`<details class="more"><summary>${accounts.length || groups.trim() ? t("keys.accounts_some") : t("keys.accounts_all")}</summary>
      ${allAccounts.length > 0 && html`<${CheckboxGroup} label=${t("keys.accounts")} options=${allAccounts.map((item) => [item.id, item.label])} selected=${accounts} onChange=${setAccounts} />`}
      ${administers && html`<${TextField} label=${t("keys.groups")} hint=${t("keys.groups_hint")} value=${groups} onInput=${setGroups} maxlength="500" />`}</details>`}
    ${administers && html`<${TextField} label=${t("limit.concurrent_jobs")} hint=${t("keys.concurrent_hint")} type="number" min="1" max="1000000" value=${concurrent} onInput=${setConcurrent} />`}
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!selectedScopes.length}>${t("keys.create")}<//></div>
  </form><//>`;
}
