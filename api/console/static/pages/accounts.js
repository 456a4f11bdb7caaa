// All upstream accounts of the platform and its users.
import { html, useState } from "../lib/ui/preact.js";
import { api } from "../lib/api/client.js";
import { useLoaded, usePolling } from "../lib/api/loading.js";
import { formatNumber, t } from "../lib/state/language.js";
import { Link, setQuery } from "../lib/state/router.js";
import { AccountActions, AccountRegion, AccountState, AddAccountsDialog, formatWorkingHours, Load, successRate } from "../lib/ui/account_views.js";
import { Button, EmptyState, ErrorMessage, Loading, PageHeader, RelativeTime, Select } from "../lib/ui/components.js";
import { lastDays, sumByGroup } from "../lib/ui/charts/usage_views.js";

const STATES = ["ok", "resting", "needs_login", "blocked", "paused"];
const REFRESH_SECONDS = 5;

async function fetchAllAccounts() {
  const accounts = [];
  let page;
  do {
    page = await api.get("/admin/v1/accounts", { limit: 1000, after: accounts.at(-1)?.id });
    accounts.push(...page.data);
  } while (page.has_more);
  return accounts;
}

export default function Accounts({ query }) {
  const loaded = usePolling(fetchAllAccounts, REFRESH_SECONDS);
  // Weekly sums change slowly and are loaded once; without them the rest of the page still works.
  const week = useLoaded(() => api.get("/admin/v1/usage", { ...lastDays(7), group_by: "account" }));
  const system = useLoaded(() => api.get("/admin/v1/system"));
  const [adding, setAdding] = useState(false);
  const accounts = loaded.data ?? [];
  const sums = week.data ? sumByGroup(week.data.data, "account_id") : new Map();
  const filtered = accounts.filter((item) => (!query.state || item.state === query.state) && (!query.q || `${item.label} ${item.user ?? ""} ${item.groups.join(" ")}`.toLowerCase().includes(query.q.toLowerCase())));
  const changed = (account) => loaded.setData((all) => all.map((item) => (item.id === account.id ? { ...item, ...account } : item)));
  return html`<${PageHeader} title=${t("nav.accounts")} lead=${t("accounts.lead")}><${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("accounts.add")}<//><//>
    ${accounts.length > 0 && html`<${AccountSummary} accounts=${accounts} state=${query.state} />`}
    ${accounts.length > 8 && html`<div class="filters two" role="search"><div class="field"><label for="search">${t("accounts.search")}</label><input id="search" type="search" value=${query.q ?? ""} onInput=${(event) => setQuery({ q: event.target.value }, { typed: "q" })} /></div>
      <${Select} label=${t("filter.status")} value=${query.state ?? ""} onChange=${(state) => setQuery({ state })} options=${[["", t("filter.any")], ...STATES.map((item) => [item, t(`status.${item}`)])]} /></div>`}
    ${loaded.error && !loaded.data && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && !loaded.error && html`<${Loading} />`}
    ${loaded.data && !filtered.length && html`<div class="card"><${EmptyState} icon="database" title=${t(accounts.length ? "accounts.no_match" : "accounts.empty")}>${accounts.length ? html`<${Button} onClick=${() => setQuery({ q: "", state: "" })}>${t("jobs.clear")}<//>` : html`<p>${t("accounts.empty_text")}</p>`}<//></div>`}
    ${filtered.length > 0 && html`<section class="card flush"><div class="table-wrap"><table class="table"><thead><tr><th>${t("accounts.account")}</th><th>${t("accounts.state")}</th><th>${t("accounts.load")}</th><th class="end">${t("param.credits")}</th><th class="end">${t("accounts.success")}</th><th>${t("accounts.hours")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
      <tbody>${filtered.map((account) => html`<${Row} key=${account.id} account=${account} sum=${sums.get(account.id)} defaults=${system.data?.defaults} onChanged=${changed} />`)}</tbody></table></div></section>`}
    ${adding && html`<${AddAccountsDialog} onClose=${() => setAdding(false)} onAdded=${loaded.reload} />`}`;
}

function AccountSummary({ accounts, state }) {
  const count = (value) => accounts.filter((item) => item.state === value).length;
  const credits = accounts.reduce((sum, item) => sum + (item.state !== "retired" ? item.credits ?? 0 : 0), 0);
  return html`<ul class="stats">${STATES.filter((item) => item === "ok" || count(item)).map((item) => html`<li key=${item}><button type="button" class="card stat" aria-pressed=${state === item} onClick=${() => setQuery({ state: state === item ? "" : item })}><span>${t(`status.${item}`)}</span><strong class="numeric">${formatNumber(count(item))}</strong></button></li>`)}
    <li class="card stat"><span>${t("accounts.in_progress")}</span><strong class="numeric">${formatNumber(accounts.reduce((sum, item) => sum + item.in_flight, 0))}</strong></li>
    <li class="card stat"><span>${t("param.credits")}</span><strong class="numeric">${formatNumber(credits)}</strong></li></ul>`;
}

function Row({ account, sum, defaults, onChanged }) {
  const success = successRate(sum);
  return html`<tr><td data-label=${t("accounts.account")}><div><${Link} to=${`accounts/${account.id}`} class="strong-link">${account.label}<//>
      <p class="hint"><${AccountRegion} account=${account} />${account.user ? ` · ${account.user}` : ""}${account.groups.length ? ` · ${account.groups.join(", ")}` : ""}${account.proxy ? html` · <span title=${account.proxy}>${t("accounts.via_proxy")}</span>` : ""}</p></div></td>
    <td data-label=${t("accounts.state")}><${AccountState} account=${account} /></td>
    <td data-label=${t("accounts.load")}><${Load} account=${account} defaults=${defaults} /></td>
    <td data-label=${t("param.credits")} class="figure numeric"><div>${formatNumber(account.credits)}${account.credits_at && html`<p class="hint"><${RelativeTime} at=${account.credits_at} /></p>`}</div></td>
    <td data-label=${t("accounts.success")} class="figure numeric" title=${sum ? t("accounts.success_of", { n: sum.succeeded, of: sum.succeeded + sum.failed }) : ""}>${success === null ? "–" : `${success} %`}</td>
    <td data-label=${t("accounts.hours")}><span class="hint">${formatWorkingHours(account)}</span></td>
    <td class="end"><${AccountActions} compact account=${account} onChanged=${onChanged} /></td></tr>`;
}
