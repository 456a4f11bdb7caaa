// Whose accounts the jobs of a key may use, and how many of them run at a time: parts of the dialogs of new and of existing keys.
import { html, useEffect, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { CheckboxGroup, TextField } from "../components.js";

const nullIfEmpty = (list) => (list.length ? list : null);

// Returns `fields` (the parts of the form), `values` (null = all, no limit) and `typed`. Administrators choose among the
// accounts of the platform and have groups and the limit; others choose among their own accounts.
export function useKeySelection(administers, key) {
  const [providers, setProviders] = useState(key?.providers ?? []);
  const [allProviders, setAllProviders] = useState([]);
  const [accounts, setAccounts] = useState(key?.accounts ?? []);
  const [allAccounts, setAllAccounts] = useState([]);
  const groupsBefore = (key?.account_groups ?? []).join(", ");
  const [groups, setGroups] = useState(groupsBefore);
  const limitBefore = String(key?.limits.concurrent_jobs ?? "");
  const [limit, setLimit] = useState(limitBefore);
  useEffect(() => {
    api.get("/v1/accounts/providers").then(({ data }) => setAllProviders(data), () => {});
    api.get(administers ? "/admin/v1/accounts" : "/v1/accounts", { limit: 1000 }).then(({ data }) => setAllAccounts(data.filter((item) => item.state !== "retired" || key?.accounts?.includes(item.id))), () => {});
  }, []);
  // Groups are names with spaces or commas between them.
  const names = groups.split(/[\s,]+/).filter(Boolean);
  const known = new Set(allAccounts.map((item) => item.id));
  const options = [...allAccounts.map((item) => [item.id, item.label]), ...(key?.accounts ?? []).filter((id) => !known.has(id)).map((id) => [id, id])];
  const isSame = (list, before) => list.length === before.length && list.every((item) => before.includes(item));
  const values = { providers: nullIfEmpty(providers), accounts: nullIfEmpty(accounts) };
  if (administers) Object.assign(values, { account_groups: nullIfEmpty(names), limits: { concurrent_jobs: limit ? Number(limit) : null } });
  const typed = !isSame(providers, key?.providers ?? []) || !isSame(accounts, key?.accounts ?? []) || groups !== groupsBefore || limit !== limitBefore;
  const fields = html`${(allProviders.length > 1 || providers.length > 0) && html`<details class="more"><summary>${providers.length ? t("keys.providers_n", { n: providers.length }) : t("keys.providers_all")}</summary>
      <${CheckboxGroup} label=${t("keys.providers")} hideLabel options=${allProviders.map((item) => [item.name, item.title])} selected=${providers} onChange=${setProviders} /></details>`}
    ${(options.length > 0 || administers) && html`<details class="more"><summary>${accounts.length || groups.trim() ? t("keys.accounts_some") : t("keys.accounts_all")}</summary>
      ${options.length > 0 && html`<${CheckboxGroup} label=${t("keys.accounts")} options=${options} selected=${accounts} onChange=${setAccounts} />`}
      ${administers && html`<${TextField} label=${t("keys.groups")} hint=${t("keys.groups_hint")} value=${groups} onInput=${setGroups} maxlength="500" />`}</details>`}
    ${administers && html`<${TextField} label=${t("limit.concurrent_jobs")} hint=${t("keys.concurrent_hint")} type="number" min="1" max="1000000" value=${limit} onInput=${setLimit} />`}`;
  return { fields, values, typed };
}
