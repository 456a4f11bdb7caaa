// The bell: whether the user gets a notification when jobs have ended.
import { html, useState } from "../preact.js";
import { t } from "../../state/language.js";
import { Button, Dialog } from "../components.js";
import { attention, canNotify, playSound, setAttention } from "./attention.js";

export function AttentionButton() {
  const [open, setOpen] = useState(false);
  const { notify, sound } = attention.value;
  return html`<${Button} kind="quiet" icon="bell" label=${t("attention.title")} aria-pressed=${notify || sound} class=${notify || sound ? "active" : ""} onClick=${() => setOpen(true)} />
    ${open && html`<${AttentionDialog} onClose=${() => setOpen(false)} />`}`;
}

function AttentionDialog({ onClose }) {
  const [permission, setPermission] = useState(canNotify() ? Notification.permission : "impossible");
  const { notify, sound } = attention.value;
  const toggleNotify = async () => {
    if (notify) return setAttention({ notify: false });
    const answer = await Notification.requestPermission();
    setPermission(answer);
    return setAttention({ notify: answer === "granted" });
  };
  const toggleSound = () => {
    setAttention({ sound: !sound });
    if (!sound) playSound().catch(() => {});
  };
  const problem = permission === "impossible" ? "attention.impossible" : permission === "denied" ? "attention.denied" : "";
  return html`<${Dialog} title=${t("attention.title")} onClose=${onClose}><p class="muted">${t("attention.text")}</p>
    <div class="checks"><label class="check"><input type="checkbox" checked=${notify && permission === "granted"} disabled=${permission === "impossible"} onChange=${toggleNotify} /><span>${t("attention.notify")}${problem && html`<span class="hint">${t(problem)}</span>`}</span></label>
      <label class="check"><input type="checkbox" checked=${sound} onChange=${toggleSound} /><span>${t("attention.sound")}</span></label></div><//>`;
}
