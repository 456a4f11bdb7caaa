// All jobs, newest first: filters, live, more as one scrolls.
import { html, useEffect, useState } from "../lib/ui.js";
import { api, may } from "../lib/api.js";
import { cancelJob, filesOf, isOpen, retryJob, secondsOf, thumbnail, titleOf, promptOf, useJobNews } from "../lib/jobs.js";
import { duration, t } from "../lib/language.js";
import { Ago, Button, Empty, Failure, Icon, Loading, PageHead, Progress, Select, useAction } from "../lib/parts.js";
import { JobStatus, KIND_ICON, waitText } from "../lib/results.js";
import { Link, setQuery } from "../lib/router.js";
import { SearchField, useEnd, usePages } from "../lib/paging.js";

const STATUSES = ["queued", "in_progress", "completed", "failed", "cancelled"];
const KINDS = ["image", "video", "chat"];

export default function Jobs({ query }) {
  const filter = { status: query.status, kind: query.kind, model: query.model, q: query.q };
  const pages = usePages("/v1/jobs", { ...filter, limit: 50 }, (job) => fits(job, filter));
  const filtered = Object.values(filter).some(Boolean);
  const end = useEnd(pages.more);
  return html`<${PageHead} title=${t("nav.jobs")} lead=${t("jobs.lead")} />
    <${Filters} filter=${filter} />
    ${pages.error && html`<${Failure} error=${pages.error} onRetry=${pages.reload} />`}
    ${pages.items.length > 0 && html`<ol class="card job-list" aria-label=${t("nav.jobs")}>${pages.items.map(rowOf)}</ol>`}
    ${!pages.loading && !pages.error && !pages.items.length && html`<div class="card"><${Empty} icon="list" title=${t(filtered ? "jobs.none" : "jobs.empty")}>
      ${filtered ? html`<${Button} onClick=${() => setQuery({ status: "", kind: "", model: "", q: "" })}>${t("jobs.clear")}<//>` : html`<${Link} to="" class="button primary">${t("jobs.first")}<//>`}<//></div>`}
    ${pages.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

// The same object for the same job, so that a list that grows does not look at the rows it has.
const rows = new WeakMap();
function rowOf(job) {
  if (!rows.has(job)) rows.set(job, html`<${Row} key=${job.id} job=${job} />`);
  return rows.get(job);
}

// Whether a job that the feed tells of belongs on the list.
function fits(job, { status, kind, model, q }) {
  return (
    (!status || job.status === status) && (!kind || job.kind === kind) && (!model || job.model === model) &&
    (!q || promptOf(job).toLowerCase().includes(q.toLowerCase()))
  );
}

function Filters({ filter }) {
  const [models, setModels] = useState([]);
  useEffect(() => {
    // Without the list of models one can still filter by the rest.
    api.get("/v1/models").then(({ data }) => setModels(data.filter((one) => !one.alias_of)), () => {});
  }, []);
  const any = (options) => [["", t("filter.any")], ...options];
  return html`<div class="filters" role="search">
    <${SearchField} label=${t("filter.prompt")} value=${filter.q ?? ""} onChange=${(q) => setQuery({ q })} />
    <${Select} label=${t("filter.status")} value=${filter.status ?? ""} onChange=${(status) => setQuery({ status })} options=${any(STATUSES.map((one) => [one, t(`status.${one}`)]))} />
    <${Select} label=${t("filter.kind")} value=${filter.kind ?? ""} onChange=${(kind) => setQuery({ kind })} options=${any(KINDS.map((one) => [one, t(`kind.${one}`)]))} />
    <${Select} label=${t("filter.model")} value=${filter.model ?? ""} onChange=${(model) => setQuery({ model })} options=${any(models.map((one) => [one.id, one.model_name]))} />
  </div>`;
}

function Row({ job }) {
  const [cancel, cancelling] = useAction(() => cancelJob(job));
  const [retry, retrying] = useAction(() => retryJob(job, "new"));
  const [file] = filesOf(job);
  const picture = file && thumbnail(file, { tiny: true });
  return html`<li class="job-row">
    <span class="job-thumb">${picture ? html`<img src=${picture} alt="" loading="lazy" decoding="async" />` : html`<${Icon} name=${KIND_ICON[job.kind]} />`}</span>
    <div class="job-what"><${Link} to=${`jobs/${job.id}`} class="job-title">${titleOf(job)}<//>
      <p class="hint">${job.model} · <${Ago} at=${job.created_at} />${secondsOf(job) != null ? ` · ${duration(secondsOf(job))}` : ""}</p></div>
    <div class="job-state"><${JobStatus} job=${job} />
      ${isOpen(job) && html`<div class="job-wait"><${Progress} value=${job.status === "queued" ? null : job.progress} label=${t("job.progress")} /><span class="hint numeric">${waitText(job)}</span></div>`}
      ${job.error && html`<span class="hint job-error" title=${job.error.message}>${job.error.message}</span>`}</div>
    <div class="job-do">${may("generate") && isOpen(job) && html`<${Button} small kind="quiet" icon="stop" busy=${cancelling} disabled=${job.cancelling} label=${t("job.cancel")} onClick=${cancel} />`}
      ${may("generate") && !isOpen(job) && job.kind !== "chat" && html`<${Button} small kind="quiet" icon="again" busy=${retrying} label=${t("job.retry")} onClick=${retry} />`}</div>
  </li>`;
}
