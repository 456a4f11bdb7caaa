// All upstream accounts of the platform and its users; add some, pause, check.
import { html, useState } from "../lib/ui.js";
import { AccountActions, AccountState, AddAccounts, Load, RegionOf, hoursOf, successOf } from "../lib/accounts.js";
import { api } from "../lib/api.js";
import { number, t } from "../lib/language.js";
import { Ago, Button, Empty, Failure, Loading, PageHead, Select, useLoaded } from "../lib/parts.js";
import { usePolled } from "../lib/polling.js";
import { Link, setQuery } from "../lib/router.js";
import { daysBack, sumBy } from "../lib/usage.js";

const STATES = ["ok", "resting", "needs_login", "blocked", "paused"];
const EVERY_SECONDS = 5;

async function allAccounts() {
  const found = [];
  let page;
  do {
    page = await api.get("/admin/v1/accounts", { limit: 1000, after: found.at(-1)?.id });
    found.push(...page.data);
  } while (page.has_more);
  return found;
}

export default function Accounts({ query }) {
  const loaded = usePolled(allAccounts, EVERY_SECONDS);
  // How the week went changes slowly; without it the rest is shown all the same.
  const week = useLoaded(() => api.get("/admin/v1/usage", { ...daysBack(7), group_by: "account" }));
  const system = useLoaded(() => api.get("/admin/v1/system"));
  const [adding, setAdding] = useState(false);
  const accounts = loaded.data ?? [];
  const sums = week.data ? sumBy(week.data.data, "account_id") : new Map();
  const shown = accounts.filter((one) => (!query.state || one.state === query.state) && (!query.q || `${one.label} ${one.user ?? ""} ${one.groups.join(" ")}`.toLowerCase().includes(query.q.toLowerCase())));
  const changed = (account) => loaded.setData((all) => all.map((one) => (one.id === account.id ? { ...one, ...account } : one)));
  return html`<${PageHead} title=${t("nav.accounts")} lead=${t("accounts.lead")}><${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("accounts.add")}<//><//>
    ${accounts.length > 0 && html`<${Summary} accounts=${accounts} state=${query.state} />`}
    ${accounts.length > 8 && html`<div class="filters two" role="search"><div class="field"><label for="find">${t("accounts.find")}</label><input id="find" type="search" value=${query.q ?? ""} onInput=${(event) => setQuery({ q: event.target.value })} /></div>
      <${Select} label=${t("filter.status")} value=${query.state ?? ""} onChange=${(state) => setQuery({ state })} options=${[["", t("filter.any")], ...STATES.map((one) => [one, t(`status.${one}`)])]} /></div>`}
    ${loaded.error && !loaded.data && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && !loaded.error && html`<${Loading} />`}
    ${loaded.data && !shown.length && html`<div class="card"><${Empty} icon="pool" title=${t(accounts.length ? "accounts.no_match" : "accounts.empty")}>${accounts.length ? html`<${Button} onClick=${() => setQuery({ q: "", state: "" })}>${t("jobs.clear")}<//>` : html`<p>${t("accounts.empty_text")}</p>`}<//></div>`}
    ${shown.length > 0 && html`<section class="card flush"><div class="table-wrap"><table class="table"><thead><tr><th>${t("accounts.account")}</th><th>${t("accounts.state")}</th><th>${t("accounts.load")}</th><th class="end">${t("param.credits")}</th><th class="end">${t("accounts.success")}</th><th>${t("accounts.hours")}</th><th class="end"><span class="quiet-text">${t("table.actions")}</span></th></tr></thead>
      <tbody>${shown.map((account) => html`<${Row} key=${account.id} account=${account} sum=${sums.get(account.id)} defaults=${system.data?.defaults} onChanged=${changed} />`)}</tbody></table></div></section>`}
    ${adding && html`<${AddAccounts} onClose=${() => setAdding(false)} onAdded=${loaded.reload} />`}`;
}

function Summary({ accounts, state }) {
  const count = (wanted) => accounts.filter((one) => one.state === wanted).length;
  const credits = accounts.reduce((sum, one) => sum + (one.state !== "retired" ? one.credits ?? 0 : 0), 0);
  return html`<ul class="stats">${STATES.filter((one) => one === "ok" || count(one)).map((one) => html`<li key=${one}><button type="button" class="card stat" aria-pressed=${state === one} onClick=${() => setQuery({ state: state === one ? "" : one })}><span>${t(`status.${one}`)}</span><strong class="numeric">${number(count(one))}</strong></button></li>`)}
    <li class="card stat"><span>${t("accounts.busy")}</span><strong class="numeric">${number(accounts.reduce((sum, one) => sum + one.in_flight, 0))}</strong></li>
    <li class="card stat"><span>${t("param.credits")}</span><strong class="numeric">${number(credits)}</strong></li></ul>`;
}

function Row({ account, sum, defaults, onChanged }) {
  const success = successOf(sum);
  return html`<tr><td data-label=${t("accounts.account")}><div><${Link} to=${`accounts/${account.id}`} class="strong-link">${account.label}<//>
      <p class="hint"><${RegionOf} account=${account} />${account.user ? ` · ${account.user}` : ""}${account.groups.length ? ` · ${account.groups.join(", ")}` : ""}${account.proxy ? html` · <span title=${account.proxy}>${t("accounts.by_proxy")}</span>` : ""}</p></div></td>
    <td data-label=${t("accounts.state")}><${AccountState} account=${account} /></td>
    <td data-label=${t("accounts.load")}><${Load} account=${account} defaults=${defaults} /></td>
    <td data-label=${t("param.credits")} class="figure numeric"><div>${number(account.credits)}${account.credits_at && html`<p class="hint"><${Ago} at=${account.credits_at} /></p>`}</div></td>
    <td data-label=${t("accounts.success")} class="figure numeric" title=${sum ? t("accounts.success_of", { n: sum.succeeded, of: sum.succeeded + sum.failed }) : ""}>${success === null ? "–" : `${success} %`}</td>
    <td data-label=${t("accounts.hours")}><span class="hint">${hoursOf(account)}</span></td>
    <td class="end"><${AccountActions} compact account=${account} onChanged=${onChanged} /></td></tr>`;
}
