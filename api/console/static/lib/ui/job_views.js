// Views of jobs and their results.
import { html, useState } from "./preact.js";
import { hasScope, platformUrl } from "../api/client.js";
import { cancelJob, deleteJob, isOpen, isOthers, jobDuration, jobFiles, jobTitle, needsOtherPrompt, retryJob, setFavourite, thumbnailUrl } from "../api/jobs.js";
import { itemsOf } from "../api/results.js";
import { addReference, curlCommandOfJob, editAndRemake } from "../state/draft.js";
import { formatBytes, formatDuration, formatMoney, formatNumber, t } from "../state/language.js";
import { Link } from "../state/router.js";
import { Button, CodeBlock, Message, Progress, RelativeTime, StatusBadge, useAction } from "./components.js";
import { mayShare, openAddToAlbum, openShareByLink } from "./albums/dialogs.js";
import { SandboxTag } from "./accounts/sandbox_tag.js";
import { Icon } from "./icons.js";
import { fileId } from "./viewer/items.js";
import { useGrid } from "./results/grid_keys.js";
import { keptText, mayMark, RemovalNote, ResultButtons, Star, Tick, VIEWER_ACTIONS } from "./results/marks.js";
import { selection, toggle } from "./results/selection.js";
import { itemKey, useViewer } from "./viewer/viewer.js";

export const KIND_ICON = { image: "image", video: "video", chat: "chat" };

export function JobStatus({ job }) {
  return job.cancelling ? html`<${StatusBadge} status="cancelling" tone="off" />` : html`<${StatusBadge} status=${job.status} />`;
}

// The API counts at most this many jobs ahead.
const MOST_AHEAD = 1000;

// The queue position and the remaining time of an open job.
export function queueText(job) {
  const { position, upstream_position: upstream } = job.queue;
  if (job.status === "queued" && position > MOST_AHEAD) return t("job.far_behind", { n: formatNumber(MOST_AHEAD) });
  const parts = [];
  if (job.status === "queued" && position != null) parts.push(t("job.position", { n: formatNumber(position) }));
  if (job.status === "in_progress" && upstream) parts.push(t("job.upstream_position", { n: formatNumber(upstream) }));
  if (job.eta) parts.push(job.eta.late ? t("job.late") : t("job.left", { time: formatDuration(job.eta.p50) }));
  return parts.join(" · ");
}

export function JobProgress({ job }) {
  return html`<div class="job-progress"><${Progress} value=${job.status === "queued" ? null : job.progress} label=${t("job.progress")} />
    <p class="hint numeric">${job.status === "in_progress" && `${job.progress} % · `}${queueText(job)}</p></div>`;
}

export function Media({ file, title }) {
  if (file.mime.startsWith("video/")) {
    return html`<video src=${platformUrl(file.url)} poster=${file.thumbnail_url ? platformUrl(file.thumbnail_url) : undefined} controls loop playsinline
      preload="none" aria-label=${title} width=${file.width} height=${file.height}></video>`;
  }
  return html`<img src=${thumbnailUrl(file)} alt=${title} loading="lazy" decoding="async" width=${file.width} height=${file.height} />`;
}

export function FavouriteButton({ job, small = true }) {
  const [toggle, busy] = useAction(() => setFavourite(job, !job.favourite));
  if (!hasScope("generate") || isOthers(job)) return null;
  return html`<button type="button" class="button quiet icon-only ${small ? "small" : ""} ${job.favourite ? "on" : ""}" aria-pressed=${job.favourite}
    aria-label=${t("job.favourite")} title=${t("job.favourite")} disabled=${busy} onClick=${toggle}><${Icon} name="star" fill=${job.favourite} size=${18} /></button>`;
}

