// Upstream accounts: all of the platform and its users, or one's own.
import { html, useState } from "../lib/ui/preact.js";
import { api } from "../lib/api/client.js";
import { useLoaded, usePolling } from "../lib/api/loading.js";
import { t } from "../lib/state/language.js";
import { setQuery } from "../lib/state/router.js";
import { AddAccountsDialog } from "../lib/ui/accounts/add_accounts.js";
import { AccountSummary, AccountTable, STATES } from "../lib/ui/accounts/table.js";
import { ADMIN_BASE, OWN_BASE, stateOf } from "../lib/ui/accounts/views.js";
import { AccountWarnings, BulkActions } from "../lib/ui/accounts/warnings.js";
import { Button, EmptyState, ErrorMessage, Loading, PageHeader, Select } from "../lib/ui/components.js";
import { lastDays, sumByGroup } from "../lib/ui/charts/usage_views.js";

const REFRESH_SECONDS = 5;

const fetchAll = (base) => async () => {
  const accounts = [];
  let page;
  do {
    page = await api.get(base, { limit: 1000, after: accounts.at(-1)?.id });
    accounts.push(...page.data);
  } while (page.has_more);
  return accounts;
};

export default function Accounts({ query }) {
  // Weekly sums change slowly and are loaded once; without them the rest of the page still works.
  const week = useLoaded(() => api.get("/admin/v1/usage", { ...lastDays(7), group_by: "account" }));
  const system = useLoaded(() => api.get("/admin/v1/system"));
  const sums = week.data ? sumByGroup(week.data.data, "account_id") : new Map();
  return html`<${AccountsPage} name="accounts" page="accounts" base=${ADMIN_BASE} query=${query} sums=${sums} defaults=${system.data?.defaults} />`;
}

export const OwnAccounts = ({ query }) => html`<${AccountsPage} name="my_accounts" page="my-accounts" base=${OWN_BASE} query=${query} />`;

function AccountsPage({ name, page, base, query, sums, defaults }) {
  const loaded = usePolling(fetchAll(base), REFRESH_SECONDS);
  const [adding, setAdding] = useState(false);
  const accounts = loaded.data ?? [];
  const own = base === OWN_BASE;
  const filtered = accounts.filter((item) => (!query.state || stateOf(item) === query.state) && (!query.q || `${item.label} ${item.user ?? ""} ${item.groups.join(" ")}`.toLowerCase().includes(query.q.toLowerCase())));
  const changed = (account) => loaded.setData((all) => all.map((item) => (item.id === account.id ? { ...item, ...account } : item)));
  const addButton = html`<${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("accounts.add")}<//>`;
  return html`<${PageHeader} title=${t(`nav.${name}`)} lead=${t(own ? "my_accounts.lead" : "accounts.lead")}><${BulkActions} accounts=${accounts} base=${base} onChanged=${changed} />${addButton}<//>
    ${accounts.length > 0 && html`<${AccountWarnings} accounts=${accounts} page=${page} /><${AccountSummary} accounts=${accounts} state=${query.state} />`}
    ${accounts.length > 8 && html`<div class="filters two" role="search"><div class="field"><label for="search">${t("accounts.search")}</label><input id="search" type="search" value=${query.q ?? ""} onInput=${(event) => setQuery({ q: event.target.value }, { typed: "q" })} /></div>
      <${Select} label=${t("filter.status")} value=${query.state ?? ""} onChange=${(state) => setQuery({ state })} options=${[["", t("filter.any")], ...STATES.map((item) => [item, t(`status.${item}`)])]} /></div>`}
    ${loaded.error && !loaded.data && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && !loaded.error && html`<${Loading} />`}
    ${loaded.data && !filtered.length && html`<div class="card"><${EmptyState} icon="database" title=${t(accounts.length ? "accounts.no_match" : "accounts.empty")}>${accounts.length ? html`<${Button} onClick=${() => setQuery({ q: "", state: "" })}>${t("jobs.clear")}<//>` : html`<p>${t(own ? "my_accounts.empty_text" : "accounts.empty_text")}</p>${addButton}`}<//></div>`}
    ${filtered.length > 0 && html`<${AccountTable} accounts=${filtered} base=${base} page=${page} sums=${sums} defaults=${defaults} onChanged=${changed} />`}
    ${adding && html`<${AddAccountsDialog} base=${base} onClose=${() => setAdding(false)} onAdded=${loaded.reload} />`}`;
}
