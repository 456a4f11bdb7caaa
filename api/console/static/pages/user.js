// One user: role, share of the accounts, limits and where they stand, keys, what was made.
import { html, useState } from "../lib/ui.js";
import { words } from "../lib/accounts.js";
import { api } from "../lib/api.js";
import { KeyTable, NewKey, NewKeyShown } from "../lib/keys.js";
import { t } from "../lib/language.js";
import { Button, Failure, Icon, Loading, PageHead, Select, Status, TextField, confirm, toast, useAction, useLoaded } from "../lib/parts.js";
import { Link } from "../lib/router.js";
import { Limits, UsagePlots, daysBack } from "../lib/usage.js";

const HARD = ["requests_per_minute", "open_jobs", "jobs_per_day", "jobs_per_month", "credits_per_day", "credits_per_month"];
const SOFT = HARD.slice(1);

export default function UserPage({ params }) {
  const path = `/admin/v1/users/${params.id}`;
  const loaded = useLoaded(() => api.get(path), [params.id]);
  const usage = useLoaded(() => api.get("/admin/v1/usage", { user: params.id, group_by: "day", ...daysBack(30) }), [params.id]);
  const user = loaded.data;
  const [disable, disabling] = useAction(async () => {
    if (!user.disabled && !(await confirm({ title: t("users.disable"), text: t("users.disable_text", { name: user.name }), action: t("users.disable") }))) return;
    loaded.setData(await api.patch(path, { disabled: !user.disabled }));
    toast(t("state.saved"));
  });
  if (!user) return html`<${PageHead} title=${t("nav.user")} />${loaded.error ? html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />` : html`<${Loading} />`}`;
  return html`<p class="crumbs"><${Link} to="users"><${Icon} name="left" size=${16} />${t("nav.users")}<//></p>
    <${PageHead} title=${user.name}><${Status} word=${user.disabled ? "disabled" : "enabled"} /><${Button} kind=${user.disabled ? "plain" : "danger"} busy=${disabling} onClick=${disable}>${t(user.disabled ? "users.enable" : "users.disable")}<//><//>
    <div class="stack"><div class="halves"><${Settings} key=${user.id} user=${user} path=${path} onChanged=${loaded.setData} />
      <section class="card"><h2>${t("limit.standing")}</h2>${usage.data ? html`<${Limits} limits=${usage.data.limits} />` : usage.error ? html`<${Failure} error=${usage.error} onRetry=${usage.reload} />` : html`<${Loading} />`}</section></div>
      <${Budgets} key=${`limits-${user.id}`} user=${user} path=${path} onChanged=${(now) => { loaded.setData(now); usage.reload(); }} />
      <${Keys} user=${user} />
      ${usage.data && html`<${UsagePlots} report=${usage.data} />`}</div>`;
}

// A form that sends `body()` to the user; [save, busy, error].
function useSaving(path, onChanged) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const save = async (body) => {
    setBusy(true);
    setError(null);
    try {
      onChanged(await api.patch(path, body));
      toast(t("state.saved"));
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  return [save, busy, error];
}

function Settings({ user, path, onChanged }) {
  const [form, setForm] = useState({ role: user.role, groups: user.groups.join(", "), weight: String(user.weight), priority: String(user.priority), retention: user.retention_days === null ? "" : String(user.retention_days) });
  const [save, busy, error] = useSaving(path, onChanged);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const submit = (event) => {
    event.preventDefault();
    save({ role: form.role, groups: words(form.groups), weight: Number(form.weight), priority: Number(form.priority), retention_days: form.retention.trim() === "" ? null : Number(form.retention) });
  };
  return html`<section class="card"><h2>${t("users.settings")}</h2><form class="stack" onSubmit=${submit}>
    <${Select} label=${t("users.role")} hint=${t(`role.${form.role}_text`)} value=${form.role} onChange=${set("role")} options=${["member", "viewer", "admin"].map((one) => [one, t(`role.${one}`)])} />
    <${TextField} label=${t("users.groups")} hint=${t("users.groups_hint")} value=${form.groups} onInput=${set("groups")} />
    <div class="fields three"><${TextField} label=${t("users.weight")} hint=${t("users.weight_hint")} type="number" step="0.1" min="0.1" max="100" required value=${form.weight} onInput=${set("weight")} />
      <${TextField} label=${t("users.priority")} hint=${t("users.priority_hint")} type="number" min="-5" max="5" required value=${form.priority} onInput=${set("priority")} />
      <${TextField} label=${t("users.retention")} hint=${t("users.retention_hint")} type="number" min="0" max="36500" value=${form.retention} onInput=${set("retention")} placeholder=${t("limit.default")} /></div>
    ${error && html`<${Failure} error=${error} />`}<div class="row end"><${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div></form></section>`;
}

const shown = (value) => (value === null || value === undefined ? "" : String(value));
// Empty = null, a number, or the word as it stands, which the server judges.
const meant = (value) => (value.trim() === "" ? null : /^\d+$/.test(value.trim()) ? Number(value) : value.trim().toLowerCase());

function Budgets({ user, path, onChanged }) {
  const begin = (one) => ({ hard: Object.fromEntries(HARD.map((name) => [name, shown(one.limits[name])])), soft: Object.fromEntries(SOFT.map((name) => [name, shown(one.soft_limits[name])])) });
  const [form, setForm] = useState(() => begin(user));
  const [save, busy, error] = useSaving(path, (now) => {
    setForm(begin(now));
    onChanged(now);
  });
  const set = (part, name) => (event) => setForm({ ...form, [part]: { ...form[part], [name]: event.target.value } });
  const submit = (event) => {
    event.preventDefault();
    const values = (part) => Object.fromEntries(Object.entries(form[part]).map(([name, value]) => [name, meant(value)]));
    save({ limits: values("hard"), soft_limits: values("soft") });
  };
  const field = (part, name, label) => html`<input aria-label=${label} inputmode="numeric" pattern="[0-9]*|unlimited" list="limit-words" value=${form[part][name]} onInput=${set(part, name)} placeholder=${t(part === "hard" ? "limit.default" : "limit.automatic")} />`;
  return html`<section class="card"><h2>${t("limit.title")}</h2><p class="hint">${t("limit.hint")}</p><datalist id="limit-words"><option value="unlimited" /></datalist><form class="stack gap" onSubmit=${submit}>
    <div class="budgets"><span></span><span class="label">${t("limit.hard")}</span><span class="label">${t("limit.soft")}</span>
      ${HARD.map((name) => html`<span key=${name} class="label">${t(`limit.${name}`)}</span>${field("hard", name, `${t(`limit.${name}`)}: ${t("limit.hard")}`)}${SOFT.includes(name) ? field("soft", name, `${t(`limit.${name}`)}: ${t("limit.soft")}`) : html`<span></span>`}`)}</div>
    ${error && html`<${Failure} error=${error} />`}<div class="row end"><${Button} kind="primary" type="submit" busy=${busy}>${t("limit.save")}<//></div></form></section>`;
}

function Keys({ user }) {
  const loaded = useLoaded(() => api.get("/admin/v1/keys", { user: user.id, limit: 1000 }), [user.id]);
  const [adding, setAdding] = useState(false);
  const [made, setMade] = useState(null);
  const keys = [...(loaded.data?.data ?? [])].reverse().filter((key) => key.status !== "revoked" && key.status !== "expired");
  return html`<section class="card flush"><header class="row spread card-head"><h2>${t("nav.keys")}</h2><${Button} small icon="plus" onClick=${() => setAdding(true)}>${t("keys.new")}<//></header>
    ${loaded.error && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${keys.length > 0 ? html`<${KeyTable} base="/admin/v1/keys" keys=${keys} changes onChanged=${loaded.reload} />` : !loaded.loading && html`<p class="hint pad">${t("users.no_keys")}</p>`}
    ${adding && html`<${NewKey} base="/admin/v1/keys" wish=${{ user: user.id }} role=${user.role} onClose=${() => setAdding(false)} onMade=${(key) => { setAdding(false); setMade(key); loaded.reload(); }} />`}
    ${made && html`<${NewKeyShown} made=${made} onClose=${() => setMade(null)} />`}</section>`;
}
