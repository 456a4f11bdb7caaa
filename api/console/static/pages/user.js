// One user: role, scheduling weight, limits, current usage and API keys.
import { html, useState } from "../lib/ui/preact.js";
import { api } from "../lib/api/client.js";
import { useLoaded } from "../lib/api/loading.js";
import { t } from "../lib/state/language.js";
import { Link } from "../lib/state/router.js";
import { useUnsaved } from "../lib/state/unsaved.js";
import { splitList } from "../lib/ui/accounts/views.js";
import { Button, confirm, ErrorMessage, Loading, PageHeader, Select, StatusBadge, TextField, toast, useAction, useSubmit } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { KeyTable, NewKeyDialog, NewKeySecret } from "../lib/ui/access/key_views.js";
import { SecretDialog } from "../lib/ui/access/secret_dialog.js";
import { SessionTable } from "../lib/ui/access/sign_in_views.js";
import { LimitList } from "../lib/ui/charts/limits.js";
import { lastDays, UsagePlots } from "../lib/ui/charts/usage_views.js";

const HARD_LIMITS = ["requests_per_minute", "open_jobs", "concurrent_jobs", "jobs_per_day", "jobs_per_month", "credits_per_day", "credits_per_month", "usd_per_day", "usd_per_month", "cny_per_day", "cny_per_month", "max_cost", "own_accounts"];
const WITHOUT_WARNING = ["requests_per_minute", "concurrent_jobs", "max_cost", "own_accounts"];
const SOFT_LIMITS = HARD_LIMITS.filter((name) => !WITHOUT_WARNING.includes(name));
const MONEY = /^(usd|cny)_|^max_cost$/;

