// The form of the playground: it fits the selected model and starts jobs.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { publishJob } from "../../api/jobs.js";
import { buildRequest, curlCommand, draft, findModel, fitToModel, modelsForMode, RATIOS, replacedDraft, updateDraft } from "../../state/draft.js";
import { formatDuration, t } from "../../state/language.js";
import { accountHeaders, RunOn } from "../accounts/available.js";
import { Button, CodeBlock, Dialog, ErrorMessage, Select, TextField, useAction } from "../components.js";
import { Estimate } from "./estimate.js";
import { Prompt } from "./prompt.js";
import { PromptDialogs } from "./prompt_library.js";
import { References } from "./references.js";
import { Options, RatioPicker } from "./settings.js";

// `recent` = the newest jobs of the user.
export function GenerationForm({ models, recent }) {
  const modeModels = modelsForMode(models, draft.value.mode);
  const model = findModel(modeModels, draft.value);
  const several = new Set(modeModels.map((item) => item.provider)).size > 1;
  const values = fitToModel(draft.value, model);
  const request = { ...buildRequest(values), headers: accountHeaders() };
  // Another text for another request, without the data of pictures.
  const version = JSON.stringify({ ...request.body, endpoint: request.endpoint, headers: request.headers, images: values.images.map(({ id }) => id) });
  const isReady = values.prompt.trim() !== "" && values.images.every((image) => image.source);
  const [showCurl, setShowCurl] = useState(false);
  const [failure, setFailure] = useState({ error: null, version: "" });
  // What was refused is no longer there once the request has changed.
  const error = failure.version === version ? failure.error : null;
  const [generate, busy] = useAction(async () => {
    setFailure({ error: null, version });
    replacedDraft.value = null;
    try {
      const created = await api.post(request.endpoint, { ...request.body, async: true }, { headers: request.headers });
      for (const job of created.jobs ?? [created]) publishJob(job);
    } catch (caught) {
      setFailure({ error: caught, version });
    }
  });
  const submit = (event) => {
    event.preventDefault();
    if (isReady && !busy) generate();
  };
  const submitOnCtrlEnter = (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit(event);
  };
  return html`<form class="card studio-form" onSubmit=${submit}>
    <${Prompt} values=${values} model=${model} onKeyDown=${submitOnCtrlEnter} />
    <${References} values=${values} model=${model} />
    <${Select} label=${t("param.model")} value=${model.id} onChange=${(value) => updateDraft({ model: value, provider: "" })}
      options=${modeModels.map((item) => [item.id, several ? `${item.model_name} (${item.provider})` : item.model_name])} hint=${model.id} />
    <${RunOn} />
    <${Shape} values=${values} model=${model} />
    <${MoreSettings} values=${values} model=${model} />
    <div class="studio-actions">
      ${error && html`<${ErrorMessage} error=${error} />`}
      <${Estimate} request=${request} version=${version} ready=${isReady} recent=${recent} model=${model} refused=${error !== null} />
      <div class="row"><${Button} kind="primary" type="submit" icon="spark" busy=${busy} class="grow">${t(`play.generate_${values.mode}`)}<//>
        <${Button} icon="code" label=${t("play.curl")} onClick=${() => setShowCurl(true)} /></div></div>
    ${showCurl && html`<${Dialog} wide title=${t("play.curl")} onClose=${() => setShowCurl(false)}><p class="muted">${t("play.curl_text")}</p><${CodeBlock} label="curl" text=${curlCommand(request)} /><//>`}
  </form><${PromptDialogs} />`;
}

// Ratio, resolution, count and length.
function Shape({ values, model }) {
  const durations = values.duration > 0 ? [...model.durations].sort((first, second) => first - second) : [];
  return html`<${RatioPicker} label=${t("param.ratio")} value=${values.ratio} options=${model.ratios ?? RATIOS} fixed=${values.ratioOfFrame} onChange=${(value) => updateDraft({ ratio: value })} />
    <div class="pair">
      <${Select} label=${t("param.resolution")} value=${values.resolution} options=${model.resolutions} onChange=${(value) => updateDraft({ resolution: value })} />
      ${values.count > 0 && values.mode === "image" && html`<${Select} label=${t("param.count")} value=${values.count} options=${model.counts} onChange=${(value) => updateDraft({ count: Number(value) })} />`}
      ${durations.length > 0 && html`<${Select} label=${t("param.length")} value=${values.duration} onChange=${(value) => updateDraft({ duration: Number(value) })}
        options=${durations.map((item) => [item, formatDuration(item)])} />`}
    </div>`;
}

function MoreSettings({ values, model }) {
  const hasField = (name) => model.fields.some((field) => field.name === name);
  return html`<details class="more"><summary>${t("play.more")}</summary><div class="stack">
    ${hasField("seed") && html`<${TextField} label=${t("param.seed")} hint=${t("play.seed_hint")} inputmode="numeric" pattern="[0-9]*" value=${values.seed} onInput=${(value) => updateDraft({ seed: value.replace(/\D/g, "") })} />`}
    ${hasField("negative_prompt") && html`<${TextField} label=${t("play.negative")} value=${values.negative} onInput=${(value) => updateDraft({ negative: value })} />`}
    <${Options} values=${values} model=${model} />
    ${hasField("sample_strength") && values.images.length > 0 && html`<div class="field"><label for="strength">${t("play.strength", { value: values.strength })}</label>
      <input id="strength" type="range" min="0" max="1" step="0.05" value=${values.strength} onInput=${(event) => updateDraft({ strength: Number(event.target.value) })} /></div>`}
  </div></details>`;
}
