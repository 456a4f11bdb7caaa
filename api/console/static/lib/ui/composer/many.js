// Many requests at once: one prompt per line, with variants, times models and ratios. The list and the total come first;
// then all of them are accepted, or none.
import { html, useEffect, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { buildMatrix, forgetSeedOfJob, promptLines } from "../../state/draft.js";
import { formatDuration, formatMoney, formatNumber, t } from "../../state/language.js";
import { createId } from "../../state/pictures.js";
import { Link } from "../../state/router.js";
import { accountHeaders } from "../accounts/available.js";
import { Button, Dialog, ErrorMessage, Message, Progress, toast } from "../components.js";
import { Icon } from "../icons.js";

const SHOWN_LINES = 500;
const CHECK_MS = 400;

const total = ({ currency, credits, cost, known }) => {
  const amount = currency ? formatMoney(cost, currency) : t("model.credits", { n: formatNumber(credits) });
  return known ? amount : t("many.at_least", { amount });
};
const price = ({ currency, credits, cost, known }) => (known ? total({ currency, credits, cost, known }) : "–");

// The plan of the form: { values, matrix, plan, error, loading, dialog, review(), close() }.
export function useMany({ values, models, isReady }) {
  const [state, setState] = useState({ plan: null, error: null, version: "" });
  const [dialog, setDialog] = useState(null);
  // One request for all carries no files: each of them would be stored once per prompt.
  const hasUploads = values.images.some(({ upload }) => upload);
  const active = values.many && isReady && !hasUploads;
  const matrix = active ? buildMatrix(values, models) : null;
  const headers = accountHeaders();
  const version = active ? JSON.stringify([matrix, headers]) : "";
  useEffect(() => {
    if (!active) return undefined;
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const plan = await api.post("/v1/estimate", { matrix }, { signal: controller.signal, headers });
        setState({ plan, error: null, version });
      } catch (error) {
        if (error.name !== "AbortError") setState({ plan: null, error, version });
      }
    }, 400);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [version]);
  const isCurrent = state.version === version;
  return {
    values, matrix, headers, dialog, active, hasUploads,
    plan: isCurrent ? state.plan : null,
    error: isCurrent ? state.error : null,
    loading: active && !isCurrent,
    // One id for all tries of a plan: a repeated request is accepted once.
    review: () => active && setDialog(createId()),
    close: () => setDialog(null),
  };
}

// One line under the form: how much it would be, and what is wrong.
export function ManySummary({ many: { plan, error, active, hasUploads, values } }) {
  if (hasUploads) return html`<p class="hint row warning" role="status"><${Icon} name="alert" size=${16} /><span>${t("many.no_uploads")}</span></p>`;
  if (error) return html`<${ErrorMessage} error=${error} />`;
  const lines = promptLines(values.prompt).length;
  const parts = plan ? [t("many.requests", { n: formatNumber(plan.requests.length) }), t(`many.results_${values.mode}`, { n: formatNumber(plan.results) }), ...plan.totals.map(total), plan.eta && t("play.wait", { time: formatDuration(plan.eta.p50) })] : [t("many.lines", { n: formatNumber(lines) })];
  return html`<div class="estimate" aria-live="polite">${active && html`<p class="hint row"><${Icon} name="list" size=${16} />${parts.filter(Boolean).join(" · ")}</p>`}
    ${plan && !plan.acceptable && html`<p class="hint row warning"><${Icon} name="alert" size=${16} /><span>${plan.errors ? t("many.errors", { n: formatNumber(plan.errors) }) : html`<${Message} text=${plan.refusals[0].message} />`}</span></p>`}</div>`;
}

