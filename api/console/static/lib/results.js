// How jobs and their results look, on every page that shows some.
import { html, useEffect, useRef, useState } from "./ui.js";
import { here, may } from "./api.js";
import { asReference, curlOfJob, vary } from "./draft.js";
import { cancelJob, deleteJob, filesOf, isOpen, markJob, retryJob, secondsOf, thumbnail, titleOf } from "./jobs.js";
import { bytes, duration, number, t } from "./language.js";
import { Ago, Button, Code, Dialog, Icon, Progress, Status, useAction } from "./parts.js";
import { Link } from "./router.js";

export const KIND_ICON = { image: "image", video: "film", chat: "chat" };

export function JobStatus({ job }) {
  return job.cancelling ? html`<${Status} word="cancelling" tone="off" />` : html`<${Status} word=${job.status} />`;
}

// What an open job is waiting for, in words: its place, then the time left.
export function waitText(job) {
  const { position, upstream_position: upstream } = job.queue;
  const parts = [];
  if (job.status === "queued" && position != null) parts.push(t("job.place", { n: number(position) }));
  if (job.status === "in_progress" && upstream) parts.push(t("job.place_upstream", { n: number(upstream) }));
  if (job.eta) parts.push(t("job.left", { time: duration(job.eta.p50) }));
  return parts.join(" · ");
}

export function JobProgress({ job }) {
  return html`<div class="job-progress"><${Progress} value=${job.status === "queued" ? null : job.progress} label=${t("job.progress")} />
    <p class="hint numeric">${job.status === "in_progress" && `${job.progress} % · `}${waitText(job)}</p></div>`;
}

export function Media({ file, title, full = false }) {
  if (file.mime.startsWith("video/")) {
    return html`<video src=${here(file.url)} poster=${file.thumbnail_url ? here(file.thumbnail_url) : undefined} controls loop playsinline
      preload=${full ? "auto" : "none"} aria-label=${title} width=${file.width} height=${file.height}></video>`;
  }
  return html`<img src=${full ? here(file.url) : thumbnail(file)} alt=${title} loading="lazy" decoding="async" width=${file.width} height=${file.height} />`;
}

export function Favourite({ job, small = true }) {
  const [mark, busy] = useAction(() => markJob(job, !job.favourite));
  if (!may("generate")) return null;
  return html`<button type="button" class="button quiet bare ${small ? "small" : ""} ${job.favourite ? "on" : ""}" aria-pressed=${job.favourite}
    aria-label=${t("job.favourite")} title=${t("job.favourite")} disabled=${busy} onClick=${mark}><${Icon} name="star" fill=${job.favourite} size=${18} /></button>`;
}

