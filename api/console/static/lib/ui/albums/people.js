// The dialog that shares an album with users of the platform.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { useLoaded } from "../../api/loading.js";
import { t } from "../../state/language.js";
import { Button, confirm, Dialog, ErrorMessage, Loading, Select, TextField, toast, useAction, useSubmit } from "../components.js";

const ROLES = ["viewer", "contributor"];
const roleOptions = () => ROLES.map((role) => [role, t(`album.role_${role}`)]);

export function People({ album, onChanged, onClose }) {
  const path = `/v1/albums/${album.id}/members`;
  const loaded = useLoaded((signal) => api.get(path, {}, { signal }), [album.id]);
  const [user, setUser] = useState("");
  const [role, setRole] = useState("viewer");
  const members = loaded.data?.data ?? [];
  const save = async (name, as) => {
    const member = await api.post(path, { user: name, role: as });
    loaded.setData((before) => ({ ...before, data: before.data.some((one) => one.id === member.id) ? before.data.map((one) => (one.id === member.id ? member : one)) : [...before.data, member] }));
    onChanged();
  };
  const [submit, busy, error] = useSubmit(async () => {
    await save(user.trim(), role);
    toast(t("album.shared_with", { name: user.trim() }));
    setUser("");
  });
  const [change] = useAction(save);
  const [remove] = useAction(async (member) => {
    if (!(await confirm({ title: t("album.remove_member"), text: t("album.remove_member_text", { name: member.name }), action: t("album.remove_member") }))) return;
    loaded.setData(await api.delete(`${path}/${member.id}`));
    onChanged();
  });
  return html`<${Dialog} title=${t("album.people_title", { name: album.name })} onClose=${onClose} actions=${html`<${Button} onClick=${onClose}>${t("action.close")}<//>`}>
    <p class="hint">${t("album.people_text")}</p>
    <form class="album-person" onSubmit=${submit}><${TextField} label=${t("album.user_name")} autocomplete="off" maxlength="120" value=${user} onInput=${setUser} />
      <${Select} label=${t("album.role")} value=${role} onChange=${setRole} options=${roleOptions()} />
      <${Button} type="submit" kind="primary" icon="plus" busy=${busy} disabled=${!user.trim()}>${t("album.add_person")}<//></form>
    ${error && html`<${ErrorMessage} error=${error} />`}
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    ${members.length > 0 && html`<ul class="album-members" aria-label=${t("album.members")}>${members.map((member) => html`<li key=${member.id}><strong>${member.name}</strong>
      <select aria-label=${t("album.role_of", { name: member.name })} value=${member.role} onChange=${(event) => change(member.name, event.target.value)}>${roleOptions().map(([value, text]) => html`<option key=${value} value=${value} selected=${value === member.role}>${text}</option>`)}</select>
      <${Button} small kind="quiet" icon="trash" label=${t("album.remove_one", { name: member.name })} onClick=${() => remove(member)} /></li>`)}</ul>`}<//>`;
}
