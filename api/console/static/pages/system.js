// How the platform does: queues, throughput, errors, workers, versions, checks; take no new jobs.
import { html, useState } from "../lib/ui.js";
import { api } from "../lib/api.js";
import { duration, number, t } from "../lib/language.js";
import { Button, Dialog, Failure, Icon, Loading, PageHead, Status, TextField, toast, useAction } from "../lib/parts.js";
import { Plot } from "../lib/plot.js";
import { usePolled } from "../lib/polling.js";
import { KIND_ICON } from "../lib/results.js";
import { Link } from "../lib/router.js";

const FAULTS = ["content", "request", "account", "upstream", "platform"];
const STATE_TONE = { ok: "good", resting: "wait", needs_login: "bad", blocked: "bad", paused: "off", retired: "off" };

export default function System() {
  const loaded = usePolled(() => api.get("/admin/v1/system"), 5);
  // Asking them takes two seconds, so not as often.
  const workers = usePolled(() => api.get("/admin/v1/workers"), 15);
  const system = loaded.data;
  return html`<${PageHead} title=${t("nav.system")} lead=${t("system.lead")}>${system?.flower_url && html`<a class="button" href=${system.flower_url} target="_blank" rel="noreferrer"><${Icon} name="chart" size=${18} /><span>Flower</span></a>`}
      ${system && html`<${Drain} system=${system} onChanged=${loaded.reload} />`}<//>
    ${loaded.error && !system && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!system && !loaded.error && html`<${Loading} />`}
    ${system && html`<div class="stack">${system.draining && html`<p class="notice wait" role="status"><${Icon} name="pause" size=${18} /><span>${t("system.draining")}</span></p>`}
      <ul class="stats">${system.open.map((one) => html`<li key=${one.kind} class="card stat"><span><${Icon} name=${KIND_ICON[one.kind]} size=${16} /> ${t(`kind.${one.kind}s`)}</span>
        <strong class="numeric">${number(one.queued)}<small> ${t("system.waiting")}</small></strong><span class="hint numeric">${t("system.running", { n: number(one.running) })}${one.oldest_queued_seconds !== null ? ` · ${t("system.oldest", { time: duration(one.oldest_queued_seconds) })}` : ""}</span></li>`)}
        <li class="card stat"><span><${Icon} name="hook" size=${16} /> ${t("nav.webhooks")}</span><strong class="numeric">${number(system.webhooks_waiting)}<small> ${t("system.waiting")}</small></strong></li></ul>
      <section class="card"><${Plot} bars unit=${3600} label=${t("system.throughput")} times=${system.hours.map((one) => one.at)} series=${[
        { label: t("status.completed"), values: system.hours.map((one) => one.succeeded), colour: "--accent" },
        { label: t("status.failed"), values: system.hours.map((one) => one.failed), colour: "--bad" },
        { label: t("status.cancelled"), values: system.hours.map((one) => one.cancelled), colour: "--line-strong" }]} /></section>
      <div class="halves"><${Errors} system=${system} /><${Accounts} accounts=${system.accounts} /></div>
      <div class="halves"><${Workers} workers=${workers} /><${Health} system=${system} /></div></div>`}`;
}

function Errors({ system }) {
  const ended = Object.values(system.outcomes).reduce((sum, one) => sum + one, 0);
  return html`<section class="card"><h2>${t("system.errors")}</h2><p class="hint">${[t("system.ended", { n: number(ended) }), ...FAULTS.filter((one) => system.outcomes[one]).map((one) => `${t(`fault.${one}`)} ${number(system.outcomes[one])}`)].join(" · ")}</p>
    ${system.errors.length ? html`<div class="table-wrap gap"><table class="table"><thead><tr><th>${t("system.error")}</th><th>${t("system.fault")}</th><th class="end">${t("status.failed")}</th><th class="end">${t("system.survived")}</th></tr></thead>
      <tbody>${system.errors.map((one) => html`<tr key=${one.code}><td data-label=${t("system.error")}><code>${one.code}</code></td><td data-label=${t("system.fault")}>${t(`fault.${one.fault}`)}</td><td data-label=${t("status.failed")} class="figure numeric">${number(one.failed)}</td><td data-label=${t("system.survived")} class="figure numeric">${number(one.survived)}</td></tr>`)}</tbody></table></div>` : html`<p class="gap">${t("system.no_errors")}</p>`}</section>`;
}

