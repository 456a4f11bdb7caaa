// The state of the platform: queues, throughput, errors, workers, versions and checks, and the maintenance switch.
import { html, useState } from "../lib/ui/preact.js";
import { api } from "../lib/api/client.js";
import { usePolling } from "../lib/api/loading.js";
import { formatDuration, formatNumber, t } from "../lib/state/language.js";
import { Link } from "../lib/state/router.js";
import { Button, CodeName, Dialog, ErrorMessage, Loading, PageHeader, StatusBadge, TextField, toast, useAction } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { KIND_ICON } from "../lib/ui/job_views.js";
import { AnnouncementButton } from "../lib/ui/system/announcement.js";
import { loadNotices } from "../lib/ui/system/notices.js";
import { Plot } from "../lib/ui/charts/plot.js";
import { Alerts } from "../lib/ui/system/alerts.js";
import { History } from "../lib/ui/system/history.js";

const FAULTS = ["content", "request", "account", "upstream", "platform"];
const STATE_TONE = { ok: "good", resting: "wait", needs_login: "bad", blocked: "bad", paused: "off", retired: "off" };

export default function System() {
  const loaded = usePolling(() => api.get("/admin/v1/system"), 5, [], { remember: "system" });
  // Workers take two seconds to respond, so they are polled less often, and their last state is shown meanwhile.
  const workers = usePolling(() => api.get("/admin/v1/workers"), 15, [], { remember: "workers" });
  const system = loaded.data;
  return html`<${PageHeader} title=${t("nav.system")} lead=${t("system.lead")}>${system?.flower_url && html`<a class="button" href=${system.flower_url} target="_blank" rel="noreferrer"><${Icon} name="chart" size=${18} /><span>Flower</span></a>`}
      ${system && html`<${AnnouncementButton} /><${DrainButton} system=${system} onChanged=${loaded.reload} />`}<//>
    ${loaded.error && !system && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!system && !loaded.error && html`<${Loading} />`}
    ${system && html`<div class="stack">
      <ul class="stats">${system.open.map((item) => html`<li key=${item.kind} class="card stat"><span><${Icon} name=${KIND_ICON[item.kind]} size=${16} /> ${t(`kind.${item.kind}s`)}</span>
        <strong class="numeric"><${Link} to=${`jobs?who=all&status=queued&kind=${item.kind}`}>${formatNumber(item.queued)}<small> ${t("system.waiting")}</small><//></strong><span class="hint numeric">${t("system.running", { n: formatNumber(item.running) })}${item.oldest_queued_seconds !== null ? ` · ${t("system.oldest", { time: formatDuration(item.oldest_queued_seconds) })}` : ""}</span></li>`)}
        <li class="card stat"><span><${Icon} name="webhook" size=${16} /> ${t("nav.webhooks")}</span><strong class="numeric">${formatNumber(system.webhooks_waiting)}<small> ${t("system.waiting")}</small></strong></li></ul>
      <${Alerts} />
      <section class="card"><${Plot} bars unit=${3600} label=${t("system.throughput")} times=${system.hours.map((item) => item.at)} series=${[
        { label: t("status.completed"), values: system.hours.map((item) => item.succeeded), colour: "--accent" },
        { label: t("status.failed"), values: system.hours.map((item) => item.failed), colour: "--bad" },
        { label: t("status.cancelled"), values: system.hours.map((item) => item.cancelled), colour: "--line-strong" }]} /></section>
      <div class="two-columns"><${Errors} system=${system} /><${Accounts} accounts=${system.accounts} /></div>
      <div class="two-columns"><${Workers} workers=${workers} /><${Health} system=${system} /></div><${History} /></div>`}`;
}

function Errors({ system }) {
  const finished = Object.values(system.outcomes).reduce((sum, item) => sum + item, 0);
  return html`<section class="card"><h2>${t("system.errors")}</h2><p class="hint">${[t("system.finished", { n: formatNumber(finished) }), ...FAULTS.filter((item) => system.outcomes[item]).map((item) => `${t(`fault.${item}`)} ${formatNumber(system.outcomes[item])}`)].join(" · ")}</p>
    ${system.errors.length ? html`<div class="table-wrap gap" tabindex="0" role="region" aria-label=${t("system.errors")}><table class="table"><thead><tr><th>${t("system.error")}</th><th>${t("system.cause")}</th><th class="end">${t("status.failed")}</th><th class="end">${t("system.recovered")}</th></tr></thead>
      <tbody>${system.errors.map((item) => html`<tr key=${item.code}><td data-label=${t("system.error")}><${CodeName} code=${item.code} /></td><td data-label=${t("system.cause")}>${t(`fault.${item.fault}`)}</td><td data-label=${t("status.failed")} class="figure numeric">${formatNumber(item.failed)}</td><td data-label=${t("system.recovered")} class="figure numeric">${formatNumber(item.survived)}</td></tr>`)}</tbody></table></div>` : html`<p class="gap">${t("system.no_errors")}</p>`}</section>`;
}