export default function UserPage({ params }) {
  const path = `/admin/v1/users/${params.id}`;
  const loaded = useLoaded(() => api.get(path), [params.id]);
  const usage = useLoaded(() => api.get("/admin/v1/usage", { user: params.id, group_by: "day", ...lastDays(30) }), [params.id]);
  const user = loaded.data;
  const [disable, disabling] = useAction(async () => {
    if (!user.disabled && !(await confirm({ title: t("users.disable"), text: t("users.disable_text", { name: user.name }), action: t("users.disable") }))) return;
    loaded.setData(await api.patch(path, { disabled: !user.disabled }));
    toast(t("state.saved"));
  });
  if (!user) return html`<${PageHeader} title=${t("nav.user")} />${loaded.error ? html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />` : html`<${Loading} />`}`;
  return html`<p class="crumbs"><${Link} to="users"><${Icon} name="left" size=${16} />${t("nav.users")}<//></p>
    <${PageHeader} title=${user.name}><${StatusBadge} status=${user.disabled ? "disabled" : "enabled"} /><${Link} to=${`jobs?who=all&user=${user.id}`} class="button"><${Icon} name="list" size=${18} /><span>${t("jobs.of_user")}</span><//><${Button} kind=${user.disabled ? "plain" : "danger"} busy=${disabling} onClick=${disable}>${t(user.disabled ? "users.enable" : "users.disable")}<//><//>
    <div class="stack"><div class="two-columns"><${SettingsForm} key=${user.id} user=${user} path=${path} onChanged=${loaded.setData} />
      <section class="card"><h2>${t("limit.current_usage")}</h2>${usage.data ? html`<${LimitList} limits=${usage.data.limits} />` : usage.error ? html`<${ErrorMessage} error=${usage.error} onRetry=${usage.reload} />` : html`<${Loading} />`}</section></div>
      <${SignInCard} key=${`sign-in-${user.id}`} user=${user} path=${path} />
      <${LimitsForm} key=${`limits-${user.id}`} user=${user} path=${path} onChanged=${(updated) => { loaded.setData(updated); usage.reload(); }} />
      <${Keys} user=${user} />
      ${usage.data && html`<${UsagePlots} report=${usage.data} />`}</div>`;
}

// Submits a form about the user: [submit, busy, error]. `changes()` = the body of the request.
const useSave = (path, changes, onSaved) => useSubmit(async () => {
  onSaved(await api.patch(path, changes()));
  toast(t("state.saved"));
});

const settingsOf = (user) => ({ role: user.role, groups: user.groups.join(", "), weight: String(user.weight), priority: String(user.priority), retention: user.retention_days === null ? "" : String(user.retention_days) });

function SettingsForm({ user, path, onChanged }) {
  const [form, setForm] = useState(settingsOf(user));
  useUnsaved(JSON.stringify(form) !== JSON.stringify(settingsOf(user)));
  const changes = () => ({ role: form.role, groups: splitList(form.groups), weight: Number(form.weight), priority: Number(form.priority), retention_days: form.retention.trim() === "" ? null : Number(form.retention) });
  const [submit, busy, error] = useSave(path, changes, (updated) => {
    setForm(settingsOf(updated));
    onChanged(updated);
  });
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  return html`<section class="card"><h2>${t("users.settings")}</h2><form class="stack" onSubmit=${submit}>
    <${Select} label=${t("users.role")} hint=${t(`role.${form.role}_text`)} value=${form.role} onChange=${set("role")} options=${["member", "viewer", "admin"].map((item) => [item, t(`role.${item}`)])} />
    <${TextField} label=${t("users.groups")} hint=${t("users.groups_hint")} value=${form.groups} onInput=${set("groups")} />
    <div class="fields three"><${TextField} label=${t("users.weight")} hint=${t("users.weight_hint")} type="number" step="0.1" min="0.1" max="100" required value=${form.weight} onInput=${set("weight")} />
      <${TextField} label=${t("users.priority")} hint=${t("users.priority_hint")} type="number" min="-5" max="5" required value=${form.priority} onInput=${set("priority")} />
      <${TextField} label=${t("users.retention")} hint=${t("users.retention_hint")} type="number" min="0" max="36500" value=${form.retention} onInput=${set("retention")} placeholder=${t("limit.default")} /></div>
    ${error && html`<${ErrorMessage} error=${error} />`}<div class="row end"><${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div></form></section>`;
}

// The API's word for "no limit"; people read and write theirs.
const UNLIMITED = "unlimited";
const toText = (value) => (value === null || value === undefined ? "" : value === UNLIMITED ? t("limit.unlimited") : String(value));
// The API value of a limit field: null if empty, a number, or another word, which the server validates.
const parseLimit = (value) => (value.trim() === "" ? null : /^\d+(\.\d+)?$/.test(value.trim()) ? Number(value) : value.trim() === t("limit.unlimited") ? UNLIMITED : value.trim().toLowerCase());

function LimitsForm({ user, path, onChanged }) {
  const initialValues = (item) => ({ hard: Object.fromEntries(HARD_LIMITS.map((name) => [name, toText(item.limits[name])])), soft: Object.fromEntries(SOFT_LIMITS.map((name) => [name, toText(item.soft_limits[name])])) });
  const [form, setForm] = useState(() => initialValues(user));
  useUnsaved(JSON.stringify(form) !== JSON.stringify(initialValues(user)));
  const valuesOf = (part) => Object.fromEntries(Object.entries(form[part]).map(([name, value]) => [name, parseLimit(value)]));
  const changes = () => ({ limits: valuesOf("hard"), soft_limits: valuesOf("soft") });
  const [submit, busy, error] = useSave(path, changes, (updated) => {
    setForm(initialValues(updated));
    onChanged(updated);
  });
  const set = (part, name) => (event) => {
    event.target.setCustomValidity("");
    setForm({ ...form, [part]: { ...form[part], [name]: event.target.value } });
  };
  const field = (part, name, label) => html`<input aria-label=${label} inputmode=${MONEY.test(name) ? "decimal" : "numeric"} pattern=${`${MONEY.test(name) ? "[0-9]*(\\.[0-9]{1,3})?" : "[0-9]*"}|${UNLIMITED}|${t("limit.unlimited")}`} onInvalid=${(event) => event.target.setCustomValidity(t("limit.invalid"))} list="limit-words" value=${form[part][name]} onInput=${set(part, name)} placeholder=${t(part === "hard" ? "limit.default" : "limit.automatic")} />`;
  return html`<section class="card"><h2>${t("limit.title")}</h2><p class="hint">${t("limit.hint")}</p><datalist id="limit-words"><option value=${t("limit.unlimited")} /></datalist><form class="stack gap" onSubmit=${submit}>
    <div class="limit-fields"><span></span><span class="label">${t("limit.hard")}</span><span class="label">${t("limit.soft")}</span>
      ${HARD_LIMITS.map((name) => html`<span key=${name} class="label">${t(`limit.${name}`)}</span>${field("hard", name, `${t(`limit.${name}`)}: ${t("limit.hard")}`)}${SOFT_LIMITS.includes(name) ? field("soft", name, `${t(`limit.${name}`)}: ${t("limit.soft")}`) : html`<span></span>`}`)}</div>
    ${error && html`<${ErrorMessage} error=${error} />`}<div class="row end"><${Button} kind="primary" type="submit" busy=${busy}>${t("limit.save")}<//></div></form></section>`;
}

