// Jobs as every page has them: one live feed for the whole page, and what can be done with a job.
import { signal, useEffect, useRef } from "./ui.js";
import { api, here } from "./api.js";
import { t } from "./language.js";
import { follow } from "./live.js";
import { confirm, toast } from "./parts.js";

const listeners = new Set();
// Ids of the jobs that are open, for the number in the menu.
export const openJobs = signal(new Set());

export const isOpen = (job) => job.status === "queued" || job.status === "in_progress";

function tell(event) {
  for (const listener of listeners) listener(event);
}

function note(jobs) {
  const ids = new Set(openJobs.value);
  for (const job of jobs) {
    if (isOpen(job)) ids.add(job.id);
    else ids.delete(job.id);
  }
  openJobs.value = ids;
}

// Begin to follow all jobs of whoever is signed in; returns a function that ends it.
export function startFeed() {
  return follow("/v1/jobs/events", {
    snapshot: ({ data }) => {
      openJobs.value = new Set();
      note(data);
      for (const job of data) tell({ job });
    },
    job: (job) => {
      note([job]);
      tell({ job });
    },
    // Too much was missed: lists are read again.
    reset: () => tell({ reset: true }),
  });
}

// `handle({ job })` for each job that is new or looks different, `handle({ reset: true })` when lists are stale.
export function useJobNews(handle) {
  const newest = useRef(handle);
  newest.current = handle;
  useEffect(() => {
    const listener = (event) => newest.current(event);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
}

// Put a job that we were just told of into every list, as if the feed had told it.
export function learn(job) {
  note([job]);
  tell({ job });
}

// What a job was asked for: the prompt, or what was said last in a conversation.
export const promptOf = (job) => job.input.prompt ?? job.input.messages?.findLast((one) => one.role === "user")?.text ?? "";
export const titleOf = (job) => promptOf(job) || t(`kind.${job.kind}`);
export const filesOf = (job) => (Array.isArray(job.output) ? job.output : []);
// A small copy; `tiny` for lists, where it is as large as a line.
export function thumbnail(file, { tiny = false } = {}) {
  if (file.mime.startsWith("video/")) return here(file.thumbnail_url ?? "");
  const link = here(file.url.replace(/\/content(?=\?|$)/, "/thumbnail"));
  return tiny ? `${link}${link.includes("?") ? "&" : "?"}size=small` : link;
}
export const secondsOf = (job) => (job.completed_at ? job.completed_at - job.created_at : null);

export async function cancelJob(job) {
  learn(await api.post(`/v1/jobs/${job.id}/cancel`));
  toast(t("job.cancel_asked"));
}

// A new job like an old one; `seed` = "same" or "new".
export async function retryJob(job, seed = "new") {
  const made = await api.post(`/v1/jobs/${job.id}/retry`, { seed });
  learn(made);
  toast(t("job.started"));
  return made;
}

export async function markJob(job, favourite) {
  const path = `/v1/jobs/${job.id}/favourite`;
  learn(await (favourite ? api.put(path) : api.delete(path)));
}

// Asks first; true when the job is gone.
export async function deleteJob(job) {
  const sure = await confirm({ title: t("job.delete"), text: t("job.delete_text"), action: t("action.delete") });
  if (!sure) return false;
  await api.delete(`/v1/jobs/${job.id}`);
  tell({ gone: job.id });
  toast(t("job.deleted"));
  return true;
}
