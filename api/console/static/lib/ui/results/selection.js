// The selected results of the page, in all of its lists: a tick on each, shift for ranges, and the keys of a grid.
import { signal } from "../preact.js";
import { jobFiles, subscribeToJobs } from "../../api/jobs.js";
import { route } from "../../state/router.js";

// Id of a file -> { id, job, file }.
export const selection = signal(new Map());
// Whether the user began a selection before the first tick: fingers have nothing to hover with that shows the ticks.
const begun = signal(false);
let anchor = null;
let path = null;

const change = (edit) => {
  const next = new Map(selection.peek());
  edit(next);
  selection.value = next;
};

export const isSelecting = () => begun.value || selection.value.size > 0;

export function beginSelection() {
  begun.value = true;
}

export function clearSelection() {
  anchor = null;
  begun.value = false;
  if (selection.peek().size) selection.value = new Map();
}

export const selectAll = (items) => change((next) => items.forEach((item) => next.set(item.id, item)));

// Select or unselect an item of a list. `range` = all from the last one to this one get the state of the last one.
export function toggle(item, items, { range = false } = {}) {
  const start = range ? items.findIndex((one) => one.id === anchor) : -1;
  const end = items.findIndex((one) => one.id === item.id);
  change((next) => {
    if (start < 0 || end < 0) {
      if (!next.delete(item.id)) next.set(item.id, item);
      anchor = item.id;
      return;
    }
    const isOn = next.has(anchor);
    for (const one of items.slice(Math.min(start, end), Math.max(start, end) + 1)) {
      if (isOn) next.set(one.id, one);
      else next.delete(one.id);
    }
  });
}

// Another page has other results. The viewer and filters change only the query.
route.subscribe(({ path: now }) => {
  if (path !== null && now !== path) clearSelection();
  path = now;
});

// What the feed changes or removes.
subscribeToJobs(({ job, deletedId }) => {
  const id = job?.id ?? deletedId;
  const affected = [...selection.peek().values()].filter((item) => item.job.id === id);
  if (!affected.length) return;
  const files = new Map(job ? jobFiles(job).map((file) => [file.id, file]) : []);
  change((next) => {
    for (const item of affected) {
      if (files.has(item.id)) next.set(item.id, { ...item, job, file: { ...item.file, ...files.get(item.id) } });
      else next.delete(item.id);
    }
  });
});
