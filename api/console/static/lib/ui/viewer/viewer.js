// The full-screen viewer: what it shows, and its place in the address. `?view=KEY` names the picture, so Back closes the viewer, and a
// reload opens it again. stage.js draws it; it comes with PhotoSwipe at the first use.
import { effect, signal, useEffect, useRef } from "../preact.js";
import { api, hasScope, unreachable } from "../../api/client.js";
import { jobFiles, subscribeToJobs } from "../../api/jobs.js";
import { itemsOf } from "../../api/results.js";
import { t } from "../../state/language.js";
import { navigate, route } from "../../state/router.js";
import { toast } from "../components.js";
import { fileId, itemKey, jobIdOf } from "./items.js";

export { itemKey };

// The lists of the present page: token -> { items, options }.
const lists = new Map();
const changes = signal(0);
const OPENED = {};
const ALONE = {};
let stage = null; // the open viewer
let starting = null; // the key that is being opened
let leaving = null; // the key that Back removes from the address

// Register the items of a list (items.js) and return `open(index)`. `options`: `onNearEnd()` = load more items; `selection` =
// { has(item), toggle(item) }; `actions` = what replaces `star(item)`, `isStarred(item)` and `remove(item)` of actions.js;
// `readOnly` = nothing can be changed.
export function useViewer(items, options = {}) {
  const token = useRef(null);
  token.current ??= {};
  useEffect(() => {
    setList(token.current, { items, options });
  });
  useEffect(() => () => setList(token.current, null), []);
  return (index) => open(items[index]);
}

// Open the viewer for items that are no list of the page, for example the pictures of a text.
export function openViewer(items, index = 0, options = {}) {
  setList(OPENED, { items, options });
  open(items[index]);
}

function setList(token, list) {
  if (list) lists.set(token, list);
  else if (!lists.delete(token)) return;
  changes.value = changes.peek() + 1;
}

// Change the query of the address without the parameters of the viewer's own state.
export function setAddress(parameters, { replace = false, state = null } = {}) {
  const query = Object.entries({ ...route.peek().query, ...parameters }).filter(([, value]) => value);
  const text = new URLSearchParams(query).toString();
  navigate(route.peek().path + (text ? `?${text}` : ""), { replace, state });
}

const open = (item) => setAddress({ view: itemKey(item) }, { replace: Boolean(route.peek().query.view), state: { viewer: true } });

const contains = (list, key) => list?.items.some((item) => itemKey(item) === key);

// The token of a list with this item; the lists of the page come before the results of a single job.
const findList = (key) => [...lists.keys()].sort((one, other) => (one === ALONE) - (other === ALONE)).find((token) => contains(lists.get(token), key));

// Closing undoes the step that opened the viewer; a viewer opened by a link has none.
function leave() {
  const key = route.peek().query.view;
  stage = null;
  lists.delete(ALONE);
  lists.delete(OPENED);
  if (!key) return;
  if (history.state?.viewer) {
    leaving = key;
    history.back();
  } else setAddress({ view: "" }, { replace: true });
}

// Draw what the address says; called at each change of the address and of a list.
function follow() {
  const { path, query: { view: key } } = route.peek();
  if (leaving === key) return;
  leaving = null;
  if (!key) {
    starting = null;
    stage?.close({ quick: path !== stage.path });
    stage = null;
    return;
  }
  if (stage) {
    const own = lists.get(stage.token);
    const better = stage.token === ALONE || !contains(own, key) ? findList(key) : null;
    if (better) stage.token = better;
    const list = lists.get(stage.token);
    if (contains(list, key) || (list && key === stage.key())) stage.update(list, key);
    return;
  }
  const token = findList(key);
  if (token) start(token, key, path);
  else loadAlone(key);
}

// The item of a key: of a list of the page, or of its job.
export async function findItem(key) {
  const wanted = (item) => itemKey(item) === key;
  const known = [...lists.values()].flatMap(({ items }) => items).find(wanted);
  if (known) return known;
  const found = (await itemsOfJob(key)).find(wanted);
  if (!found) throw new Error(t("viewer.gone"));
  return found;
}

async function itemsOfJob(key) {
  const [id, file] = key.split(".");
  if (!file) throw new Error(t("viewer.gone"));
  const job = await api.get(`${hasScope("admin") ? "/admin" : ""}/v1/jobs/${encodeURIComponent(id)}`);
  return itemsOf(job);
}

async function start(token, key, path) {
  if (starting === key) return;
  starting = key;
  try {
    const { createStage } = await import("./stage.js");
    const list = lists.get(token);
    if (starting !== key || stage || !contains(list, key)) return;
    const onMove = (moved) => setAddress({ view: moved }, { replace: true, state: history.state });
    stage = Object.assign(createStage(list, key, { onMove, onClose: leave }), { token, path });
  } catch (error) {
    fail(key, error instanceof TypeError ? unreachable() : error);
  } finally {
    if (starting === key) starting = null;
  }
}

// No list of the page has the picture (a link, or a reload far down in a list): show the results of its job.
async function loadAlone(key) {
  // A list of the page may still come.
  if (!key.includes(".") || starting === key) return;
  starting = key;
  try {
    const items = await itemsOfJob(key);
    if (starting !== key) return;
    starting = null;
    if (contains({ items }, key)) setList(ALONE, { items, options: {} });
    else fail(key, new Error(t("viewer.gone")));
  } catch (error) {
    if (starting === key) starting = null;
    fail(key, error);
  }
}

function fail(key, error) {
  if (stage || route.peek().query.view !== key) return;
  toast(error.message, "bad");
  leave();
}

// Lists of the page follow the job feed by themselves; those of the viewer do it here.
function followJob({ job, deletedId }) {
  const id = job?.id ?? deletedId;
  for (const token of [ALONE, OPENED]) {
    const list = lists.get(token);
    if (!id || !list?.items.some((item) => jobIdOf(item) === id)) continue;
    const files = new Map(job ? jobFiles(job).map((file) => [fileId(file), file]) : []);
    const items = list.items.flatMap((item) => {
      if (jobIdOf(item) !== id) return [item];
      const file = files.get(fileId(item.file));
      return file ? [{ ...item, job: { ...item.job, ...job }, file }] : [];
    });
    setList(token, { ...list, items });
  }
}

// Follow the address until the returned function is called.
export function startViewer() {
  const stop = effect(() => {
    route.value;
    changes.value;
    // Later: what `follow` reads must not become a dependency.
    queueMicrotask(follow);
  });
  const unsubscribe = subscribeToJobs(followJob);
  return () => {
    stop();
    unsubscribe();
    stage?.close({ quick: true });
    stage = null;
  };
}
