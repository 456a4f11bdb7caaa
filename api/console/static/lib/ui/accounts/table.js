// The table of accounts and the figures above it, for all accounts and for one's own.
import { html } from "../preact.js";
import { formatNumber, t } from "../../state/language.js";
import { Link, setQuery } from "../../state/router.js";
import { RelativeTime } from "../components.js";
import { AccountActions, AccountRegion, AccountState, ADMIN_BASE, formatWorkingHours, Load, stateOf, successRate } from "./views.js";

export const STATES = ["ok", "unchecked", "no_credits", "resting", "needs_login", "blocked", "paused"];

export function AccountSummary({ accounts, state }) {
  const count = (value) => accounts.filter((item) => stateOf(item) === value).length;
  const known = accounts.filter((item) => item.credits !== null);
  return html`<ul class="stats">${STATES.filter((item) => item === "ok" || count(item)).map((item) => html`<li key=${item}><button type="button" class="card stat" aria-pressed=${state === item} onClick=${() => setQuery({ state: state === item ? "" : item })}><span>${t(`status.${item}`)}</span><strong class="numeric">${formatNumber(count(item))}</strong></button></li>`)}
    <li class="card stat"><span>${t("accounts.in_progress")}</span><strong class="numeric">${formatNumber(accounts.reduce((sum, item) => sum + item.in_flight, 0))}</strong></li>
    <li class="card stat"><span>${t("param.credits")}</span><strong class="numeric">${known.length ? formatNumber(known.reduce((sum, item) => sum + item.credits, 0)) : "–"}</strong></li></ul>`;
}

// `sums` = jobs of the last week by account, for administrators; `page` = the page of one account.
export function AccountTable({ accounts, base, page, sums, defaults, onChanged }) {
  return html`<section class="card flush"><div class="table-wrap"><table class="table account-table"><thead><tr><th>${t("accounts.account")}</th><th>${t("accounts.state")}</th><th>${t("accounts.load")}</th><th class="end">${t("param.credits")}</th>${sums && html`<th class="end">${t("accounts.success")}</th>`}<th class="wide-only">${t("accounts.hours")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
    <tbody>${accounts.map((account) => html`<${Row} key=${account.id} account=${account} base=${base} page=${page} sums=${sums} defaults=${defaults} onChanged=${onChanged} />`)}</tbody></table></div></section>`;
}

function Row({ account, base, page, sums, defaults, onChanged }) {
  const sum = sums?.get(account.id);
  const success = successRate(sum);
  const owner = base === ADMIN_BASE && account.user ? ` · ${account.user}` : "";
  return html`<tr><td data-label=${t("accounts.account")}><div><${Link} to=${`${page}/${account.id}`} class="strong-link">${account.label}<//>
      <p class="hint"><${AccountRegion} account=${account} />${owner}${account.groups.length ? ` · ${account.groups.join(t("list.separator"))}` : ""}${account.proxy ? ` · ${t("accounts.via_proxy")} ${account.proxy}` : ""}</p></div></td>
    <td data-label=${t("accounts.state")}><${AccountState} account=${account} /></td>
    <td data-label=${t("accounts.load")}><${Load} account=${account} defaults=${defaults} /></td>
    <td data-label=${t("param.credits")} class="figure numeric"><div>${formatNumber(account.credits)}${account.credits_at && html`<p class="hint wide-only"><${RelativeTime} at=${account.credits_at} /></p>`}</div></td>
    ${sums && html`<td data-label=${t("accounts.success")} class="figure numeric"><div>${success === null ? "–" : `${success} %`}${sum && sum.succeeded + sum.failed > 0 && html`<p class="hint">${t("accounts.success_short", { n: sum.succeeded, of: sum.succeeded + sum.failed })}</p>`}</div></td>`}
    <td class="wide-only" data-label=${t("accounts.hours")}><span class="hint">${formatWorkingHours(account)}</span></td>
    <td class="end"><${AccountActions} compact account=${account} base=${base} onChanged=${onChanged} /></td></tr>`;
}
