// What is shown once: a new key, a new webhook secret.
import { html } from "./ui.js";
import { t } from "./language.js";
import { Button, Code, Dialog, Icon } from "./parts.js";

export function ShownOnce({ title, text, secret, label, onClose, children }) {
  return html`<${Dialog} title=${title} onClose=${onClose} actions=${html`<${Button} kind="primary" onClick=${onClose}>${t("action.done")}<//>`}>
    <p class="notice"><${Icon} name="key" size=${18} /><span>${text}</span></p>
    <${Code} label=${label} text=${secret} />${children}<//>`;
}
