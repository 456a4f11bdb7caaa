// One upstream account: how it stands, its credits over time, what it may do, a new session for it.
import { html, useState } from "../lib/ui.js";
import { AccountActions, AccountState, Load, hoursOf, words } from "../lib/accounts.js";
import { api } from "../lib/api.js";
import { number, t } from "../lib/language.js";
import { Ago, Button, Checks, Dialog, Failure, Icon, Loading, PageHead, TextField, toast, useLoaded } from "../lib/parts.js";
import { Plot } from "../lib/plot.js";
import { usePolled } from "../lib/polling.js";
import { Link } from "../lib/router.js";

const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

export default function AccountPage({ params }) {
  const path = `/admin/v1/accounts/${params.id}`;
  const loaded = usePolled(() => api.get(path), 5, [params.id]);
  const money = usePolled(() => api.get(`${path}/credits`, { days: 30 }), 30, [params.id]);
  const system = useLoaded(() => api.get("/admin/v1/system"));
  const [replacing, setReplacing] = useState(false);
  const account = loaded.data;
  if (!account) return html`<${PageHead} title=${t("nav.account")} />${loaded.error ? html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />` : html`<${Loading} />`}`;
  const changed = (now) => loaded.setData((before) => ({ ...before, ...now }));
  return html`<p class="crumbs"><${Link} to="accounts"><${Icon} name="left" size=${16} />${t("nav.accounts")}<//></p>
    <${PageHead} title=${account.label}><${AccountActions} account=${account} onChanged=${changed} /><//>
    <div class="job-page"><div class="stack">
      <${Money} money=${money} />
      <${LimitsForm} key=${account.id} account=${account} defaults=${system.data?.defaults} path=${path} onChanged=${changed} />
    </div><aside class="stack" aria-label=${t("accounts.account")}><section class="card"><h2>${t("accounts.state")}</h2><${AccountState} account=${account} /><div class="gap"><${Load} account=${account} defaults=${system.data?.defaults} /></div><${Facts} account=${account} />
      <p class="hint gap break"><code>${account.id}</code></p>
      <div class="gap"><${Button} icon="key" onClick=${() => setReplacing(true)}>${t("accounts.replace")}<//></div></section></aside></div>
    ${replacing && html`<${Replace} account=${account} path=${path} onClose=${() => setReplacing(false)} onChanged=${changed} />`}`;
}

function Facts({ account }) {
  const when = (at) => (at ? html`<${Ago} at=${at} />` : "–");
  const rows = [
    ["region", account.country ? `${account.region} · ${account.country}` : account.region],
    ["since", account.state_since && when(account.state_since)],
    ["owner", account.user ?? t("accounts.platform")],
    ["groups", account.groups.join(", ") || (account.pool ? t("accounts.everybody") : null)],
    ["credits", account.credits === null ? null : html`${number(account.credits)} · ${when(account.credits_at)}`],
    ["models", account.models && Object.entries(account.models).map(([kind, count]) => `${t(`kind.${kind}`)} ${count}`).join(", ")],
    ["jobs_today", account.max_jobs_per_day ? `${account.jobs_today} / ${account.max_jobs_per_day}` : account.jobs_today],
    ["hours", hoursOf(account)],
    ["proxy", account.proxy ?? t("accounts.no_proxy")],
    ["last_job", when(account.last_submit_at)],
    ["checked", when(account.checked_at)],
    ["check_code", account.check_code && html`<code>${account.check_code}</code>`],
    ["next_check", account.next_check_at && when(account.next_check_at)],
    ["added", when(account.created_at)],
  ];
  return html`<dl class="facts">${rows.filter(([, value]) => value || value === 0).map(([name, value]) => html`<div key=${name}><dt>${t(`fact.${name}`)}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Money({ money }) {
  const told = money.data;
  const points = told?.readings ?? [];
  const spent = [...(told?.spent ?? [])].sort((one, other) => one.day.localeCompare(other.day));
  return html`<section class="card">${money.error && !told && html`<${Failure} error=${money.error} />`}${!told && !money.error && html`<${Loading} />`}
    ${told && (points.length ? html`<${Plot} label=${t("accounts.credits_curve")} times=${points.map((one) => one.at)} unit=${points.at(-1).at - points[0].at > 3 * 86400 ? 86400 : 3600} series=${[{ label: t("param.credits"), values: points.map((one) => one.credits), colour: "--accent", stepped: true }]} />` : html`<h2>${t("accounts.credits_curve")}</h2><p class="hint">${t("accounts.no_readings")}</p>`)}
    ${told && told.left !== null && html`<p class="hint gap">${t("accounts.reserved", { n: number(told.reserved), left: number(told.left) })}</p>`}
    ${spent.length > 0 && html`<div class="gap"><${Plot} bars height=${140} label=${t("accounts.spent")} times=${spent.map((one) => new Date(`${one.day}T12:00:00`).getTime() / 1000)} series=${[{ label: t("param.credits"), values: spent.map((one) => one.credits), colour: "--good" }]} /></div>`}</section>`;
}

const text = (value) => (value === null || value === undefined ? "" : String(value));
const numberOrNull = (value) => (value.trim() === "" ? null : Number(value));

function LimitsForm({ account, defaults, path, onChanged }) {
  const begin = (one) => ({
    label: one.label, groups: one.groups.join(", "), max_images: text(one.max_images), max_videos: text(one.max_videos), submits_per_minute: text(one.submits_per_minute),
    max_jobs_per_day: text(one.max_jobs_per_day), hours: one.working_hours !== null, days: one.working_hours?.days ?? DAYS, start: one.working_hours?.start ?? "09:00", end: one.working_hours?.end ?? "18:00",
    zone: one.working_hours?.zone ?? Intl.DateTimeFormat().resolvedOptions().timeZone, proxy: "",
  });
  const [form, setForm] = useState(() => begin(account));
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const save = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const wish = {
      label: form.label.trim(), max_images: numberOrNull(form.max_images), max_videos: numberOrNull(form.max_videos), submits_per_minute: numberOrNull(form.submits_per_minute), max_jobs_per_day: numberOrNull(form.max_jobs_per_day),
      working_hours: form.hours ? { days: form.days, start: form.start, end: form.end, zone: form.zone } : null, ...(account.pool ? { groups: words(form.groups) } : {}), ...(form.proxy.trim() ? { proxy: form.proxy.trim() } : {}),
    };
    try {
      const now = await api.patch(path, wish);
      onChanged(now);
      setForm(begin(now));
      toast(t("state.saved"));
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  const limit = (name, standard, rest = {}) => html`<${TextField} label=${t(`cap.${name}`)} type="number" min="1" value=${form[name]} onInput=${set(name)} placeholder=${standard ?? t("accounts.no_cap")} ...${rest} />`;
  return html`<section class="card"><h2>${t("accounts.settings")}</h2><form class="stack" onSubmit=${save}>
    <div class="fields"><${TextField} label=${t("accounts.label")} value=${form.label} onInput=${set("label")} maxlength="100" required />
      ${account.pool && html`<${TextField} label=${t("accounts.groups")} hint=${t("accounts.groups_hint")} value=${form.groups} onInput=${set("groups")} />`}</div>
    <div class="fields four">${limit("max_images", defaults?.max_images)}${limit("max_videos", defaults?.max_videos)}${limit("submits_per_minute", defaults?.submits_per_minute, { step: "any", min: "0.1" })}${limit("max_jobs_per_day")}</div>
    <label class="check"><input type="checkbox" checked=${form.hours} onChange=${(event) => set("hours")(event.target.checked)} /><span>${t("accounts.only_hours")}</span></label>
    ${form.hours && html`<${Checks} label=${t("accounts.days")} options=${DAYS.map((day) => [day, t(`day.${day}`)])} chosen=${form.days} onChange=${set("days")} />
      <div class="fields three"><${TextField} label=${t("accounts.from")} type="time" value=${form.start} onInput=${set("start")} required /><${TextField} label=${t("accounts.to")} type="time" value=${form.end === "24:00" ? "00:00" : form.end} onInput=${set("end")} required />
      <${TextField} label=${t("accounts.zone")} value=${form.zone} onInput=${set("zone")} required /></div>`}
    <${TextField} label=${t("accounts.proxy")} hint=${account.proxy ? t("accounts.proxy_now", { place: account.proxy }) : t("accounts.proxy_hint")} value=${form.proxy} onInput=${set("proxy")} placeholder="socks5://user:password@host:1080" autocomplete="off" spellcheck="false" />
    ${error && html`<${Failure} error=${error} />`}
    <div class="row end">${account.proxy && html`<${Button} onClick=${async () => onChanged(await api.patch(path, { proxy: null }))}>${t("accounts.proxy_remove")}<//>`}<${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div></form></section>`;
}

function Replace({ account, path, onClose, onChanged }) {
  const [session, setSession] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const replace = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      onChanged(await api.patch(path, { session: session.trim() }));
      toast(t("accounts.replaced"));
      onClose();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t("accounts.replace")} onClose=${onClose}><form class="stack" onSubmit=${replace}><p>${t("accounts.replace_text", { name: account.label })}</p>
    <${TextField} label=${t("accounts.session")} type="password" autocomplete="off" spellcheck="false" required value=${session} onInput=${setSession} />
    ${error && html`<${Failure} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.back")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!session.trim()}>${t("accounts.replace")}<//></div></form><//>`;
}
