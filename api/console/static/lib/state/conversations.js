// Conversations: the list, and the turns of each as far as they were loaded. The server keeps them. Module state, so that an answer
// continues while another page is shown.
import { effect, signal } from "../ui/preact.js";
import { api, session } from "../api/client.js";
import { followAnswer, postChat, readAnswer } from "../api/chat_stream.js";
import { isOpen } from "../api/jobs.js";
import { createId } from "./pictures.js";

export const NEW = "new";
const PAGE = 30;
// New text is shown this often, a long answer more rarely: each time, the whole of it is read as Markdown.
const SHOW_TEXT_MS = 60;
const SHOW_MS_PER_CHAR = 0.01;
// A stream that ended too early is followed again after this time.
const FOLLOW_AGAIN_MS = 2000;

// --- the list ---

const EMPTY_LIST = { rows: [], more: false, query: "", loaded: false, error: null };
export const list = signal(EMPTY_LIST);
let listRequest = 0;

export async function loadList({ query = list.peek().query, more = false } = {}) {
  const request = ++listRequest;
  const before = list.peek();
  const after = more ? before.rows.at(-1)?.id : undefined;
  // A changed conversation may come first now: as many as were shown are read again.
  const limit = more ? PAGE : Math.min(Math.max(query === before.query ? before.rows.length : 0, PAGE), 100);
  try {
    const page = await api.get("/v1/conversations", { q: query, after, limit });
    if (request !== listRequest) return;
    list.value = { rows: more ? [...before.rows, ...page.data] : page.data, more: page.has_more, query, loaded: true, error: null };
  } catch (error) {
    if (request === listRequest) list.value = { ...list.peek(), query, error };
  }
}

export async function renameConversation(id, title) {
  const changed = await api.patch(`/v1/conversations/${id}`, { title });
  list.value = { ...list.peek(), rows: list.peek().rows.map((row) => (row.id === id ? changed : row)) };
}

export async function deleteConversation(id) {
  await api.delete(`/v1/conversations/${id}`);
  talks.delete(id);
  list.value = { ...list.peek(), rows: list.peek().rows.filter((row) => row.id !== id) };
}

// --- one conversation ---

// id -> signal of { turns, loaded, error }. A turn is one of the API; `stage` = what its answer waits for, `streaming` = its text
// arrives here.
const talks = new Map();

export function talkOf(id) {
  if (!talks.has(id)) talks.set(id, signal({ turns: [], loaded: id === NEW, error: null }));
  return talks.get(id);
}

export const startNew = () => talks.delete(NEW);

// Another user sees nothing of this one. A user who signs in again finds them.
let owner = "";
effect(() => {
  const user = session.value?.user;
  if (!user || user === owner) return;
  owner = user;
  talks.clear();
  list.value = EMPTY_LIST;
});

// The newest load of each conversation, with what the feed reported meanwhile: the answer may be older than that.
const loads = new Map();

// The turns on the server, in place of those that were shown. A text that arrives here is newer than the server's.
export async function loadTalk(id) {
  const talk = talkOf(id);
  if (id === NEW) return;
  const load = { events: [] };
  loads.set(id, load);
  try {
    const turns = [];
    for (let after, more = true; more; ) {
      const page = await api.get(`/v1/conversations/${id}/turns`, { limit: 100, after });
      turns.push(...page.data);
      more = page.has_more;
      after = page.last_id;
    }
    if (loads.get(id) !== load) return;
    const live = new Map(talk.peek().turns.filter((turn) => turn.streaming).map((turn) => [turn.id, turn]));
    const shown = turns.map((turn) => (live.has(turn.id) ? { ...turn, ...pickLive(live.get(turn.id)) } : turn));
    const unknown = [...live.values()].filter((turn) => !turns.some(({ id: known }) => known === turn.id));
    talk.value = { turns: [...shown, ...unknown], loaded: true, error: null };
  } catch (error) {
    if (loads.get(id) === load) {
      loads.delete(id);
      talk.value = { ...talk.peek(), loaded: true, error };
    }
    return;
  }
  loads.delete(id);
  for (const event of load.events) applyEvent(id, event);
  const newest = talk.peek().turns.at(-1);
  if (newest?.kind === "chat" && newest.answering && !newest.streaming) follow(id, newest.id);
}

const pickLive = ({ content, stage }) => ({ content, stage, streaming: true });

function change(talk, turnId, values) {
  talk.value = { ...talk.peek(), turns: talk.peek().turns.map((turn) => (turn.id === turnId ? { ...turn, ...values } : turn)) };
}

// Shows the text of a stream as it arrives, and at its end what the server has.
async function show(id, turnId, response) {
  const talk = talkOf(id);
  let text = "";
  let timer = 0;
  const flush = () => {
    timer = 0;
    change(talk, turnId, { content: text, stage: "" });
  };
  try {
    await readAnswer(response, {
      onText(all) {
        text = all;
        timer ||= setTimeout(flush, SHOW_TEXT_MS + all.length * SHOW_MS_PER_CHAR);
      },
      onStage: (stage) => change(talk, turnId, { stage }),
    });
  } catch {
    // The server knows how it ended: a failure, a cancelled answer, or one that continues.
  }
  clearTimeout(timer);
  // Whether it still writes, the server knows; without a conversation there is nobody to ask.
  change(talk, turnId, { ...(text && { content: text }), stage: "", streaming: false, ...(id === NEW && { answering: false }) });
  await Promise.all([loadTalk(id), loadList()]);
}

