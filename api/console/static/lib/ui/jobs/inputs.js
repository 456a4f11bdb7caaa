// The pictures, clips and sounds that a job was given, with where each comes from; and the jobs that were made from its results.
import { html, useState } from "../preact.js";
import { api, platformUrl } from "../../api/client.js";
import { isOthers, jobFiles } from "../../api/jobs.js";
import { useLoaded } from "../../api/loading.js";
import { formatNumber, t } from "../../state/language.js";
import { Link } from "../../state/router.js";
import { Button, ErrorMessage } from "../components.js";
import { Icon } from "../icons.js";

const ICONS = { image: "image", video: "video", audio: "play" };
const shortId = (id) => id.slice(-8);

export function JobInputs({ job }) {
  const loaded = useLoaded((signal) => (isOthers(job) ? Promise.resolve(null) : api.get(`/v1/jobs/${job.id}/inputs`, {}, { signal })), [job.id]);
  if (loaded.error) return html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`;
  if (!loaded.data?.data.length) return null;
  return html`<section class="card"><h2>${t("param.references")}</h2><div class="job-inputs">${loaded.data.data.map((item) => html`<${Input} key=${item.n} item=${item} />`)}</div></section>`;
}

function Input({ item }) {
  const label = item.role === "reference" ? `${t(`input.${item.media}`)} ${item.n + 1}` : t(`input.${item.role}`);
  let view = html`<span class="reference-name"><${Icon} name=${ICONS[item.media]} /><span>${t(item.source_url ? "input.link" : "input.removed")}</span></span>`;
  if (item.url && item.media === "image") view = html`<a href=${platformUrl(item.url)} target="_blank" rel="noopener"><img src=${platformUrl(item.thumbnail_url ?? item.url)} alt=${label} loading="lazy" width=${item.width} height=${item.height} /></a>`;
  if (item.url && item.media === "video") view = html`<video src=${platformUrl(item.url)} controls preload="none" playsinline aria-label=${label}></video>`;
  if (item.url && item.media === "audio") view = html`<audio src=${platformUrl(item.url)} controls preload="none" aria-label=${label}></audio>`;
  return html`<figure>${view}<figcaption class="hint">${label}<br /><${Origin} item=${item} /></figcaption></figure>`;
}

// Where an input comes from: a result of a job, the caller's own file, or a link.
function Origin({ item }) {
  const { origin, source_url: url } = item;
  if (origin.type === "upload") return t("origin.upload");
  if (origin.type === "url") return html`<a href=${url} target="_blank" rel="noopener noreferrer" title=${url}>${t("origin.url")}</a>`;
  if (!origin.job) return t("origin.hidden");
  const kind = origin.variant === "original" ? item.media : "frame";
  return html`<${Link} to=${`jobs/${origin.job}`}>${t(`origin.${kind}`, { n: origin.n + 1, job: shortId(origin.job) })}<//>`;
}

const MADE_PAGE = 10;

// The jobs that have results of this job as inputs.
export function DerivedJobs({ job }) {
  const [jobs, setJobs] = useState([]);
  const [more, setMore] = useState(false);
  const hasResults = jobFiles(job).length > 0 && !isOthers(job);
  const load = async (after, signal) => {
    const page = await api.get(`/v1/jobs/${job.id}/derived`, { limit: MADE_PAGE, after }, { signal });
    setJobs((before) => (after ? [...before, ...page.data] : page.data));
    setMore(page.has_more);
  };
  const loaded = useLoaded((signal) => (hasResults ? load(undefined, signal) : Promise.resolve()), [job.id, hasResults]);
  if (loaded.error) return html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`;
  if (!jobs.length) return null;
  const numbers = (results) => results.map((n) => formatNumber(n + 1)).join(t("list.separator"));
  return html`<section class="card"><h2>${t("job.derived")}</h2><ul class="derived-jobs">${jobs.map((one) => html`<li key=${one.id}><${Icon} name=${one.kind} size=${16} />
    <div><${Link} to=${`jobs/${one.id}`} class="clamp-one">${one.prompt || shortId(one.id)}<//>${jobFiles(job).length > 1 && html`<span class="hint">${t("job.derived_from", { n: numbers(one.results) })}</span>`}</div></li>`)}</ul>
    ${more && html`<${Button} small kind="quiet" onClick=${() => load(jobs.at(-1).id)}>${t("action.more")}<//>`}</section>`;
}