function Keys({ user }) {
  const loaded = useLoaded(() => api.get("/admin/v1/keys", { user: user.id, limit: 1000 }), [user.id]);
  const [adding, setAdding] = useState(false);
  const [created, setCreated] = useState(null);
  const keys = [...(loaded.data?.data ?? [])].reverse().filter((key) => key.status !== "revoked" && key.status !== "expired");
  return html`<section class="card flush"><header class="row spread card-head"><h2>${t("nav.keys")}</h2><${Button} small icon="plus" onClick=${() => setAdding(true)}>${t("keys.new")}<//></header>
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${keys.length > 0 ? html`<${KeyTable} base="/admin/v1/keys" keys=${keys} editable onChanged=${loaded.reload} />` : !loaded.loading && html`<p class="hint pad">${t("users.no_keys")}</p>`}
    ${adding && html`<${NewKeyDialog} base="/admin/v1/keys" fields=${{ user: user.id }} role=${user.role} onClose=${() => setAdding(false)} onCreated=${(key) => { setAdding(false); setCreated(key); loaded.reload(); }} />`}
    ${created && html`<${NewKeySecret} created=${created} onClose=${() => setCreated(null)} />`}</section>`;
}

// How the user signs in: an invitation link, a password, the browsers in use.
function SignInCard({ user, path }) {
  const loaded = useLoaded(() => api.get(`${path}/sign-in`), [path]);
  const [invited, setInvited] = useState(null);
  const methods = loaded.data;
  const [invite, inviting] = useAction(async () => {
    setInvited(await api.post(`${path}/invitations`, {}));
    loaded.reload();
  });
  const [change] = useAction(async (part) => {
    if (part === "password" && !(await confirm({ title: t("access.remove_password"), text: t("access.remove_password_text", { name: user.name }), action: t("access.remove_password") }))) return;
    loaded.setData(await api.delete(`${path}/${part}`));
    toast(t("state.saved"));
  });
  const facts = methods && [t(methods.password ? "access.has_password" : "access.has_no_password"), methods.invitation_expires_at && t("access.invited"), ...methods.identities.map((issuer) => t("access.identity", { issuer }))].filter(Boolean);
  return html`<section class="card flush"><header class="row spread card-head"><div><h2>${t("access.sign_in")}</h2>${facts && html`<p class="hint">${facts.join(" · ")}</p>`}</div>
      <div class="row">${methods?.invitation_expires_at && html`<${Button} small onClick=${() => change("invitations")}>${t("access.withdraw")}<//>`}
        ${methods?.password && html`<${Button} small onClick=${() => change("password")}>${t("access.remove_password")}<//>`}
        <${Button} small icon="send" busy=${inviting} onClick=${invite}>${t("access.invite")}<//></div></header>
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${methods && html`<${SessionTable} methods=${methods} base=${path} onChanged=${loaded.setData} />`}
    ${invited && html`<${SecretDialog} title=${t("access.invited_title", { name: user.name })} text=${t("access.invited_text")} secret=${invited.url} label=${t("access.link")} onClose=${() => setInvited(null)} />`}</section>`;
}
