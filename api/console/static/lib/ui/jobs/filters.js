// The filters of the list of jobs. Administrators can list the jobs of everybody, of one user or of one account.
import { html, useEffect, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { jobPrompt } from "../../api/jobs.js";
import { t } from "../../state/language.js";
import { setQuery } from "../../state/router.js";
import { SearchField, Select } from "../components.js";

const STATUSES = ["queued", "in_progress", "completed", "failed", "cancelled"];
const KINDS = ["image", "video", "chat"];
// Parameters of the address that filter the list.
export const FILTERS = ["status", "kind", "model", "q", "batch", "user", "account"];

export const clearFilters = () => setQuery(Object.fromEntries(FILTERS.map((name) => [name, ""])));

// Whether a changed job belongs to the list. `everybody` = a list of all users; its unknown jobs come with the next page.
export function matchesFilter(job, { status, kind, model, q, batch, user, account }, everybody) {
  return (
    (!status || status.split(",").includes(job.status)) && (!kind || job.kind === kind) && (!model || job.model === model) &&
    (!batch || job.batch === batch) &&
    (!q || jobPrompt(job).toLowerCase().includes(q.toLowerCase())) &&
    (!everybody || job.user !== undefined) && (!user || job.user === user || job.user_id === user) && (!account || job.account_id === account)
  );
}

// The entries of a list of the API by id and name; an entry of the filter that is not among them keeps its place.
function useNames(path, name, wanted, current) {
  const [entries, setEntries] = useState([]);
  useEffect(() => {
    // If they cannot be loaded, the other filters still work.
    if (wanted) api.get(path, { limit: 1000 }).then(({ data }) => setEntries(data), () => {});
  }, [path, wanted]);
  const pairs = entries.map((entry) => [entry.id, entry[name]]);
  return current && !pairs.some(([id]) => id === current) ? [[current, current], ...pairs] : pairs;
}

export function Filters({ filter, everybody }) {
  const [models, setModels] = useState([]);
  useEffect(() => {
    api.get("/v1/models").then(({ data }) => setModels(data.filter((item) => !item.alias_of)), () => {});
  }, []);
  const users = useNames("/admin/v1/users", "name", everybody, filter.user);
  const accounts = useNames("/admin/v1/accounts", "label", everybody, filter.account);
  const several = new Set(models.map((item) => item.model_name)).size < models.length;
  const choice = (name, label, options) => html`<${Select} label=${label} value=${filter[name] ?? ""} onChange=${(value) => setQuery({ [name]: value })} options=${[["", t("filter.any")], ...options]} />`;
  return html`<div class="filters ${everybody ? "six" : ""}" role="search">
    <${SearchField} label=${t("filter.prompt")} value=${filter.q ?? ""} onChange=${(q) => setQuery({ q }, { typed: "q" })} />
    ${everybody && choice("user", t("filter.user"), users)}
    ${everybody && choice("account", t("filter.account"), accounts)}
    ${choice("status", t("filter.status"), STATUSES.map((item) => [item, t(`status.${item}`)]))}
    ${choice("kind", t("filter.kind"), KINDS.map((item) => [item, t(`kind.${item}`)]))}
    ${filter.batch && choice("batch", t("filter.batch"), [[filter.batch, filter.batch.slice(-8)]])}
    ${choice("model", t("filter.model"), models.map((item) => [item.id, several ? `${item.model_name} (${item.id})` : item.model_name]))}
  </div>`;
}