// The buttons that fit the status of a job. `details` = with a link to its page. After a refusal of the content, another prompt comes first.
export function JobActions({ job, onChanged, onDeleted, details = true }) {
  const [cancel, cancelling] = useAction(async () => {
    const changed = await cancelJob(job);
    onChanged?.(changed);
  });
  const [retry, retrying] = useAction(() => retryJob(job, "new"));
  const [remove, removing] = useAction(async () => (await deleteJob(job)) && onDeleted?.());
  const isGeneration = job.kind !== "chat";
  const refused = needsOtherPrompt(job);
  return html`<div class="row job-actions">
    ${hasScope("generate") && isOpen(job) && html`<${Button} small icon="stop" busy=${cancelling} disabled=${job.cancelling} onClick=${cancel}>${t("action.cancel")}<//>`}
    ${hasScope("generate") && isGeneration && refused && html`<${Button} small kind="primary" icon="remake" onClick=${() => editAndRemake(job)}>${t("action.edit_prompt")}<//>`}
    ${hasScope("generate") && isGeneration && !isOpen(job) && html`<${Button} small icon="repeat" kind=${refused ? "quiet" : "plain"} busy=${retrying} onClick=${retry}>
      ${t(job.status === "completed" ? "action.run_again" : "action.retry")}<//>`}
    ${hasScope("generate") && isGeneration && !isOpen(job) && !refused && html`<${Button} small icon="remake" onClick=${() => editAndRemake(job)}>${t("action.edit_and_remake")}<//>`}
    ${details && html`<${Link} to=${`jobs/${job.id}`} class="button small"><${Icon} name="right" size=${16} /><span>${t("action.details")}</span><//>`}
    ${mayShare() && jobFiles(job).length > 0 && !isOthers(job) && html`<${Button} small kind="quiet" icon="album" label=${t("album.add")} onClick=${() => openAddToAlbum(jobFiles(job).map(fileId))} />
      <${Button} small kind="quiet" icon="share" label=${t("share.action")} onClick=${() => openShareByLink({ files: jobFiles(job).map(fileId) })} />`}
    ${hasScope("generate") && !isOpen(job) && !isOthers(job) && html`<${Button} small kind="quiet" icon="trash" busy=${removing} label=${t("job.delete")} onClick=${remove} />`}
    <${FavouriteButton} job=${job} />
  </div>`;
}

// `compact` = icons only, for grids of many results.
export function FileActions({ job, file, compact = false, onOpen }) {
  const isImage = file.mime.startsWith("image/");
  const ariaLabel = (label) => (compact ? { "aria-label": label, title: label } : {});
  return html`<div class="row">
    <a class="button small ${compact ? "icon-only" : ""}" href=${platformUrl(file.url)} download ...${ariaLabel(t("action.download"))}><${Icon} name="download" size=${16} />${!compact && html`<span>${t("action.download")}</span>`}</a>
    ${onOpen && html`<${Button} small icon="expand" label=${t("viewer.open")} onClick=${onOpen} />`}
    ${isImage && hasScope("generate") && html`<${Button} small icon="image" label=${compact ? t("action.use_as_reference") : undefined} onClick=${() => addReference(job, file)}>${!compact && t("action.use_as_reference")}<//>`}
  </div>`;
}

// The results of a job as a grid; each opens in the viewer and can be selected.
export function ResultGrid({ job }) {
  const items = itemsOf(job);
  const open = useViewer(items, { actions: VIEWER_ACTIONS, selection: { has: (item) => selection.value.has(item.id), toggle: (item) => toggle(item, items) } });
  const grid = useGrid(items, open);
  const expired = jobFiles(job).length - items.length;
  if (!items.length) return expired > 0 && html`<p class="hint">${t("results.expired")}</p>`;
  const selected = selection.value;
  return html`<div class="results n${Math.min(items.length, 4)} ${selected.size ? "selecting" : ""}" ...${grid}>${items.map((item, n) => html`<figure key=${item.id} class="result ${selected.has(item.id) ? "selected" : ""}" data-id=${item.id}>
      ${isVideo(item.file)
        ? html`<${Media} file=${item.file} title=${jobTitle(job)} />`
        : html`<button type="button" class="result-open" data-action="open" data-view=${itemKey(item)} aria-label=${t("job.open_image", { n: item.file.n + 1 })}><${Media} file=${item.file} title=${jobTitle(job)} /></button>`}
      <${Tick} selected=${selected.has(item.id)} label=${t("gallery.select_one", { prompt: jobTitle(job).slice(0, 80), n: item.file.n + 1 })} />${mayMark(job) && html`<${Star} file=${item.file} />`}
      <figcaption class="row"><${FileActions} job=${job} file=${item.file} compact=${items.length > 2} onOpen=${isVideo(item.file) ? () => open(n) : undefined} />${items.length < 3 && html`<${ResultButtons} item=${item} alone=${items.length === 1} />`}<${RemovalNote} file=${item.file} /></figcaption></figure>`)}</div>`;
}

const isVideo = (file) => file.mime.startsWith("video/");

export function JobParameters({ job, file }) {
  const { input } = job;
  const { usage } = job;
  const credits = usage?.credits_charged ?? usage?.credits_estimated;
  const money = usage?.currency ? formatMoney(usage.cost_charged ?? usage.cost_estimated, usage.currency) : null;
  const rows = [
    ["model", job.model],
    ["size", file?.width ? `${file.width} × ${file.height}` : input.size?.replace("x", " × ")],
    ["ratio", input.ratio],
    ["resolution", input.resolution],
    ["length", file?.seconds ? formatDuration(file.seconds) : input.seconds && formatDuration(input.seconds)],
    ["seed", input.seed],
    ["negative", input.negative_prompt],
    ["references", input.images?.length || null],
    ["file", file && formatBytes(file.bytes)],
    ["kept", file && keptText(file)],
    ["duration", jobDuration(job) != null && formatDuration(jobDuration(job))],
    ["credits", money === null && credits != null && formatNumber(credits)],
    ["cost", money],
    ["user", job.user_id && html`<${Link} to=${`users/${job.user_id}`}>${job.user}<//>`],
    ["key", job.key],
    ["account", job.account_id && html`<${Link} to=${`accounts/${job.account_id}`}>${job.account}<//>`],
    ["created", html`<${RelativeTime} at=${job.created_at} />`],
  ];
  return html`<dl class="facts">${rows.filter(([, value]) => value || value === 0).map(([name, value]) => html`<div key=${name}><dt>${t(`param.${name}`)}</dt><dd>${value}</dd></div>`)}</dl>`;
}

