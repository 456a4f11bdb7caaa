// The models that the user may choose, with prices, usual times and samples: one request, kept for a minute.
import { signal, useEffect } from "../ui/preact.js";
import { api, session } from "../api/client.js";
import { accountHeaders } from "../ui/accounts/available.js";

const FRESH_MS = 60000;

// { data, error, loading }; `data` = rows of `GET /v1/models?details=true`.
const loaded = signal({ data: null, error: null, loading: false });
// Whose models they are, on whose accounts, and when they were read.
let known = { of: "", at: 0 };
let latest = 0;

async function read(of) {
  const request = ++latest;
  loaded.value = { data: known.of === of ? loaded.value.data : null, error: null, loading: true };
  known = { of, at: Date.now() };
  try {
    const { data } = await api.get("/v1/models", { details: "true" }, { headers: accountHeaders() });
    if (request === latest) loaded.value = { data, error: null, loading: false };
  } catch (error) {
    known = { of: "", at: 0 };
    if (request === latest) loaded.value = { ...loaded.value, error: loaded.value.data ? null : error, loading: false };
  }
}

// Read the models unless they are known; `fresh` = not older than that many milliseconds.
export function loadModels(fresh = FRESH_MS) {
  const of = JSON.stringify([session.value?.user, accountHeaders()]);
  if (known.of !== of || Date.now() - known.at > fresh) read(of);
}

// { data, error, loading, reload() }: the rows that are known are shown while they are read again.
export function useModels() {
  const whose = JSON.stringify(accountHeaders());
  useEffect(() => loadModels(), [whose]);
  return { ...loaded.value, reload: () => loadModels(0) };
}

// Rows that lists have. The others are shown with the reason why they cannot be used.
export const isListed = (model) => model.listed !== false;

// The name of a model; with its id where several of the rows have the name.
export function modelTitle(model, rows) {
  const isRepeated = rows.some((other) => other !== model && other.model_name === model.model_name);
  return isRepeated ? `${model.model_name} · ${model.id}` : model.model_name;
}

// What several models have in common, as one row: the form offers what all of them take.
export function commonModel(rows) {
  const [first] = rows;
  if (rows.length < 2) return first;
  const inAll = (name) => first[name]?.filter((value) => rows.every((row) => row[name]?.includes(value)));
  const least = (name) => Math.min(...rows.map((row) => row[name] ?? 0));
  const sameField = (field) => rows.every((row) => row.fields.some((other) => JSON.stringify(other) === JSON.stringify(field)));
  return {
    ...first,
    ...Object.fromEntries(["resolutions", "ratios", "counts", "durations"].map((name) => [name, inAll(name)])),
    ...Object.fromEntries(["references", "reference_videos", "reference_audios"].map((name) => [name, least(name)])),
    ...Object.fromEntries(["first_frame", "end_frame", "omni"].map((name) => [name, rows.every((row) => row[name])])),
    frame_decides_ratio: rows.some((row) => row.frame_decides_ratio),
    default_count: rows.every((row) => row.default_count === first.default_count) ? first.default_count : inAll("counts")?.[0],
    fields: first.fields.filter(sameField),
  };
}
