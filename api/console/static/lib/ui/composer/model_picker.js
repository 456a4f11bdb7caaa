// The choice of the model: a button that shows the present one, and a dialog with a card for each.
import { html, useEffect, useRef, useState } from "../preact.js";
import { changeMode, draft, findModel, modelsForMode, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { isListed, loadModels, modelTitle } from "../../state/models.js";
import { navigate } from "../../state/router.js";
import { Button, Dialog, RadioGroup } from "../components.js";
import { Icon } from "../icons.js";
import { factsOf, priceText, timeText } from "./model_facts.js";
import { ModelSample } from "./model_sample.js";

// Cards are read again when the dialog opens and they are older than this.
const FRESH_MS = 10000;

export function ModelField({ models, model }) {
  const [open, setOpen] = useState(false);
  const rows = modelsForMode(models, draft.value.mode);
  const show = () => {
    loadModels(FRESH_MS);
    setOpen(true);
  };
  const select = (chosen) => {
    setOpen(false);
    const { kind } = chosen;
    if (kind !== draft.value.mode) {
      changeMode(kind);
      navigate(`?mode=${kind}`);
    }
    updateDraft({ model: chosen.id, provider: "" });
  };
  return html`<div class="field"><span class="label" id="model-label">${t("param.model")}</span>
    <button type="button" class="model-button" id="model-button" data-model=${model.id} aria-haspopup="dialog" aria-labelledby="model-label model-button" onClick=${show}>
      <${ModelSample} model=${model} /><span class="model-text"><strong>${modelTitle(model, rows)}</strong>
        <span class="hint clamp-one">${[model.id, priceText(model), timeText(model)].filter(Boolean).join(" · ")}</span></span><${Icon} name="down" size=${18} /></button>
    ${model.obstacle && html`<p class="hint row warning"><${Icon} name="alert" size=${16} /><span>${t(`obstacle.${model.obstacle}`)}</span></p>`}
    ${open && html`<${ModelDialog} models=${models} selected=${[model.id]} onSelect=${select} onClose=${() => setOpen(false)} />`}</div>`;
}

// "Also with": further models of the same mode for many requests at once.
export function FurtherModels({ models, model, chosen, onChange }) {
  const [open, setOpen] = useState(false);
  const toggle = ({ id }) => id !== model.id && onChange(chosen.includes(id) ? chosen.filter((item) => item !== id) : [...chosen, id]);
  const rows = modelsForMode(models, draft.value.mode);
  return html`<div class="field"><span class="label">${t("many.models")}</span><div class="row">
    ${chosen.map((id) => html`<span key=${id} class="chip"><span>${modelTitle(findModel(rows, { model: id, provider: "" }), rows)}</span>
      <button type="button" aria-label=${t("play.remove", { name: id })} onClick=${() => onChange(chosen.filter((item) => item !== id))}><${Icon} name="close" size=${14} /></button></span>`)}
    <${Button} small icon="plus" onClick=${() => setOpen(true)}>${t("many.add_model")}<//></div>
    ${open && html`<${ModelDialog} several models=${models.filter((item) => item.kind === draft.value.mode)} selected=${[model.id, ...chosen]} onSelect=${toggle} onClose=${() => setOpen(false)} />`}</div>`;
}

const KINDS = ["image", "video"];
const words = (model) => `${model.model_name} ${model.id} ${model.provider} ${model.model_tip}`.toLowerCase();

// `several` = a click adds or removes a model, and the dialog stays open.
function ModelDialog({ models, selected, several = false, onSelect, onClose }) {
  const [kind, setKind] = useState(draft.value.mode);
  const [search, setSearch] = useState("");
  const [filters, setFilters] = useState({ inputs: false, usable: true });
  const list = useRef(null);
  const kinds = KINDS.filter((item) => models.some((model) => model.kind === item));
  const rows = modelsForMode(models, kind, { all: true });
  const wanted = search.trim().toLowerCase().split(/\s+/);
  const shown = rows.filter((model) => wanted.every((word) => words(model).includes(word)) && (!filters.inputs || model.references > 0) && (!filters.usable || model.available !== false || selected.includes(model.id)));
  const hidden = rows.length - shown.length;
  const severalProviders = new Set(rows.map((item) => item.provider)).size > 1;
  // Opened at the card of the present model.
  useEffect(() => list.current?.querySelector('[aria-pressed="true"]')?.focus(), []);
  const toggle = (name) => html`<label class="choice-item"><input type="checkbox" checked=${filters[name]} onChange=${() => setFilters({ ...filters, [name]: !filters[name] })} /><span>${t(`model.filter_${name}`)}</span></label>`;
  // Enter in the search must not send the form around the dialog.
  const onSearchKey = (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    list.current.querySelector(".model-card")?.focus();
  };
  return html`<${Dialog} wide title=${t(several ? "many.models" : "model.choose")} onClose=${onClose} actions=${several && html`<${Button} kind="primary" onClick=${onClose}>${t("many.done")}<//>`}>
    <div class="model-filters"><div class="search"><${Icon} name="search" size=${18} /><input type="search" class="with-icon" maxlength="200" aria-label=${t("model.search")} placeholder=${t("model.search")} value=${search}
        onInput=${(event) => setSearch(event.target.value)} onKeyDown=${onSearchKey} /></div>
      ${kinds.length > 1 && html`<${RadioGroup} hideLabel label=${t("mode.label")} value=${kind} onChange=${setKind} options=${kinds.map((item) => [item, t(`mode.${item}`), item])} />`}
      <div class="choice-row">${toggle("inputs")}${toggle("usable")}</div></div>
    <ul class="model-cards" ref=${list} onKeyDown=${moveFocus}>${shown.map((model) => html`<${ModelCard} key=${`${model.provider} ${model.id}`} model=${model} title=${modelTitle(model, rows)} provider=${severalProviders ? model.provider : ""}
      selected=${selected.includes(model.id)} onSelect=${onSelect} />`)}</ul>
    ${!shown.length && html`<p class="muted">${t("model.none")}</p>`}
    ${hidden > 0 && html`<p class="hint" role="status">${t("model.hidden", { n: hidden })}</p>`}<//>`;
}

// Arrow keys move between cards, by what is beside and below on the screen.
function moveFocus(event) {
  const cards = [...event.currentTarget.querySelectorAll(".model-card")];
  const at = cards.indexOf(event.target.closest(".model-card"));
  if (at < 0) return;
  const columns = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: cards.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  cards[to]?.focus();
}

const FACT_ICONS = { price: "spark", time: "clock", inputs: "image", shape: "expand", regions: "globe" };

function ModelCard({ model, title, provider, selected, onSelect }) {
  const isBlocked = !isListed(model);
  return html`<li><button type="button" class="model-card ${selected ? "selected" : ""}" data-model=${model.id} aria-pressed=${selected} aria-disabled=${isBlocked || undefined}
    onClick=${() => isBlocked || onSelect(model)}><${ModelSample} model=${model} />
    <span class="model-text"><strong>${title}</strong><span class="hint clamp-one">${[model.model_name === title && model.id, provider].filter(Boolean).join(" · ")}</span></span>
    <span class="model-facts">${factsOf(model).map(([name, text]) => html`<span key=${name}><${Icon} name=${FACT_ICONS[name]} size=${14} /><span>${text}</span></span>`)}
      ${model.obstacle ? html`<span class="warning"><${Icon} name="alert" size=${14} /><span>${t(`obstacle.${model.obstacle}`)}</span></span>` : html`<span class="good"><${Icon} name="check" size=${14} /><span>${t("model.works")}</span></span>`}</span>
    ${selected && html`<span class="model-check" aria-hidden="true"><${Icon} name="check" size=${16} /></span>`}</button></li>`;
}