function Accounts({ accounts }) {
  return html`<section class="card"><div class="row spread"><h2>${t("nav.accounts")}</h2><${Link} to="accounts" class="button small">${t("action.details")}<//></div>
    ${accounts.length ? html`<div class="table-wrap gap" tabindex="0" role="region" aria-label=${t("nav.accounts")}><table class="table"><thead><tr><th>${t("fact.region")}</th><th>${t("accounts.state")}</th><th>${t("system.owner")}</th><th class="end">${t("system.count")}</th><th class="end">${t("param.credits")}</th></tr></thead>
      <tbody>${accounts.map((item) => html`<tr key=${item.region + item.state + item.pool}><td data-label=${t("fact.region")}>${item.region}</td><td data-label=${t("accounts.state")}><${StatusBadge} status=${item.state} tone=${STATE_TONE[item.state]} /></td><td data-label=${t("system.owner")}>${t(item.pool ? "accounts.platform" : "system.users")}</td><td data-label=${t("system.count")} class="figure numeric">${formatNumber(item.accounts)}</td><td data-label=${t("param.credits")} class="figure numeric">${formatNumber(item.credits)}</td></tr>`)}</tbody></table></div>` : html`<p class="hint">${t("accounts.empty")}</p>`}</section>`;
}

function Workers({ workers }) {
  const [drain, busy] = useAction(async (worker) => {
    await api.patch(`/admin/v1/workers/${encodeURIComponent(worker.name)}/drain`, { draining: !worker.draining });
    workers.reload();
  });
  const responding = workers.data?.data ?? [];
  return html`<section class="card"><h2>${t("system.workers")}</h2>${workers.error && !workers.data && html`<${ErrorMessage} error=${workers.error} onRetry=${workers.reload} />`}${!workers.data && !workers.error && html`<${Loading} />`}
    ${workers.data && !responding.length && html`<p class="failure small">${t("system.no_workers")}</p>`}
    <ul class="workers">${responding.map((item) => html`<li key=${item.name}><div class="row spread"><strong class="mono break">${item.name}</strong><${StatusBadge} tone=${item.draining ? "off" : "good"}>${t(item.draining ? "system.not_accepting" : "system.accepting")}<//></div>
      <div class="row spread"><p class="hint">${[item.queues.join(", "), item.steps.length ? t("system.running_tasks", { tasks: item.steps.join(", ") }) : t("system.idle")].filter(Boolean).join(" · ")}</p><${Button} small busy=${busy} aria-label=${t(item.draining ? "system.resume_one" : "system.pause_one", { name: item.name })} onClick=${() => drain(item)}>${t(item.draining ? "system.resume" : "system.pause")}<//></div></li>`)}</ul></section>`;
}

function Health({ system }) {
  const checks = Object.entries(system.checks);
  return html`<section class="card"><h2>${t("system.health")}</h2><ul class="checklist">${checks.map(([name, problem]) => html`<li key=${name} class="row"><${StatusBadge} tone=${problem ? "bad" : "good"}>${t(`check.${name}`)}<//>${problem && html`<span class="hint">${problem}</span>`}</li>`)}</ul>
    <dl class="facts gap"><div><dt>${t("system.version")}</dt><dd>${system.version}</dd></div><div><dt>${t("system.schema")}</dt><dd><code>${system.schema.present ?? "–"}</code></dd></div>
      ${system.schema.present !== system.schema.newest && html`<div><dt>${t("system.schema_latest")}</dt><dd><code>${system.schema.newest}</code></dd></div>`}</dl></section>`;
}

function DrainButton({ system, onChanged }) {
  const [confirming, setConfirming] = useState(false);
  const [reason, setReason] = useState("");
  const [setDraining, busy] = useAction(async (draining) => {
    await api.patch("/admin/v1/drain", { draining, reason: draining ? reason : "" });
    setConfirming(false);
    loadNotices().catch(() => {});
    toast(t(draining ? "system.drain_on" : "system.drain_off"));
    onChanged();
  });
  if (system.draining) return html`<${Button} kind="primary" icon="play" busy=${busy} onClick=${() => setDraining(false)}>${t("system.undrain")}<//>`;
  return html`<${Button} icon="pause" onClick=${() => setConfirming(true)}>${t("system.drain")}<//>
    ${confirming && html`<${Dialog} title=${t("system.drain")} onClose=${() => setConfirming(false)} actions=${html`<${Button} onClick=${() => setConfirming(false)}>${t("action.cancel")}<//><${Button} kind="danger" busy=${busy} onClick=${() => setDraining(true)}>${t("system.drain")}<//>`}>
      <p>${t("system.drain_text")}</p><${TextField} label=${t("system.drain_reason")} value=${reason} onInput=${setReason} maxlength="200" /><//>`}`;
}
