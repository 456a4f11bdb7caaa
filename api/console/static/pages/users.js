// All users: role, groups, what they made this month; add one.
import { html, useState } from "../lib/ui.js";
import { words } from "../lib/accounts.js";
import { api } from "../lib/api.js";
import { number, t } from "../lib/language.js";
import { Button, Dialog, Empty, Failure, Loading, PageHead, Select, Status, TextField, useLoaded } from "../lib/parts.js";
import { Link, go } from "../lib/router.js";
import { sumBy } from "../lib/usage.js";

async function allUsers() {
  const found = [];
  let page;
  do {
    page = await api.get("/admin/v1/users", { limit: 1000, after: found.at(-1)?.id });
    found.push(...page.data);
  } while (page.has_more);
  return found;
}

export default function Users() {
  const loaded = useLoaded(allUsers);
  const month = useLoaded(() => api.get("/admin/v1/usage", { group_by: "user" }));
  const [adding, setAdding] = useState(false);
  const [find, setFind] = useState("");
  const sums = month.data ? sumBy(month.data.data, "user_id") : new Map();
  const users = loaded.data ?? [];
  const shown = users.filter((one) => `${one.name} ${one.groups.join(" ")}`.toLowerCase().includes(find.toLowerCase()));
  return html`<${PageHead} title=${t("nav.users")} lead=${t("users.lead")}><${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("users.add")}<//><//>
    ${users.length > 8 && html`<div class="filters two" role="search"><div class="field"><label for="find">${t("users.find")}</label><input id="find" type="search" value=${find} onInput=${(event) => setFind(event.target.value)} /></div></div>`}
    ${loaded.error && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    ${loaded.data && !shown.length && html`<div class="card"><${Empty} icon="users" title=${t("users.no_match")} /></div>`}
    ${shown.length > 0 && html`<section class="card flush"><div class="table-wrap"><table class="table"><thead><tr><th>${t("users.name")}</th><th>${t("users.role")}</th><th>${t("filter.status")}</th><th>${t("users.groups")}</th><th class="end">${t("users.weight")}</th><th class="end">${t("users.jobs_month")}</th><th class="end">${t("users.credits_month")}</th></tr></thead>
      <tbody>${shown.map((user) => html`<tr key=${user.id}><td data-label=${t("users.name")}><${Link} to=${`users/${user.id}`} class="strong-link">${user.name}<//></td>
        <td data-label=${t("users.role")}>${t(`role.${user.role}`)}</td><td data-label=${t("filter.status")}><${Status} word=${user.disabled ? "disabled" : "enabled"} /></td>
        <td data-label=${t("users.groups")}>${user.groups.map((group) => html`<span key=${group} class="tag">${group}</span> `)}${!user.groups.length && "–"}</td>
        <td data-label=${t("users.weight")} class="figure numeric">${number(user.weight)}${user.priority ? html` <span class="hint">${user.priority > 0 ? "+" : ""}${user.priority}</span>` : ""}</td>
        <td data-label=${t("users.jobs_month")} class="figure numeric">${number(sums.get(user.id)?.accepted ?? 0)}</td><td data-label=${t("users.credits_month")} class="figure numeric">${number(sums.get(user.id)?.credits ?? 0)}</td></tr>`)}</tbody></table></div></section>`}
    ${adding && html`<${AddUser} onClose=${() => setAdding(false)} />`}`;
}

function AddUser({ onClose }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState("member");
  const [groups, setGroups] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const add = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const made = await api.post("/admin/v1/users", { name, role, groups: words(groups) });
      go(`users/${made.id}`);
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t("users.add")} onClose=${onClose}><form class="stack" onSubmit=${add}>
    <${TextField} label=${t("users.name")} value=${name} onInput=${setName} maxlength="100" required autocomplete="off" />
    <${Select} label=${t("users.role")} hint=${t(`role.${role}_text`)} value=${role} onChange=${setRole} options=${["member", "viewer", "admin"].map((one) => [one, t(`role.${one}`)])} />
    <${TextField} label=${t("users.groups")} hint=${t("users.groups_hint")} value=${groups} onInput=${setGroups} />
    ${error && html`<${Failure} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.back")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!name.trim()}>${t("users.add")}<//></div></form><//>`;
}
