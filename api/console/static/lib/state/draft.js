// The values of the playground form, which other pages can fill in, and the API request they make.
import { signal } from "../ui/preact.js";
import { api, platformUrl } from "../api/client.js";
import { keepDraft, loadUploads } from "./draft_storage.js";
import { isListed } from "./models.js";
import { createReference } from "./pictures.js";
import { navigate } from "./router.js";

export const RATIOS = ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9"];
export const EMPTY_DRAFT = {
  mode: "image", prompt: "", model: "", provider: "", ratio: "", resolution: "", count: 0, duration: 0, seed: "", negative: "", strength: 0.5, options: {}, images: [],
  imagesAs: "", missingUploads: 0, modeSettings: {}, seedOfJob: "", many: false, manyModels: [], manyRatios: [],
};

// The settings that belong to the model; each mode has its own.
const MODEL_SETTINGS = ["model", "provider", "ratio", "resolution", "count", "duration", "options", "manyModels", "manyRatios"];
const pick = (values, names) => Object.fromEntries(names.map((name) => [name, values[name]]));

export const draft = signal(EMPTY_DRAFT);
keepDraft(draft, EMPTY_DRAFT);
export const updateDraft = (values) => {
  draft.value = { ...draft.value, ...values };
};
// Set when another page or a result filled in the form: the form shows and focuses the prompt.
export const showPrompt = signal(false);

// Change the mode; the settings of the other mode come back with it.
export function changeMode(mode) {
  const { mode: before, modeSettings } = draft.value;
  if (mode === before) return;
  const saved = { ...modeSettings, [before]: pick(draft.value, MODEL_SETTINGS) };
  draft.value = { ...draft.value, ...(saved[mode] ?? pick(EMPTY_DRAFT, MODEL_SETTINGS)), mode, modeSettings: saved };
}

// The draft that another one replaced, so that it can be brought back.
export const replacedDraft = signal(null);
const rememberDraft = () => {
  if (draft.value.prompt.trim() || draft.value.images.length) replacedDraft.value = draft.value;
};

export function restoreDraft() {
  draft.value = replacedDraft.value;
  replacedDraft.value = null;
  navigate(`?mode=${draft.value.mode}`);
}

export function replacePrompt(prompt) {
  rememberDraft();
  updateDraft({ prompt });
  showPrompt.value = true;
}

// Fill in the form and show it; the settings of the other modes stay.
export function openDraft(values) {
  const { mode, modeSettings } = draft.value;
  rememberDraft();
  draft.value = { ...EMPTY_DRAFT, modeSettings: { ...modeSettings, [mode]: pick(draft.value, MODEL_SETTINGS) }, ...values };
  showPrompt.value = true;
  navigate(`?mode=${draft.value.mode}`);
  loadUploads(draft);
}

// The rows of a mode, one for each model. A name may mean the model of another provider: then an alias stands for the model.
// `all` = also those that no account has.
export function modelsForMode(models, mode, { all = false } = {}) {
  const found = new Map();
  for (const model of models.filter((item) => item.kind === mode && (all || isListed(item)))) {
    const key = `${model.provider} ${model.alias_of ?? model.id}`;
    if (!found.has(key) || !model.alias_of) found.set(key, model);
  }
  return [...found.values()];
}

// The row that a draft means: by its name, or by the model and provider of a job.
export const findModel = (models, { model: name, provider }) =>
  models.find((model) => provider && model.provider === provider && (model.alias_of ?? model.id) === name) ?? models.find((model) => model.id === name) ?? models[0];

// The optional fields of a model that the form shows as switches and choices, and the value without a request.
export const optionsOf = (model) => model.fields.filter(({ type }) => type === "boolean" || type === "choice");
export const neutralValue = (field) => (field.type === "boolean" ? field.default : field.values[0]);
const takes = (model, name) => model.fields.some((field) => field.name === name);

// The options that the model has and that differ from what it does without them.
const fitOptions = (options, model) =>
  Object.fromEntries(
    optionsOf(model)
      .filter((field) => field.name in options && options[field.name] !== neutralValue(field))
      .filter((field) => field.type === "boolean" || field.values.includes(options[field.name]))
      .map(({ name }) => [name, options[name]]),
  );