// A job as a card of the playground.
export function JobCard({ job, onDeleted }) {
  const [showCurl, setShowCurl] = useState(false);
  return html`<article class="card job-card" aria-label=${jobTitle(job)}>
    <header class="row spread"><p class="prompt clamp">${jobTitle(job)}</p>${job.status === "completed" ? html`<span class="visually-hidden">${t("status.completed")}</span>` : html`<${JobStatus} job=${job} />`}</header>
    <p class="hint">${job.model}${job.input.size ? ` · ${job.input.size.replace("x", " × ")}` : ""}${jobDuration(job) != null ? ` · ${formatDuration(jobDuration(job))}` : ""} · <${RelativeTime} at=${job.created_at} /> <${SandboxTag} job=${job} /></p>
    ${isOpen(job) && html`<${JobProgress} job=${job} />`}
    ${job.error && html`<p class="failure small" role="status"><${Icon} name="alert" size=${18} /><span><${Message} text=${job.error.message} /></span></p>`}
    <${ResultGrid} job=${job} />
    <footer class="row spread"><${JobActions} job=${job} onDeleted=${onDeleted} />
      ${job.kind !== "chat" && html`<${Button} small kind="quiet" icon="code" aria-expanded=${showCurl} onClick=${() => setShowCurl(!showCurl)}>curl<//>`}</footer>
    ${showCurl && html`<${CodeBlock} label="curl" text=${curlCommandOfJob(job)} />`}
  </article>`;
}
