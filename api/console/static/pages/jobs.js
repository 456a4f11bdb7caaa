// All jobs, newest first, with filters and live updates. More jobs load while scrolling. Administrators see those of everybody too.
import { html } from "../lib/ui/preact.js";
import { hasScope } from "../lib/api/client.js";
import { cancelJob, isOpen, jobDuration, jobFiles, jobTitle, needsOtherPrompt, retryJob, thumbnailUrl } from "../lib/api/jobs.js";
import { useJobPages, useLongList } from "../lib/api/pagination.js";
import { editAndRemake } from "../lib/state/draft.js";
import { formatDuration, t } from "../lib/state/language.js";
import { Link, setQuery } from "../lib/state/router.js";
import { Button, EmptyState, ErrorMessage, Loading, Message, PageHeader, Progress, RadioGroup, RelativeTime, useAction } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { clearFilters, FILTERS, Filters, matchesFilter } from "../lib/ui/jobs/filters.js";
import { JobStatus, KIND_ICON, queueText } from "../lib/ui/job_views.js";
import { Thumbnail } from "../lib/ui/results/thumbnail.js";

const REFRESH_SECONDS = 5;

export default function Jobs({ query }) {
  const everybody = hasScope("admin") && query.who === "all";
  const names = everybody ? FILTERS : FILTERS.filter((name) => name !== "user" && name !== "account");
  const filter = Object.fromEntries(names.map((name) => [name, query[name]]));
  const pages = useJobPages(everybody ? "/admin/v1/jobs" : "/v1/jobs", { ...filter, limit: 50 }, (job) => matchesFilter(job, filter, everybody), { refreshSeconds: everybody ? REFRESH_SECONDS : 0 });
  const filtered = Object.values(filter).some(Boolean);
  const [drawn, end] = useLongList(pages);
  return html`<${PageHeader} title=${t("nav.jobs")} lead=${t(everybody ? "jobs.lead_all" : "jobs.lead")}>${hasScope("admin") && html`<${RadioGroup} hideLabel label=${t("usage.scope")} value=${everybody ? "all" : "own"}
      onChange=${(who) => setQuery({ who: who === "all" ? who : "", user: "", account: "" })} options=${[["own", t("usage.own")], ["all", t("usage.all_users")]]} />`}<//>
    <${Filters} filter=${filter} everybody=${everybody} />
    ${pages.error && html`<${ErrorMessage} error=${pages.error} onRetry=${pages.reload} />`}
    ${pages.items.length > 0 && html`<ol class="card job-list" aria-label=${t("nav.jobs")}>${drawn.map((job) => jobRow(job, pages.update))}</ol>`}
    ${!pages.loading && !pages.error && !pages.items.length && html`<div class="card"><${EmptyState} icon="list" title=${t(filtered ? "jobs.no_match" : "jobs.empty")}>
      ${filtered ? html`<${Button} onClick=${clearFilters}>${t("jobs.clear")}<//>` : hasScope("generate") && html`<${Link} to="" class="button primary">${t("jobs.create")}<//>`}<//></div>`}
    ${pages.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

// The same element for the same job object, so that a growing list does not render its existing rows again.
const rowCache = new WeakMap();
function jobRow(job, onChanged) {
  if (!rowCache.has(job)) rowCache.set(job, html`<${Row} key=${job.id} job=${job} onChanged=${onChanged} />`);
  return rowCache.get(job);
}

function Row({ job, onChanged }) {
  const [cancel, cancelling] = useAction(async () => onChanged(await cancelJob(job)));
  const [retry, retrying] = useAction(() => retryJob(job, "new"));
  const [file] = jobFiles(job);
  const thumbnail = file && thumbnailUrl(file, { small: true });
  const repeatable = hasScope("generate") && !isOpen(job) && job.kind !== "chat";
  return html`<li class="job-row">
    <span class="job-thumb">${thumbnail ? html`<${Thumbnail} src=${thumbnail} />` : html`<${Icon} name=${KIND_ICON[job.kind]} />`}</span>
    <div class="job-summary"><${Link} to=${`jobs/${job.id}`} class="job-title">${jobTitle(job)}<//>
      <p class="hint">${job.user !== undefined && html`<strong>${job.user ?? t("jobs.session_caller")}</strong> · `}${job.model}${job.account ? ` · ${job.account}` : ""} · <${RelativeTime} at=${job.created_at} />${jobDuration(job) != null ? ` · ${formatDuration(jobDuration(job))}` : ""}</p></div>
    <div class="job-state"><${JobStatus} job=${job} />
      ${isOpen(job) && html`<div class="job-wait"><${Progress} value=${job.status === "queued" ? null : job.progress} label=${t("job.progress")} /><span class="hint numeric">${queueText(job)}</span></div>`}
      ${job.error && html`<span class="hint job-error"><${Message} text=${job.error.message} /></span>`}</div>
    <div class="job-buttons">${hasScope("generate") && isOpen(job) && html`<${Button} small kind="quiet" icon="stop" busy=${cancelling} disabled=${job.cancelling} label=${t("job.cancel")} onClick=${cancel} />`}
      ${repeatable && needsOtherPrompt(job) && html`<${Button} small kind="quiet" icon="remake" label=${t("action.edit_prompt")} onClick=${() => editAndRemake(job)} />`}
      ${repeatable && !needsOtherPrompt(job) && html`<${Button} small kind="quiet" icon="repeat" busy=${retrying} label=${t("job.retry")} onClick=${retry} />`}</div>
  </li>`;
}
