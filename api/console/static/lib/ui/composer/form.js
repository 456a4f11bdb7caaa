// The form of the playground: it fits the selected model and starts jobs.
import { html, useState } from "../preact.js";
import { publishJob } from "../../api/jobs.js";
import { buildRequest, curlCommand, draft, findModel, fitToModel, forgetSeedOfJob, modelsForMode, RATIOS, replacedDraft, updateDraft } from "../../state/draft.js";
import { formatDuration, formatNumber, t } from "../../state/language.js";
import { commonModel } from "../../state/models.js";
import { isPhone } from "../../state/screen.js";
import { accountHeaders, RunOn } from "../accounts/available.js";
import { Button, CodeBlock, Dialog, ErrorMessage, Progress, Select, TextField, useAction } from "../components.js";
import { BudgetNote } from "./budget.js";
import { Estimate } from "./estimate.js";
import { ManyDialog, ManySummary, useMany } from "./many.js";
import { FurtherModels, ModelField } from "./model_picker.js";
import { PhoneComposer } from "./phone.js";
import { Prompt } from "./prompt.js";
import { PromptDialogs } from "./prompt_library.js";
import { References } from "./references.js";
import { sendRequest } from "./sending.js";
import { Options, RatioPicker } from "./settings.js";

// `recent` = the newest jobs of the user.
export function GenerationForm({ models, recent }) {
  const modeModels = modelsForMode(models, draft.value.mode);
  const model = findModel(modeModels, draft.value);
  const further = draft.value.many ? modeModels.filter((item) => item !== model && draft.value.manyModels.includes(item.id)) : [];
  const common = commonModel([model, ...further]);
  const values = fitToModel(draft.value, common);
  const request = { ...buildRequest(values), headers: accountHeaders() };
  // Another text for another request, without the data of pictures.
  const version = JSON.stringify({ ...request.body, endpoint: request.endpoint, headers: request.headers, images: values.images.map(({ id }) => id) });
  const isReady = values.prompt.trim() !== "" && values.images.every((image) => image.source);
  const [showCurl, setShowCurl] = useState(false);
  const [failure, setFailure] = useState({ error: null, version: "" });
  const [sent, setSent] = useState(null);
  // What was refused is no longer there once the request has changed.
  const error = failure.version === version ? failure.error : null;
  const [generate, busy] = useAction(async () => {
    setFailure({ error: null, version });
    replacedDraft.value = null;
    try {
      const created = await sendRequest(request, values.images, setSent);
      for (const job of created.jobs ?? [created]) publishJob(job);
      forgetSeedOfJob();
    } catch (caught) {
      setFailure({ error: caught, version });
    }
    setSent(null);
  });
  const many = useMany({ values, models: [model, ...further], isReady });
  const submit = (event) => {
    event.preventDefault();
    if (!isReady || busy) return;
    if (values.many) many.review();
    else generate();
  };
  const submitOnCtrlEnter = (event) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit(event);
  };
  const settings = html`<${References} values=${values} model=${common} />
    <${ModelField} models=${models} model=${model} />
    ${values.many && html`<${FurtherModels} models=${models} model=${model} chosen=${further.map(({ id }) => id)} onChange=${(manyModels) => updateDraft({ manyModels })} />`}
    <${RunOn} />
    <${Shape} values=${values} model=${common} />
    <${MoreSettings} values=${values} model=${common} />`;
  const estimate = values.many ? html`<${ManySummary} many=${many} />` : html`<${Estimate} request=${request} version=${version} ready=${isReady} recent=${recent} model=${model} refused=${error !== null} />`;
  const notes = html`${error && html`<${ErrorMessage} error=${error} />`}<${BudgetNote} />${estimate}
      ${sent !== null && html`<${Progress} value=${sent * 100} label=${t("play.uploading")} />`}`;
  const curl = html`<${Button} icon="code" label=${t("play.curl")} onClick=${() => setShowCurl(true)} />`;
  const dialogs = html`${showCurl && html`<${Dialog} wide title=${t("play.curl")} onClose=${() => setShowCurl(false)}><p class="muted">${t("play.curl_text")}</p><${CodeBlock} label="curl" text=${curlCommand(request)} /><//>`}
    <${PromptDialogs} /><${ManyDialog} many=${many} />`;
  const review = many.plan ? t("many.review", { n: formatNumber(many.plan.requests.length) }) : t("many.review_all");
  if (isPhone.value) {
    const action = values.many ? html`<${Button} kind="primary" type="submit" icon="list" disabled=${many.hasUploads} label=${review} />` : html`<${Button} kind="primary" type="submit" icon="send" busy=${busy} label=${t(`play.generate_${values.mode}`)} />`;
    return html`<${PhoneComposer} values=${values} model=${model} common=${common} rows=${modeModels} onSubmit=${submit} onKeyDown=${submitOnCtrlEnter} notes=${notes} estimate=${estimate} action=${action}
      settings=${html`${settings}${!values.many && html`<div>${curl}</div>`}`} />${dialogs}`;
  }
  return html`<form class="card studio-form" onSubmit=${submit}>
    <${Prompt} values=${values} model=${common} onKeyDown=${submitOnCtrlEnter} />${settings}
    <div class="studio-actions">${notes}
      <div class="row">${values.many ? html`<${Button} kind="primary" type="submit" icon="list" disabled=${many.hasUploads} class="grow">${review}<//>`
        : html`<${Button} kind="primary" type="submit" icon="spark" busy=${busy} class="grow">${t(`play.generate_${values.mode}`)}<//>
        ${curl}`}</div></div>
  </form>${dialogs}`;
}

// Ratio, resolution, count and length.
function Shape({ values, model }) {
  const durations = values.duration > 0 ? [...model.durations].sort((first, second) => first - second) : [];
  const ratios = model.ratios ?? RATIOS;
  return html`${values.many && !values.ratioOfFrame
      ? html`<${RatioPicker} several label=${values.manyRatios.length > 1 ? t("many.ratios_selected", { n: values.manyRatios.length }) : t("many.ratios")} value=${values.manyRatios.length ? values.manyRatios : [values.ratio]} options=${ratios} onChange=${(manyRatios) => updateDraft({ manyRatios })} />`
      : html`<${RatioPicker} label=${t("param.ratio")} value=${values.ratio} options=${ratios} fixed=${values.ratioOfFrame} onChange=${(value) => updateDraft({ ratio: value })} />`}
    <div class="pair">
      ${model.resolutions.length > 0 && html`<${Select} label=${t("param.resolution")} value=${values.resolution} options=${model.resolutions} onChange=${(value) => updateDraft({ resolution: value })} />`}
      ${values.count > 0 && values.mode === "image" && html`<${Select} label=${t(values.many ? "many.count" : "param.count")} value=${values.count} options=${model.counts} onChange=${(value) => updateDraft({ count: Number(value) })} />`}
      ${durations.length > 0 && html`<${Select} label=${t("param.length")} value=${values.duration} onChange=${(value) => updateDraft({ duration: Number(value) })}
        options=${durations.map((item) => [item, formatDuration(item)])} />`}
    </div>
    ${!model.resolutions.length && html`<p class="hint">${t("many.own_resolution")}</p>`}`;
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
