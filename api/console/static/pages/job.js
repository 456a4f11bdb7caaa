// One job: what it is doing, its results, what it was made from, all that happened to it.
import { html, useEffect, useState } from "../lib/ui.js";
import { Words } from "../lib/agent.js";
import { api } from "../lib/api.js";
import { curlOfJob } from "../lib/draft.js";
import { isOpen, titleOf, useJobNews } from "../lib/jobs.js";
import { duration, language, moment, t } from "../lib/language.js";
import { Code, Copy, Failure, Icon, Loading, PageHead, useLoaded } from "../lib/parts.js";
import { JobActions, JobProgress, JobStatus, Parameters, Results } from "../lib/results.js";
import { Link, go } from "../lib/router.js";

export default function JobPage({ params }) {
  const loaded = useLoaded(() => api.get(`/v1/jobs/${params.id}`), [params.id]);
  useJobNews(({ job, gone, reset }) => {
    if (reset) loaded.reload();
    else if (job?.id === params.id) loaded.setData(job);
    else if (gone === params.id) go("jobs");
  });
  const job = loaded.data;
  if (!job) {
    return html`<${PageHead} title=${t("nav.job")} />${loaded.error ? html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />` : html`<${Loading} />`}`;
  }
  return html`<p class="crumbs"><${Link} to="jobs"><${Icon} name="left" size=${16} />${t("nav.jobs")}<//></p>
    <${PageHead} title=${titleOf(job).slice(0, 160)}><${JobStatus} job=${job} /><${JobActions} job=${job} details=${false} /><//>
    <div class="job-page"><div class="stack">
      ${isOpen(job) && html`<section class="card"><${JobProgress} job=${job} /></section>`}
      ${job.error && html`<${Failure} error=${job.error} />`}
      ${Array.isArray(job.output) && job.output.length > 0 && html`<section class="card" aria-label=${t("job.results")}><${Results} job=${job} /></section>`}
      ${job.kind === "chat" && job.output && html`<${Talk} output=${job.output} />`}
      <${Way} job=${job} />
    </div><aside class="stack" aria-label=${t("job.parameters")}>
      <section class="card"><h2>${t("job.parameters")}</h2>${job.kind !== "chat" && html`<p class="prompt">${job.input.prompt}</p>`}<${Parameters} job=${job} file=${Array.isArray(job.output) ? job.output[0] : null} />
        <p class="hint row spread"><code>${job.id}</code><${Copy} text=${job.id} label=${t("job.copy_id")} /></p>
        ${job.parent && html`<p><${Link} to=${`jobs/${job.parent}`}>${t("job.parent")}<//></p>`}</section>
      ${job.kind !== "chat" && html`<section class="card"><h2>curl</h2><${Code} label="curl" text=${curlOfJob(job)} /></section>`}
    </aside></div>`;
}

function Talk({ output }) {
  return html`<section class="card"><h2>${t("mode.chat")}</h2><${Words} text=${output.text} />
    ${output.jobs.length > 0 && html`<h3>${t("job.children")}</h3><ul class="links">${output.jobs.map((id) => html`<li key=${id}><${Link} to=${`jobs/${id}`}>${id}<//></li>`)}</ul>`}</section>`;
}

// The timeline, read again with each change of the job.
function Way({ job }) {
  const [way, setWay] = useState({ data: null, error: null });
  useEffect(() => {
    let over = false;
    api.get(`/v1/jobs/${job.id}/timeline`).then((data) => !over && setWay({ data, error: null }), (error) => !over && setWay((before) => ({ ...before, error })));
    return () => {
      over = true;
    };
  }, [job.id, job.status, job.started_at, job.completed_at, job.cancelling]);
  return html`<section class="card"><h2>${t("job.timeline")}</h2>
    ${way.error && html`<${Failure} error=${way.error} />`}
    ${!way.data && !way.error && html`<${Loading} />`}
    <ol class="way">${way.data?.data.map((entry) => html`<li key=${entry.seq} class="way-${entry.state}"><div class="row spread"><p>${entry.text[language.value]}</p>
      <time class="hint numeric" datetime=${new Date(entry.at * 1000).toISOString()}>${moment(entry.at)}</time></div>
      <p class="hint">${[
        entry.waited_seconds != null && t("job.after", { time: duration(entry.waited_seconds) }),
        entry.account && t("job.account", { name: entry.account }),
        entry.attempt > 1 && t("job.attempt", { n: entry.attempt }),
        entry.code,
      ].filter(Boolean).join(" · ")}</p></li>`)}</ol></section>`;
}
