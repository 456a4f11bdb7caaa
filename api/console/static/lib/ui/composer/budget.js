// Says quietly which limits of the user are nearly used up, before something is made. What a limit refuses, the estimate says.
import { html, useEffect, useRef } from "../preact.js";
import { api, session } from "../../api/client.js";
import { useJobEvents } from "../../api/jobs.js";
import { useLoaded } from "../../api/loading.js";
import { t } from "../../state/language.js";
import { formatLimit, limitName } from "../charts/limits.js";
import { RelativeTime } from "../components.js";
import { Icon } from "../icons.js";

// Jobs that begin or end change the usage; a burst of them is one question.
const PAUSE_MS = 2000;
// The limits come with a report of some days; the server may use another time zone.
const day = (distance) => new Date(Date.now() + distance * 86400e3).toISOString().slice(0, 10);

export function BudgetNote() {
  const loaded = useLoaded(() => api.get("/v1/usage", { from: day(-1), to: day(1), group_by: "day" }), [session.value?.user]);
  const timer = useRef(0);
  const statuses = useRef(new Map());
  useJobEvents(({ job }) => {
    if (job && statuses.current.get(job.id) === job.status) return;
    if (job) statuses.current.set(job.id, job.status);
    timer.current ||= setTimeout(() => {
      timer.current = 0;
      loaded.reload();
    }, PAUSE_MS);
  });
  useEffect(() => () => clearTimeout(timer.current), []);
  const near = (loaded.data?.limits ?? []).filter((item) => item.state === "warning");
  if (!near.length) return null;
  return html`<ul class="budget-note" role="status">${near.map((item) => html`<li key=${item.scope + item.name} class="hint row"><${Icon} name="chart" size=${16} />
    <span>${t("limit.near", { limit: limitName(item), used: formatLimit(item, item.used), of: formatLimit(item, item.hard ?? item.soft) })}${item.resets_at && html` · ${t("limit.resets")} <${RelativeTime} at=${item.resets_at} />`}</span></li>`)}</ul>`;
}
