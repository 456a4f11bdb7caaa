// Pictures, pictures from pictures, videos and the agent: a form made from the catalog, and what came of it.
import { html, useEffect, useMemo, useRef, useState } from "../lib/ui.js";
import { AgentChat } from "../lib/agent.js";
import { api, here, may } from "../lib/api.js";
import { change, curlOf, draft, fitted, modelsOf, pictureOf, RATIOS, readPictures, requestOf } from "../lib/draft.js";
import { isOpen, learn, secondsOf, useJobNews } from "../lib/jobs.js";
import { duration, number, t } from "../lib/language.js";
import { Button, Choice, Code, Dialog, Empty, Failure, Icon, Loading, PageHead, Select, TextField, toast, useAction, useLoaded } from "../lib/parts.js";
import { JobCard } from "../lib/results.js";

const RECENT = 12;

export default function Playground() {
  const models = useLoaded(() => api.get("/v1/models"));
  const modes = [["image", t("mode.image"), "image"], ["video", t("mode.video"), "film"], ["chat", t("mode.chat"), "chat"]];
  const { mode } = draft.value;
  let body = html`<${Loading} />`;
  if (models.error) body = html`<${Failure} error=${models.error} onRetry=${models.reload} />`;
  else if (models.data) body = mode === "chat" ? html`<${AgentChat} />` : html`<${Studio} models=${models.data.data} />`;
  return html`<${PageHead} title=${t("nav.playground")}><${Choice} hideLabel label=${t("mode.label")} value=${mode} options=${modes}
    onChange=${(value) => change({ mode: value })} /><//>${body}`;
}

