// What was made and what it cost, by day and by model, and where one's limits stand. Administrators also see everybody's.
import { html } from "../lib/ui.js";
import { api, may } from "../lib/api.js";
import { number, t } from "../lib/language.js";
import { Choice, Failure, Loading, PageHead, useLoaded } from "../lib/parts.js";
import { setQuery } from "../lib/router.js";
import { Limits, Shares, UsagePlots, daysBack } from "../lib/usage.js";

const SPANS = ["7", "30", "90"];

export default function Usage({ query }) {
  const span = SPANS.includes(query.days) ? query.days : "30";
  const everybody = may("admin") && query.who === "all";
  const groups = everybody ? "day,model,user" : "day,model";
  const loaded = useLoaded(() => api.get(everybody ? "/admin/v1/usage" : "/v1/usage", { ...daysBack(Number(span)), group_by: groups }), [span, everybody]);
  const report = loaded.data?.group_by.join() === groups ? loaded.data : null;
  return html`<${PageHead} title=${t("nav.usage")} lead=${t(everybody ? "usage.lead_all" : "usage.lead")}>
      ${may("admin") && html`<${Choice} hideLabel label=${t("usage.who")} value=${everybody ? "all" : "own"} onChange=${(who) => setQuery({ who: who === "all" ? who : "" })} options=${[["own", t("usage.own")], ["all", t("usage.all")]]} />`}
      <${Choice} hideLabel label=${t("usage.span")} value=${span} onChange=${(days) => setQuery({ days: days === "30" ? "" : days })} options=${SPANS.map((one) => [one, t("usage.days", { n: one })])} /><//>
    ${loaded.error && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!report && loaded.loading && html`<${Loading} />`}
    ${report && html`<div class="stack"><ul class="stats">${["accepted", "pictures", "video_seconds", "credits"].map((name) => html`<li key=${name} class="card stat"><span>${t(`usage.total_${name}`)}</span><strong class="numeric">${number(Math.round(report.total[name]))}</strong></li>`)}</ul>
      <${UsagePlots} report=${report} />
      <div class="halves"><${Shares} title=${t("filter.model")} rows=${report.data} group="model" />
        ${everybody ? html`<${Shares} title=${t("usage.user")} rows=${report.data} group="user" />` : html`<section class="card"><h2>${t("limit.title")}</h2><${Limits} limits=${report.limits} /></section>`}</div></div>`}`;
}
