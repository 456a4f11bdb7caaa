// Help with the credential of an account: where it is found on each site, with a picture.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { useLoaded } from "../../api/loading.js";
import { language, t } from "../../state/language.js";
import { RadioGroup } from "../components.js";
import { CookieDrawing, hostOf, KeyDrawing } from "./drawings.js";

// The sites of all providers, where people find session ids and keys: [{ provider, title, address, region, cookie }].
export function useSites() {
  const providers = useLoaded(() => api.get("/v1/accounts/providers")).data?.data ?? [];
  return providers.flatMap((provider) => provider.sites.map((site) => ({ ...site, provider: provider.name, currency: provider.currencies[site.region] })));
}

// What an account is to the platform, and how scripts add them: a chapter of the API documentation.
const AccountDocs = () => html`<p class="hint"><a href=${new URL(`docs?lang=${language.value}#/accounts`, document.baseURI).href} target="_blank" rel="noopener">${t("help.docs")}</a></p>`;

// The steps for one site. The address is a link that opens a new tab and does not say where it comes from.
export function SiteSteps({ site }) {
  const link = html`<a href=${site.address} target="_blank" rel="noreferrer">${hostOf(site)}</a>`;
  if (!site.cookie) {
    return html`<div class="credential-help"><ol class="steps"><li>${t("help.key_open")} ${link}</li><li>${t("help.key_create")}</li><li>${t("help.key_models")}</li><li>${t("help.key_copy")}</li></ol>
      <${KeyDrawing} site=${site} /><p class="hint">${t("help.key_costs", { currency: site.currency ? ` (${site.currency})` : "" })}</p><${AccountDocs} /></div>`;
  }
  return html`<div class="credential-help"><ol class="steps"><li>${t("help.sign_in")} ${link}</li><li>${t("help.open_tools")}</li><li>${t("help.open_cookies", { host: hostOf(site) })}</li><li>${t("help.copy_value", { cookie: site.cookie })}</li></ol>
    <${CookieDrawing} site=${site} /><p class="hint">${t("help.safe")}</p><${AccountDocs} /></div>`;
}

// "How do I get it?": closed at first. With several sites, one is chosen.
export function CredentialHelp({ sites, open = false }) {
  const [name, setName] = useState("");
  if (!sites.length) return null;
  const site = sites.find((item) => item.title === name) ?? sites[0];
  return html`<details class="more" open=${open}><summary>${t(site.cookie ? "help.how_session" : "help.how_key")}</summary><div class="stack">
    ${sites.length > 1 && html`<${RadioGroup} label=${t("help.site")} value=${site.title} onChange=${setName} options=${sites.map((item) => [item.title, item.title])} />`}
    <${SiteSteps} site=${site} /></div></details>`;
}
