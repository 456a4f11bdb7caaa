// One job: progress, results, parameters and timeline.
import { html, useEffect, useState } from "../lib/ui/preact.js";
import { api, hasScope } from "../lib/api/client.js";
import { isOpen, isOthers, jobTitle, useJobEvents } from "../lib/api/jobs.js";
import { useLoaded } from "../lib/api/loading.js";
import { curlCommandOfJob } from "../lib/state/draft.js";
import { formatDateTime, formatDuration, language, t } from "../lib/state/language.js";
import { wordsOf } from "../lib/state/message_text.js";
import { Link, navigate } from "../lib/state/router.js";
import { SandboxTag } from "../lib/ui/accounts/sandbox_tag.js";
import { CodeBlock, CopyButton, ErrorMessage, Loading, PageHeader } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { JobActions, JobParameters, JobProgress, JobStatus, ResultGrid } from "../lib/ui/job_views.js";
import { DerivedJobs, JobInputs } from "../lib/ui/jobs/inputs.js";
import { WhyWaiting } from "../lib/ui/jobs/waiting.js";
import { Markdown } from "../lib/ui/markdown.js";

const REFRESH_SECONDS = 3;

export default function JobPage({ params }) {
  // Administrators see the jobs of everybody, and who and what ran them.
  const loaded = useLoaded(() => api.get(`${hasScope("admin") ? "/admin" : ""}/v1/jobs/${params.id}`), [params.id]);
  useJobEvents(({ job, deletedId, reset }) => {
    if (reset) loaded.reload();
    else if (job?.id === params.id) loaded.setData((before) => ({ ...before, ...job }));
    else if (deletedId === params.id) navigate("jobs");
  });
  const job = loaded.data;
  const followed = job && isOthers(job) && isOpen(job);
  useEffect(() => {
    // The feed has one's own jobs only.
    if (!followed) return undefined;
    const timer = setInterval(() => !document.hidden && loaded.reload(), REFRESH_SECONDS * 1000);
    return () => clearInterval(timer);
  }, [followed]);
  if (!job) {
    return html`<${PageHeader} title=${t("nav.job")} />${loaded.error ? html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.error.status === 404 ? undefined : loaded.reload} /><p class="gap"><${Link} to="jobs" class="button">${t("job.to_jobs")}<//></p>` : html`<${Loading} />`}`;
  }
  return html`<p class="crumbs"><${Link} to="jobs"><${Icon} name="left" size=${16} />${t("nav.jobs")}<//></p>
    <${PageHeader} title=${jobTitle(job).slice(0, 160)}><${SandboxTag} job=${job} /><${JobStatus} job=${job} /><${JobActions} job=${job} details=${false} onChanged=${(changed) => loaded.setData((before) => ({ ...before, ...changed }))} /><//>
    <div class="with-sidebar"><div class="stack">
      ${isOpen(job) && html`<section class="card"><${JobProgress} job=${job} /></section>`}
      ${job.status === "queued" && html`<${WhyWaiting} job=${job} />`}
      ${job.error && html`<${ErrorMessage} error=${job.error} />`}
      ${Array.isArray(job.output) && job.output.length > 0 && html`<section class="card" aria-label=${t("job.results")}><${ResultGrid} job=${job} /></section>`}
      ${job.kind === "chat" && job.output && html`<${AgentOutput} job=${job} output=${job.output} />`}
      <${Timeline} job=${job} />
    </div><aside class="stack" aria-label=${t("job.parameters")}>
      <section class="card"><h2>${t("job.parameters")}</h2>${job.kind !== "chat" && html`<p class="prompt">${job.input.prompt}</p>`}<${JobParameters} job=${job} file=${Array.isArray(job.output) ? job.output[0] : null} />
        <p class="hint row spread"><code>${job.id}</code><${CopyButton} text=${job.id} label=${t("job.copy_id")} /></p>
        ${job.parent && html`<p><${Link} to=${`jobs/${job.parent}`}>${t("job.parent")}<//></p>`}</section>
      ${job.kind !== "chat" && job.input.images?.length > 0 && html`<${JobInputs} job=${job} />`}
      <${DerivedJobs} job=${job} />
      ${job.kind !== "chat" && html`<section class="card"><h2>curl</h2><${CodeBlock} label="curl" text=${curlCommandOfJob(job)} /></section>`}
    </aside></div>`;
}

function AgentOutput({ job, output }) {
  return html`<section class="card"><h2>${t("mode.chat")}</h2><${Markdown} text=${output.text} />
    ${job.input.conversation && !isOthers(job) && html`<p><${Link} to=${`?mode=agent&conversation=${job.input.conversation}`}>${t("agent.open")}<//></p>`}
    ${output.jobs.length > 0 && html`<h3>${t("job.children")}</h3><ul class="links">${output.jobs.map((id) => html`<li key=${id}><${Link} to=${`jobs/${id}`}>${id}<//></li>`)}</ul>`}</section>`;
}

// The timeline, loaded again at each change of the job.
function Timeline({ job }) {
  const [timeline, setTimeline] = useState({ data: null, error: null });
  useEffect(() => {
    let stopped = false;
    // The timeline of another user's job comes with the job.
    (isOthers(job) ? Promise.resolve(job.timeline) : api.get(`/v1/jobs/${job.id}/timeline`)).then((data) => !stopped && setTimeline({ data, error: null }), (error) => !stopped && setTimeline((before) => ({ ...before, error })));
    return () => {
      stopped = true;
    };
  }, [job.id, job.status, job.started_at, job.completed_at, job.cancelling, job.timeline]);
  return html`<section class="card"><h2>${t("job.timeline")}</h2>
    ${timeline.error && html`<${ErrorMessage} error=${timeline.error} />`}
    ${!timeline.data && !timeline.error && html`<${Loading} />`}
    <ol class="timeline">${timeline.data?.data.map((entry) => html`<li key=${entry.seq} class="timeline-${entry.state}"><div class="row spread"><p>${entry.text[language.value]}</p>
      <time class="hint numeric" datetime=${new Date(entry.at * 1000).toISOString()}>${formatDateTime(entry.at)}</time></div>
      <p class="hint">${[
        entry.waited_seconds != null && t("job.after", { time: formatDuration(entry.waited_seconds) }),
        entry.account && t("job.account", { name: entry.account }),
        entry.attempt > 1 && t("job.attempt", { n: entry.attempt }),
        entry.code && (wordsOf(entry.code) ?? entry.code),
      ].filter(Boolean).join(" · ")}</p></li>`)}</ol></section>`;
}
