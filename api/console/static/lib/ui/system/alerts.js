// Alerts: what fires now and what did, the rules, and the channels.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { usePolling } from "../../api/loading.js";
import { formatNumber, t } from "../../state/language.js";
import { Button, confirm, Dialog, ErrorMessage, Loading, RelativeTime, Select, StatusBadge, TextField, toast, useAction, useSubmit } from "../components.js";
import { SecretDialog } from "../access/secret_dialog.js";
import { ChannelDialog, ruleTitle } from "./alert_channel.js";

const BASE = "/admin/v1/alerts";
const HOUR = 3600;
const MUTES = [1, 8, 24, 168];
const LISTED = 30;

const load = async () => {
  const [alerts, rules, channels] = await Promise.all([api.get(`${BASE}?limit=${LISTED}`), api.get(`${BASE}/rules`), api.get(`${BASE}/channels`)]);
  return { alerts: alerts.data, rules: rules.data, channels: channels.data };
};

export function Alerts() {
  const loaded = usePolling(load, 15);
  const state = loaded.data;
  return html`<section class="card stack" aria-labelledby="alerts-title"><h2 id="alerts-title">${t("alerts.title")}</h2>
    ${loaded.error && !state && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}${!state && !loaded.error && html`<${Loading} />`}
    ${state && html`<${AlertTable} alerts=${state.alerts} reload=${loaded.reload} />
      <${Channels} channels=${state.channels} rules=${state.rules} reload=${loaded.reload} /><${Rules} rules=${state.rules} reload=${loaded.reload} />`}</section>`;
}

// Chooses for how long there are no messages. `onChange` gets unix seconds, or null to end it.
function Mute({ name, until, onChange }) {
  const muted = until !== null && until * 1000 > Date.now();
  if (muted) return html`<span class="row"><span class="hint">${t("alerts.muted")} <${RelativeTime} at=${until} /></span><${Button} small aria-label=${t("alerts.unmute_one", { name })} onClick=${() => onChange(null)}>${t("alerts.unmute")}<//></span>`;
  return html`<select class="small" aria-label=${t("alerts.mute_one", { name })} value="" onChange=${(event) => event.target.value && onChange(Math.floor(Date.now() / 1000) + event.target.value * HOUR)}>
    <option value="">${t("alerts.mute")}</option>${MUTES.map((hours) => html`<option key=${hours} value=${hours}>${t("alerts.mute_hours", { n: hours })}</option>`)}</select>`;
}

function AlertTable({ alerts, reload }) {
  const [mute] = useAction(async (alert, until) => {
    await api.patch(`${BASE}/${alert.id}`, { muted_until: until });
    reload();
  });
  if (!alerts.length) return html`<p>${t("alerts.none")}</p>`;
  return html`<div class="table-wrap" tabindex="0" role="region" aria-label=${t("alerts.title")}><table class="table"><thead><tr><th>${t("filter.status")}</th><th>${t("alerts.alert")}</th><th>${t("alerts.since")}</th><th>${t("alerts.message")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
    <tbody>${alerts.map((item) => html`<tr key=${item.id}><td data-label=${t("filter.status")}><${StatusBadge} tone=${item.status === "firing" ? "bad" : "good"}>${t(`alerts.${item.status}`)}<//></td>
      <td data-label=${t("alerts.alert")}><div><strong>${ruleTitle(item.rule, item.threshold)}</strong><p class="hint">${item.text}</p></div></td>
      <td data-label=${t("alerts.since")}><div><${RelativeTime} at=${item.started_at} />${item.resolved_at !== null && html`<p class="hint">${t("alerts.until")} <${RelativeTime} at=${item.resolved_at} /></p>`}</div></td>
      <td data-label=${t("alerts.message")}>${item.notified_at === null ? "–" : html`<${RelativeTime} at=${item.notified_at} />`}</td>
      <td class="end">${item.status === "firing" && html`<${Mute} name=${ruleTitle(item.rule, item.threshold)} until=${item.muted_until} onChange=${(until) => mute(item, until)} />`}</td></tr>`)}</tbody></table></div>`;
}

const MESSAGE_TONE = { pending: "wait", delivered: "good", failed: "bad" };

