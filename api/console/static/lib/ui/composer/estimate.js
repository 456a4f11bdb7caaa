// The estimated time and cost of a request.
import { html, useEffect, useMemo, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { isOpen, jobDuration } from "../../api/jobs.js";
import { withoutUploads } from "../../state/draft.js";
import { formatDuration, formatMoney, formatNumber, t } from "../../state/language.js";
import { Message } from "../components.js";
import { Icon } from "../icons.js";

let estimatesAvailable = true;

// Requested shortly after the last change: `version` is another text for another request. `refused` = the refusal is shown elsewhere.
export function Estimate({ request, version, ready, recent, model, refused }) {
  const [estimate, setEstimate] = useState(null);
  useEffect(() => {
    if (!ready) return undefined;
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      const result = await fetchEstimate(request, controller.signal);
      if (!controller.signal.aborted) setEstimate(result);
    }, 500);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [version, ready]);
  const typical = useMemo(() => medianDuration(recent, model.id), [recent, model.id]);
  // Until the platform has learned the time of such jobs, the user's own jobs say more.
  const wait = estimate && (estimate.learned || typical === null) ? estimate.wait : typical;
  const parts = [wait != null && t("play.wait", { time: formatDuration(wait) }), estimate?.currency && estimate.cost != null && t("play.cost", { n: formatMoney(estimate.cost, estimate.currency) }), !estimate?.currency && estimate?.credits != null && t("play.credits", { n: formatNumber(estimate.credits) })].filter(Boolean);
  return html`<div class="estimate" aria-live="polite">${parts.length > 0 && html`<p class="hint row"><${Icon} name="clock" size=${16} />${parts.join(" · ")}</p>`}
    ${estimate?.refusal && !refused && html`<p class="hint row warning"><${Icon} name="alert" size=${16} /><span><${Message} text=${estimate.refusal} /></span></p>`}</div>`;
}

async function fetchEstimate(request, signal) {
  if (!estimatesAvailable) return null;
  try {
    const response = await api.post("/v1/estimate", { endpoint: request.endpoint, body: withoutUploads(request.body) }, { signal, headers: request.headers });
    return {
      wait: response.eta?.p50 ?? null, learned: response.time_source === "learned", credits: response.credits, currency: response.currency, cost: response.cost,
      refusal: response.refusals[0]?.message,
    };
  } catch (error) {
    // The platform offers no estimates: do not request them again.
    if (error.status === 404) estimatesAvailable = false;
    return null;
  }
}

// The median duration of recent jobs of a model in seconds; null without such jobs.
function medianDuration(jobs, model) {
  const durations = jobs.filter((job) => job.model === model && job.status === "completed" && !isOpen(job)).map(jobDuration).sort((first, second) => first - second);
  return durations.length ? durations[Math.floor(durations.length / 2)] : null;
}
