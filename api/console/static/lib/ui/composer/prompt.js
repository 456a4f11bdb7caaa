// The prompt of the form, and the seed where one is set.
import { html, useEffect, useRef } from "../preact.js";
import { replacedDraft, restoreDraft, showPrompt, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { Button, useGrowth } from "../components.js";
import { Icon } from "../icons.js";
import { useMentions } from "./mentions.js";
import { PromptButtons } from "./prompt_library.js";

// `compact` = one line that grows with the text; its label and tools are elsewhere.
export function Prompt({ values, model, onKeyDown, onShow, compact = false }) {
  const element = useRef(null);
  const mentions = useMentions(element, values, model);
  useEffect(() => {
    if (!showPrompt.value) return;
    showPrompt.value = false;
    element.current.focus({ preventScroll: true });
    if (compact) onShow();
    else element.current.scrollIntoView({ block: "center" });
  }, [showPrompt.value]);
  useGrowth(element, compact ? values.prompt : null);
  const onInput = (event) => {
    updateDraft({ prompt: event.target.value });
    mentions.onInput(event);
  };
  const label = t(values.many ? "many.prompts" : "play.prompt");
  return html`<div class="field">${compact ? html`<label class="visually-hidden" for="prompt">${label}</label>` : html`<div class="row spread"><label class="label" for="prompt">${label}</label><${PromptButtons} /></div>`}
    <div class="prompt-field"><textarea ref=${element} id="prompt" name="prompt" rows=${compact ? 1 : values.many ? 8 : 5} required aria-describedby=${compact ? undefined : "many-hint"} placeholder=${t(values.many ? "many.placeholder" : `play.placeholder_${values.mode}`)} value=${values.prompt} ...${mentions.aria}
      onInput=${onInput} onKeyDown=${(event) => mentions.onKeyDown(event) || onKeyDown(event)} onBlur=${mentions.onBlur}></textarea>${mentions.list}</div>
    ${!compact && html`<${ManySwitch} values=${values} />`}
    ${model.omni && values.images.length > 0 && !values.frames && html`<p class="hint">${t("play.mention_hint")}</p>`}
    ${replacedDraft.value && html`<p class="hint row" role="status"><span>${t("play.replaced")}</span><${Button} small kind="quiet" onClick=${restoreDraft}>${t("play.bring_back")}<//></p>`}
    ${values.seed !== "" && html`<div class="row"><${SeedChip} seed=${values.seed} /></div>`}</div>`;
}

const ManySwitch = ({ values }) => html`<div class="row spread many-switch"><label class="check"><input type="checkbox" checked=${values.many} onChange=${() => updateDraft({ many: !values.many })} /><span>${t("many.switch")}</span></label></div>
    <p class="hint" id="many-hint" hidden=${!values.many}>${t("many.hint")}</p>`;

// What belongs to the prompt and is not beside a compact one.
export const PromptTools = ({ values }) => html`<div class="field"><${PromptButtons} /><${ManySwitch} values=${values} /></div>`;

// A fixed seed makes results alike, so it is visible wherever it comes from.
function SeedChip({ seed }) {
  return html`<span class="chip"><span>${t("play.seed_chip", { seed })}</span><button type="button" aria-label=${t("play.seed_clear")} onClick=${() => updateDraft({ seed: "" })}><${Icon} name="close" size=${14} /></button></span>`;
}
