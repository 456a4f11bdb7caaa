import { html } from "../lib/ui.js";
import { t } from "../lib/language.js";
import { PageHead } from "../lib/parts.js";

export default function Page() {
  return html`<${PageHead} title=${t("nav.jobs")} />`;
}
