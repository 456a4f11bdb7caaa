// One upstream account: state, credits over time, limits, and replacing its session.
import { html, useState } from "../lib/ui/preact.js";
import { api } from "../lib/api/client.js";
import { useLoaded, usePolling } from "../lib/api/loading.js";
import { formatNumber, t } from "../lib/state/language.js";
import { Link } from "../lib/state/router.js";
import { useUnsaved } from "../lib/state/unsaved.js";
import { ReplaceDialog } from "../lib/ui/accounts/replace.js";
import { AccountActions, AccountState, ADMIN_BASE, formatWorkingHours, Load, OWN_BASE, Reason, RestingModels, splitList } from "../lib/ui/accounts/views.js";
import { AccountWarnings } from "../lib/ui/accounts/warnings.js";
import { Button, CheckboxGroup, ErrorMessage, Loading, PageHeader, RelativeTime, TextArea, TextField, toast, useSubmit } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { Plot } from "../lib/ui/charts/plot.js";

const DAYS_SHOWN = 30;
const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

export default function AccountPage({ params }) {
  const system = useLoaded(() => api.get("/admin/v1/system"));
  return html`<${OneAccount} base=${ADMIN_BASE} page="accounts" id=${params.id} defaults=${system.data?.defaults} />`;
}

export const OwnAccount = ({ params }) => html`<${OneAccount} base=${OWN_BASE} page="my-accounts" id=${params.id} />`;

