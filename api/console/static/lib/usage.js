// Usage and where limits stand, as every page shows them.
import { html } from "./ui.js";
import { number, t } from "./language.js";
import { Ago, Status } from "./parts.js";
import { Plot } from "./plot.js";

const DAY = 86400e3;
const iso = (moment) => `${moment.getFullYear()}-${String(moment.getMonth() + 1).padStart(2, "0")}-${String(moment.getDate()).padStart(2, "0")}`;

// What to ask for the last `count` days, today included. The server's days may begin elsewhere: one more on each side.
export const daysBack = (count) => ({ from: iso(new Date(Date.now() - (count - 1) * DAY)), to: iso(new Date(Date.now() + DAY)) });

// Noon, so that no time zone makes another day of it.
const at = (day) => new Date(`${day}T12:00:00`).getTime() / 1000;

function allDays({ from, to }) {
  const days = [];
  const today = iso(new Date());
  for (let moment = new Date(`${from}T12:00:00`); iso(moment) <= to; moment = new Date(moment.getTime() + DAY)) {
    if (iso(moment) <= today) days.push(iso(moment));
  }
  return days;
}

const NUMBERS = ["accepted", "succeeded", "failed", "cancelled", "open", "pictures", "video_seconds", "credits"];

// The rows of a report summed up by one of their groups: Map(name -> numbers).
export function sumBy(rows, group) {
  const sums = new Map();
  for (const row of rows) {
    const sum = sums.get(row[group]) ?? Object.fromEntries(NUMBERS.map((name) => [name, 0]));
    for (const name of NUMBERS) sum[name] += row[name];
    sums.set(row[group], sum);
  }
  return sums;
}

export function UsagePlots({ report }) {
  const days = allDays(report);
  const known = sumBy(report.data, "day");
  const column = (name) => days.map((day) => known.get(day)?.[name] ?? 0);
  const times = days.map(at);
  return html`<div class="plots"><section class="card wide"><${Plot} bars label=${t("usage.jobs_per_day")} times=${times} series=${[
      { label: t("status.completed"), values: column("succeeded"), colour: "--accent" },
      { label: t("status.failed"), values: column("failed"), colour: "--bad" },
      { label: t("status.cancelled"), values: column("cancelled"), colour: "--line-strong" },
      { label: t("usage.open"), values: column("open"), colour: "--busy" }]} /></section>
    <section class="card"><${Plot} bars label=${t("usage.pictures_per_day")} times=${times} series=${[{ label: t("kind.images"), values: column("pictures"), colour: "--accent" }]} /></section>
    <section class="card"><${Plot} bars label=${t("usage.credits_per_day")} times=${times} series=${[{ label: t("param.credits"), values: column("credits"), colour: "--good" }]} /></section></div>`;
}

// Who or what took most: jobs, pictures, credits, with a bar for the share.
export function Shares({ title, rows, group }) {
  const sums = [...sumBy(rows, group)].sort(([, one], [, other]) => other.accepted - one.accepted);
  const most = Math.max(...sums.map(([, sum]) => sum.accepted), 1);
  return html`<section class="card"><h2>${title}</h2>${sums.length ? html`<div class="table-wrap"><table class="table"><thead><tr><th>${title}</th><th class="end">${t("nav.jobs")}</th><th class="end">${t("status.failed")}</th><th class="end">${t("kind.images")}</th><th class="end">${t("param.credits")}</th></tr></thead>
    <tbody>${sums.map(([name, sum]) => html`<tr key=${name}><td data-label=${title}><div class="share"><span>${name ?? t("usage.nobody")}</span><i aria-hidden="true" style=${{ width: `${(100 * sum.accepted) / most}%` }}></i></div></td>
      ${[["nav.jobs", sum.accepted], ["status.failed", sum.failed], ["kind.images", sum.pictures], ["param.credits", sum.credits]].map(([key, value]) => html`<td key=${key} data-label=${t(key)} class="figure numeric">${number(value)}</td>`)}</tr>`)}</tbody></table></div>` : html`<p class="hint">${t("usage.none")}</p>`}</section>`;
}

const TONE = { ok: "good", warning: "wait", reached: "bad" };

// Each limit: how much of it is used, and when it begins anew.
export function Limits({ limits }) {
  const real = limits.filter((one) => one.hard !== null || one.soft !== null);
  if (!real.length) return html`<p class="hint">${t("limit.none")}</p>`;
  return html`<ul class="limits">${real.map((one) => {
    const full = one.hard ?? one.soft;
    const share = one.used === null ? null : full ? Math.min((100 * one.used) / full, 100) : 100;
    const name = `${t(`limit.${one.name}`)}${one.scope === "key" ? ` (${t("limit.of_key")})` : ""}`;
    return html`<li key=${one.scope + one.name}><div class="row spread"><strong>${name}</strong>${one.state !== "ok" && html`<${Status} tone=${TONE[one.state]}>${t(`limit.state_${one.state}`)}<//>`}</div>
      <div class="meter tone-${TONE[one.state]}" role="meter" aria-label=${name} aria-valuemin="0" aria-valuemax=${full} aria-valuenow=${one.used ?? 0}><i style=${{ width: `${share ?? 0}%` }}></i></div>
      <p class="hint numeric">${t("limit.used", { used: number(one.used), of: number(full) })}${one.resets_at && one.name !== "requests_per_minute" ? html` · ${t("limit.resets")} <${Ago} at=${one.resets_at} />` : ""}</p></li>`;
  })}</ul>`;
}
