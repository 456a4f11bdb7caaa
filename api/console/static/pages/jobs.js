// All jobs, newest first, with filters and live updates. More jobs load while scrolling.
import { html, useEffect, useState } from "../lib/ui/preact.js";
import { api, hasScope } from "../lib/api/client.js";
import { cancelJob, isOpen, jobDuration, jobFiles, jobPrompt, jobTitle, retryJob, thumbnailUrl } from "../lib/api/jobs.js";
import { useInfiniteScroll, useJobPages } from "../lib/api/pagination.js";
import { formatDuration, t } from "../lib/state/language.js";
import { Link, setQuery } from "../lib/state/router.js";
import { Button, EmptyState, ErrorMessage, Loading, PageHeader, Progress, RelativeTime, SearchField, Select, useAction } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { JobStatus, KIND_ICON, queueText } from "../lib/ui/job_views.js";

const STATUSES = ["queued", "in_progress", "completed", "failed", "cancelled"];
const KINDS = ["image", "video", "chat"];

export default function Jobs({ query }) {
  const filter = { status: query.status, kind: query.kind, model: query.model, q: query.q };
  const pages = useJobPages("/v1/jobs", { ...filter, limit: 50 }, (job) => matchesFilter(job, filter));
  const filtered = Object.values(filter).some(Boolean);
  const end = useInfiniteScroll(pages.loadMore);
  return html`<${PageHeader} title=${t("nav.jobs")} lead=${t("jobs.lead")} />
    <${Filters} filter=${filter} />
    ${pages.error && html`<${ErrorMessage} error=${pages.error} onRetry=${pages.reload} />`}
    ${pages.items.length > 0 && html`<ol class="card job-list" aria-label=${t("nav.jobs")}>${pages.items.map(jobRow)}</ol>`}
    ${!pages.loading && !pages.error && !pages.items.length && html`<div class="card"><${EmptyState} icon="list" title=${t(filtered ? "jobs.no_match" : "jobs.empty")}>
      ${filtered ? html`<${Button} onClick=${() => setQuery({ status: "", kind: "", model: "", q: "" })}>${t("jobs.clear")}<//>` : html`<${Link} to="" class="button primary">${t("jobs.create")}<//>`}<//></div>`}
    ${pages.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

// The same element for the same job object, so that a growing list does not render its existing rows again.
const rowCache = new WeakMap();
function jobRow(job) {
  if (!rowCache.has(job)) rowCache.set(job, html`<${Row} key=${job.id} job=${job} />`);
  return rowCache.get(job);
}

// Whether a job from the feed belongs to the list.
function matchesFilter(job, { status, kind, model, q }) {
  return (
    (!status || job.status === status) && (!kind || job.kind === kind) && (!model || job.model === model) &&
    (!q || jobPrompt(job).toLowerCase().includes(q.toLowerCase()))
  );
}

function Filters({ filter }) {
  const [models, setModels] = useState([]);
  useEffect(() => {
    // If the models cannot be loaded, the other filters still work.
    api.get("/v1/models").then(({ data }) => setModels(data.filter((item) => !item.alias_of)), () => {});
  }, []);
  const withAll = (options) => [["", t("filter.any")], ...options];
  return html`<div class="filters" role="search">
    <${SearchField} label=${t("filter.prompt")} value=${filter.q ?? ""} onChange=${(q) => setQuery({ q }, { typed: "q" })} />
    <${Select} label=${t("filter.status")} value=${filter.status ?? ""} onChange=${(status) => setQuery({ status })} options=${withAll(STATUSES.map((item) => [item, t(`status.${item}`)]))} />
    <${Select} label=${t("filter.kind")} value=${filter.kind ?? ""} onChange=${(kind) => setQuery({ kind })} options=${withAll(KINDS.map((item) => [item, t(`kind.${item}`)]))} />
    <${Select} label=${t("filter.model")} value=${filter.model ?? ""} onChange=${(model) => setQuery({ model })} options=${withAll(models.map((item) => [item.id, item.model_name]))} />
  </div>`;
}

function Row({ job }) {
  const [cancel, cancelling] = useAction(() => cancelJob(job));
  const [retry, retrying] = useAction(() => retryJob(job, "new"));
  const [file] = jobFiles(job);
  const thumbnail = file && thumbnailUrl(file, { small: true });
  return html`<li class="job-row">
    <span class="job-thumb">${thumbnail ? html`<img src=${thumbnail} alt="" loading="lazy" decoding="async" />` : html`<${Icon} name=${KIND_ICON[job.kind]} />`}</span>
    <div class="job-summary"><${Link} to=${`jobs/${job.id}`} class="job-title">${jobTitle(job)}<//>
      <p class="hint">${job.model} · <${RelativeTime} at=${job.created_at} />${jobDuration(job) != null ? ` · ${formatDuration(jobDuration(job))}` : ""}</p></div>
    <div class="job-state"><${JobStatus} job=${job} />
      ${isOpen(job) && html`<div class="job-wait"><${Progress} value=${job.status === "queued" ? null : job.progress} label=${t("job.progress")} /><span class="hint numeric">${queueText(job)}</span></div>`}
      ${job.error && html`<span class="hint job-error" title=${job.error.message}>${job.error.message}</span>`}</div>
    <div class="job-buttons">${hasScope("generate") && isOpen(job) && html`<${Button} small kind="quiet" icon="stop" busy=${cancelling} disabled=${job.cancelling} label=${t("job.cancel")} onClick=${cancel} />`}
      ${hasScope("generate") && !isOpen(job) && job.kind !== "chat" && html`<${Button} small kind="quiet" icon="repeat" busy=${retrying} label=${t("job.retry")} onClick=${retry} />`}</div>
  </li>`;
}
