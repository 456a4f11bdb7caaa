// What is special about a single result, and buttons that change it.
import { html } from "../preact.js";
import { hasScope } from "../../api/client.js";
import { isOthers } from "../../api/jobs.js";
import { copyLinks, deleteResults, setFavourites, setPinned } from "../../api/results.js";
import { formatDateTime, formatUntil, t } from "../../state/language.js";
import { Button, useAction } from "../components.js";
import { Icon } from "../icons.js";

// Results that are removed within this time say so.
const SOON_SECONDS = 14 * 86400;

export const isRemovedSoon = (file) => !file.pinned && file.expires_at != null && file.expires_at - Date.now() / 1000 < SOON_SECONDS;

// "deleted in 3 days".
export const removalText = (file) => t("results.removed", { time: formatUntil(file.expires_at) });

// Until when a result is kept; null if nothing removes it.
export const keptText = (file) => (file.pinned ? t("results.is_pinned") : file.expires_at ? formatDateTime(file.expires_at) : null);

// What the viewer does with an item of a list.
export const VIEWER_ACTIONS = {
  isStarred: ({ file }) => file.favourite,
  star: (item) => setFavourites([item], !item.file.favourite),
  remove: (item) => deleteResults([item]),
};

export const mayMark = (job) => hasScope("generate") && !isOthers(job);

// `data-action` = the grid of the tile handles the click.
export function Star({ file }) {
  return html`<button type="button" class="button quiet icon-only small star ${file.favourite ? "on" : ""}" data-action="star" tabindex="-1" aria-pressed=${Boolean(file.favourite)}
    aria-label=${t("job.favourite")} title=${t("job.favourite")}><${Icon} name="star" fill=${file.favourite} size=${18} /></button>`;
}

export function Tick({ selected, label }) {
  return html`<button type="button" class="tile-tick" data-action="select" tabindex="-1" aria-pressed=${selected} aria-label=${label}><${Icon} name="check" size=${18} /></button>`;
}

export function RemovalNote({ file }) {
  if (file.pinned) return html`<span class="tile-badge" title=${t("results.is_pinned")}><${Icon} name="pin" size=${14} /></span>`;
  return isRemovedSoon(file) && html`<span class="tile-badge soon" title=${removalText(file)}><${Icon} name="clock" size=${14} /><span>${removalText(file)}</span></span>`;
}

// Pin, copy the link, delete: icons for where there is room. `alone` = it is the only result of its job, which can be deleted itself.
export function ResultButtons({ item, alone }) {
  const [run, busy] = useAction((action) => action());
  const { file } = item;
  const button = (icon, label, action) => html`<${Button} small kind="quiet" icon=${icon} label=${label} disabled=${busy} onClick=${() => run(action)} />`;
  return html`${mayMark(item.job) && button("pin", t(file.pinned ? "results.unpin" : "results.pin"), () => setPinned([item], !file.pinned))}
    ${button("link", t("results.copy_link"), () => copyLinks([item]))}
    ${!alone && mayMark(item.job) && button("trash", t("results.delete"), () => deleteResults([item]))}`;
}