function OneAccount({ base, page, id, defaults }) {
  const path = `${base}/${id}`;
  const loaded = usePolling(() => api.get(path), 5, [id]);
  const credits = usePolling(() => api.get(`${path}/credits`, { days: DAYS_SHOWN }), 30, [id]);
  const [replacing, setReplacing] = useState(false);
  const account = loaded.data;
  const back = html`<p class="crumbs"><${Link} to=${page}><${Icon} name="left" size=${16} />${t(base === ADMIN_BASE ? "nav.accounts" : "nav.my_accounts")}<//></p>`;
  if (!account) return html`${back}<${PageHeader} title=${t("nav.account")} />${loaded.error ? html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />` : html`<${Loading} />`}`;
  const changed = (update) => loaded.setData((before) => ({ ...before, ...update }));
  return html`${back}
    <${PageHeader} title=${account.label}>${base === ADMIN_BASE && html`<${Link} to=${`jobs?who=all&account=${account.id}`} class="button small"><${Icon} name="list" size=${16} /><span>${t("jobs.of_account")}</span><//>`}<${AccountActions} account=${account} base=${base} onChanged=${changed} /><//>
    <${AccountWarnings} accounts=${[account]} page=${page} />
    <div class="with-sidebar sidebar-first"><aside class="stack" aria-label=${t("accounts.account")}><section class="card"><h2>${t("accounts.state")}</h2><${AccountState} account=${account} /><div class="gap"><${Load} account=${account} defaults=${defaults} /></div>
      <div class="gap"><${Button} icon="key" onClick=${() => setReplacing(true)}>${t(account.key ? "accounts.replace_key" : "accounts.replace")}<//></div><${Facts} account=${account} />
      <p class="hint gap break"><code>${account.id}</code></p></section></aside>
    <div class="stack">
      <${RestingModels} account=${account} base=${base} onChanged=${changed} />
      <${CreditHistory} credits=${credits} />
      <${LimitsForm} key=${account.id} account=${account} defaults=${defaults} path=${path} onChanged=${changed} />
    </div></div>
    ${replacing && html`<${ReplaceDialog} account=${account} path=${path} onClose=${() => setReplacing(false)} onChanged=${changed} />`}`;
}

function Facts({ account }) {
  const relativeTime = (at) => (at ? html`<${RelativeTime} at=${at} />` : "–");
  const { key } = account;
  const rows = [
    ["provider", account.provider],
    ["region", account.country ? `${account.region} · ${account.country}` : account.region],
    ["since", account.state_since && relativeTime(account.state_since)],
    ["owner", account.user ?? t("accounts.platform")],
    ["groups", account.groups.join(t("list.separator")) || (account.pool ? t("accounts.all_users") : null)],
    ["credits", account.credits === null ? null : html`${formatNumber(account.credits)} · ${relativeTime(account.credits_at)}`],
    ["models", account.models && Object.entries(account.models).map(([kind, count]) => `${t(`kind.${kind}`)} ${count}`).join(t("list.separator"))],
    ["currency", account.currency],
    ["scope", key?.scope && t(`accounts.scope_${key.scope}`)],
    ["offered", key?.models && html`<details><summary>${t("accounts.key_models", { n: key.models.length })}</summary>${key.models.join(", ")}</details>`],
    ["echo", key && t(key.echo_proved ? "accounts.echo_proved" : "accounts.echo_unproved")],
    ["limit_group", account.limit_group],
    ["jobs_today", account.max_jobs_per_day ? `${account.jobs_today} / ${account.max_jobs_per_day}` : account.jobs_today],
    ["hours", formatWorkingHours(account)],
    ["proxy", account.proxy ?? t("accounts.no_proxy")],
    ["last_job", relativeTime(account.last_submit_at)],
    ["checked", relativeTime(account.checked_at)],
    ["check_code", account.check_code && html`<${Reason} code=${account.check_code} />`],
    ["next_check", account.next_check_at && relativeTime(account.next_check_at)],
    ["added", relativeTime(account.created_at)],
  ];
  return html`<dl class="facts">${rows.filter(([, value]) => value || value === 0).map(([name, value]) => html`<div key=${name}><dt>${t(`fact.${name}`)}</dt><dd>${value}</dd></div>`)}</dl>`;
}

// Noon of the last days (UTC, as the server counts them), the oldest first: the charts always show all of them.
function shownDays() {
  const noon = new Date().setUTCHours(12, 0, 0, 0);
  return Array.from({ length: DAYS_SHOWN }, (_, n) => new Date(noon - (DAYS_SHOWN - 1 - n) * 86400e3));
}

function CreditHistory({ credits }) {
  const history = credits.data;
  const readings = history?.readings ?? [];
  const days = shownDays();
  const sums = new Map((history?.spent ?? []).map((item) => [item.day, history.currency ? item.credits / 1000 : item.credits]));
  const now = Math.ceil(Date.now() / 3600e3) * 3600;
  return html`<section class="card">${credits.error && !history && html`<${ErrorMessage} error=${credits.error} />`}${!history && !credits.error && html`<${Loading} />`}
    ${history && (readings.length ? html`<${Plot} label=${t("accounts.credits_curve")} times=${readings.map((item) => item.at)} range=${[now - DAYS_SHOWN * 86400, now]} series=${[{ label: t("param.credits"), values: readings.map((item) => item.credits), colour: "--accent", stepped: true }]} />` : html`<h2>${t("accounts.credits_curve")}</h2><p class="hint">${t("accounts.no_readings")}</p>`)}
    ${history && history.left !== null && html`<p class="hint gap">${t("accounts.reserved", { n: formatNumber(history.reserved), left: formatNumber(history.left) })}</p>`}
    ${sums.size > 0 && html`<div class="gap"><${Plot} bars money=${Boolean(history.currency)} height=${140} label=${t("accounts.spent")} times=${days.map((day) => day.getTime() / 1000)} series=${[{ label: history.currency ?? t("param.credits"), values: days.map((day) => sums.get(day.toISOString().slice(0, 10)) ?? 0), colour: "--good" }]} /></div>`}</section>`;
}

const toText = (value) => (value === null || value === undefined ? "" : String(value));
// `name = id` lines as an object.
const pairsOf = (text) => Object.fromEntries(text.split("\n").filter((line) => line.trim()).map((line) => [line.split("=")[0].trim(), line.slice(line.indexOf("=") + 1).trim()]));
const numberOrNull = (value) => (value.trim() === "" ? null : Number(value));

function LimitsForm({ account, defaults, path, onChanged }) {
  const initialValues = (item) => ({
    label: item.label, groups: item.groups.join(", "), max_images: toText(item.max_images), max_videos: toText(item.max_videos), submits_per_minute: toText(item.submits_per_minute),
    max_jobs_per_day: toText(item.max_jobs_per_day), poll_min_seconds: toText(item.poll_min_seconds), poll_max_seconds: toText(item.poll_max_seconds), poll_eagerness: toText(item.poll_eagerness), hours: item.working_hours !== null, days: item.working_hours?.days ?? DAYS, start: item.working_hours?.start ?? "09:00", end: item.working_hours?.end ?? "18:00",
    zone: item.working_hours?.zone ?? Intl.DateTimeFormat().resolvedOptions().timeZone, proxy: "", limit_group: item.limit_group ?? "",
    model_ids: Object.entries(item.model_ids).map((pair) => pair.join(" = ")).join("\n"),
  });
  const [form, setForm] = useState(() => initialValues(account));
  useUnsaved(JSON.stringify(form) !== JSON.stringify(initialValues(account)));
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const [save, busy, error] = useSubmit(async () => {
    const changes = {
      label: form.label.trim(), max_images: numberOrNull(form.max_images), max_videos: numberOrNull(form.max_videos), submits_per_minute: numberOrNull(form.submits_per_minute), max_jobs_per_day: numberOrNull(form.max_jobs_per_day),
      poll_min_seconds: numberOrNull(form.poll_min_seconds), poll_max_seconds: numberOrNull(form.poll_max_seconds), poll_eagerness: numberOrNull(form.poll_eagerness),
      working_hours: form.hours ? { days: form.days, start: form.start, end: form.end, zone: form.zone } : null, ...(account.pool ? { groups: splitList(form.groups) } : {}), ...(form.proxy.trim() ? { proxy: form.proxy.trim() } : {}),
      ...(account.key ? { limit_group: form.limit_group.trim() || null, model_ids: pairsOf(form.model_ids) } : {}),
    };
    const updated = await api.patch(path, changes);
    onChanged(updated);
    setForm(initialValues(updated));
    toast(t("state.saved"));
  });
  const limit = (name, fallback, rest = {}) => html`<${TextField} label=${t(`cap.${name}`)} type="number" min="1" value=${form[name]} onInput=${set(name)} placeholder=${fallback ?? t(name === "max_jobs_per_day" ? "accounts.no_limit" : "accounts.platform_setting")} ...${rest} />`;
  return html`<section class="card"><h2>${t("accounts.settings")}</h2><form class="stack" onSubmit=${save}>
    <div class="fields"><${TextField} label=${t("accounts.label")} value=${form.label} onInput=${set("label")} maxlength="100" required />
      ${account.pool && html`<${TextField} label=${t("accounts.groups")} hint=${t("accounts.groups_hint")} value=${form.groups} onInput=${set("groups")} />`}</div>
    <div class="fields four">${limit("max_images", defaults?.max_images)}${limit("max_videos", defaults?.max_videos)}${limit("submits_per_minute", defaults?.submits_per_minute, { step: "any", min: "0.1" })}${limit("max_jobs_per_day")}</div>
    <div class="fields three">${limit("poll_min_seconds", defaults?.poll_min_seconds, { step: "any", min: "0.05", max: "60" })}${limit("poll_max_seconds", defaults?.poll_max_seconds, { step: "any", min: "0.05", max: "600" })}${limit("poll_eagerness", defaults?.poll_eagerness, { step: "any", min: "0.01", max: "100", hint: t("accounts.eagerness_hint") })}</div>
    ${account.key && html`<${TextField} label=${t("accounts.limit_group")} hint=${t("accounts.limit_group_hint")} value=${form.limit_group} onInput=${set("limit_group")} maxlength="60" />
      <${TextArea} label=${t("accounts.model_ids")} hint=${t("accounts.model_ids_hint")} value=${form.model_ids} onInput=${set("model_ids")} class="mono" rows="3" spellcheck="false" autocomplete="off" />`}
    <label class="check"><input type="checkbox" checked=${form.hours} onChange=${(event) => set("hours")(event.target.checked)} /><span>${t("accounts.only_hours")}</span></label>
    ${form.hours && html`<${CheckboxGroup} label=${t("accounts.days")} options=${DAYS.map((day) => [day, t(`day.${day}`)])} selected=${form.days} onChange=${set("days")} />
      <div class="fields three"><${TextField} label=${t("accounts.from")} type="time" value=${form.start} onInput=${set("start")} required /><${TextField} label=${t("accounts.to")} type="time" value=${form.end === "24:00" ? "00:00" : form.end} onInput=${set("end")} required />
      <${TextField} label=${t("accounts.time_zone")} value=${form.zone} onInput=${set("zone")} required /></div>`}
    <${TextField} label=${t("accounts.proxy")} hint=${account.proxy ? t("accounts.proxy_now", { route: account.proxy }) : t("accounts.proxy_hint")} value=${form.proxy} onInput=${set("proxy")} placeholder="socks5://user:password@host:1080" autocomplete="off" spellcheck="false" />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end">${account.proxy && html`<${Button} onClick=${async () => onChanged(await api.patch(path, { proxy: null }))}>${t("accounts.proxy_remove")}<//>`}<${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div></form></section>`;
}
