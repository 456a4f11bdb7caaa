// The prompt of the form, and the seed where one is set.
import { html, useEffect, useRef } from "../preact.js";
import { replacedDraft, restoreDraft, showPrompt, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { Button } from "../components.js";
import { Icon } from "../icons.js";
import { PromptButtons } from "./prompt_library.js";

export function Prompt({ values, onKeyDown }) {
  const element = useRef(null);
  useEffect(() => {
    if (!showPrompt.value) return;
    showPrompt.value = false;
    element.current.focus({ preventScroll: true });
    element.current.scrollIntoView({ block: "center" });
  }, [showPrompt.value]);
  return html`<div class="field"><div class="row spread"><label class="label" for="prompt">${t("play.prompt")}</label><${PromptButtons} /></div>
    <textarea ref=${element} id="prompt" name="prompt" rows="5" required placeholder=${t(`play.placeholder_${values.mode}`)} value=${values.prompt}
      onInput=${(event) => updateDraft({ prompt: event.target.value })} onKeyDown=${onKeyDown}></textarea>
    ${replacedDraft.value && html`<p class="hint row" role="status"><span>${t("play.replaced")}</span><${Button} small kind="quiet" onClick=${restoreDraft}>${t("play.bring_back")}<//></p>`}
    ${values.seed !== "" && html`<div class="row"><${SeedChip} seed=${values.seed} /></div>`}</div>`;
}

// A fixed seed makes results alike, so it is visible wherever it comes from.
function SeedChip({ seed }) {
  return html`<span class="chip"><span>${t("play.seed_chip", { seed })}</span><button type="button" aria-label=${t("play.seed_clear")} onClick=${() => updateDraft({ seed: "" })}><${Icon} name="close" size=${14} /></button></span>`;
}