let followedAt = 0;
async function follow(id, turnId) {
  const talk = talkOf(id);
  const wait = followedAt + FOLLOW_AGAIN_MS - Date.now();
  followedAt = Date.now() + Math.max(wait, 0);
  if (wait > 0) await new Promise((resolve) => { setTimeout(resolve, wait); });
  change(talk, turnId, { streaming: true, stage: "" });
  try {
    await show(id, turnId, await followAnswer(id));
  } catch {
    change(talk, turnId, { streaming: false });
  }
}

const isAgent = (model) => model.kind === "chat";

// The content of a message: a text, or OpenAI's parts if it has pictures.
const contentOf = (text, images) =>
  images.length ? [...(text ? [{ type: "text", text }] : []), ...images.map(({ source }) => ({ type: "image_url", image_url: { url: source } }))] : text;

// Send a message. `replaces` and `continues` = the id of the newest turn. `onAccepted(id)` is called with the conversation; then
// the answer arrives in the turns. Throws the error of a message that was not accepted.
export async function sendMessage(id, { text, images, model, headers, replaces, continues, onAccepted }) {
  const talk = talkOf(id);
  const before = talk.peek();
  const local = { id: createId(), kind: model.kind, model: model.id, messages: [{ role: "user", content: text }], content: "", note: "", status: "queued",
    answering: true, streaming: true, stage: "", inputs: images.length, images, continues: Boolean(continues), cut_off: false, error: null, results: [] };
  const place = replaces ? before.turns.findIndex((turn) => turn.id === replaces) : before.turns.length;
  talk.value = { ...before, turns: [...before.turns.slice(0, place), local] };
  const conversation = id === NEW && !replaces && !continues ? NEW : { id, ...(replaces && { replaces }), ...(continues && { continues }) };
  const body = { model: model.id, messages: [{ role: "user", content: contentOf(text, images) }], conversation, ...(isAgent(model) ? { stream: true } : { async: true }) };
  let response;
  try {
    response = await postChat(body, headers);
  } catch (error) {
    talk.value = before;
    throw error;
  }
  const turnId = response.headers.get("x-job-id") ?? local.id;
  const accepted = response.headers.get("x-conversation-id") ?? id;
  change(talk, local.id, { id: turnId });
  if (accepted !== id) {
    talks.set(accepted, talk);
    talks.delete(id);
  }
  onAccepted(accepted);
  if (isAgent(model)) {
    show(accepted, turnId, response);
    return;
  }
  const created = await response.json();
  change(talk, turnId, { streaming: false, results: created.jobs ?? [created] });
  loadList();
}

export const stopAnswer = (turn) =>
  Promise.all((turn.kind === "chat" ? [turn] : turn.results.filter(isOpen)).map(({ id }) => api.post(`/v1/jobs/${id}/cancel`)));

// What the job feed reports, for the conversation that is shown.
export function applyEvent(id, { job, deletedId, reset }) {
  const talk = talkOf(id);
  const { turns } = talk.peek();
  if (!reset) loads.get(id)?.events.push({ job, deletedId });
  if (reset) {
    loadTalk(id);
    loadList();
  } else if (deletedId) {
    talk.value = { ...talk.peek(), turns: turns.map((turn) => ({ ...turn, results: turn.results.filter((result) => result.id !== deletedId) })) };
  } else if (job.kind === "chat") applyChat(id, turns, job);
  else applyResult(id, talk, turns, job);
}

function applyChat(id, turns, job) {
  if (!job.input.conversation) return;
  const known = turns.find((turn) => turn.id === job.id);
  if (!list.peek().rows.some((row) => row.id === job.input.conversation) && !list.peek().query) loadList();
  if (job.input.conversation !== id) return;
  // Another page or device sent it, its text is complete while the agent's jobs still run, or its answer ended.
  if (!known || known.streaming || (known.answering && (!isOpen(job) || talkOf(id).peek().error))) loadTalk(id);
}

function applyResult(id, talk, turns, job) {
  const turn = turns.find((item) => item.id === job.parent || (item.kind !== "chat" && (item.id === job.group || item.id === job.id)));
  if (!turn) {
    if (job.input.conversation === id && job.id === job.group) loadTalk(id);
    return;
  }
  const isKnown = turn.results.some((result) => result.id === job.id);
  const results = isKnown ? turn.results.map((result) => (result.id === job.id ? job : result)) : [...turn.results, job];
  const ended = turn.kind !== "chat" && results.every((result) => !isOpen(result));
  change(talk, turn.id, { results, ...(ended && { answering: false, status: job.status, error: results.every((result) => result.error) ? job.error : null }) });
}
