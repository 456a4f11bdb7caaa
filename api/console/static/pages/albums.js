// Albums: the user's own, those that others share, and the user's share links. And the page of one album.
import { html, useState } from "../lib/ui/preact.js";
import { api, session } from "../lib/api/client.js";
import { useLoaded } from "../lib/api/loading.js";
import { pageOf, useLongList, usePages } from "../lib/api/pagination.js";
import { t } from "../lib/state/language.js";
import { Link, navigate, setQuery } from "../lib/state/router.js";
import { mayShare, openShareByLink } from "../lib/ui/albums/dialogs.js";
import { People } from "../lib/ui/albums/people.js";
import { AlbumPicture, AlbumTile, viewerItem } from "../lib/ui/albums/pictures.js";
import { loadAlbums } from "../lib/ui/albums/requests.js";
import { SelectionBar } from "../lib/ui/albums/selection.js";
import { ShareList } from "../lib/ui/albums/share_list.js";
import { Button, confirm, Dialog, EmptyState, ErrorMessage, Loading, PageHeader, RadioGroup, TextField, toast, useAction, useSubmit } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { useViewer } from "../lib/ui/viewer/viewer.js";

const TABS = [["", "album.own", "album"], ["shared", "album.shared", "users"], ["links", "share.links", "link"]];

export default function Albums({ query }) {
  const tab = query.show ?? "";
  const [adding, setAdding] = useState(false);
  return html`<${PageHeader} title=${t("nav.albums")} lead=${t("album.lead")}>${mayShare() && html`<${Button} kind="primary" icon="plus" onClick=${() => setAdding(true)}>${t("album.new")}<//>`}<//>
    <div class="album-tabs"><${RadioGroup} label=${t("album.show")} hideLabel value=${tab} onChange=${(show) => setQuery({ show })} options=${TABS.map(([value, text, icon]) => [value, t(text), icon])} /></div>
    ${tab === "links" ? html`<${ShareList} />` : html`<${AlbumList} key=${tab} role=${tab === "shared" ? "member" : "owner"} />`}
    ${adding && html`<${AlbumForm} onClose=${() => setAdding(false)} onSaved=${(album) => navigate(`albums/${album.id}`)} />`}`;
}

function AlbumList({ role }) {
  const loaded = useLoaded((signal) => loadAlbums({ role }, signal), [role]);
  if (loaded.error) return html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`;
  if (!loaded.data) return html`<${Loading} />`;
  const own = role === "owner";
  if (!loaded.data.length) return html`<div class="card"><${EmptyState} icon="album" title=${t(own ? "album.none" : "album.none_shared")}>${t(own ? "album.none_text" : "album.none_shared_text")}<//></div>`;
  return html`<ul class="albums">${loaded.data.map((album) => html`<li key=${album.id}><${Link} to=${`albums/${album.id}`} class="album-card"><${AlbumPicture} album=${album} />
    <strong class="clamp-one">${album.name}</strong><span class="hint">${own ? t("album.count", { n: album.files }) : t("album.of", { name: album.owner, n: album.files })}${own && album.members > 0 ? ` · ${t("album.with", { n: album.members })}` : ""}</span><//></li>`)}</ul>`;
}

// The form for a new album, or for the name and prompts of an existing one.
function AlbumForm({ album, onSaved, onClose }) {
  const [name, setName] = useState(album?.name ?? "");
  const [showPrompts, setShowPrompts] = useState(album?.show_prompts ?? false);
  const [save, busy, error] = useSubmit(async () => {
    const body = { name, show_prompts: showPrompts };
    onSaved(await (album ? api.patch(`/v1/albums/${album.id}`, body) : api.post("/v1/albums", body)));
    onClose();
  });
  return html`<${Dialog} title=${t(album ? "album.change" : "album.new")} unsaved=${(name !== (album?.name ?? "") || showPrompts !== (album?.show_prompts ?? false)) && !busy} onClose=${onClose}><form class="stack" onSubmit=${save}>
    <${TextField} label=${t("album.name")} maxlength="120" required value=${name} onInput=${setName} />
    <label class="check"><input type="checkbox" checked=${showPrompts} onChange=${(event) => setShowPrompts(event.target.checked)} /><span>${t("album.show_prompts")}</span></label>
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} type="submit" kind="primary" busy=${busy} disabled=${!name.trim()}>${t("action.save")}<//></div></form><//>`;
}

