// The viewer's controls: the bar above, the caption and the strip of thumbnails below, and the panel with all parameters.
import { html, useEffect, useRef } from "../preact.js";
import { api } from "../../api/client.js";
import { thumbnailUrl } from "../../api/jobs.js";
import { useLoaded } from "../../api/loading.js";
import { formatDuration, formatNumber, t } from "../../state/language.js";
import { Button, ErrorMessage, Loading } from "../components.js";
import { Icon } from "../icons.js";
import { FileActions, JobActions, JobParameters } from "../job_views.js";
import { Thumbnail } from "../results/thumbnail.js";
import { itemKey, jobIdOf, mediaOf, modelOf, sizeOf, titleOf } from "./items.js";

// Thumbnails on either side of the present one: more fit on no screen.
const STRIP_REACH = 24;

const current = ({ state }) => state.value.items[state.value.index];

function Control({ icon, label, keys, on, fill, danger, class: name = "", ...rest }) {
  return html`<button type="button" class="viewer-button ${on ? "on" : ""} ${name}" aria-label=${label} title=${keys ? `${label} (${keys})` : label} aria-keyshortcuts=${keys} ...${rest}>
    <${Icon} name=${icon} fill=${fill} size=${22} /></button>`;
}

export function Bar({ viewer }) {
  const { state, actions, pswp } = viewer;
  const { items, index, panel } = state.value;
  const item = current(viewer);
  const starred = Boolean(actions.isStarred());
  const isImage = mediaOf(item.file) === "image";
  return html`<p class="viewer-counter numeric">${formatNumber(index + 1)} / ${formatNumber(items.length)}</p>
    <p class="visually-hidden" role="status">${t("viewer.position", { n: index + 1, total: items.length, title: titleOf(item).slice(0, 120) })}</p>
    ${actions.maySelect() && html`<${Control} icon="check" label=${t("viewer.select")} keys="X" on=${actions.isSelected()} aria-pressed=${Boolean(actions.isSelected())} onClick=${actions.select} />`}
    ${actions.mayChange() && html`<${Control} icon="star" label=${t("job.favourite")} keys="S" fill=${starred} on=${starred} aria-pressed=${starred} onClick=${actions.star} />`}
    <${Control} icon="download" label=${t("action.download")} keys="D" onClick=${actions.download} />
    ${actions.mayCompare() && html`<${Control} icon="compare" label=${t("compare.title")} keys="C" onClick=${actions.compare} />`}
    ${actions.mayChange() && html`<${Control} icon="trash" label=${t("action.delete")} keys="Delete" onClick=${actions.remove} />`}
    ${isImage && html`<${Control} icon="search" label=${t("viewer.zoom")} keys="Z" class="wide-only" onClick=${() => pswp.toggleZoom()} />`}
    <${Control} icon="info" label=${t("job.parameters")} keys="I" on=${panel} aria-expanded=${panel} onClick=${() => viewer.toggle("panel")} />
    <${Control} icon="close" label=${t("action.close")} keys="Escape" onClick=${viewer.close} />`;
}

export function Foot({ viewer }) {
  const { items, index } = viewer.state.value;
  const item = current(viewer);
  const { file } = item;
  const facts = [modelOf(item), sizeOf(file), file.seconds && formatDuration(file.seconds)].filter(Boolean).join(" · ");
  return html`<div class="viewer-caption"><p class="clamp">${titleOf(item)}</p><p class="viewer-facts numeric">${facts}</p></div>
    ${items.length > 1 && html`<${Strip} items=${items} index=${index} onSelect=${viewer.goTo} />`}`;
}

// Only what is near the present item is drawn; a list may have many thousands.
function Strip({ items, index, onSelect }) {
  const present = useRef(null);
  useEffect(() => present.current?.scrollIntoView({ block: "nearest", inline: "center" }), [index]);
  const first = Math.max(0, index - STRIP_REACH);
  return html`<ol class="viewer-strip" aria-label=${t("viewer.strip")}>${items.slice(first, index + STRIP_REACH + 1).map((item, offset) => {
    const n = first + offset;
    const thumbnail = mediaOf(item.file) === "audio" ? "" : thumbnailUrl(item.file, { small: true });
    return html`<li key=${itemKey(item)}><button type="button" ref=${n === index ? present : undefined} aria-current=${n === index ? "true" : undefined} tabindex=${n === index ? 0 : -1}
      aria-label=${t("viewer.show", { n: n + 1 })} onClick=${() => onSelect(n)}>${thumbnail ? html`<${Thumbnail} src=${thumbnail} />` : html`<${Icon} name=${mediaOf(item.file) === "audio" ? "play" : "video"} />`}</button></li>`;
  })}</ol>`;
}

export function Panel({ viewer }) {
  if (!viewer.state.value.panel) return null;
  const item = current(viewer);
  return html`<section class="viewer-panel-body" aria-label=${t("job.parameters")}>
    <div class="row spread"><h2>${t("job.parameters")}</h2><${Button} small kind="quiet" icon="close" label=${t("viewer.close_panel")} onClick=${() => viewer.toggle("panel")} /></div>
    <p class="prompt">${titleOf(item)}</p>
    ${item.job ? html`<${Facts} job=${item.job} file=${item.file} />` : jobIdOf(item) && html`<${LoadedFacts} key=${jobIdOf(item)} item=${item} />`}</section>`;
}

const Facts = ({ job, file }) => html`<${JobParameters} job=${job} file=${file} /><${FileActions} job=${job} file=${file} /><${JobActions} job=${job} />`;

// The items of long lists know only the id of their job.
function LoadedFacts({ item }) {
  const loaded = useLoaded((signal) => api.get(`/v1/jobs/${jobIdOf(item)}`, {}, { signal }));
  if (loaded.error) return html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`;
  return loaded.data ? html`<${Facts} job=${loaded.data} file=${item.file} />` : html`<${Loading} />`;
}
