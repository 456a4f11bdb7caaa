// What can be done with the selected results, in a bar at the lower edge of the page.
import { html } from "../preact.js";
import { copyLinks, countText, deleteResults, downloadResults, setFavourites, setPinned } from "../../api/results.js";
import { t } from "../../state/language.js";
import { mayShare, openAddToAlbum, openShareByLink } from "../albums/dialogs.js";
import { Button, useAction } from "../components.js";
import { openCompare } from "../viewer/compare.js";
import { mayMark } from "./marks.js";
import { clearSelection, selection } from "./selection.js";

const isPicture = ({ file }) => file.mime.startsWith("image/");

export function SelectionBar() {
  const items = [...selection.value.values()];
  const [run, busy] = useAction((action) => action());
  if (!items.length) return null;
  const mayChange = items.every(({ job }) => mayMark(job));
  const starred = items.every(({ file }) => file.favourite);
  const pinned = items.every(({ file }) => file.pinned);
  const button = (icon, label, action, more = {}) => html`<${Button} small icon=${icon} disabled=${busy} onClick=${() => run(action)} ...${more}>${label}<//>`;
  return html`<section class="result-bar" aria-label=${t("results.selection")}>
    <div class="row"><${Button} small kind="quiet" icon="close" label=${t("results.clear")} onClick=${clearSelection} /><p class="result-bar-count" role="status">${t("results.selected", { what: countText(items) })}</p></div>
    <div class="result-bar-actions">
      ${mayChange && button("star", t(starred ? "results.unstar" : "results.star"), () => setFavourites(items, !starred))}
      ${mayChange && button("pin", t(pinned ? "results.unpin" : "results.pin"), () => setPinned(items, !pinned))}
      ${mayChange && mayShare() && button("album", t("results.to_album"), () => openAddToAlbum(items.map((item) => item.id), { onDone: clearSelection }))}
      ${mayChange && mayShare() && button("share", t("results.share"), () => openShareByLink({ files: items.map((item) => item.id) }))}
      ${button("download", t(items.length === 1 ? "action.download" : "results.zip"), () => downloadResults(items))}
      ${button("link", t(items.length === 1 ? "results.copy_link" : "results.copy_links"), () => copyLinks(items))}
      ${items.length === 2 && items.every(isPicture) && button("compare", t("compare.title"), () => openCompare(...items, items))}
      ${mayChange && button("trash", t("action.delete"), () => deleteResults(items), { kind: "danger" })}
    </div></section>`;
}