function Channels({ channels, rules, reload }) {
  const [editing, setEditing] = useState(null); // a channel, or {} for a new one
  const [secret, setSecret] = useState(null);
  const thresholds = new Map(rules.map((rule) => [rule.name, rule.threshold]));
  const [act, busy] = useAction(async (action) => {
    await action();
    reload();
  });
  const saved = (channel) => {
    setEditing(null);
    if (channel.secret) setSecret(channel.secret);
    reload();
  };
  const test = (item) => act(async () => {
    await api.post(`${BASE}/channels/${item.id}/test`);
    toast(t("alerts.test_sent"));
  });
  const remove = async (item) => {
    if (await confirm({ title: t("alerts.delete_channel"), text: item.name, action: t("action.delete") })) act(() => api.delete(`${BASE}/channels/${item.id}`));
  };
  return html`<div><div class="row spread"><h3>${t("alerts.channels")}</h3><${Button} icon="plus" onClick=${() => setEditing({})}>${t("alerts.add_channel")}<//></div>
    ${!channels.length && html`<p class="hint">${t("alerts.no_channels")}</p>`}
    <ul class="workers">${channels.map((item) => html`<li key=${item.id}><div class="row spread"><strong class="break">${item.name}</strong><span class="row">${item.disabled && html`<${StatusBadge} tone="off">${t("alerts.paused")}<//>`}${item.last_message && html`<${StatusBadge} tone=${MESSAGE_TONE[item.last_message.status]}>${t(`alerts.last_${item.last_message.status}`)}<//>`}</span></div>
      <p class="hint break">${[t(`alerts.kind_${item.kind}`), item.url ?? item.mail.recipients.join(t("list.separator")), item.rules ? item.rules.map((name) => ruleTitle(name, thresholds.get(name))).join(t("list.separator")) : t("alerts.all_rules")].join(" · ")}</p>
      ${item.last_message?.error && html`<p class="failure small break">${item.last_message.error}</p>`}${item.disabled_reason && html`<p class="hint break">${item.disabled_reason}</p>`}
      <div class="row end"><${Button} small busy=${busy} aria-label=${t("alerts.test_one", { name: item.name })} onClick=${() => test(item)}>${t("alerts.test")}<//>
        <${Button} small busy=${busy} aria-label=${t(item.disabled ? "alerts.resume_one" : "alerts.pause_one", { name: item.name })} onClick=${() => act(() => api.patch(`${BASE}/channels/${item.id}`, { disabled: !item.disabled }))}>${t(item.disabled ? "system.resume" : "system.pause")}<//>
        <${Button} small aria-label=${t("alerts.edit_one", { name: item.name })} onClick=${() => setEditing(item)}>${t("action.edit")}<//><${Button} small kind="quiet" icon="trash" label=${t("alerts.delete_one", { name: item.name })} onClick=${() => remove(item)} /></div></li>`)}</ul>
    ${editing && html`<${ChannelDialog} channel=${editing} rules=${rules} onClose=${() => setEditing(null)} onSaved=${saved} />`}
    ${secret && html`<${SecretDialog} title=${t("webhooks.secret")} text=${t("alerts.secret_text")} label=${t("webhooks.secret")} secret=${secret} onClose=${() => setSecret(null)} />`}</div>`;
}

function Rules({ rules, reload }) {
  const [editing, setEditing] = useState(null);
  const [change] = useAction(async (rule, values) => {
    await api.patch(`${BASE}/rules/${rule.name}`, values);
    reload();
  });
  return html`<details class="more"><summary>${t("alerts.rules")}</summary><div class="table-wrap" tabindex="0" role="region" aria-label=${t("alerts.rules")}><table class="table"><thead><tr><th>${t("alerts.rule")}</th><th>${t("alerts.threshold")}</th><th>${t("alerts.repeat")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
    <tbody>${rules.map((rule) => html`<tr key=${rule.name}><td data-label=${t("alerts.rule")}><div><strong>${ruleTitle(rule.name, rule.threshold)}</strong>${rule.enabled ? rule.firing > 0 && html`<p class="hint">${t("alerts.firing_now", { n: formatNumber(rule.firing) })}</p>` : html`<p class="hint">${t("alerts.off")}</p>`}</div></td>
      <td data-label=${t("alerts.threshold")}>${t(`alerts.${rule.fires}`)} ${formatNumber(rule.threshold)} ${t(`alert_unit.${rule.unit}`)}</td><td data-label=${t("alerts.repeat")}>${t("unit.h", { h: formatNumber(rule.repeat_hours) })}</td>
      <td class="end"><div class="row end">${rule.enabled && html`<${Mute} name=${ruleTitle(rule.name, rule.threshold)} until=${rule.muted_until} onChange=${(until) => change(rule, { muted_until: until })} />`}<${Button} small aria-label=${t("alerts.edit_one", { name: ruleTitle(rule.name, rule.threshold) })} onClick=${() => setEditing(rule)}>${t("action.edit")}<//></div></td></tr>`)}</tbody></table></div>
    ${editing && html`<${RuleDialog} rule=${editing} onClose=${() => setEditing(null)} onSaved=${() => { setEditing(null); reload(); }} />`}</details>`;
}

function RuleDialog({ rule, onClose, onSaved }) {
  const before = { enabled: String(rule.enabled), threshold: String(rule.threshold), repeat: String(rule.repeat_hours) };
  const [form, setForm] = useState(before);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const [save, busy, error] = useSubmit(async () => {
    await api.patch(`${BASE}/rules/${rule.name}`, { enabled: form.enabled === "true", threshold: Number(form.threshold), repeat_hours: Number(form.repeat) });
    onSaved();
  });
  return html`<${Dialog} title=${ruleTitle(rule.name, rule.threshold)} unsaved=${JSON.stringify(form) !== JSON.stringify(before) && !busy} onClose=${onClose}><form class="stack" onSubmit=${save}>
    <${Select} label=${t("alerts.state")} value=${form.enabled} onChange=${set("enabled")} options=${[["true", t("alerts.on")], ["false", t("alerts.off")]]} />
    <${TextField} label=${`${t("alerts.threshold")} (${t(`alert_unit.${rule.unit}`)})`} hint=${t("alerts.default", { n: formatNumber(rule.default_threshold) })} type="number" required step="any" min=${rule.least} max=${rule.most} value=${form.threshold} onInput=${set("threshold")} />
    <${TextField} label=${t("alerts.repeat_hours")} hint=${t("alerts.repeat_hint")} type="number" required step="any" min="0.25" max="720" value=${form.repeat} onInput=${set("repeat")} />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div></form><//>`;
}