// The files of an album, page by page: { items, loading, error, loadMore(), reload() }.
function useAlbumFiles(id) {
  const [state, , { loadMore, reload }] = usePages(id, async (after) => pageOf(await api.get(`/v1/albums/${id}/files`, { limit: 100, after })));
  return { ...state, loadMore, reload };
}

export function AlbumPage({ params }) {
  const loaded = useLoaded((signal) => api.get(`/v1/albums/${params.id}`, {}, { signal }), [params.id]);
  const files = useAlbumFiles(params.id);
  const [selected, setSelected] = useState(null);
  const [drawn, end] = useLongList(files);
  const open = useViewer(files.items.map(viewerItem), { onNearEnd: files.loadMore, readOnly: true });
  const album = loaded.data;
  const toggle = (id) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    setSelected(next);
  };
  const crumbs = html`<p class="crumbs"><${Link} to="albums"><${Icon} name="left" size=${16} />${t("nav.albums")}<//></p>`;
  if (!album) return html`${crumbs}<${PageHeader} title=${t("nav.album")} />${loaded.error ? html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />` : html`<${Loading} />`}<div ref=${end}></div>`;
  return html`${crumbs}<${PageHeader} title=${album.name} lead=${album.role === "owner" ? t("album.count", { n: album.files }) : t("album.of", { name: album.owner, n: album.files })}>
      <${AlbumActions} album=${album} files=${files} onChanged=${loaded.setData} onReload=${loaded.reload} onSelect=${() => setSelected(new Set())} /><//>
    ${selected && html`<${SelectionBar} album=${album} items=${files.items} selected=${selected} onChanged=${loaded.setData} onReload=${files.reload} onDone=${() => setSelected(null)} />`}
    ${files.error && html`<${ErrorMessage} error=${files.error} onRetry=${files.reload} />`}
    <ul class="tiles">${drawn.map((item, index) => html`<${AlbumTile} key=${item.id} item=${item} number=${index + 1} selecting=${selected !== null} isSelected=${Boolean(selected?.has(item.id))} isCover=${album.cover?.id === item.id && files.items.length > 1}
      onToggle=${() => toggle(item.id)} onOpen=${() => open(index)} />`)}</ul>
    ${!files.loading && !files.error && !files.items.length && html`<div class="card"><${EmptyState} icon="image" title=${t("album.empty")}>${album.role === "viewer" ? t("album.empty_viewer") : html`<p>${t("album.empty_text")}</p><${Link} to="gallery" class="button primary">${t("nav.gallery")}<//>`}<//></div>`}
    ${files.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

function AlbumActions({ album, files, onChanged, onReload, onSelect }) {
  const [dialog, setDialog] = useState("");
  const [remove, removing] = useAction(async () => {
    if (!(await confirm({ title: t("album.delete"), text: t("album.delete_text", { name: album.name }), action: t("album.delete") }))) return;
    await api.delete(`/v1/albums/${album.id}`);
    toast(t("album.deleted"));
    navigate("albums");
  });
  const [leave, leaving] = useAction(async () => {
    if (!(await confirm({ title: t("album.leave"), text: t("album.leave_text", { name: album.name }), action: t("album.leave") }))) return;
    const members = await api.get(`/v1/albums/${album.id}/members`);
    await api.delete(`/v1/albums/${album.id}/members/${members.data.find((one) => one.name === session.value.user)?.id}`);
    navigate("albums?show=shared");
  });
  if (!mayShare()) return null;
  if (album.role !== "owner") return html`${album.role === "contributor" && html`<${Button} icon="check" disabled=${!files.items.length} onClick=${onSelect}>${t("gallery.select")}<//>`}
    <${Button} icon="sign_out" busy=${leaving} onClick=${leave}>${t("album.leave")}<//>`;
  return html`<${Button} icon="users" onClick=${() => setDialog("people")}>${album.members ? t("album.people_n", { n: album.members }) : t("album.people")}<//>
    <${Button} icon="share" disabled=${!files.items.length} onClick=${() => openShareByLink({ album })}>${t("share.action")}<//>
    <${Button} icon="check" disabled=${!files.items.length} onClick=${onSelect}>${t("gallery.select")}<//>
    <${Button} icon="edit" label=${t("album.change")} onClick=${() => setDialog("change")} />
    <${Button} kind="quiet" icon="trash" busy=${removing} label=${t("album.delete")} onClick=${remove} />
    ${dialog === "people" && html`<${People} album=${album} onChanged=${onReload} onClose=${() => setDialog("")} />`}
    ${dialog === "change" && html`<${AlbumForm} album=${album} onSaved=${onChanged} onClose=${() => setDialog("")} />`}`;
}
