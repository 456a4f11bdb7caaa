// Generates images and videos with a form that fits the selected model, shows the newest results, and chats with the agent.
import { html, useEffect, useMemo, useRef, useState } from "../lib/ui/preact.js";
import { api, hasScope, platformUrl } from "../lib/api/client.js";
import { isOpen, jobDuration, publishJob, useJobEvents } from "../lib/api/jobs.js";
import { useLoaded } from "../lib/api/loading.js";
import { buildRequest, createReference, curlCommand, draft, findModel, fitToModel, modelsForMode, neutralValue, optionsOf, RATIOS, readImageFiles, updateDraft } from "../lib/state/draft.js";
import { formatDuration, formatMoney, formatNumber, t } from "../lib/state/language.js";
import { AgentChat } from "../lib/ui/agent_chat.js";
import { Button, CheckboxGroup, CodeBlock, Dialog, EmptyState, ErrorMessage, Loading, PageHeader, RadioGroup, Select, TextField, toast, useAction } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { JobCard } from "../lib/ui/job_views.js";

const RECENT = 12;

export default function Playground() {
  const models = useLoaded(() => api.get("/v1/models"));
  const modes = [["image", t("mode.image"), "image"], ["video", t("mode.video"), "video"], ["chat", t("mode.chat"), "chat"]];
  const { mode } = draft.value;
  let body = html`<${Loading} />`;
  if (models.error) body = html`<${ErrorMessage} error=${models.error} onRetry=${models.reload} />`;
  else if (models.data) body = mode === "chat" ? html`<${AgentChat} />` : html`<${Studio} models=${models.data.data} />`;
  return html`<${PageHeader} title=${t("nav.playground")}><${RadioGroup} hideLabel label=${t("mode.label")} value=${mode} options=${modes}
    onChange=${(value) => updateDraft({ mode: value })} /><//>${body}`;
}

