// The audit log: actions with actor, target and address, newest first. More entries load while scrolling.
import { html } from "../lib/ui/preact.js";
import { api, platformUrl } from "../lib/api/client.js";
import { pageOf, useLongList, usePages } from "../lib/api/pagination.js";
import { formatDateTime, t } from "../lib/state/language.js";
import { wordsOf } from "../lib/state/message_text.js";
import { Link, setQuery } from "../lib/state/router.js";
import { Button, EmptyState, ErrorMessage, Loading, PageHeader, Select, TextField } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";

const AREAS = ["user", "key", "account", "job", "budget", "platform", "worker", "console", "audit"];
const PERIODS = { "1h": 3600, "24h": 86400, "7d": 604800, "30d": 2592000 };

export default function Audit({ query }) {
  const filter = { action: query.action, since: PERIODS[query.since] && Math.floor(Date.now() / 1000 - PERIODS[query.since]) };
  const key = JSON.stringify([query.action, query.since]);
  const [state, , { loadMore, reload }] = usePages(key, async (after) => pageOf(await api.get("/admin/v1/audit", { ...filter, after, limit: 100 })));
  const [drawn, end] = useLongList({ ...state, loadMore });
  const isArea = AREAS.includes(query.action) || !query.action;
  const exportUrl = (format) => platformUrl(`admin/v1/audit/export?${new URLSearchParams(Object.entries({ format, ...filter }).filter(([, value]) => value))}`);
  return html`<${PageHeader} title=${t("nav.audit")} lead=${t("audit.lead")}><${Button} icon="repeat" busy=${state.loading} onClick=${reload}>${t("audit.reload")}<//>
      <a class="button" download href=${exportUrl("csv")}><${Icon} name="download" size=${18} /><span>CSV</span></a><a class="button" download href=${exportUrl("jsonl")}><${Icon} name="download" size=${18} /><span>JSONL</span></a><//>
    <div class="filters three" role="search"><${Select} label=${t("audit.area")} value=${isArea ? query.action ?? "" : "other"} onChange=${(action) => action !== "other" && setQuery({ action })} options=${[["", t("filter.any")], ...AREAS.map((item) => [item, t(`audit.area_${item}`)]), ...(isArea ? [] : [["other", query.action]])]} />
      <${TextField} label=${t("audit.action")} value=${query.action ?? ""} onInput=${(action) => setQuery({ action: action.trim() }, { typed: "action" })} placeholder="key.revoke" maxlength="60" spellcheck="false" />
      <${Select} label=${t("audit.period")} value=${query.since ?? ""} onChange=${(since) => setQuery({ since })} options=${[["", t("audit.any_time")], ...Object.keys(PERIODS).map((item) => [item, t(`audit.period_${item}`)])]} /></div>
    ${state.error && html`<${ErrorMessage} error=${state.error} onRetry=${reload} />`}
    ${!state.loading && !state.error && !state.items.length && html`<div class="card"><${EmptyState} icon="book" title=${t("audit.none")} /></div>`}
    ${state.items.length > 0 && html`<section class="card flush"><div class="table-wrap" tabindex="0" role="region" aria-label=${t("nav.audit")}><table class="table"><thead><tr><th>${t("plot.time")}</th><th>${t("audit.actor")}</th><th>${t("audit.action")}</th><th>${t("audit.target")}</th></tr></thead>
      <tbody>${drawn.map((entry) => html`<tr key=${entry.id}><td data-label=${t("plot.time")} class="numeric nowrap">${formatDateTime(entry.at)}</td><td data-label=${t("audit.actor")}><div>${entry.actor}${entry.address && html`<p class="hint numeric">${entry.address}</p>`}</div></td>
        <td data-label=${t("audit.action")}><button type="button" class="audit-action mono" title=${t("audit.filter_action")} onClick=${() => setQuery({ action: entry.action })}>${entry.action}</button></td><td data-label=${t("audit.target")}><div><${Named} id=${entry.target} names=${entry.names} /><p class="details">${formatDetails(entry.details, entry.names)}</p></div></td></tr>`)}</tbody></table></div></section>`}
    ${state.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

// Pages of the objects that an entry may be about.
const PAGES = { user: "users", account: "accounts", job: "jobs" };

// An object by its name, or its id if it has none, with a link to its page.
function Named({ id, names }) {
  const page = PAGES[id.split("_")[0]];
  const text = names[id] ? html`<span>${names[id]}</span>` : html`<span class="mono break">${id}</span>`;
  return page && (names[id] || page === "jobs") ? html`<${Link} to=${`${page}/${id}`}>${text}<//>` : text;
}

const MOMENT = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/;
const nameOf = (name) => wordsOf(name) ?? name.replaceAll("_", " ");

// A value as text: names and words instead of ids and codes, times in the viewer's format.
function formatValue(value, names) {
  if (Array.isArray(value)) return value.map((item) => formatValue(item, names)).join(t("list.separator"));
  if (value !== null && typeof value === "object") return Object.entries(value).map(([name, part]) => `${nameOf(name)} ${formatValue(part, names)}`).join(t("list.separator"));
  if (MOMENT.test(value)) return formatDateTime(Date.parse(value.replace(" ", "T")) / 1000);
  return names[value] ?? wordsOf(value) ?? String(value);
}

// Details as text: `{a: 1, b: null}` becomes "a: 1".
const formatDetails = (details, names) => Object.entries(details).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length)).map(([name, value]) => `${nameOf(name)}: ${formatValue(value, names)}`).join(" · ");
