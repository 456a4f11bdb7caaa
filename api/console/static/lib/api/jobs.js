// Jobs: one live feed for the whole console, and the actions on a job.
import { signal, useEffect, useRef } from "../ui/preact.js";
import { api, platformUrl, session } from "./client.js";
import { subscribe } from "./event_stream.js";
import { t } from "../state/language.js";
import { confirm, toast } from "../ui/components.js";

const listeners = new Set();
// Ids of the open jobs; the menu shows their number.
export const openJobIds = signal(new Set());

export const isOpen = (job) => job.status === "queued" || job.status === "in_progress";

function notifyListeners(event) {
  for (const listener of listeners) listener(event);
}

function trackOpenJobs(jobs) {
  const ids = new Set(openJobIds.value);
  for (const job of jobs) {
    if (isOpen(job)) ids.add(job.id);
    else ids.delete(job.id);
  }
  openJobIds.value = ids;
}

// Subscribe to all jobs of the signed-in user; returns a function that unsubscribes.
export function startJobFeed() {
  return subscribe("/v1/jobs/events", {
    snapshot: ({ data }) => {
      openJobIds.value = new Set();
      trackOpenJobs(data);
      for (const job of data) notifyListeners({ job });
    },
    job: (job) => {
      trackOpenJobs([job]);
      notifyListeners({ job });
    },
    deleted: ({ id }) => {
      openJobIds.value = new Set([...openJobIds.value].filter((one) => one !== id));
      notifyListeners({ deletedId: id });
    },
    // Events were missed: lists must be loaded again.
    reset: () => notifyListeners({ reset: true }),
  }, { keepOpen: () => openJobIds.value.size > 0 });
}

// The same events as `useJobEvents`, outside of a component; returns a function that unsubscribes.
export function subscribeToJobs(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// Calls `handle({ job })` for each new or changed job, `handle({ deletedId })` for a deleted one and `handle({ reset: true })`
// when lists are stale.
export function useJobEvents(handle) {
  const latest = useRef(handle);
  latest.current = handle;
  useEffect(() => subscribeToJobs((event) => latest.current(event)), []);
}

// Update a job in every list before the feed delivers it.
export function publishJob(job) {
  trackOpenJobs([job]);
  notifyListeners({ job });
}

// The prompt of a job, or the last user message of a conversation.
export const jobPrompt = (job) => job.input.prompt ?? job.input.messages?.findLast((item) => item.role === "user")?.text ?? "";
export const jobTitle = (job) => jobPrompt(job) || t(`kind.${job.kind}`);
export const jobFiles = (job) => (Array.isArray(job.output) ? job.output : []);
// The URL of a thumbnail; `small` for list rows.
export function thumbnailUrl(file, { small = false } = {}) {
  if (file.mime.startsWith("video/")) return platformUrl(file.thumbnail_url ?? "");
  const link = platformUrl(file.thumbnail_url ?? file.url.replace(/\/content(?=\?|$)/, "/thumbnail"));
  return small ? `${link}${link.includes("?") ? "&" : "?"}size=small` : link;
}
export const jobDuration = (job) => (job.completed_at ? job.completed_at - job.created_at : null);

// Whether the job belongs to another user: administrators get those from `/admin/v1/jobs`, with their `user`.
export const isOthers = (job) => job.user !== undefined && job.user !== session.value?.user;
const pathOf = (job) => `${isOthers(job) ? "/admin" : ""}/v1/jobs/${job.id}`;
// Failures that would only repeat: the prompt has to change.
export const needsOtherPrompt = (job) => ["content_policy_violation", "unsupported_language", "prompt_too_long"].includes(job.error?.code);

// Returns the changed job.
export async function cancelJob(job) {
  const changed = await api.post(`${pathOf(job)}/cancel`);
  if (!isOthers(job)) publishJob(changed);
  toast(t("job.cancelling"));
  return changed;
}

// Why a queued job waits (`Waiting` in the API document).
export const fetchWaiting = (job, options) => api.get(`${pathOf(job)}/waiting`, {}, options);

// Create a new job, of the same user, with the parameters of another; `seed` = "same" or "new".
export async function retryJob(job, seed = "new") {
  const created = await api.post(`${pathOf(job)}/retry`, { seed });
  if (!isOthers(job)) publishJob(created);
  toast(t("job.started"));
  return created;
}

export async function setFavourite(job, favourite) {
  const path = `/v1/jobs/${job.id}/favourite`;
  publishJob(await (favourite ? api.put(path) : api.delete(path)));
}

// Ask for confirmation and delete the job; returns whether it was deleted.
export async function deleteJob(job) {
  const confirmed = await confirm({ title: t("job.delete"), text: t("job.delete_text"), action: t("action.delete") });
  if (!confirmed) return false;
  await api.delete(`/v1/jobs/${job.id}`);
  notifyListeners({ deletedId: job.id });
  toast(t("job.deleted"));
  return true;
}
