// The cover of an album, and the tiles of its files.
import { html } from "../preact.js";
import { platformUrl } from "../../api/client.js";
import { formatDuration, t } from "../../state/language.js";
import { Icon } from "../icons.js";
import { Thumbnail } from "../results/thumbnail.js";
import { itemKey } from "../viewer/items.js";

export function AlbumPicture({ album }) {
  return html`<span class="album-picture">${album.cover ? html`<${Thumbnail} key=${album.cover.thumbnail_url} src=${platformUrl(album.cover.thumbnail_url)} />` : html`<${Icon} name="album" size=${28} />`}</span>`;
}

// A file of an album as the viewer shows it: to look at, because its id is that of the album's entry.
export const viewerItem = (item) => ({ file: { ...item, job: null }, title: item.prompt || t("album.by", { name: item.added_by }) });

export function AlbumTile({ item, number, selecting, isSelected, isCover, onToggle, onOpen }) {
  const isVideo = item.mime.startsWith("video/");
  const label = t(selecting ? "album.select_one" : isVideo ? "album.open_video" : "album.open_image", { n: number });
  return html`<li class="tile ${isSelected ? "selected" : ""}" style=${{ "--aspect-ratio": (item.width || 1) / (item.height || 1) }}>
    <button type="button" class="tile-open" data-view=${itemKey(viewerItem(item))} aria-label=${label} aria-pressed=${selecting ? isSelected : undefined} onClick=${selecting ? onToggle : onOpen}>
      ${item.thumbnail_url ? html`<${Thumbnail} src=${platformUrl(item.thumbnail_url)} width=${item.width} height=${item.height} />` : html`<${Icon} name="video" size=${32} />`}</button>
    ${isVideo && html`<span class="tile-badge"><${Icon} name="video" size=${14} />${item.seconds ? formatDuration(item.seconds) : ""}</span>`}
    ${isCover && !isVideo && html`<span class="tile-badge"><${Icon} name="star" size=${14} />${t("album.cover")}</span>`}
    ${selecting && html`<span class="tile-check" aria-hidden="true">${isSelected && html`<${Icon} name="check" size=${18} />`}</span>`}
    ${!selecting && html`<div class="tile-footer on-hover"><p class="clamp-one">${item.prompt || t("album.by", { name: item.added_by })}</p></div>`}</li>`;
}
