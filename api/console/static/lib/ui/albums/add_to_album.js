// The dialog that adds files to one of the albums that the user may change, or to a new one.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { useLoaded } from "../../api/loading.js";
import { t } from "../../state/language.js";
import { Link } from "../../state/router.js";
import { Button, Dialog, ErrorMessage, Loading, SearchField, TextField, toast } from "../components.js";
import { AlbumPicture } from "./pictures.js";
import { loadAlbums } from "./requests.js";

const mayAdd = (album) => album.role !== "viewer";

export function AddToAlbum({ files, onDone, onClose }) {
  const loaded = useLoaded((signal) => loadAlbums({}, signal));
  const [name, setName] = useState("");
  const [search, setSearch] = useState("");
  const [busy, setBusy] = useState("");
  const [error, setError] = useState(null);
  const albums = (loaded.data ?? []).filter(mayAdd);
  const shown = albums.filter((album) => album.name.toLowerCase().includes(search.toLowerCase()));
  const add = async (target, find) => {
    setBusy(target);
    setError(null);
    try {
      const { added, album } = await api.post(`/v1/albums/${await find()}/files`, { files });
      toast(added ? t("album.added", { n: added, name: album.name }) : t("album.had_all", { name: album.name }));
      onDone?.(album);
      onClose();
    } catch (failure) {
      setError(failure);
      setBusy("");
    }
  };
  const create = (event) => {
    event.preventDefault();
    add("new", async () => (await api.post("/v1/albums", { name })).id);
  };
  return html`<${Dialog} title=${t("album.add_title", { n: files.length })} onClose=${onClose}>
    <form class="row album-new" onSubmit=${create}><${TextField} label=${t("album.new_name")} maxlength="120" value=${name} onInput=${setName} />
      <${Button} type="submit" icon="plus" kind="primary" busy=${busy === "new"} disabled=${!name.trim() || busy}>${t("album.create")}<//></form>
    ${error && html`<${ErrorMessage} error=${error} />`}
    ${albums.length > 8 && html`<${SearchField} label=${t("album.search")} value=${search} onChange=${setSearch} />`}
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    ${shown.length > 0 && html`<ul class="album-choices" aria-label=${t("nav.albums")}>${shown.map((album) => html`<li key=${album.id}>
      <button type="button" class="album-choice" disabled=${Boolean(busy)} aria-busy=${busy === album.id || undefined} onClick=${() => add(album.id, async () => album.id)}>
        <${AlbumPicture} album=${album} /><span><strong>${album.name}</strong><span class="hint">${album.role === "owner" ? t("album.count", { n: album.files }) : t("album.of", { name: album.owner, n: album.files })}</span></span></button></li>`)}</ul>`}
    ${loaded.data && !albums.length && html`<p class="hint">${t("album.none_yet")}</p>`}
    <p class="hint">${t("album.retention_hint")} <${Link} to="albums" onClick=${onClose}>${t("nav.albums")}<//></p><//>`;
}
