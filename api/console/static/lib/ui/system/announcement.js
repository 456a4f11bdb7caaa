// The form in which an administrator announces something to everybody.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { formatDateTime, t } from "../../state/language.js";
import { Button, Dialog, ErrorMessage, RadioGroup, Select, TextArea, toast } from "../components.js";
import { notices } from "./notices.js";

const PATH = "/admin/v1/announcement";
const HOURS = { "1h": 1, "24h": 24, "7d": 168 };

export function AnnouncementButton() {
  const [open, setOpen] = useState(false);
  return html`<${Button} icon="send" onClick=${() => setOpen(true)}>${t("notice.announce")}<//>
    ${open && html`<${AnnouncementDialog} current=${notices.value?.announcement} onClose=${() => setOpen(false)} />`}`;
}

function AnnouncementDialog({ current, onClose }) {
  const before = { text: current?.text ?? "", level: current?.level ?? "info", until: current?.until ? "keep" : "" };
  const [form, setForm] = useState(before);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const finish = async (request, message) => {
    setBusy(true);
    setError(null);
    try {
      notices.value = await request();
      toast(t(message));
      onClose();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  const until = () => (form.until === "keep" ? current.until : form.until ? Math.round(Date.now() / 1000 + HOURS[form.until] * 3600) : null);
  const submit = (event) => {
    event.preventDefault();
    finish(() => api.put(PATH, { text: form.text.trim(), level: form.level, until: until() }), "notice.announced");
  };
  const ends = [["", t("notice.until_removed")], ...Object.keys(HOURS).map((item) => [item, t(`notice.for_${item}`)]), ...(current?.until ? [["keep", formatDateTime(current.until)]] : [])];
  return html`<${Dialog} title=${t("notice.announce")} unsaved=${JSON.stringify(form) !== JSON.stringify(before) && !busy} onClose=${onClose}><form class="stack" onSubmit=${submit}>
    <${TextArea} label=${t("notice.text")} hint=${t("notice.text_hint")} value=${form.text} onInput=${set("text")} rows="4" maxlength="500" required />
    <${RadioGroup} label=${t("notice.level")} value=${form.level} onChange=${set("level")} options=${[["info", t("notice.info")], ["warning", t("notice.warning")]]} />
    <${Select} label=${t("notice.end")} value=${form.until} onChange=${set("until")} options=${ends} />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end">${current && html`<${Button} kind="danger" busy=${busy} onClick=${() => finish(() => api.delete(PATH), "notice.removed")}>${t("notice.remove")}<//>`}<${Button} onClick=${onClose}>${t("action.cancel")}<//>
      <${Button} kind="primary" type="submit" busy=${busy} disabled=${!form.text.trim()}>${t("notice.publish")}<//></div></form><//>`;
}
