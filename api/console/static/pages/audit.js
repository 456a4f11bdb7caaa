// The audit log: actions with actor, target and address, newest first. More entries load while scrolling.
import { html } from "../lib/ui/preact.js";
import { api, platformUrl } from "../lib/api/client.js";
import { pageOf, useLongList, usePages } from "../lib/api/pagination.js";
import { formatDateTime, language, t } from "../lib/state/language.js";
import { lookup } from "../i18n/index.js";
import { wordsOf } from "../lib/state/message_text.js";
import { Link, setQuery } from "../lib/state/router.js";
import { ruleTitle } from "../lib/ui/system/alert_channel.js";
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
        <td data-label=${t("audit.action")}><button type="button" class="audit-action mono" title=${t("audit.filter_action")} onClick=${() => setQuery({ action: entry.action })}>${entry.action}</button></td><td data-label=${t("audit.target")}><div><${Target} entry=${entry} /><p class="details">${formatDetails(detailsBeside(entry), entry.names)}</p></div></td></tr>`)}</tbody></table></div></section>`}
    ${state.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

// Pages of the objects that an entry may be about. Albums and webhooks are pages of their owners only.
const PAGES = { user: "users", account: "accounts", job: "jobs" };
const ID = /^([a-z]+)_[0-9a-f]{32}$/;
const SHORT = 8;
const shortId = (id) => id.slice(-SHORT);

// Where an object of an entry is shown; null = nowhere. A key is on the page of its user, what belongs to alerts on that of the system.
function pageOfObject(id, { names, users, action }) {
  const kind = ID.exec(id)?.[1];
  if (action.startsWith("alert.")) return "system";
  if (kind === "key") return users[id] ? `users/${users[id]}` : null;
  if (kind === "job") return `jobs/${id}`;
  return PAGES[kind] && names[id] ? `${PAGES[kind]}/${id}` : null;
}

// The name of the object that an entry is about; undefined without one.
function nameOfTarget({ target, action, names, details }) {
  if (action === "alert.rule") return ruleTitle(target, details.threshold);
  return names[target] ?? (ID.test(target) ? details.name : undefined);
}

// An object by its name, or the end of its id if it has none, with a link to its page.
function Target({ entry }) {
  const id = entry.target;
  const [page, name] = [pageOfObject(id, entry), nameOfTarget(entry)];
  const text = name ? html`<span class="break">${name}</span>` : html`<span class="mono" title=${id}>${ID.test(id) ? shortId(id) : id}</span>`;
  return page ? html`<${Link} to=${page} title=${id}>${text}<//>` : text;
}

const MOMENT = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/;
const nameOf = (name) => lookup(`detail.${name}`, language.value) ?? wordsOf(name) ?? name.replaceAll("_", " ");

// A value as text: names and words instead of ids and codes, times in the viewer's format.
function formatValue(value, names) {
  if (Array.isArray(value)) return value.map((item) => formatValue(item, names)).join(t("list.separator"));
  if (value !== null && typeof value === "object") return Object.entries(value).map(([name, part]) => `${nameOf(name)} ${formatValue(part, names)}`).join(t("list.separator"));
  if (MOMENT.test(value)) return formatDateTime(Date.parse(value.replace(" ", "T")) / 1000);
  return names[value] ?? wordsOf(value) ?? (ID.test(value) ? shortId(value) : String(value));
}

// The details without the name that is shown as the target.
function detailsBeside(entry) {
  const { name, ...others } = entry.details;
  return name === nameOfTarget(entry) ? others : entry.details;
}

// Details as text: `{a: 1, b: null}` becomes "a: 1".
const formatDetails = (details, names) => Object.entries(details).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length)).map(([name, value]) => `${nameOf(name)}: ${name === "role" ? t(`role.${value}`) : formatValue(value, names)}`).join(" · ");