function Studio({ models }) {
  const recent = useRecent();
  return html`<div class="studio">
    ${may("generate") ? html`<${Form} models=${models} recent=${recent.jobs} />` : html`<div class="card"><${Empty} icon="key" title=${t("play.read_only")} /></div>`}
    <section class="stack" aria-label=${t("play.results")}>
      ${recent.error && html`<${Failure} error=${recent.error} onRetry=${recent.reload} />`}
      ${recent.loading && !recent.jobs.length && html`<${Loading} />`}
      ${!recent.loading && !recent.error && !recent.jobs.length && html`<div class="card"><${Empty} icon="spark" title=${t("play.empty")}>${t("play.empty_text")}<//></div>`}
      ${recent.jobs.map((job) => html`<${JobCard} key=${job.id} job=${job} />`)}
    </section></div>`;
}

// The newest jobs, kept up to date by the feed.
function useRecent() {
  const loaded = useLoaded(() => api.get("/v1/jobs", { limit: RECENT, kind: "image,video" }));
  useJobNews(({ job, gone, reset }) => {
    if (reset) loaded.reload();
    else if (loaded.data) loaded.setData((list) => ({ ...list, data: merged(list.data, job, gone) }));
  });
  return { ...loaded, jobs: loaded.data?.data ?? [] };
}

function merged(jobs, job, gone) {
  if (gone) return jobs.filter((one) => one.id !== gone);
  if (job.kind === "chat") return jobs;
  if (jobs.some((one) => one.id === job.id)) return jobs.map((one) => (one.id === job.id ? job : one));
  // Ids sort by time: an older job that changes does not belong among the newest.
  if (jobs.length && job.id < jobs.at(-1).id) return jobs;
  return [job, ...jobs].sort((one, other) => (one.id < other.id ? 1 : -1)).slice(0, Math.max(RECENT, jobs.length));
}

function Form({ models, recent }) {
  const offered = modelsOf(models, draft.value.mode);
  const model = offered.find((one) => one.id === draft.value.model) ?? offered[0];
  const values = fitted(draft.value, model);
  const request = requestOf(values);
  const [code, setCode] = useState(false);
  const [problem, setProblem] = useState(null);
  const [make, busy] = useAction(async () => {
    setProblem(null);
    try {
      const made = await api.post(request.endpoint, { ...request.body, async: true });
      for (const job of made.jobs ?? [made]) learn(job);
    } catch (error) {
      setProblem(error);
    }
  });
  const submit = (event) => {
    event.preventDefault();
    if (!values.prompt.trim() || busy) return;
    make();
  };
  const keys = (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit(event);
  };
  const image = values.mode === "image";
  return html`<form class="card studio-form" onSubmit=${submit}>
    <div class="field"><label for="prompt">${t("play.prompt")}</label>
      <textarea id="prompt" name="prompt" rows="5" required placeholder=${t(`play.placeholder_${values.mode}`)} value=${values.prompt}
        onInput=${(event) => change({ prompt: event.target.value })} onKeyDown=${keys}></textarea></div>
    ${model.references > 0 && html`<${References} values=${values} model=${model} />`}
    <${Select} label=${t("param.model")} value=${model.id} onChange=${(value) => change({ model: value })}
      options=${offered.map((one) => [one.id, one.model_name])} hint=${model.id} />
    <${Ratio} label=${t("param.ratio")} value=${values.ratio} options=${model.ratios ?? RATIOS} onChange=${(value) => change({ ratio: value })} />
    <div class="pair">
      <${Select} label=${t("param.resolution")} value=${values.resolution} options=${model.resolutions} onChange=${(value) => change({ resolution: value })} />
      ${values.count > 0 && image && html`<${Select} label=${t("param.count")} value=${values.count} options=${model.counts} onChange=${(value) => change({ count: Number(value) })} />`}
      ${values.duration > 0 && html`<${Select} label=${t("param.length")} value=${values.duration} onChange=${(value) => change({ duration: Number(value) })}
        options=${[...model.durations].sort((one, other) => one - other).map((one) => [one, duration(one)])} />`}
    </div>
    <details class="more"><summary>${t("play.more")}</summary><div class="stack">
      <${TextField} label=${t("param.seed")} hint=${t("play.seed_hint")} inputmode="numeric" pattern="[0-9]*" value=${values.seed} onInput=${(value) => change({ seed: value.replace(/\D/g, "") })} />
      ${image && html`<${TextField} label=${t("param.negative")} value=${values.negative} onInput=${(value) => change({ negative: value })} />`}
      ${image && values.pictures.length > 0 && html`<div class="field"><label for="strength">${t("play.strength", { value: values.strength })}</label>
        <input id="strength" type="range" min="0" max="1" step="0.05" value=${values.strength} onInput=${(event) => change({ strength: Number(event.target.value) })} /></div>`}
    </div></details>
    ${problem && html`<${Failure} error=${problem} />`}
    <${Estimate} request=${request} ready=${values.prompt.trim() !== ""} recent=${recent} model=${model} />
    <div class="row"><${Button} kind="primary" type="submit" icon="spark" busy=${busy} class="grow">${t(`play.make_${values.mode}`)}<//>
      <${Button} icon="code" label=${t("play.curl")} onClick=${() => setCode(true)} /></div>
    ${code && html`<${Dialog} wide title=${t("play.curl")} onClose=${() => setCode(false)}><p class="muted">${t("play.curl_text")}</p><${Code} label="curl" text=${curlOf(request)} /><//>`}
  </form>`;
}

function Ratio({ label, value, options, onChange }) {
  const shape = (ratio) => {
    const [wide, high] = ratio.split(":").map(Number);
    const unit = 16 / Math.max(wide, high);
    return html`<i class="shape" aria-hidden="true" style=${{ width: `${wide * unit}px`, height: `${high * unit}px` }}></i>`;
  };
  return html`<fieldset class="choice"><legend>${label}</legend><div class="choice-row ratios">${options.map((one) => html`<label key=${one} class="choice-item">
    <input type="radio" name="ratio" value=${one} checked=${one === value} onChange=${() => onChange(one)} /><span>${shape(one)}${one}</span></label>`)}</div></fieldset>`;
}

// Pictures to work from: dropped, pasted or chosen; of a video the first and the last frame.
function References({ values, model }) {
  const [over, setOver] = useState(false);
  const add = async (files) => {
    const room = model.references - values.pictures.length;
    const pictures = await readPictures(files);
    if (!pictures.length && files.length) toast(t("play.no_pictures"), "bad");
    if (pictures.length > room) toast(t("play.too_many", { n: model.references }), "bad");
    change({ pictures: [...values.pictures, ...pictures.slice(0, room)] });
  };
  const newest = useRef(add);
  newest.current = add;
  useEffect(() => {
    const paste = (event) => event.clipboardData?.files.length && newest.current(event.clipboardData.files);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    const link = event.dataTransfer.getData("text/uri-list");
    if (event.dataTransfer.files.length) add(event.dataTransfer.files);
    else if (link.includes("/v1/files/") && values.pictures.length < model.references) change({ pictures: [...values.pictures, pictureOf(link, "")] });
  };
  const role = (n) => (values.mode === "video" && !model.omni ? t(n ? "play.end_frame" : "play.first_frame") : t("play.reference", { n: n + 1 }));
  return html`<div class="field"><span class="label">${t(values.mode === "image" ? "play.references" : "play.frames")}</span>
    <div class="drop ${over ? "over" : ""}" onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      ${values.pictures.map((picture, n) => html`<figure key=${picture.id} class="reference"><img src=${picture.source.startsWith("data:") ? picture.source : here(picture.source)} alt=${role(n)} />
        <${Button} small icon="close" label=${t("play.remove", { name: role(n) })} onClick=${() => change({ pictures: values.pictures.filter((one) => one !== picture) })} /></figure>`)}
      ${values.pictures.length < model.references && html`<label class="drop-add ${values.pictures.length ? "short" : ""}"><input type="file" accept="image/*" multiple
        onChange=${(event) => { add(event.target.files); event.target.value = ""; }} /><${Icon} name="upload" /><span>${t(values.pictures.length ? "play.add" : "play.drop")}</span></label>`}
    </div></div>`;
}

// What it will take: asked of the platform a moment after the last change.
function Estimate({ request, ready, recent, model }) {
  const [told, setTold] = useState(null);
  const text = JSON.stringify({ endpoint: request.endpoint, body: { ...request.body, images: request.body.images?.map((one) => one.length) } });
  useEffect(() => {
    if (!ready) return undefined;
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      const answer = await estimate(request, stop.signal);
      if (!stop.signal.aborted) setTold(answer);
    }, 500);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [text, ready]);
  const usual = useMemo(() => usualWait(recent, model.id), [recent, model.id]);
  const wait = told?.wait ?? usual;
  const parts = [wait != null && t("play.wait", { time: duration(wait) }), told?.credits != null && t("play.credits", { n: number(told.credits) })].filter(Boolean);
  return html`<div class="estimate" aria-live="polite">${parts.length > 0 && html`<p class="hint row"><${Icon} name="clock" size=${16} />${parts.join(" · ")}</p>`}
    ${told?.refusal && html`<p class="hint row warned"><${Icon} name="alert" size=${16} /><span>${told.refusal}</span></p>`}</div>`;
}

let offered = true;

// Megabytes of pictures are not sent for an estimate.
function light({ endpoint, body }) {
  const { images, ...rest } = body;
  return { endpoint, body: images?.every((one) => !one.startsWith("data:")) ? body : rest };
}

async function estimate(request, signal) {
  if (!offered) return null;
  try {
    const answer = await api.post("/v1/estimate", light(request), { signal });
    return { wait: answer.eta?.p50 ?? null, credits: answer.credits, refusal: answer.refusals[0]?.message };
  } catch (error) {
    // A platform without estimates is not asked again.
    if (error.status === 404) offered = false;
    return null;
  }
}

// What jobs of this model took lately; null when there were none.
function usualWait(jobs, model) {
  const took = jobs.filter((job) => job.model === model && job.status === "completed" && !isOpen(job)).map(secondsOf).sort((one, other) => one - other);
  return took.length ? took[Math.floor(took.length / 2)] : null;
}
