// Generates images and videos with a form that fits the selected model, shows the newest results, and chats with the agent.
import { html, useEffect } from "../lib/ui/preact.js";
import { api, hasScope } from "../lib/api/client.js";
import { useJobEvents } from "../lib/api/jobs.js";
import { useLoaded } from "../lib/api/loading.js";
import { changeMode, draft } from "../lib/state/draft.js";
import { t } from "../lib/state/language.js";
import { useModels } from "../lib/state/models.js";
import { navigate } from "../lib/state/router.js";
import { isPhone } from "../lib/state/screen.js";
import { FirstRun } from "../lib/ui/accounts/first_run.js";
import { AgentChat } from "../lib/ui/agent/chat.js";
import { EmptyState, ErrorMessage, Loading, PageHeader, RadioGroup } from "../lib/ui/components.js";
import { GenerationForm } from "../lib/ui/composer/form.js";
import { useEndOfPage } from "../lib/ui/composer/phone.js";
import { useShared } from "../lib/ui/composer/shared.js";
import { JobCard } from "../lib/ui/job_views.js";

const RECENT = 12;

export default function Playground({ query }) {
  useModeOfAddress(query);
  const models = useModels();
  useShared(query.shared);
  const modes = [["image", t("mode.image"), "image"], ["video", t("mode.video"), "video"], ["chat", t("mode.chat"), "chat"]];
  const { mode } = draft.value;
  let body = html`<${Loading} />`;
  if (models.error) body = html`<${ErrorMessage} error=${models.error} onRetry=${models.reload} />`;
  else if (models.data) body = mode === "chat" ? html`<${AgentChat} models=${models.data} conversation=${query.conversation} />` : html`<${Studio} models=${models.data} />`;
  return html`<${PageHeader} title=${t("nav.playground")}><${RadioGroup} hideLabel label=${t("mode.label")} value=${mode} options=${modes}
    onChange=${(value) => navigate(withMode(query, value))} /><//>${body}${mode === "chat" && html`<div class="gap"><${FirstRun} /></div>`}`;
}

// The modes as the address names them.
const MODES = { image: "image", video: "video", agent: "chat" };
const withMode = ({ conversation, ...query }, mode) => `?${new URLSearchParams({ ...query, mode: mode === "chat" ? "agent" : mode, ...(mode === "chat" && conversation && { conversation }) })}`;

// The address names the mode, so that Back and links work. Without one, the mode of the draft goes there.
function useModeOfAddress(query) {
  useEffect(() => {
    if (Object.hasOwn(MODES, query.mode)) changeMode(MODES[query.mode]);
    else navigate(withMode(query, query.mode === "chat" ? "chat" : draft.value.mode), { replace: true });
  }, [query.mode]);
}

// The form stands first, so that nothing pushes it down; what leads to an own account is beside the results.
function Studio({ models }) {
  const recent = useRecentJobs();
  const canMake = hasScope("generate");
  // On phones the form is at the bottom, and the newest result is the nearest to it.
  const below = canMake && isPhone.value;
  const results = useEndOfPage(below);
  const form = canMake && html`<${GenerationForm} models=${models} recent=${recent.jobs} />`;
  const cards = recent.jobs.map((job) => html`<${JobCard} key=${job.id} job=${job} />`);
  // What was just asked for is beside the form, the way to an own account after it.
  const newest = !below && cards.shift();
  return html`<div class=${canMake ? "studio" : "stack"}>
    ${!below && form}
    <section class="stack" ref=${results} aria-label=${t("play.results")}>
      ${newest}
      <${FirstRun} />
      ${recent.error && html`<${ErrorMessage} error=${recent.error} onRetry=${recent.reload} />`}
      ${recent.loading && !recent.jobs.length && html`<${Loading} />`}
      ${!recent.loading && !recent.error && !recent.jobs.length && html`<div class="card">${canMake
        ? html`<${EmptyState} icon="spark" title=${t("play.empty")}>${t("play.empty_text")}<//>`
        : html`<${EmptyState} icon="lock" title=${t("play.read_only")}>${t("play.read_only_text")}<//>`}</div>`}
      ${!canMake && recent.jobs.length > 0 && html`<p class="hint">${t("play.read_only_text")}</p>`}
      ${below ? cards.reverse() : cards}
    </section>${below && form}</div>`;
}

// The newest jobs, updated by the job feed.
function useRecentJobs() {
  const loaded = useLoaded(() => api.get("/v1/jobs", { limit: RECENT, kind: "image,video" }));
  useJobEvents(({ job, deletedId, reset }) => {
    if (reset) loaded.reload();
    else if (loaded.data) loaded.setData((list) => ({ ...list, data: mergeJob(list.data, job, deletedId) }));
  });
  return { ...loaded, jobs: loaded.data?.data ?? [] };
}

function mergeJob(jobs, job, deletedId) {
  if (deletedId) return jobs.filter((item) => item.id !== deletedId);
  if (job.kind === "chat") return jobs;
  if (jobs.some((item) => item.id === job.id)) return jobs.map((item) => (item.id === job.id ? job : item));
  // Ids sort by time: a changed job that is older than the newest ones does not belong to the list.
  if (jobs.length && job.id < jobs.at(-1).id) return jobs;
  return [job, ...jobs].sort((first, second) => (first.id < second.id ? 1 : -1)).slice(0, Math.max(RECENT, jobs.length));
}