// What names an input in a prompt.
const MENTION = /(?<![\w.])@(?:(?:image|video|audio)(?:_file)?_?\d{1,3}|\d{1,2})(?!\w)/i;

// How many references of a kind a model takes, and those that it takes of a draft.
export const mostOf = (model, media) => ({ image: model.references, video: model.reference_videos, audio: model.reference_audios })[media] ?? 0;
function usedReferences(images, model) {
  const left = { image: mostOf(model, "image"), video: mostOf(model, "video"), audio: mostOf(model, "audio") };
  return images.filter(({ media }) => left[media]-- > 0);
}

// What a prompt calls each reference: [{ image, number, mention }].
export function numberReferences(images) {
  const counts = { image: 0, video: 0, audio: 0 };
  return images.map((image) => ({ image, number: ++counts[image.media], mention: `@${image.media}${counts[image.media]}` }));
}

// Whether images become the first and the last frame of a video; otherwise they are references, which the prompt may name.
export function usesFrames({ mode, images, imagesAs, prompt }, model) {
  if (mode !== "video" || !model.omni) return mode === "video";
  const most = Number(model.first_frame) + Number(model.end_frame);
  if (images.length > most || images.some(({ media }) => media !== "image")) return false;
  return imagesAs ? imagesAs === "frames" : most > 0 && !MENTION.test(prompt);
}

// The form values limited to what the model supports: an unsupported value falls back to a supported one.
export function fitToModel(values, model) {
  const supported = (value, options, fallback) => (options.includes(value) ? value : fallback ?? options[0]);
  const images = usedReferences(values.images, model);
  const frames = images.length > 0 && usesFrames({ ...values, images }, model);
  return {
    ...values,
    model: model.id,
    provider: model.provider,
    ratio: supported(values.ratio, model.ratios ?? RATIOS),
    manyRatios: values.manyRatios.filter((ratio) => (model.ratios ?? RATIOS).includes(ratio)),
    resolution: supported(values.resolution, model.resolutions, model.resolutions.includes("2k") ? "2k" : undefined),
    count: model.counts.length ? supported(values.count, model.counts, model.default_count) : 0,
    duration: model.durations ? supported(values.duration, model.durations) : 0,
    seed: takes(model, "seed") ? values.seed : "",
    negative: takes(model, "negative_prompt") ? values.negative : "",
    strength: takes(model, "sample_strength") ? values.strength ?? EMPTY_DRAFT.strength : null,
    options: fitOptions(values.options, model),
    images,
    frames,
    functionMode: model.omni && images.length ? (frames ? "first_last_frames" : "omni_reference") : "",
    ratioOfFrame: frames && Boolean(model.frame_decides_ratio),
  };
}

// The API request { endpoint, body } of a draft that fits its model.
export function buildRequest(values) {
  const body = { model: values.model, prompt: values.prompt.trim(), ratio: values.ratio, resolution: values.resolution, ...values.options };
  if (values.ratioOfFrame) delete body.ratio;
  if (values.seed !== "") body.seed = Number(values.seed);
  if (values.mode === "image") {
    if (values.count) body.n = values.count;
    if (values.negative.trim()) body.negative_prompt = values.negative.trim();
    if (values.images.length && values.strength != null) body.sample_strength = values.strength;
  } else {
    body.duration = values.duration;
  }
  if (values.functionMode) body.function_mode = values.functionMode;
  for (const media of ["image", "video", "audio"]) {
    const sources = values.images.filter((item) => item.media === media).map((item) => item.source);
    if (sources.length) body[`${media}s`] = sources;
  }
  return { endpoint: values.mode === "image" ? "/v1/images/generations" : "/v1/videos/generations", body };
}

// The prompts of a draft for many requests: one per line.
export const promptLines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// The same for many requests at once: every prompt, with its variants, with each model and ratio.
export function buildMatrix(values, models) {
  const { endpoint: _, body: { prompt, model: __, ratio, resolution, n, ...body } } = buildRequest(values);
  const ratios = ratio === undefined ? [] : values.manyRatios.length ? values.manyRatios : [ratio];
  return { prompts: promptLines(prompt), variants: true, models: models.map(({ id }) => id), ratios, resolutions: resolution ? [resolution] : [], ...(n ? { n } : {}), body };
}