function Studio({ models }) {
  const recent = useRecentJobs();
  return html`<div class="studio">
    ${hasScope("generate") ? html`<${GenerationForm} models=${models} recent=${recent.jobs} />` : html`<div class="card"><${EmptyState} icon="key" title=${t("play.read_only")} /></div>`}
    <section class="stack" aria-label=${t("play.results")}>
      ${recent.error && html`<${ErrorMessage} error=${recent.error} onRetry=${recent.reload} />`}
      ${recent.loading && !recent.jobs.length && html`<${Loading} />`}
      ${!recent.loading && !recent.error && !recent.jobs.length && html`<div class="card"><${EmptyState} icon="spark" title=${t("play.empty")}>${t("play.empty_text")}<//></div>`}
      ${recent.jobs.map((job) => html`<${JobCard} key=${job.id} job=${job} />`)}
    </section></div>`;
}

// The newest jobs, updated by the job feed.
function useRecentJobs() {
  const loaded = useLoaded(() => api.get("/v1/jobs", { limit: RECENT, kind: "image,video" }));
  useJobEvents(({ job, deletedId, reset }) => {
    if (reset) loaded.reload();
    else if (loaded.data) loaded.setData((list) => ({ ...list, data: mergeJob(list.data, job, deletedId) }));
  });
  return { ...loaded, jobs: loaded.data?.data ?? [] };
}

function mergeJob(jobs, job, deletedId) {
  if (deletedId) return jobs.filter((item) => item.id !== deletedId);
  if (job.kind === "chat") return jobs;
  if (jobs.some((item) => item.id === job.id)) return jobs.map((item) => (item.id === job.id ? job : item));
  // Ids sort by time: a changed job that is older than the newest ones does not belong to the list.
  if (jobs.length && job.id < jobs.at(-1).id) return jobs;
  return [job, ...jobs].sort((first, second) => (first.id < second.id ? 1 : -1)).slice(0, Math.max(RECENT, jobs.length));
}

function GenerationForm({ models, recent }) {
  const modeModels = modelsForMode(models, draft.value.mode);
  const model = findModel(modeModels, draft.value);
  const several = new Set(modeModels.map((item) => item.provider)).size > 1;
  const values = fitToModel(draft.value, model);
  const request = buildRequest(values);
  const [showCurl, setShowCurl] = useState(false);
  const [failure, setFailure] = useState(null);
  const [generate, busy] = useAction(async () => {
    setFailure(null);
    try {
      const created = await api.post(request.endpoint, { ...request.body, async: true });
      for (const job of created.jobs ?? [created]) publishJob(job);
    } catch (error) {
      setFailure(error);
    }
  });
  const submit = (event) => {
    event.preventDefault();
    if (!values.prompt.trim() || busy) return;
    generate();
  };
  const submitOnCtrlEnter = (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit(event);
  };
  const isImage = values.mode === "image";
  const hasField = (name) => model.fields.some((field) => field.name === name);
  return html`<form class="card studio-form" onSubmit=${submit}>
    <div class="field"><label for="prompt">${t("play.prompt")}</label>
      <textarea id="prompt" name="prompt" rows="5" required placeholder=${t(`play.placeholder_${values.mode}`)} value=${values.prompt}
        onInput=${(event) => updateDraft({ prompt: event.target.value })} onKeyDown=${submitOnCtrlEnter}></textarea></div>
    ${model.references > 0 && html`<${References} values=${values} model=${model} />`}
    <${Select} label=${t("param.model")} value=${model.id} onChange=${(value) => updateDraft({ model: value, provider: "" })}
      options=${modeModels.map((item) => [item.id, several ? `${item.model_name} (${item.provider})` : item.model_name])} hint=${model.id} />
    <${RatioPicker} label=${t("param.ratio")} value=${values.ratio} options=${model.ratios ?? RATIOS} onChange=${(value) => updateDraft({ ratio: value })} />
    <div class="pair">
      <${Select} label=${t("param.resolution")} value=${values.resolution} options=${model.resolutions} onChange=${(value) => updateDraft({ resolution: value })} />
      ${values.count > 0 && isImage && html`<${Select} label=${t("param.count")} value=${values.count} options=${model.counts} onChange=${(value) => updateDraft({ count: Number(value) })} />`}
      ${values.duration > 0 && html`<${Select} label=${t("param.length")} value=${values.duration} onChange=${(value) => updateDraft({ duration: Number(value) })}
        options=${[...model.durations].sort((first, second) => first - second).map((item) => [item, formatDuration(item)])} />`}
    </div>
    <details class="more"><summary>${t("play.more")}</summary><div class="stack">
      ${hasField("seed") && html`<${TextField} label=${t("param.seed")} hint=${t("play.seed_hint")} inputmode="numeric" pattern="[0-9]*" value=${values.seed} onInput=${(value) => updateDraft({ seed: value.replace(/\D/g, "") })} />`}
      ${hasField("negative_prompt") && html`<${TextField} label=${t("play.negative")} value=${values.negative} onInput=${(value) => updateDraft({ negative: value })} />`}
      <${Options} values=${values} model=${model} />
      ${hasField("sample_strength") && values.images.length > 0 && html`<div class="field"><label for="strength">${t("play.strength", { value: values.strength })}</label>
        <input id="strength" type="range" min="0" max="1" step="0.05" value=${values.strength} onInput=${(event) => updateDraft({ strength: Number(event.target.value) })} /></div>`}
    </div></details>
    ${failure && html`<${ErrorMessage} error=${failure} />`}
    <${Estimate} request=${request} ready=${values.prompt.trim() !== ""} recent=${recent} model=${model} />
    <div class="row"><${Button} kind="primary" type="submit" icon="spark" busy=${busy} class="grow">${t(`play.generate_${values.mode}`)}<//>
      <${Button} icon="code" label=${t("play.curl")} onClick=${() => setShowCurl(true)} /></div>
    ${showCurl && html`<${Dialog} wide title=${t("play.curl")} onClose=${() => setShowCurl(false)}><p class="muted">${t("play.curl_text")}</p><${CodeBlock} label="curl" text=${curlCommand(request)} /><//>`}
  </form>`;
}

// Switches and choices that the model has beside the usual fields.
function Options({ values, model }) {
  const fields = optionsOf(model);
  const valueOf = (field) => values.options[field.name] ?? neutralValue(field);
  const change = (name, value) => updateDraft({ options: { ...draft.value.options, [name]: value } });
  const switches = fields.filter((field) => field.type === "boolean");
  const setSwitches = (selected) => updateDraft({ options: { ...draft.value.options, ...Object.fromEntries(switches.map(({ name }) => [name, selected.includes(name)])) } });
  return html`${fields.filter((field) => field.type === "choice").map((field) => html`<${Select} key=${field.name} label=${t(`option.${field.name}`)} value=${valueOf(field)} options=${field.values}
      onChange=${(value) => change(field.name, typeof field.values[0] === "number" ? Number(value) : value)} />`)}
    ${switches.length > 0 && html`<${CheckboxGroup} label=${t("play.options")} selected=${switches.filter(valueOf).map(({ name }) => name)}
      options=${switches.map(({ name }) => [name, t(`option.${name}`)])} onChange=${setSwitches} />`}`;
}

function RatioPicker({ label, value, options, onChange }) {
  const preview = (ratio) => {
    const [width, height] = ratio.split(":").map(Number);
    if (!height) return null;
    const unit = 16 / Math.max(width, height);
    return html`<i class="ratio-preview" aria-hidden="true" style=${{ width: `${width * unit}px`, height: `${height * unit}px` }}></i>`;
  };
  return html`<fieldset class="choice"><legend>${label}</legend><div class="choice-row ratios">${options.map((item) => html`<label key=${item} class="choice-item">
    <input type="radio" name="ratio" value=${item} checked=${item === value} onChange=${() => onChange(item)} /><span>${preview(item)}${item.includes(":") ? item : t(`ratio.${item}`)}</span></label>`)}</div></fieldset>`;
}

// Reference images: dropped, pasted or selected. Videos take the first and the last frame.
function References({ values, model }) {
  const [dragging, setDragging] = useState(false);
  const add = async (files) => {
    const free = model.references - values.images.length;
    const images = await readImageFiles(files);
    if (!images.length && files.length) toast(t("play.images_only"), "bad");
    if (images.length > free) toast(t("play.too_many", { n: model.references }), "bad");
    updateDraft({ images: [...values.images, ...images.slice(0, free)] });
  };
  const latest = useRef(add);
  latest.current = add;
  useEffect(() => {
    const paste = (event) => event.clipboardData?.files.length && latest.current(event.clipboardData.files);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  const drop = (event) => {
    event.preventDefault();
    setDragging(false);
    const link = event.dataTransfer.getData("text/uri-list");
    if (event.dataTransfer.files.length) add(event.dataTransfer.files);
    else if (link.includes("/v1/files/") && values.images.length < model.references) updateDraft({ images: [...values.images, createReference(link, "")] });
  };
  const role = (n) => (values.mode === "video" && !model.omni ? t(n ? "play.end_frame" : "play.first_frame") : t("play.reference", { n: n + 1 }));
  return html`<div class="field"><span class="label">${t(values.mode === "image" ? "play.references" : "play.video_images")}</span>
    <div class="drop ${dragging ? "dragging" : ""}" onDragOver=${(event) => { event.preventDefault(); setDragging(true); }} onDragLeave=${() => setDragging(false)} onDrop=${drop}>
      ${values.images.map((image, n) => html`<figure key=${image.id} class="reference"><img src=${image.source.startsWith("data:") ? image.source : platformUrl(image.source)} alt=${role(n)} />
        <${Button} small icon="close" label=${t("play.remove", { name: role(n) })} onClick=${() => updateDraft({ images: values.images.filter((item) => item !== image) })} /></figure>`)}
      ${values.images.length < model.references && html`<label class="drop-add ${values.images.length ? "short" : ""}"><input type="file" accept="image/*" multiple
        onChange=${(event) => { add(event.target.files); event.target.value = ""; }} /><${Icon} name="upload" /><span>${t(values.images.length ? "play.add" : "play.drop_images")}</span></label>`}
    </div></div>`;
}

// The estimated time and cost, requested shortly after the last change of the form.
function Estimate({ request, ready, recent, model }) {
  const [estimate, setEstimate] = useState(null);
  const text = JSON.stringify({ endpoint: request.endpoint, body: { ...request.body, images: request.body.images?.map((item) => item.length) } });
  useEffect(() => {
    if (!ready) return undefined;
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      const result = await fetchEstimate(request, controller.signal);
      if (!controller.signal.aborted) setEstimate(result);
    }, 500);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [text, ready]);
  const typical = useMemo(() => medianDuration(recent, model.id), [recent, model.id]);
  const wait = estimate?.wait ?? typical;
  const parts = [wait != null && t("play.wait", { time: formatDuration(wait) }), estimate?.currency && estimate.cost != null && t("play.cost", { n: formatMoney(estimate.cost, estimate.currency) }), !estimate?.currency && estimate?.credits != null && t("play.credits", { n: formatNumber(estimate.credits) })].filter(Boolean);
  return html`<div class="estimate" aria-live="polite">${parts.length > 0 && html`<p class="hint row"><${Icon} name="clock" size=${16} />${parts.join(" · ")}</p>`}
    ${estimate?.refusal && html`<p class="hint row warning"><${Icon} name="alert" size=${16} /><span>${estimate.refusal}</span></p>`}</div>`;
}

let estimatesAvailable = true;

// The request without uploaded images: an estimate does not need megabytes of data.
function withoutUploads({ endpoint, body }) {
  const { images, ...rest } = body;
  return { endpoint, body: images?.every((item) => !item.startsWith("data:")) ? body : rest };
}

async function fetchEstimate(request, signal) {
  if (!estimatesAvailable) return null;
  try {
    const response = await api.post("/v1/estimate", withoutUploads(request), { signal });
    return { wait: response.eta?.p50 ?? null, credits: response.credits, currency: response.currency, cost: response.cost, refusal: response.refusals[0]?.message };
  } catch (error) {
    // The platform offers no estimates: do not request them again.
    if (error.status === 404) estimatesAvailable = false;
    return null;
  }
}

// The median duration of recent jobs of a model in seconds; null without such jobs.
function medianDuration(jobs, model) {
  const durations = jobs.filter((job) => job.model === model && job.status === "completed" && !isOpen(job)).map(jobDuration).sort((first, second) => first - second);
  return durations.length ? durations[Math.floor(durations.length / 2)] : null;
}
