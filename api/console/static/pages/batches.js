// Batches: many requests that are accepted as a whole. List with progress and price; a new one shows its total price first.
import { html, useState } from "../lib/ui/preact.js";
import { api, hasScope, platformUrl } from "../lib/api/client.js";
import { usePolling } from "../lib/api/loading.js";
import { formatNumber, t } from "../lib/state/language.js";
import { Link, setQuery } from "../lib/state/router.js";
import { Button, confirm, EmptyState, ErrorMessage, Loading, PageHeader, Progress, RelativeTime, StatusBadge, useAction } from "../lib/ui/components.js";
import { BatchErrors, batchPrice } from "../lib/ui/jobs/batch_price.js";
import { NewBatchDialog } from "../lib/ui/jobs/new_batch.js";

const BASE = "/v1/batches";
const OPEN = new Set(["validating", "in_progress", "finalizing", "cancelling"]);
const FAST_SECONDS = 2;
const SLOW_SECONDS = 15;

export default function Batches({ query }) {
  const [limit, setLimit] = useState(20);
  const [busy, setBusy] = useState(true);
  const loaded = usePolling(async () => {
    const page = await api.get(BASE, { limit });
    setBusy(page.data.some((batch) => OPEN.has(batch.status)));
    return page;
  }, busy ? FAST_SECONDS : SLOW_SECONDS, [limit, busy], { remember: "batches" });
  const batches = loaded.data?.data ?? [];
  const editable = hasScope("generate");
  const close = () => setQuery({ new: "" });
  return html`<${PageHeader} title=${t("nav.batches")} lead=${t("batches.lead")}>${editable && html`<${Button} kind="primary" icon="plus" onClick=${() => setQuery({ new: "1" })}>${t("batches.new")}<//>`}<//>
    ${loaded.error && !loaded.data && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && !loaded.error && html`<${Loading} />`}
    ${loaded.data && !batches.length && html`<div class="card"><${EmptyState} icon="stack" title=${t("batches.empty")}><p>${t("batches.empty_text")}</p><//></div>`}
    ${batches.length > 0 && html`<ul class="batches" aria-label=${t("nav.batches")}>${batches.map((batch) => html`<${Batch} key=${batch.id} batch=${batch} editable=${editable} onChanged=${loaded.reload} />`)}</ul>`}
    ${loaded.data?.has_more && limit < 100 && html`<p><${Button} onClick=${() => setLimit(100)}>${t("action.more")}<//></p>`}
    ${editable && query.new && html`<${NewBatchDialog} onClose=${close} onMade=${() => { close(); loaded.reload(); }} />`}`;
}

function Batch({ batch, editable, onChanged }) {
  const [act, acting] = useAction(async (action) => {
    if (action === "cancel" && !(await confirm({ title: t("batches.cancel"), text: t("batches.cancel_text"), action: t("batches.cancel") }))) return;
    await api.post(`${BASE}/${batch.id}/${action}`);
    onChanged();
  });
  const { total, completed, failed } = batch.request_counts;
  const ended = completed + failed;
  const status = batch.paused ? "paused" : batch.status;
  const going = batch.status === "in_progress";
  const label = batch.metadata.name || batch.id.slice(-8);
  return html`<li class="card batch"><div class="row spread"><h2 class="break">${label}</h2><${StatusBadge} status=${status} /></div>
    <p class="hint"><${RelativeTime} at=${batch.created_at} /> · ${batch.endpoint === "*" ? t("batches.mixed") : html`<code>${batch.endpoint}</code>`}${batch.priority === "idle" ? ` · ${t("batches.idle")}` : ""}${batch.price ? ` · ${batchPrice(batch.price)}` : ""}</p>
    ${batch.status === "validating" && html`<p class="hint" role="status">${t("batches.checked", { n: formatNumber(batch.checked) })}</p>`}
    ${total > 0 && batch.status !== "failed" && html`<div class="batch-progress"><${Progress} value=${(ended * 100) / total} label=${t("job.progress")} /><span class="numeric">${formatNumber(ended)} / ${formatNumber(total)}</span></div>
      <p class="hint">${t("batches.counts", { completed: formatNumber(completed), failed: formatNumber(failed), at_work: formatNumber(batch.at_work) })}</p>`}
    ${batch.not_before && going && batch.not_before * 1000 > Date.now() && html`<p class="hint">${t("batches.not_before")} <${RelativeTime} at=${batch.not_before} /></p>`}
    ${OPEN.has(batch.status) && html`<p class="hint">${t("batches.expires")} <${RelativeTime} at=${batch.expires_at} /></p>`}
    <${BatchErrors} errors=${batch.errors} />
    <div class="row">${batch.status !== "failed" && batch.status !== "validating" && html`<${Link} to=${`jobs?batch=${batch.id}`} class="button small">${t("batches.jobs")}<//>`}
      ${completed > 0 && html`<a class="button small" href=${platformUrl(`${BASE}/${batch.id}/archive`)} download>${t("batches.zip")}</a>`}
      ${batch.output_file_id && html`<a class="button small" href=${platformUrl(`/v1/files/${batch.output_file_id}/content`)} download>${t("batches.output")}</a>`}
      ${batch.error_file_id && html`<a class="button small" href=${platformUrl(`/v1/files/${batch.error_file_id}/content`)} download>${t("batches.error_file")}</a>`}
      ${editable && going && html`<${Button} small icon=${batch.paused ? "play" : "pause"} busy=${acting} onClick=${() => act(batch.paused ? "resume" : "pause")}>${t(batch.paused ? "accounts.resume" : "accounts.pause")}<//>`}
      ${editable && (going || batch.status === "validating") && html`<${Button} small kind="quiet" icon="stop" busy=${acting} onClick=${() => act("cancel")}>${t("batches.cancel")}<//>`}</div></li>`;
}