// The body of a request without uploads: an estimate does not need megabytes of data.
export function withoutUploads(body) {
  const { images = [], videos = [], audios = [], function_mode: _, ...rest } = body;
  return [...images, ...videos, ...audios].some((item) => item.startsWith("data:")) ? rest : body;
}

// What the input of a job says that is no option of its model.
const NO_OPTIONS = new Set([
  ...["prompt", "width", "height", "ratio", "resolution", "seed", "n", "size", "model", "flags", "images", "adjusted", "follow_up"],
  ...["negative_prompt", "sample_strength", "seconds", "fps", "parts", "key", "mode", "size_class", "draft_of", "optimize"],
]);
const optionsOfJob = (input) => Object.fromEntries(Object.entries(input).filter(([name, value]) => !NO_OPTIONS.has(name) && ["boolean", "string", "number"].includes(typeof value)));

// The draft of an existing job. Images that were uploaded are left out (see `editAndRemake`); images given as links are included.
export function draftFromJob(job) {
  const { input } = job;
  const links = (input.images ?? []).map((item) => item?.url ?? item).filter((item) => typeof item === "string");
  return {
    ...EMPTY_DRAFT,
    mode: job.kind,
    prompt: input.prompt ?? "",
    model: job.model,
    provider: job.provider ?? "",
    ratio: input.ratio ?? "",
    resolution: input.resolution ?? "",
    count: input.n ?? 0,
    duration: input.seconds ?? 0,
    seed: input.seed == null ? "" : String(input.seed),
    seedOfJob: input.seed == null ? "" : String(input.seed),
    negative: input.negative_prompt ?? "",
    strength: input.sample_strength ?? null,
    options: optionsOfJob(input),
    images: links.map((link) => createReference(link, link.split("/").at(-1))),
    imagesAs: input.parts?.length ? "references" : "",
    functionMode: input.parts?.length ? "omni_reference" : "",
  };
}

// A seed that came from a job holds for one request: later ones would come out alike without a word.
export function forgetSeedOfJob() {
  const { seed, seedOfJob } = draft.value;
  if (seedOfJob !== "") updateDraft({ seed: seed === seedOfJob ? "" : seed, seedOfJob: "" });
}

// Open the playground with the parameters and the seed of a job: with the same seed, a small edit of the prompt changes the
// result only a little.
export async function editAndRemake(job) {
  const values = draftFromJob(job);
  openDraft(values);
  if (!job.input.images?.length) return;
  let inputs = [];
  try {
    inputs = (await api.get(`/v1/jobs/${job.id}/inputs`)).data;
  } catch {
    // Without the list, the links stay and the uploads count as missing.
    updateDraft({ missingUploads: job.input.images.length - values.images.length });
    return;
  }
  if (draft.value.images !== values.images) return;
  const found = inputs.filter((item) => item.url || item.source_url);
  updateDraft({ images: found.map((item) => createReference(item.url ?? item.source_url, "", item.media)), missingUploads: inputs.length - found.length });
}

// Open the playground with a result as a reference image.
export function addReference(job, file) {
  if (draft.value.mode === "chat") changeMode("image");
  updateDraft({ images: [...draft.value.images, createReference(file.url, job.id.slice(-8))] });
  navigate(`?mode=${draft.value.mode}`);
}

const shellQuote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The request as a curl command. Uploaded images are too long to show.
export function curlCommand({ endpoint, body, headers = {} }) {
  const printed = { ...body };
  for (const name of ["images", "videos", "audios"]) {
    if (body[name]) printed[name] = body[name].map((source) => (String(source).startsWith("data:") ? "<link, data URL or base64>" : source));
  }
  return [
    `curl ${platformUrl(endpoint)}`,
    `  -H "Authorization: Bearer $DREAMERY_API_KEY"`,
    `  -H 'Content-Type: application/json'`,
    ...Object.entries(headers).map(([name, value]) => `  -H '${name}: ${value}'`),
    `  -d ${shellQuote(JSON.stringify(printed))}`,
  ].join(" \\\n");
}

export const curlCommandOfJob = (job) => {
  const images = (job.input.images ?? []).map((item) => (typeof item === "string" ? item : "data:"));
  const { endpoint, body } = buildRequest(draftFromJob(job));
  return curlCommand({ endpoint, body: images.length ? { ...body, images } : body });
};
