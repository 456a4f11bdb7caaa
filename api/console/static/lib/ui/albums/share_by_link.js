// The dialog that makes a public page of files or of an album, and shows its link.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { formatDateTime, t } from "../../state/language.js";
import { Button, CopyButton, Dialog, ErrorMessage, Select, TextField, useSubmit } from "../components.js";

const DAYS = [1, 7, 30, 90];
const DAY_SECONDS = 86400;

export function ShareByLink({ files, album, onClose }) {
  const [title, setTitle] = useState("");
  const [days, setDays] = useState("7");
  const [prompts, setPrompts] = useState(false);
  const [download, setDownload] = useState(true);
  const [share, setShare] = useState(null);
  const [create, busy, error] = useSubmit(async () => {
    const about = album ? { album: album.id } : { files };
    setShare(await api.post("/v1/shares", { ...about, title: title.trim(), expires_in: Number(days) * DAY_SECONDS, show_prompts: prompts, allow_download: download }));
  });
  if (share) return html`<${ShareLink} share=${share} onClose=${onClose} />`;
  const what = album ? t("share.album", { name: album.name }) : t("share.files", { n: files.length });
  return html`<${Dialog} title=${t("share.title")} onClose=${onClose}><form class="stack" onSubmit=${create}>
    <div><strong>${what}</strong><p class="hint">${t("share.text")}</p></div>
    <${TextField} label=${t("share.heading")} hint=${t("share.heading_hint")} maxlength="200" value=${title} onInput=${setTitle} />
    <${Select} label=${t("share.life")} value=${days} onChange=${setDays} options=${DAYS.map((n) => [String(n), t("share.days", { n })])} />
    <label class="check"><input type="checkbox" checked=${prompts} onChange=${(event) => setPrompts(event.target.checked)} /><span>${t("share.prompts")}</span></label>
    <label class="check"><input type="checkbox" checked=${download} onChange=${(event) => setDownload(event.target.checked)} /><span>${t("share.download")}</span></label>
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} type="submit" kind="primary" icon="link" busy=${busy}>${t("share.create")}<//></div></form><//>`;
}

export function ShareLink({ share, onClose }) {
  return html`<${Dialog} title=${t("share.ready")} onClose=${onClose} actions=${html`<a class="button" href=${share.url} target="_blank" rel="noopener noreferrer">${t("share.open")}</a><${Button} kind="primary" onClick=${onClose}>${t("action.done")}<//>`}>
    <p>${t("share.ready_text", { time: formatDateTime(share.expires_at) })}</p>
    <div class="row share-link"><input readonly aria-label=${t("share.link")} value=${share.url} onFocus=${(event) => event.target.select()} /><${CopyButton} text=${share.url} label=${t("share.copy")} /></div><//>`;
}
