// Charts of the last day, week or month, from the platform's own samples.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { usePolling } from "../../api/loading.js";
import { formatDateTime, t } from "../../state/language.js";
import { ErrorMessage, Loading, RadioGroup } from "../components.js";
import { Plot } from "../charts/plot.js";

const DAY = 86400;
// Days -> seconds of a sample.
const STEPS = { 1: 600, 7: 3600, 30: 3600 };
// Without a sample for this long, the monitor does not run.
const SILENT_SECONDS = 240;
const GIGA = 1e9;

// The samples of every step of the time; null where there is none, so that a line has a gap.
function evenly({ from, to, step, data }) {
  const found = new Map(data.map((sample) => [sample.at, sample]));
  const times = [];
  for (let at = Math.ceil(from / step) * step; at < to; at += step) times.push(at);
  return { times, samples: times.map((at) => found.get(at) ?? null) };
}

const COLOURS = ["--accent", "--bad", "--good", "--busy"];
// Each chart: the series with their measures; `scale` = divided by this; `bars` = counts.
const CHARTS = [
  { name: "jobs_ended", bars: true, series: [["status.completed", "jobs_succeeded", "--accent"], ["status.failed", "jobs_failed", "--bad"], ["status.cancelled", "jobs_cancelled", "--line-strong"]] },
  { name: "jobs_open", series: [["history.waiting", "jobs_waiting"], ["history.running", "jobs_running"]] },
  { name: "queue_wait", series: [["history.p50", "queue_wait_p50"], ["history.p95", "queue_wait_p95"]] },
  { name: "generation", series: [["history.p50", "generation_p50"], ["history.p95", "generation_p95"]] },
  { name: "save", series: [["history.p50", "save_p50"], ["history.p95", "save_p95"]] },
  { name: "credits_left", series: [["history.left", "credits_left", "--good"]] },
  { name: "credits_spent", bars: true, series: [["history.spent", "credits_spent", "--good"]] },
  { name: "upstream_calls", bars: true, series: [["history.errors", "upstream_errors", "--bad"], ["history.succeeded", "upstream_ok", "--accent"]] },
  { name: "upstream_latency", series: [["history.p50", "upstream_call_p50"], ["history.p95", "upstream_call_p95"]] },
  { name: "requests", bars: true, series: [["history.errors", "request_errors", "--bad"], ["history.succeeded", "request_ok", "--accent"]] },
  { name: "threads", series: [["history.threads", "worker_threads"], ["history.busy", "worker_threads_busy"], ["history.messages", "messages_waiting"]] },
  { name: "storage", scale: GIGA, series: [["history.used", "storage_used_bytes"], ["history.free", "storage_free_bytes", "--good"]] },
  { name: "servers", scale: 1e6, series: [["check.database", "database_bytes"], ["check.redis", "redis_bytes"]] },
];

const DERIVED = {
  upstream_ok: (sample) => (sample.upstream_calls === null ? null : sample.upstream_calls - sample.upstream_errors),
  request_ok: (sample) => (sample.requests === null ? null : sample.requests - sample.request_errors),
};

function valueOf(sample, measure, scale) {
  const value = sample && (DERIVED[measure] ? DERIVED[measure](sample) : sample[measure]);
  return value === null || value === undefined ? null : Math.round((100 * value) / scale) / 100;
}

export function History() {
  const [days, setDays] = useState(1);
  const loaded = usePolling(() => {
    const to = Math.floor(Date.now() / 1000);
    return api.get(`/admin/v1/metrics/history?from=${to - days * DAY}&to=${to}&step=${STEPS[days]}`);
  }, 60, [days]);
  const history = loaded.data;
  const silent = history && (history.sampled_at === null || history.to - history.sampled_at > SILENT_SECONDS);
  return html`<section class="card stack" aria-labelledby="history-title"><div class="row spread"><h2 id="history-title">${t("history.title")}</h2>
      <${RadioGroup} hideLabel label=${t("history.time")} value=${days} onChange=${setDays} options=${[[1, t("history.day")], [7, t("history.week")], [30, t("history.month")]]} /></div>
    ${loaded.error && !history && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!history && !loaded.error && html`<${Loading} />`}
    ${silent && html`<p class="notice">${history.sampled_at === null ? t("history.none") : t("history.silent", { time: formatDateTime(history.sampled_at) })}</p>`}
    ${history && html`<div class="plots"><${Charts} history=${history} /></div>`}</section>`;
}

function Charts({ history }) {
  const { times, samples } = evenly(history);
  return CHARTS.map(({ name, series, bars = false, scale = 1 }) => html`<div key=${name}><${Plot} bars=${bars} height=${160} unit=${history.step} ticks=${history.to - history.from > DAY ? DAY : history.step} range=${[history.from - (bars ? history.step / 2 : 0), history.to]}
    label=${t(`history.${name}`)} times=${times} series=${series.map(([label, measure, colour], n) => ({ label: t(label), colour: colour ?? COLOURS[n], soft: "--none", values: samples.map((sample) => valueOf(sample, measure, scale)) }))} /></div>`);
}
