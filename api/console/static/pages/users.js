// All users with role, groups and this month's usage.
import { html, useState } from "../lib/ui/preact.js";
import { api } from "../lib/api/client.js";
import { useLoaded } from "../lib/api/loading.js";
import { formatNumber, t } from "../lib/state/language.js";
import { Link, navigate } from "../lib/state/router.js";
import { splitList } from "../lib/ui/accounts/views.js";
import { Button, Dialog, EmptyState, ErrorMessage, Loading, PageHeader, Select, StatusBadge, TextField, useSubmit } from "../lib/ui/components.js";
import { sumByGroup } from "../lib/ui/charts/usage_views.js";

async function fetchAllUsers() {
  const users = [];
  let page;
  do {
    page = await api.get("/admin/v1/users", { limit: 1000, after: users.at(-1)?.id });
    users.push(...page.data);
  } while (page.has_more);
  return users;
}

export default function Users() {
  const loaded = useLoaded(fetchAllUsers);
  const month = useLoaded(() => api.get("/admin/v1/usage", { group_by: "user" }));
  const [adding, setAdding] = useState(false);
  const [search, setSearch] = useState("");
  const sums = month.data ? sumByGroup(month.data.data, "user_id") : new Map();
  const users = loaded.data ?? [];
  const filtered = users.filter((item) => `${item.name} ${item.groups.join(" ")}`.toLowerCase().includes(search.toLowerCase()));
  return html`<${PageHeader} title=${t("nav.users")} lead=${t("users.lead")}><${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("users.add")}<//><//>
    ${users.length > 8 && html`<div class="filters two" role="search"><div class="field"><label for="search">${t("users.search")}</label><input id="search" type="search" value=${search} onInput=${(event) => setSearch(event.target.value)} /></div></div>`}
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    ${loaded.data && !filtered.length && html`<div class="card"><${EmptyState} icon="users" title=${t("users.no_match")} /></div>`}
    ${filtered.length > 0 && html`<section class="card flush"><div class="table-wrap" tabindex="0" role="region" aria-label=${t("nav.users")}><table class="table"><thead><tr><th>${t("users.name")}</th><th>${t("users.role")}</th><th>${t("filter.status")}</th><th>${t("users.groups")}</th><th class="end">${t("users.weight")}</th><th class="end">${t("users.jobs_month")}</th><th class="end">${t("users.credits_month")}</th></tr></thead>
      <tbody>${filtered.map((user) => html`<tr key=${user.id}><td data-label=${t("users.name")}><${Link} to=${`users/${user.id}`} class="strong-link">${user.name}<//></td>
        <td data-label=${t("users.role")} class="nowrap">${t(`role.${user.role}`)}</td><td data-label=${t("filter.status")}><${StatusBadge} status=${user.disabled ? "disabled" : "enabled"} /></td>
        <td data-label=${t("users.groups")}><span class="tags">${user.groups.map((group) => html`<span key=${group} class="tag">${group}</span>`)}${!user.groups.length && "–"}</span></td>
        <td data-label=${t("users.weight")} class="figure numeric"><span class="nowrap">${formatNumber(user.weight)}${user.priority ? html` <span class="hint" title=${t("users.priority")}>${user.priority > 0 ? "+" : ""}${user.priority}</span>` : ""}</span></td>
        <td data-label=${t("users.jobs_month")} class="figure numeric">${formatNumber(sums.get(user.id)?.accepted ?? 0)}</td><td data-label=${t("users.credits_month")} class="figure numeric">${formatNumber(sums.get(user.id)?.credits ?? 0)}</td></tr>`)}</tbody></table></div></section>`}
    ${adding && html`<${AddUserDialog} onClose=${() => setAdding(false)} />`}`;
}

function AddUserDialog({ onClose }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("member");
  const [groups, setGroups] = useState("");
  const [add, busy, error] = useSubmit(async () => {
    const user = await api.post("/admin/v1/users", { name, role, groups: splitList(groups) });
    navigate(`users/${user.id}`);
  });
  return html`<${Dialog} title=${t("users.add")} unsaved=${Boolean(name || groups) && !busy} onClose=${onClose}><form class="stack" onSubmit=${add}>
    <${TextField} label=${t("users.name")} value=${name} onInput=${setName} maxlength="100" required autocomplete="off" />
    <${Select} label=${t("users.role")} hint=${t(`role.${role}_text`)} value=${role} onChange=${setRole} options=${["member", "viewer", "admin"].map((item) => [item, t(`role.${item}`)])} />
    <${TextField} label=${t("users.groups")} hint=${t("users.groups_hint")} value=${groups} onInput=${setGroups} />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!name.trim()}>${t("users.add")}<//></div></form><//>`;
}
