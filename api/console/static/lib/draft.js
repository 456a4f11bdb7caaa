// What the playground's form holds, also when another page fills it; and the request it stands for.
import { signal } from "./ui.js";
import { here } from "./api.js";
import { go } from "./router.js";

export const RATIOS = ["1:1", "4:3", "3:4", "16:9", "9:16", "3:2", "2:3", "21:9"];
export const EMPTY = {
  mode: "image", prompt: "", model: "", ratio: "", resolution: "", count: 0, duration: 0, seed: "", negative: "", strength: 0.5, pictures: [],
};

export const draft = signal(EMPTY);
export const change = (values) => {
  draft.value = { ...draft.value, ...values };
};

let lastPicture = 0;
// A reference: a link to a result of ours, or a data URL of a file.
export const pictureOf = (source, name) => ({ id: ++lastPicture, source, name });

// Read files as data URLs; what is no picture is left out.
export async function readPictures(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/"));
  return Promise.all(
    pictures.map(
      (file) =>
        new Promise((done, failed) => {
          const reader = new FileReader();
          reader.onload = () => done(pictureOf(reader.result, file.name));
          reader.onerror = () => failed(reader.error);
          reader.readAsDataURL(file);
        }),
    ),
  );
}

export const modelsOf = (models, mode) => models.filter((model) => model.kind === mode && !model.alias_of);

// The form's values as the chosen model can have them: what it does not offer falls back to its first.
export function fitted(values, model) {
  const among = (value, offered, fallback) => (offered.includes(value) ? value : fallback ?? offered[0]);
  return {
    ...values,
    model: model.id,
    ratio: among(values.ratio, model.ratios ?? RATIOS),
    resolution: among(values.resolution, model.resolutions, model.resolutions.includes("2k") ? "2k" : undefined),
    count: model.counts.length ? among(values.count, model.counts, model.default_count) : 0,
    duration: model.durations ? among(values.duration, model.durations) : 0,
    pictures: values.pictures.slice(0, model.references),
  };
}

// { endpoint, body } of a fitted draft.
export function requestOf(values) {
  const body = { model: values.model, prompt: values.prompt.trim(), ratio: values.ratio, resolution: values.resolution };
  if (values.seed !== "") body.seed = Number(values.seed);
  if (values.mode === "image") {
    if (values.count) body.n = values.count;
    if (values.negative.trim()) body.negative_prompt = values.negative.trim();
    if (values.pictures.length) body.sample_strength = values.strength;
  } else {
    body.duration = values.duration;
  }
  if (values.pictures.length) body.images = values.pictures.map((picture) => picture.source);
  return { endpoint: values.mode === "image" ? "/v1/images/generations" : "/v1/videos/generations", body };
}

// The draft that made a job. Pictures that came as bytes are not kept for the form; those from links are.
export function draftOf(job) {
  const { input } = job;
  const links = (input.images ?? []).filter((one) => typeof one === "string");
  return {
    ...EMPTY,
    mode: job.kind,
    prompt: input.prompt ?? "",
    model: job.model,
    ratio: input.ratio ?? "",
    resolution: input.resolution ?? "",
    count: input.n ?? 0,
    duration: input.seconds ?? 0,
    seed: input.seed == null ? "" : String(input.seed),
    negative: input.negative_prompt ?? "",
    strength: input.sample_strength ?? 0.5,
    pictures: links.map((link) => pictureOf(link, link.split("/").at(-1))),
  };
}

// Open the playground with the parameters and the seed of a job, so that a small change of words is a small change.
export function vary(job) {
  draft.value = draftOf(job);
  go("");
}

// Open the playground with a result as a reference for the next picture.
export function asReference(job, file) {
  const before = draft.value.mode === "chat" ? EMPTY : draft.value;
  draft.value = { ...before, pictures: [...before.pictures, pictureOf(file.url, job.id.slice(-8))] };
  go("");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The command line that asks for the same. Bytes of pictures are too long to show.
export function curlOf({ endpoint, body }) {
  const shown = { ...body };
  if (body.images) shown.images = body.images.map((one) => (String(one).startsWith("data:") ? "<link, data URL or base64>" : one));
  return [
    `curl ${here(endpoint)}`,
    `  -H "Authorization: Bearer $DREAMERY_API_KEY"`,
    `  -H 'Content-Type: application/json'`,
    `  -d ${quoted(JSON.stringify(shown))}`,
  ].join(" \\\n");
}

export const curlOfJob = (job) => {
  const images = (job.input.images ?? []).map((one) => (typeof one === "string" ? one : "data:"));
  const { endpoint, body } = requestOf(draftOf(job));
  return curlOf({ endpoint, body: images.length ? { ...body, images } : body });
};
