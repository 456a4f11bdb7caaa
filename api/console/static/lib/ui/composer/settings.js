// Settings of the form that follow the data of the selected model.
import { html } from "../preact.js";
import { draft, neutralValue, optionsOf, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { CheckboxGroup, Select } from "../components.js";

// Switches and choices that the model has beside the usual fields.
export function Options({ values, model }) {
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

// `fixed` = the first frame decides, whatever is selected. `several` = more than one can be selected: `value` is a list.
export function RatioPicker({ label, value, options, fixed = false, several = false, onChange }) {
  const preview = (ratio) => {
    const [width, height] = ratio.split(":").map(Number);
    if (!height) return null;
    const unit = 16 / Math.max(width, height);
    return html`<i class="ratio-preview" aria-hidden="true" style=${{ width: `${width * unit}px`, height: `${height * unit}px` }}></i>`;
  };
  const isChosen = (item) => (several ? value.includes(item) : item === value);
  const choose = (item) => {
    if (!several) onChange(item);
    // The last one stays: a request has a ratio.
    else if (!value.includes(item)) onChange(options.filter((other) => other === item || value.includes(other)));
    else if (value.length > 1) onChange(value.filter((other) => other !== item));
    else onChange([...value]);
  };
  return html`<fieldset class="choice" disabled=${fixed} aria-describedby=${fixed ? "ratio-note" : undefined}><legend>${label}</legend>
    ${fixed && html`<p id="ratio-note" class="hint">${t("play.ratio_of_frame")}</p>`}
    <div class="choice-row ratios">${options.map((item) => html`<label key=${item} class="choice-item">
    <input type=${several ? "checkbox" : "radio"} name="ratio" value=${item} checked=${isChosen(item) && !fixed} onChange=${() => choose(item)} /><span>${preview(item)}${item.includes(":") ? item : t(`ratio.${item}`)}</span></label>`)}</div></fieldset>`;
}