// The buttons for a job as it is now. `onMore` opens its details.
export function JobActions({ job, onDeleted, details = true }) {
  const [cancel, cancelling] = useAction(() => cancelJob(job));
  const [again, starting] = useAction(() => retryJob(job, "new"));
  const [remove, removing] = useAction(async () => (await deleteJob(job)) && onDeleted?.());
  const makes = job.kind !== "chat";
  return html`<div class="row job-actions">
    ${may("generate") && isOpen(job) && html`<${Button} small icon="stop" busy=${cancelling} disabled=${job.cancelling} onClick=${cancel}>${t("action.cancel")}<//>`}
    ${may("generate") && makes && !isOpen(job) && html`<${Button} small icon="again" busy=${starting} onClick=${again}>
      ${t(job.status === "completed" ? "action.again" : "action.retry")}<//>`}
    ${may("generate") && makes && !isOpen(job) && html`<${Button} small icon="vary" onClick=${() => vary(job)}>${t("action.vary")}<//>`}
    ${details && html`<${Link} to=${`jobs/${job.id}`} class="button small"><${Icon} name="right" size=${16} /><span>${t("action.details")}</span><//>`}
    ${may("generate") && !isOpen(job) && html`<${Button} small kind="quiet" icon="trash" busy=${removing} label=${t("job.delete")} onClick=${remove} />`}
    <${Favourite} job=${job} />
  </div>`;
}

// `compact` = icons only, where many results stand beside each other.
export function FileActions({ job, file, compact = false }) {
  const picture = file.mime.startsWith("image/");
  const named = (label) => (compact ? { "aria-label": label, title: label } : {});
  return html`<div class="row">
    <a class="button small ${compact ? "bare" : ""}" href=${here(file.url)} download ...${named(t("action.download"))}><${Icon} name="download" size=${16} />${!compact && html`<span>${t("action.download")}</span>`}</a>
    ${picture && may("generate") && html`<${Button} small icon="image" label=${compact ? t("action.as_reference") : undefined} onClick=${() => asReference(job, file)}>${!compact && t("action.as_reference")}<//>`}
  </div>`;
}

// The results of a job as a grid; each opens large.
export function Results({ job }) {
  const [shown, setShown] = useState(null);
  const files = filesOf(job);
  if (!files.length) return null;
  return html`<div class="results n${Math.min(files.length, 4)}">${files.map((file, n) => html`<figure key=${file.url} class="result">
      ${file.mime.startsWith("video/")
        ? html`<${Media} file=${file} title=${titleOf(job)} />`
        : html`<button type="button" class="result-open" aria-label=${t("job.open_picture", { n: n + 1 })} onClick=${() => setShown(n)}><${Media} file=${file} title=${titleOf(job)} /></button>`}
      <figcaption><${FileActions} job=${job} file=${file} compact=${files.length > 2} /></figcaption></figure>`)}</div>
    ${shown !== null && html`<${Lightbox} items=${files.map((file, n) => ({ job, file, n }))} at=${shown} onMove=${setShown} onClose=${() => setShown(null)} />`}`;
}

// One result large, with what it was made from; arrow keys go on to the next.
export function Lightbox({ items, at, onMove, onClose }) {
  const { job, file } = items[at];
  const move = (step) => {
    if (items[at + step]) onMove(at + step);
  };
  const keys = useRef(null);
  keys.current = (event) => {
    if (event.target.matches("video, input, textarea, select")) return;
    if (event.key === "ArrowLeft") move(-1);
    if (event.key === "ArrowRight") move(1);
  };
  useEffect(() => {
    const listen = (event) => keys.current(event);
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);
  return html`<${Dialog} wide title=${t(`kind.${job.kind}`)} onClose=${onClose}>
    <div class="lightbox"><div class="lightbox-media"><${Media} key=${file.url} full file=${file} title=${titleOf(job)} />
      ${items.length > 1 && html`<div class="row spread"><${Button} small icon="left" disabled=${at === 0} onClick=${() => move(-1)}>${t("action.previous")}<//>
        <span class="hint numeric">${at + 1} / ${items.length}</span><${Button} small icon="right" disabled=${at === items.length - 1} onClick=${() => move(1)}>${t("action.next")}<//></div>`}</div>
    <div class="stack"><p class="prompt">${titleOf(job)}</p><${Parameters} job=${job} file=${file} />
      <${FileActions} job=${job} file=${file} />
      <${JobActions} job=${job} onDeleted=${onClose} /></div></div><//>`;
}

export function Parameters({ job, file }) {
  const { input } = job;
  const cost = job.usage?.credits_charged ?? job.usage?.credits_estimated;
  const rows = [
    ["model", job.model],
    ["size", file?.width ? `${file.width} × ${file.height}` : input.size?.replace("x", " × ")],
    ["ratio", input.ratio],
    ["resolution", input.resolution],
    ["length", file?.seconds ? duration(file.seconds) : input.seconds && duration(input.seconds)],
    ["seed", input.seed],
    ["negative", input.negative_prompt],
    ["references", input.images?.length || null],
    ["file", file && bytes(file.bytes)],
    ["took", secondsOf(job) != null && duration(secondsOf(job))],
    ["credits", cost != null && number(cost)],
    ["created", html`<${Ago} at=${job.created_at} />`],
  ];
  return html`<dl class="facts">${rows.filter(([, value]) => value || value === 0).map(([name, value]) => html`<div key=${name}><dt>${t(`param.${name}`)}</dt><dd>${value}</dd></div>`)}</dl>`;
}

// A job as a card: in the playground.
export function JobCard({ job, onDeleted }) {
  const [code, setCode] = useState(false);
  return html`<article class="card job-card" aria-label=${titleOf(job)}>
    <header class="row spread"><p class="prompt clamp">${titleOf(job)}</p><${JobStatus} job=${job} /></header>
    <p class="hint">${job.model}${job.input.size ? ` · ${job.input.size.replace("x", " × ")}` : ""}${secondsOf(job) != null ? ` · ${duration(secondsOf(job))}` : ""} · <${Ago} at=${job.created_at} /></p>
    ${isOpen(job) && html`<${JobProgress} job=${job} />`}
    ${job.error && html`<p class="failure small" role="status"><${Icon} name="alert" size=${18} /><span>${job.error.message}</span></p>`}
    <${Results} job=${job} />
    <footer class="row spread"><${JobActions} job=${job} onDeleted=${onDeleted} />
      ${job.kind !== "chat" && html`<${Button} small kind="quiet" icon="code" aria-expanded=${code} onClick=${() => setCode(!code)}>curl<//>`}</footer>
    ${code && html`<${Code} label="curl" text=${curlOfJob(job)} />`}
  </article>`;
}
