// Views of usage and limits.
import { html } from "../preact.js";
import { formatMoney, formatNumber, t } from "../../state/language.js";
import { Plot } from "./plot.js";

const DAY = 86400e3;
const isoDate = (date) => `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;

// The query for the last `count` days including today. The server may use another time zone, so it ends tomorrow.
export const lastDays = (count) => ({ from: isoDate(new Date(Date.now() - (count - 1) * DAY)), to: isoDate(new Date(Date.now() + DAY)) });

// Noon, so that the time zone does not change the day.
const noonOf = (day) => new Date(`${day}T12:00:00`).getTime() / 1000;

function allDays({ from, to }) {
  const days = [];
  const today = isoDate(new Date());
  for (let date = new Date(`${from}T12:00:00`); isoDate(date) <= to; date = new Date(date.getTime() + DAY)) {
    if (isoDate(date) <= today) days.push(isoDate(date));
  }
  return days;
}

const COLUMNS = ["accepted", "succeeded", "failed", "cancelled", "open", "pictures", "video_seconds", "credits", "usd", "cny"];

// The kinds of cost that a report has: credits, and each currency that was spent. Credits alone if nothing was.
export function costsOf(total) {
  const money = ["usd", "cny"].filter((name) => total[name] > 0);
  return total.credits || !money.length ? ["credits", ...money] : money;
}

export const formatCost = (name, value) => (name === "credits" ? formatNumber(value) : formatMoney(value, name));
const costLabel = (name) => (name === "credits" ? t("param.credits") : name.toUpperCase());

// The rows of a report summed by one group: Map(name -> sums).
export function sumByGroup(rows, group) {
  const sums = new Map();
  for (const row of rows) {
    const sum = sums.get(row[group]) ?? Object.fromEntries(COLUMNS.map((name) => [name, 0]));
    for (const name of COLUMNS) sum[name] += row[name];
    sums.set(row[group], sum);
  }
  return sums;
}

export function UsagePlots({ report }) {
  const days = allDays(report);
  const sums = sumByGroup(report.data, "day");
  const column = (name) => days.map((day) => sums.get(day)?.[name] ?? 0);
  const times = days.map(noonOf);
  return html`<div class="plots"><section class="card wide"><${Plot} bars label=${t("usage.jobs_per_day")} times=${times} series=${[
      { label: t("status.completed"), values: column("succeeded"), colour: "--accent" },
      { label: t("status.failed"), values: column("failed"), colour: "--bad" },
      { label: t("status.cancelled"), values: column("cancelled"), colour: "--line-strong" },
      { label: t("usage.open"), values: column("open"), colour: "--busy" }]} /></section>
    <section class="card"><${Plot} bars label=${t("usage.images_per_day")} times=${times} series=${[{ label: t("kind.images"), values: column("pictures"), colour: "--accent" }]} /></section>
    ${costsOf(report.total).map((name) => html`<section key=${name} class="card"><${Plot} bars money=${name !== "credits"} label=${name === "credits" ? t("usage.credits_per_day") : t("usage.money_per_day", { currency: name.toUpperCase() })} times=${times} series=${[{ label: costLabel(name), values: column(name), colour: "--good" }]} /></section>`)}</div>`;
}

// Jobs, images and credits per model or user, most jobs first, with a bar for the share.
export function UsageByGroup({ title, rows, group }) {
  const sums = [...sumByGroup(rows, group)].sort(([, first], [, second]) => second.accepted - first.accepted);
  const maximum = Math.max(...sums.map(([, sum]) => sum.accepted), 1);
  const costs = costsOf(Object.fromEntries(["credits", "usd", "cny"].map((name) => [name, rows.reduce((total, row) => total + row[name], 0)])));
  return html`<section class="card"><h2>${title}</h2>${sums.length ? html`<div class="table-wrap" tabindex="0" role="region" aria-label=${title}><table class="table"><thead><tr><th>${title}</th><th class="end">${t("nav.jobs")}</th><th class="end">${t("status.failed")}</th><th class="end">${t("kind.images")}</th>${costs.map((name) => html`<th key=${name} class="end">${costLabel(name)}</th>`)}</tr></thead>
    <tbody>${sums.map(([name, sum]) => html`<tr key=${name}><td data-label=${title}><div class="share"><span>${name ?? t("usage.unassigned")}</span><i aria-hidden="true" style=${{ width: `${(100 * sum.accepted) / maximum}%` }}></i></div></td>
      ${[["nav.jobs", sum.accepted], ["status.failed", sum.failed], ["kind.images", sum.pictures]].map(([key, value]) => html`<td key=${key} data-label=${t(key)} class="figure numeric">${formatNumber(value)}</td>`)}${costs.map((name) => html`<td key=${name} data-label=${costLabel(name)} class="figure numeric">${formatCost(name, sum[name])}</td>`)}</tr>`)}</tbody></table></div>` : html`<p class="hint">${t("usage.empty")}</p>`}</section>`;
}
