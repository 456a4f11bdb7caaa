// What can be done with the selected files of an album: take out, move, cover, share.
import { html } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { Button, toast, useAction } from "../components.js";
import { openAddToAlbum, openShareByLink } from "./dialogs.js";

// The item before which the selection moves for a step towards the start (-1) or the end (1); null = at the end.
export function targetOf(items, selected, step) {
  const chosen = items.map((item) => selected.has(item.id));
  if (step < 0) {
    const rest = items.slice(0, chosen.indexOf(true));
    return rest.at(-1)?.id ?? items.find((item) => !selected.has(item.id))?.id ?? null;
  }
  const after = items.slice(chosen.lastIndexOf(true) + 1);
  return after[1]?.id ?? null;
}

export function SelectionBar({ album, items, selected, onChanged, onReload, onDone }) {
  const ids = items.filter((item) => selected.has(item.id)).map((item) => item.id);
  const own = items.filter((item) => selected.has(item.id) && item.file).map((item) => item.file);
  const isOwner = album.role === "owner";
  const path = `/v1/albums/${album.id}`;
  const [takeOut, takingOut] = useAction(async () => {
    onChanged(await api.delete(`${path}/files`, { body: { files: ids } }));
    toast(t("album.taken_out", { n: ids.length }));
    onReload();
    onDone();
  });
  const [move, moving] = useAction(async (step) => {
    onChanged(await api.post(`${path}/order`, { files: ids, before: targetOf(items, selected, step) }));
    onReload();
  });
  const [setCover, settingCover] = useAction(async () => {
    onChanged(await api.patch(path, { cover: ids[0] }));
    onDone();
  });
  const none = !ids.length;
  return html`<section class="selection-bar" aria-label=${t("album.selection")}><span class="hint" role="status">${t("gallery.selected", { n: ids.length })}</span>
    ${isOwner && html`<${Button} small icon="left" label=${t("album.move_earlier")} busy=${moving} disabled=${none} onClick=${() => move(-1)} />
      <${Button} small icon="right" label=${t("album.move_later")} busy=${moving} disabled=${none} onClick=${() => move(1)} />
      <${Button} small icon="star" busy=${settingCover} disabled=${ids.length !== 1} onClick=${setCover}>${t("album.make_cover")}<//>`}
    <${Button} small icon="album" disabled=${!own.length} onClick=${() => openAddToAlbum(own)}>${t("album.add")}<//>
    <${Button} small icon="share" disabled=${!own.length} onClick=${() => openShareByLink({ files: own })}>${t("share.action")}<//>
    <${Button} small icon="minus" busy=${takingOut} disabled=${none} onClick=${takeOut}>${t("album.take_out")}<//>
    <${Button} small kind="quiet" icon="close" label=${t("gallery.cancel_selection")} onClick=${onDone} /></section>`;
}
