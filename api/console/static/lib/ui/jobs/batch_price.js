// The price of a batch in words and as a table, and the errors of one that was refused.
import { html } from "../preact.js";
import { formatMoney, formatNumber, t } from "../../state/language.js";
import { Message } from "../components.js";

const SHOWN_ERRORS = 50;

// The total: credits, money, or both; what is not known is said.
export function batchPrice(price) {
  const money = price.money.map((one) => formatMoney(one.amount, one.currency));
  const credits = price.credits || !money.length ? [t("batches.credits", { n: formatNumber(price.credits) })] : [];
  const total = [...credits, ...money].join(" + ");
  return price.known ? total : t("batches.at_least", { total });
}

const modelPrice = (one) => (one.currency ? formatMoney(one.cost, one.currency) : one.credits === null ? t("batches.unknown") : t("batches.credits", { n: formatNumber(one.credits) }));

export function PriceTable({ price }) {
  return html`<div class="table-wrap"><table class="table"><thead><tr><th>${t("filter.model")}</th><th class="end">${t("batches.requests")}</th><th class="end">${t("batches.price")}</th></tr></thead>
    <tbody>${price.models.map((one) => html`<tr key=${one.model + one.currency}><td data-label=${t("filter.model")}>${one.model}</td><td class="figure numeric" data-label=${t("batches.requests")}>${formatNumber(one.requests)}</td><td class="figure numeric" data-label=${t("batches.price")}>${modelPrice(one)}</td></tr>`)}
    <tr class="total"><td data-label=""><strong>${t("batches.total")}</strong></td><td class="figure numeric" data-label=${t("batches.requests")}>${formatNumber(price.requests)}</td><td class="figure numeric" data-label=${t("batches.price")}><strong>${batchPrice(price)}</strong></td></tr></tbody></table></div>`;
}

export function BatchErrors({ errors }) {
  if (!errors) return null;
  const place = (one) => (one.line === null ? t("batches.whole") : t("batches.line", { n: formatNumber(one.line) }));
  return html`<div class="notice bad batch-errors" role="alert"><div><p><strong>${t("batches.refused", { n: formatNumber(errors.total) })}</strong></p>
    <ul>${errors.data.slice(0, SHOWN_ERRORS).map((one, n) => html`<li key=${n}>${place(one)}${one.custom_id ? html` (<code>${one.custom_id}</code>)` : ""}: <${Message} text=${one.message} /></li>`)}</ul></div></div>`;
}