function Accounts({ accounts }) {
  return html`<section class="card"><div class="row spread"><h2>${t("nav.accounts")}</h2><${Link} to="accounts" class="button small">${t("action.details")}<//></div>
    ${accounts.length ? html`<div class="table-wrap gap"><table class="table"><thead><tr><th>${t("fact.region")}</th><th>${t("accounts.state")}</th><th>${t("system.whose")}</th><th class="end">${t("system.number")}</th><th class="end">${t("param.credits")}</th></tr></thead>
      <tbody>${accounts.map((one) => html`<tr key=${one.region + one.state + one.pool}><td data-label=${t("fact.region")}>${one.region}</td><td data-label=${t("accounts.state")}><${Status} word=${one.state} tone=${STATE_TONE[one.state]} /></td><td data-label=${t("system.whose")}>${t(one.pool ? "accounts.platform" : "system.users")}</td><td data-label=${t("system.number")} class="figure numeric">${number(one.accounts)}</td><td data-label=${t("param.credits")} class="figure numeric">${number(one.credits)}</td></tr>`)}</tbody></table></div>` : html`<p class="hint">${t("accounts.empty")}</p>`}</section>`;
}

function Workers({ workers }) {
  const [drain, busy] = useAction(async (worker) => {
    await api.patch(`/admin/v1/workers/${encodeURIComponent(worker.name)}/drain`, { draining: !worker.draining });
    workers.reload();
  });
  const found = workers.data?.data ?? [];
  return html`<section class="card"><h2>${t("system.workers")}</h2>${workers.error && !workers.data && html`<${Failure} error=${workers.error} onRetry=${workers.reload} />`}${!workers.data && !workers.error && html`<${Loading} />`}
    ${workers.data && !found.length && html`<p class="failure small">${t("system.no_workers")}</p>`}
    <ul class="workers">${found.map((one) => html`<li key=${one.name}><div class="row spread"><strong class="mono break">${one.name}</strong><${Status} tone=${one.draining ? "off" : "good"}>${t(one.draining ? "system.drained" : "system.takes")}<//></div>
      <div class="row spread"><p class="hint">${[one.queues.join(", "), one.steps.length ? t("system.busy_with", { steps: one.steps.join(", ") }) : t("system.idle")].filter(Boolean).join(" · ")}</p><${Button} small busy=${busy} aria-label=${t(one.draining ? "system.refill_one" : "system.drain_one", { name: one.name })} onClick=${() => drain(one)}>${t(one.draining ? "system.refill" : "system.rest")}<//></div></li>`)}</ul></section>`;
}

function Health({ system }) {
  const checks = Object.entries(system.checks);
  return html`<section class="card"><h2>${t("system.health")}</h2><ul class="checklist">${checks.map(([name, wrong]) => html`<li key=${name} class="row"><${Status} tone=${wrong ? "bad" : "good"}>${t(`check.${name}`)}<//>${wrong && html`<span class="hint">${wrong}</span>`}</li>`)}</ul>
    <dl class="facts gap"><div><dt>${t("system.version")}</dt><dd>${system.version}</dd></div><div><dt>${t("system.schema")}</dt><dd><code>${system.schema.present ?? "–"}</code></dd></div>
      ${system.schema.present !== system.schema.newest && html`<div><dt>${t("system.schema_newest")}</dt><dd><code>${system.schema.newest}</code></dd></div>`}</dl></section>`;
}

function Drain({ system, onChanged }) {
  const [asking, setAsking] = useState(false);
  const [reason, setReason] = useState("");
  const [set, busy] = useAction(async (draining) => {
    await api.patch("/admin/v1/drain", { draining, reason: draining ? reason : "" });
    setAsking(false);
    toast(t(draining ? "system.drain_on" : "system.drain_off"));
    onChanged();
  });
  if (system.draining) return html`<${Button} kind="primary" icon="play" busy=${busy} onClick=${() => set(false)}>${t("system.undrain")}<//>`;
  return html`<${Button} icon="pause" onClick=${() => setAsking(true)}>${t("system.drain")}<//>
    ${asking && html`<${Dialog} title=${t("system.drain")} onClose=${() => setAsking(false)} actions=${html`<${Button} onClick=${() => setAsking(false)}>${t("action.back")}<//><${Button} kind="danger" busy=${busy} onClick=${() => set(true)}>${t("system.drain")}<//>`}>
      <p>${t("system.drain_text")}</p><${TextField} label=${t("system.drain_reason")} value=${reason} onInput=${setReason} maxlength="200" /><//>`}`;
}
