// A dialog that shows a new secret (API key, webhook secret) once.
import { html } from "../preact.js";
import { t } from "../../state/language.js";
import { Button, CodeBlock, Dialog } from "../components.js";
import { Icon } from "../icons.js";

export function SecretDialog({ title, text, secret, label, onClose, children }) {
  return html`<${Dialog} title=${title} onClose=${onClose} actions=${html`<${Button} kind="primary" onClick=${onClose}>${t("action.done")}<//>`}>
    <p class="notice"><${Icon} name="key" size=${18} /><span>${text}</span></p>
    <${CodeBlock} label=${label} text=${secret} />${children}<//>`;
}
