// Why a queued job waits, loaded again while it does.
import { html } from "../preact.js";
import { fetchWaiting } from "../../api/jobs.js";
import { usePolling } from "../../api/loading.js";
import { language, t } from "../../state/language.js";
import { CodeName, RelativeTime } from "../components.js";
import { Icon } from "../icons.js";

const REFRESH_SECONDS = 4;

export function WhyWaiting({ job }) {
  const loaded = usePolling(() => fetchWaiting(job), REFRESH_SECONDS, [job.id]);
  const waiting = loaded.data;
  // The progress above still shows the position.
  if (!waiting || waiting.status !== "queued") return null;
  return html`<section class="card" aria-label=${t("job.why_waiting")}><h2>${t("job.why_waiting")}</h2>
    <p class="row"><${Icon} name="clock" size=${18} /><span>${waiting.text[language.value]}</span></p>
    ${waiting.data.length > 0 && html`<ul class="stack gap">${waiting.data.map((one) => html`<li key=${one.reason}><p>${one.text[language.value]}</p>
      <p class="hint">${one.code && html`<${CodeName} code=${one.code} />`}${one.code && one.until && " · "}${one.until && html`${t(one.reason === "delay" ? "job.continues" : "accounts.available_again")} <${RelativeTime} at=${one.until} />`}${one.labels?.length > 0 && html`${(one.code || one.until) && " · "}<span class="break">${one.labels.join(t("list.separator"))}${one.accounts > one.labels.length ? "…" : ""}</span>`}</p></li>`)}</ul>`}</section>`;
}
