// The share links of the signed-in user, with copying and revoking.
import { html } from "../preact.js";
import { api } from "../../api/client.js";
import { useLoaded } from "../../api/loading.js";
import { t } from "../../state/language.js";
import { Link } from "../../state/router.js";
import { Button, confirm, CopyButton, EmptyState, ErrorMessage, Loading, RelativeTime, StatusBadge, toast, useAction } from "../components.js";
import { mayShare } from "./dialogs.js";
import { loadAll } from "./requests.js";

const nameOf = (share) => share.title || share.album_name || t("share.untitled");

export function ShareList() {
  const loaded = useLoaded((signal) => loadAll("/v1/shares", {}, signal));
  const [revoke] = useAction(async (share) => {
    if (!(await confirm({ title: t("share.revoke"), text: t("share.revoke_text", { name: nameOf(share) }), action: t("share.revoke") }))) return;
    await api.delete(`/v1/shares/${share.id}`);
    toast(t("share.revoked"));
    loaded.setData((before) => before.filter((one) => one.id !== share.id));
  });
  if (loaded.error) return html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`;
  if (!loaded.data) return html`<${Loading} />`;
  if (!loaded.data.length) return html`<div class="card"><${EmptyState} icon="link" title=${t("share.none")}>${t("share.none_text")}<//></div>`;
  return html`<section class="card flush"><div class="table-wrap"><table class="table"><thead><tr><th>${t("share.heading")}</th><th>${t("share.content")}</th><th>${t("share.expires")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
    <tbody>${loaded.data.map((share) => html`<tr key=${share.id}><td data-label=${t("share.heading")}><strong>${nameOf(share)}</strong></td>
      <td data-label=${t("share.content")}>${share.album ? html`<${Link} to=${`albums/${share.album}`}>${t("share.album", { name: share.album_name })}<//>` : t("share.files", { n: share.files })}</td>
      <td data-label=${t("share.expires")}>${share.expired ? html`<${StatusBadge} status="expired" />` : html`<${RelativeTime} at=${share.expires_at} />`}</td>
      <td class="end"><div class="row end">${!share.expired && html`<${CopyButton} text=${share.url} label=${t("share.copy")} /><a class="button small" href=${share.url} target="_blank" rel="noopener noreferrer">${t("share.open")}</a>`}
        ${mayShare() && html`<${Button} small kind="quiet" icon="trash" label=${t("share.revoke_one", { name: nameOf(share) })} onClick=${() => revoke(share)} />`}</div></td></tr>`)}</tbody></table></div></section>`;
}