// The list of all requests with the total, and the button that makes them.
export function ManyDialog({ many }) {
  const [error, setError] = useState(null);
  const [refused, setRefused] = useState(null);
  const [busy, setBusy] = useState(null);
  const { dialog, plan } = many;
  useEffect(() => {
    setError(null);
    setRefused(null);
  }, [dialog, plan]);
  if (!dialog) return null;
  const make = async () => {
    setError(null);
    setBusy(0);
    try {
      const batch = await sendBatch(many, setBusy);
      if (batch.status === "failed") setRefused(batch.errors);
      else {
        toast(t("many.accepted", { n: formatNumber(batch.request_counts.total) }));
        forgetSeedOfJob();
        many.close();
      }
    } catch (failure) {
      setError(failure);
    }
    setBusy(null);
  };
  const footer = plan && html`<p class="many-total" role="status"><strong>${plan.totals.map(total).join(" + ") || "–"}</strong> <span class="hint">${t("many.requests", { n: formatNumber(plan.requests.length) })} · ${t(`many.results_${many.values.mode}`, { n: formatNumber(plan.results) })}</span></p>
    <${Button} onClick=${many.close}>${t("action.cancel")}<//><${Button} kind="primary" icon="spark" busy=${busy !== null} disabled=${!plan.acceptable} onClick=${make}>${t("many.make", { n: formatNumber(plan.requests.length) })}<//>`;
  return html`<${Dialog} wide title=${t("many.title")} onClose=${many.close} actions=${footer}>
    ${many.error && html`<${ErrorMessage} error=${many.error} />`}
    ${error && html`<${ErrorMessage} error=${error} onRetry=${make} />`}
    ${refused && html`<div class="failure" role="alert"><${Icon} name="alert" /><div><p class="failure-text">${t("many.refused")}</p>
      <ul>${refused.data.slice(0, 10).map((item, n) => html`<li key=${n}>${item.line ? `${t("many.line", { n: item.line })} ` : ""}<${Message} text=${item.message} /></li>`)}</ul></div></div>`}
    ${plan && plan.refusals.map((item, n) => html`<p key=${n} class="failure" role="alert"><${Icon} name="alert" /><span><${Message} text=${item.message} /></span></p>`)}
    ${many.loading && html`<p class="hint" role="status"><span class="spinner" aria-hidden="true"></span> ${t("state.loading")}</p>`}
    ${busy > 0 && html`<${Progress} value=${busy * 100} label=${t("many.checking")} />`}
    ${plan && html`<${PlanTable} plan=${plan} />`}
    <p class="hint">${t("many.all_or_none")} <${Link} to="batches" onClick=${many.close}>${t("many.batches")}<//></p><//>`;
}

function PlanTable({ plan }) {
  const hasLength = plan.requests.some((item) => item.seconds);
  const columns = ["prompt", "model", "ratio", ...(hasLength ? ["length"] : []), "resolution", "results", "price"];
  const label = (name) => t(`many.column_${name}`);
  const cell = (name, content) => html`<td class=${name === "price" || name === "results" ? "figure" : ""} data-label=${label(name)}>${content}</td>`;
  return html`<div class="table-wrap many-table" tabindex="0" role="region" aria-label=${t("many.title")}><table class="table"><thead><tr>${columns.map((name) => html`<th key=${name} class=${name === "price" || name === "results" ? "figure" : ""}>${label(name)}</th>`)}</tr></thead>
    <tbody>${plan.requests.slice(0, SHOWN_LINES).map((item, n) => html`<tr key=${n} class=${item.error ? "bad-row" : ""}>
      ${cell("prompt", html`<div><span class="hint numeric">${n + 1}</span> <span>${item.prompt}</span>${item.error && html`<p class="field-error"><${Message} text=${item.error.message} /></p>`}</div>`)}
      ${cell("model", item.model)}${cell("ratio", item.ratio ?? "–")}${hasLength && cell("length", item.seconds ? formatDuration(item.seconds) : "–")}
      ${cell("resolution", item.resolution ?? "–")}${cell("results", formatNumber(item.results))}${cell("price", price(item))}</tr>`)}</tbody></table></div>`;
}

// The most that the accepted requests may cost is what the plan showed.
function limits({ totals, known }) {
  if (!known) return {};
  const credits = totals.filter(({ currency }) => !currency);
  const money = totals.filter(({ currency }) => currency);
  return {
    ...(credits.length ? { max_credits: credits[0].credits } : {}),
    ...(money.length === 1 ? { max_cost: `${money[0].cost} ${money[0].currency}` } : {}),
  };
}

// Send all requests and wait until they are accepted or refused as a whole. Returns the batch.
async function sendBatch({ matrix, headers, plan, dialog }, onProgress) {
  let batch = await api.post("/v1/batches", { ...matrix, ...limits(plan) }, { headers: { ...headers, "Idempotency-Key": dialog } });
  while (batch.status === "validating") {
    onProgress(batch.checked / plan.requests.length);
    await new Promise((resolve) => setTimeout(resolve, CHECK_MS));
    batch = await api.get(`/v1/batches/${batch.id}`);
  }
  return batch;
}
