// A result as a tile: its thumbnail, a tick, a star, and what is special about it.
import { html } from "../preact.js";
import { jobTitle, thumbnailUrl } from "../../api/jobs.js";
import { formatDuration, t } from "../../state/language.js";
import { Icon } from "../icons.js";
import { itemKey } from "../viewer/viewer.js";
import { isRemovedSoon, mayMark, RemovalNote, removalText, Star, Tick } from "./marks.js";
import { Thumbnail } from "./thumbnail.js";

const tiles = new Map();
let cachedFor = "";

// The tile of an item; the same element as long as nothing that it shows has changed, so that long lists stay fast.
export function resultTile(item, { selected, tabStop }, language) {
  // Relative times and languages change all of them.
  if (cachedFor !== language) tiles.clear();
  cachedFor = language;
  const known = tiles.get(item.id);
  if (known?.item === item && known.selected === selected && known.tabStop === tabStop) return known.tile;
  const tile = html`<${Tile} key=${item.id} item=${item} selected=${selected} tabStop=${tabStop} />`;
  tiles.set(item.id, { item, selected, tabStop, tile });
  return tile;
}

export const forgetTiles = () => tiles.clear();

function Tile({ item, selected, tabStop }) {
  const { job, file } = item;
  const isVideo = file.mime.startsWith("video/");
  const thumbnail = thumbnailUrl(file);
  const title = jobTitle(job).slice(0, 80);
  const label = t(isVideo ? "gallery.open_video" : "gallery.open_image", { prompt: title, n: file.n + 1 });
  const ratio = Math.min(Math.max((file.width || 1) / (file.height || 1), 0.4), 2.6);
  const notes = [isRemovedSoon(file) && removalText(file), file.pinned && t("results.is_pinned"), job.sandbox && t("first.sandbox_result")].filter(Boolean);
  return html`<li class="tile ${selected ? "selected" : ""}" data-id=${item.id} style=${{ "--aspect-ratio": ratio }}>
    <button type="button" class="tile-open" data-action="open" data-view=${itemKey(item)} tabindex=${tabStop ? 0 : -1} aria-label=${[label, ...notes].join(". ")}>
      ${thumbnail ? html`<${Thumbnail} src=${thumbnail} small=${isVideo ? undefined : thumbnailUrl(file, { small: true })} width=${file.width} height=${file.height} />` : html`<${Icon} name="video" size=${32} />`}</button>
    <${Tick} selected=${selected} label=${t("gallery.select_one", { prompt: title, n: file.n + 1 })} />
    <div class="tile-badges">
      ${isVideo && html`<span class="tile-badge"><${Icon} name="video" size=${14} />${file.seconds ? formatDuration(file.seconds) : ""}</span>`}
      ${job.sandbox && html`<span class="tile-badge" title=${t("first.sandbox_result")}>${t("results.sandbox")}</span>`}
      <${RemovalNote} file=${file} />
    </div>
    <div class="tile-footer"><p class="clamp-one">${title}</p>${mayMark(job) && html`<${Star} file=${file} />`}</div></li>`;
}
