// Single results (pictures and videos of jobs): pages of them, and what can be done with one or many. An item is { id, job, file }.
import { api, platformUrl } from "./client.js";
import { jobFiles, jobPrompt, publishJob, useJobEvents } from "./jobs.js";
import { usePages } from "./pagination.js";
import { formatDateTime, t } from "../state/language.js";
import { confirm, toast } from "../ui/components.js";

// Limits of the API.
const MOST_FILES = 500;
const MOST_IN_ZIP = 200;
const MOST_JOBS = 100;

// The results of a job that are still there.
export const itemsOf = (job) => jobFiles(job).filter((file) => !file.expired).map((file) => ({ id: file.id, job, file }));

const isShaped = ({ width, height }, ratio) => {
  if (!width || !height) return false;
  if (ratio === "landscape") return width > height * 1.03;
  if (ratio === "portrait") return height > width * 1.03;
  return Math.abs(width / height - 1) <= 0.03;
};

// Whether a result belongs to a list with this filter (the query of `/v1/results`).
export function matchesFilter({ job, file }, { kind, model, q, favourite, ratio, created_after: since, created_before: until }) {
  return (
    job.status === "completed" && job.kind !== "chat" && (!kind || job.kind === kind) && (!model || job.model === model) && (!favourite || file.favourite) &&
    (!q || jobPrompt(job).toLowerCase().includes(q.toLowerCase())) && (!ratio || isShaped(file, ratio)) &&
    (!since || job.created_at >= since) && (!until || job.created_at < until)
  );
}

// The results that match a filter, in the order of `filter.order`: { items, loading, error, loadMore(), reload() }. The job feed adds,
// changes and removes them.
export function useResultPages(filter, limit) {
  const [state, setState, { loadMore, reload }] = usePages(JSON.stringify(filter), async (after) => {
    const { data, jobs, next, has_more: hasMore } = await api.get("/v1/results", { ...filter, limit, after, include: "jobs" });
    const known = new Map(jobs.flatMap(itemsOf).map((item) => [item.id, item]));
    return { items: data.map(({ id }) => known.get(id)).filter(Boolean), next, hasMore };
  });

  useJobEvents(({ job, deletedId, reset }) => {
    if (reset) reload();
    else setState((before) => mergeJob(before, job, deletedId, filter));
  });

  return { ...state, loadMore, reload };
}

function mergeJob(state, job, deletedId, filter) {
  const id = job?.id ?? deletedId;
  const { items, hasMore } = state;
  const first = items.findIndex((item) => item.job.id === id);
  const found = job ? itemsOf(job).filter((item) => matchesFilter(item, filter)) : [];
  if (first < 0 && !found.length) return state;
  const others = first < 0 ? items : items.filter((item) => item.job.id !== id);
  // Ids sort by time. A job beyond the last loaded page comes with its own page.
  const isBehind = filter.order === "asc" ? (other) => other.job.id > id : (other) => other.job.id < id;
  const at = first < 0 ? items.findIndex(isBehind) : first;
  if (at < 0 && hasMore) return state;
  return { ...state, items: others.toSpliced(at < 0 ? others.length : at, 0, ...found) };
}

// Show what an action has changed in every list, before the feed reports it.
function publishChanges(items, changes) {
  const marks = new Map(changes.map((change) => [change.id, change]));
  const jobs = new Map(items.map(({ job }) => [job.id, job]));
  for (const job of jobs.values()) {
    const output = jobFiles(job).filter((file) => !marks.get(file.id)?.deleted)
      .map((file) => (marks.has(file.id) ? { ...file, favourite: marks.get(file.id).favourite, pinned: marks.get(file.id).pinned, expires_at: marks.get(file.id).expires_at } : file));
    const kept = output.filter((file) => !file.expired);
    publishJob({ ...job, output, favourite: output.some((file) => file.favourite), pinned: kept.length > 0 && kept.every((file) => file.pinned) });
  }
}

async function act(action, items) {
  for (let start = 0; start < items.length; start += MOST_FILES) {
    const some = items.slice(start, start + MOST_FILES);
    const { data } = await api.post("/v1/files/actions", { action, files: some.map((item) => item.id) });
    publishChanges(some, data);
  }
}

export const setFavourites = (items, favourite) => act(favourite ? "favourite" : "unfavourite", items);

export async function setPinned(items, pinned) {
  await act(pinned ? "pin" : "unpin", items);
  toast(t(pinned ? "results.pinned" : "results.unpinned", { n: items.length }));
}

// "3 pictures of 2 jobs".
export function countText(items) {
  const jobs = new Set(items.map(({ job }) => job.id)).size;
  const videos = items.filter(({ job }) => job.kind === "video").length;
  const kind = videos === 0 ? "images" : videos === items.length ? "videos" : "files";
  return t(`results.${items.length === 1 ? "one_" : ""}${kind}`, { n: items.length }) + t(jobs === 1 ? "results.of_one_job" : "results.of_jobs", { n: jobs });
}

// Ask for confirmation and delete the results; returns whether they were deleted.
export async function deleteResults(items) {
  const pinned = items.filter(({ file }) => file.pinned || file.favourite).length;
  const text = [t("results.delete_text"), pinned ? t("results.delete_kept", { n: pinned }) : ""].filter(Boolean).join(" ");
  if (!(await confirm({ title: t("results.delete_title", { what: countText(items) }), text, action: t("action.delete") }))) return false;
  const what = countText(items);
  await act("delete", items);
  toast(t("results.deleted", { what }));
  return true;
}

const chunks = (list, size) => Array.from({ length: Math.ceil(list.length / size) }, (_, n) => list.slice(n * size, (n + 1) * size));

// Download the results: one file, or as zips of at most 200.
export function downloadResults(items) {
  const paths = items.length === 1 ? [items[0].file.url] : chunks(items, MOST_IN_ZIP).map((some) => `v1/files/archive?files=${some.map((item) => item.id).join(",")}`);
  paths.forEach((path, n) => {
    // A browser that gets several downloads at once keeps only the last.
    setTimeout(() => {
      const link = document.createElement("a");
      link.href = platformUrl(path);
      link.download = "";
      link.click();
    }, n * 1500);
  });
  if (paths.length > 1) toast(t("results.zips", { n: paths.length }));
}

// Links that expire are read again, so that they are valid for their full time.
async function freshLinks(items) {
  if (!items.some(({ file }) => file.url.includes("signature="))) return items.map(({ file }) => file.url);
  const links = new Map();
  for (const ids of chunks([...new Set(items.map(({ job }) => job.id))], MOST_JOBS)) {
    const { data } = await api.get("/v1/jobs", { ids: ids.join(",") });
    for (const job of data) for (const file of jobFiles(job)) links.set(file.id, file.url);
  }
  return items.map(({ id, file }) => links.get(id) ?? file.url);
}

// Copy the links of results, one a line, and say how long they work.
export async function copyLinks(items) {
  const links = await freshLinks(items);
  try {
    await navigator.clipboard.writeText(links.join("\n"));
  } catch {
    toast(t("copy.failed"), "bad");
    return;
  }
  const expires = Number(new URL(links[0]).searchParams.get("expires"));
  toast(t("results.links", { n: links.length }) + (expires ? ` ${t("results.links_expire", { time: formatDateTime(expires) })}` : ""));
}
