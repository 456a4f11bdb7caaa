// Limits of a user or key with their usage.
import { html } from "../preact.js";
import { formatMoney, formatNumber, t } from "../../state/language.js";
import { RelativeTime, StatusBadge } from "../components.js";

const TONE = { ok: "good", warning: "wait", reached: "bad" };

export const formatLimit = (item, value) => (/^(usd|cny)_/.test(item.name) ? formatMoney(value, item.name.slice(0, 3)) : formatNumber(value));

export const limitName = (item) => `${t(`limit.${item.name}`)}${item.scope === "key" ? ` (${t("limit.of_key")})` : ""}`;

// Each limit with its usage and reset time.
export function LimitList({ limits }) {
  const effective = limits.filter((item) => item.hard !== null || item.soft !== null);
  if (!effective.length) return html`<p class="hint">${t("limit.none")}</p>`;
  return html`<ul class="limits">${effective.map((item) => {
    const full = item.hard ?? item.soft;
    const share = item.used === null ? null : full ? Math.min((100 * item.used) / full, 100) : 100;
    const name = limitName(item);
    return html`<li key=${item.scope + item.name}><div class="row spread"><strong>${name}</strong>${item.state !== "ok" && html`<${StatusBadge} tone=${TONE[item.state]}>${t(`limit.state_${item.state}`)}<//>`}</div>
      <div class="meter tone-${TONE[item.state]}" role="meter" aria-label=${name} aria-valuemin="0" aria-valuemax=${full} aria-valuenow=${item.used ?? 0}><i style=${{ width: `${share ?? 0}%` }}></i></div>
      <p class="hint numeric">${t("limit.used", { used: formatLimit(item, item.used), of: formatLimit(item, full) })}${item.resets_at && item.name !== "requests_per_minute" ? html` · ${t("limit.resets")} <${RelativeTime} at=${item.resets_at} />` : ""}</p></li>`;
  })}</ul>`;
}
