// Drawn pictures of where a credential is found: a browser window with its developer tools, and a console with keys.
import { html, useId } from "../preact.js";
import { t } from "../../state/language.js";

export const hostOf = (site) => new URL(site.address).host;

const Badge = ({ x, y, n }) => html`<g><circle class="mark" cx=${x} cy=${y} r="11" /><text class="mark-text" x=${x} y=${y + 4.5} text-anchor="middle">${n}</text></g>`;

function Drawing({ title, height, address, children }) {
  const id = useId();
  return html`<svg class="drawing" viewBox="0 0 440 ${height}" role="img" aria-labelledby=${id}><title id=${id}>${title}</title>
    <rect class="window" x="0.75" y="0.75" width="438.5" height=${height - 1.5} rx="10" />
    <circle class="dim" cx="18" cy="18" r="4" /><circle class="dim" cx="32" cy="18" r="4" /><circle class="dim" cx="46" cy="18" r="4" />
    <rect class="field-box" x="64" y="7" width="362" height="22" rx="11" /><text x="78" y="22.5">${address}</text>${children}</svg>`;
}

// The cookies of a site in the developer tools: the tab, the site, the row. The numbers are those of the steps beside it.
export function CookieDrawing({ site }) {
  const host = hostOf(site);
  const rows = [["csrf_token", "3f1c9…"], [site.cookie, "8d2e6b1f07c9…"], ["theme", "light"]];
  return html`<${Drawing} title=${t("help.picture_cookie", { host, cookie: site.cookie })} height=${236} address=${host}>
    <line class="rule" x1="0" x2="440" y1="38" y2="38" /><line class="rule" x1="0" x2="440" y1="68" y2="68" />
    <text class="dim-text" x="16" y="57">${t("help.tab_elements")}</text><text class="dim-text" x="100" y="57">${t("help.tab_network")}</text>
    <rect class="chosen" x="176" y="42" width="116" height="22" rx="6" /><text class="strong" x="188" y="57">${t("help.tab_application")}</text><${Badge} x=${306} y=${53} n="3" />
    <line class="rule" x1="180" x2="180" y1="68" y2="236" />
    <text class="dim-text" x="14" y="92">${t("help.storage")}</text><text x="14" y="116">▾ Cookies</text>
    <rect class="chosen" x="8" y="126" width="164" height="24" rx="6" /><text class="small strong" x="16" y="142">${host}</text><${Badge} x=${158} y=${166} n="3" />
    <text class="dim-text" x="194" y="92">${t("help.column_name")}</text><text class="dim-text" x="296" y="92">${t("help.column_value")}</text><line class="rule" x1="180" x2="440" y1="102" y2="102" />
    ${rows.map(([name, value], n) => html`<g key=${name}>${n === 1 && html`<rect class="chosen" x="184" y="134" width="250" height="28" rx="6" />`}
      <text class=${n === 1 ? "mono strong" : "mono dim-text"} x="194" y=${124 + n * 28}>${name}</text><text class=${n === 1 ? "mono strong" : "mono dim-text"} x="296" y=${124 + n * 28}>${value}</text></g>`)}
    <${Badge} x=${420} y=${148} n="4" /><text class="small" x="194" y="214">${t("help.picture_copy")}</text><//>`;
}

// The page of API keys in the console of the vendor: the menu entries, the button, the key.
export function KeyDrawing({ site }) {
  return html`<${Drawing} title=${t("help.picture_key", { host: hostOf(site) })} height=${200} address=${hostOf(site)}>
    <line class="rule" x1="0" x2="440" y1="38" y2="38" /><line class="rule" x1="150" x2="150" y1="38" y2="200" />
    <text class="dim-text" x="14" y="64">${t("help.menu_models")}</text><${Badge} x=${130} y=${60} n="3" />
    <rect class="chosen" x="8" y="76" width="134" height="26" rx="6" /><text class="strong" x="16" y="93">${t("help.menu_keys")}</text><${Badge} x=${130} y=${118} n="2" />
    <rect class="action" x="166" y="50" width="134" height="26" rx="13" /><text class="action-text" x="233" y="67.5" text-anchor="middle">${t("help.create_key")}</text><${Badge} x=${316} y=${63} n="2" />
    <text class="dim-text" x="166" y="102">${t("help.column_name")}</text><text class="dim-text" x="250" y="102">${t("help.column_key")}</text><line class="rule" x1="150" x2="440" y1="112" y2="112" />
    <rect class="chosen" x="156" y="120" width="278" height="28" rx="6" /><text class="mono" x="166" y="138">dreamery</text><text class="mono strong" x="250" y="138">4b1f7e0a-•••••••</text><${Badge} x=${420} y=${134} n="4" />
    <text class="small" x="166" y="176">${t("help.picture_key_copy")}</text><//>`;
}
