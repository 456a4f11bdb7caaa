// Usage and cost by day and by model, and the limits. Administrators can also see all users.
import { html } from "../lib/ui/preact.js";
import { api, hasScope } from "../lib/api/client.js";
import { useLoaded } from "../lib/api/loading.js";
import { formatNumber, t } from "../lib/state/language.js";
import { setQuery } from "../lib/state/router.js";
import { ErrorMessage, Loading, PageHeader, RadioGroup } from "../lib/ui/components.js";
import { LimitList } from "../lib/ui/charts/limits.js";
import { costsOf, formatCost, lastDays, UsageByGroup, UsagePlots } from "../lib/ui/charts/usage_views.js";

const PERIODS = ["7", "30", "90"];

export default function Usage({ query }) {
  const period = PERIODS.includes(query.days) ? query.days : "30";
  const allUsers = hasScope("admin") && query.who === "all";
  const groups = allUsers ? "day,model,user" : "day,model";
  const loaded = useLoaded(() => api.get(allUsers ? "/admin/v1/usage" : "/v1/usage", { ...lastDays(Number(period)), group_by: groups }), [period, allUsers]);
  const report = loaded.data?.group_by.join() === groups ? loaded.data : null;
  return html`<${PageHeader} title=${t("nav.usage")} lead=${t(allUsers ? "usage.lead_all" : "usage.lead")}>
      ${hasScope("admin") && html`<${RadioGroup} hideLabel label=${t("usage.scope")} value=${allUsers ? "all" : "own"} onChange=${(who) => setQuery({ who: who === "all" ? who : "" })} options=${[["own", t("usage.own")], ["all", t("usage.all_users")]]} />`}
      <${RadioGroup} hideLabel label=${t("usage.period")} value=${period} onChange=${(days) => setQuery({ days: days === "30" ? "" : days })} options=${PERIODS.map((item) => [item, t("usage.days", { n: item })])} /><//>
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!report && loaded.loading && html`<${Loading} />`}
    ${report && html`<div class="stack"><ul class="stats">${["accepted", "pictures", "video_seconds"].map((name) => html`<li key=${name} class="card stat"><span>${t(`usage.total_${name}`)}</span><strong class="numeric">${formatNumber(Math.round(report.total[name]))}</strong></li>`)}
      ${costsOf(report.total).map((name) => html`<li key=${name} class="card stat"><span>${name === "credits" ? t("usage.total_credits") : t("usage.total_money", { currency: name.toUpperCase() })}</span><strong class="numeric">${formatCost(name, report.total[name])}</strong></li>`)}</ul>
      <${UsagePlots} report=${report} />
      <div class="two-columns"><${UsageByGroup} title=${t("filter.model")} rows=${report.data} group="model" />
        ${allUsers ? html`<${UsageByGroup} title=${t("usage.user")} rows=${report.data} group="user" />` : html`<section class="card"><h2>${t("limit.title")}</h2><${LimitList} limits=${report.limits} /></section>`}</div></div>`}`;
}
