// The name of the product, and the switches of theme and language, which every view has.
import { html } from "../preact.js";
import { session } from "../../api/client.js";
import { language, t } from "../../state/language.js";
import { theme } from "../../state/preferences.js";
import { Button } from "../components.js";
import { Icon } from "../icons.js";
import { AttentionButton } from "./attention_settings.js";

export const Brand = () => html`<span class="brand"><svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true"><rect width="32" height="32" rx="8" />
  <path d="M21.6 19.6A8 8 0 0 1 12.4 10.4a8 8 0 1 0 9.2 9.2z" /><path d="M20.5 7l1 2.5 2.5 1-2.5 1-1 2.5-1-2.5-2.5-1 2.5-1z" /></svg>Dreamery</span>`;

const NEXT_THEME = { auto: "light", light: "dark", dark: "auto" };
const THEME_ICON = { auto: "screen", light: "sun", dark: "moon" };

export function Preferences() {
  return html`<div class="preferences">
    <${Button} kind="quiet" icon=${THEME_ICON[theme.value]} label=${t("theme.now", { theme: t(`theme.${theme.value}`) })}
      onClick=${() => { theme.value = NEXT_THEME[theme.value]; }} />
    ${session.value && html`<${AttentionButton} />`}
    <${Button} kind="quiet" icon="globe" lang=${language.value === "zh" ? "en" : "zh-CN"}
      onClick=${() => { language.value = language.value === "zh" ? "en" : "zh"; }}>${language.value === "zh" ? "English" : "中文"}<//>
  </div>`;
}

export const ApiDocsLink = () => html`<a class="nav-link" href=${new URL(`docs?lang=${language.value}`, document.baseURI).href} target="_blank" rel="noopener">
  <${Icon} name="code" />${t("nav.api_docs")}</a>`;
