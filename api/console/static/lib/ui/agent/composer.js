// The field for the next message: it grows with the text, keeps the draft of each conversation, takes pictures, and names the model.
import { html, useEffect, useRef, useState } from "../preact.js";
import { changeDraft, clearDraft, draftOf } from "../../state/chat_drafts.js";
import { sendMessage, stopAnswer } from "../../state/conversations.js";
import { openDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { accountHeaders, RunOn, useAvailable } from "../accounts/available.js";
import { BudgetNote } from "../composer/budget.js";
import { Button, ErrorMessage, Select, useAction, useGrowth } from "../components.js";
import { Icon } from "../icons.js";
import { AttachButton, Attachments, useDrop, useResultPicker } from "./attachments.js";

// The models that a message can go to: the agent first, then one row for each model.
export function chatModels(models) {
  const makes = models.filter(({ kind, alias_of: alias }) => (kind === "image" || kind === "video") && !alias);
  return [...models.filter(({ kind }) => kind === "chat"), ...new Map(makes.map((model) => [model.id, model])).values()];
}

// `editing` = the id of the turn that the message replaces, or null.
export function Composer({ id, turns, models, editing, onEditEnd, onAccepted }) {
  const { text, images, model: chosen } = draftOf(id).value;
  const model = models.find((item) => item.id === chosen) ?? models[0];
  const newest = turns.at(-1);
  const isBusy = Boolean(newest?.answering);
  const [error, setError] = useState(null);
  const field = useRef(null);
  const picker = useResultPicker(field, id, turns.flatMap((turn) => turn.results));
  const [drop, dragging] = useDrop(id);
  useAvailable();
  useGrowth(field, text);
  useEffect(() => {
    if (editing) field.current.focus();
  }, [editing]);
  useEffect(() => setError(null), [id]);
  const [stop, stopping] = useAction(() => stopAnswer(newest));
  const tooMany = images.length > model.references;
  const isReady = !isBusy && !tooMany && (text.trim() || images.length) && images.every(({ source }) => source);
  const submit = async (event) => {
    event.preventDefault();
    if (!isReady) return;
    const sent = { text: text.trim(), images, model };
    setError(null);
    changeDraft(id, { text: "", images: [] });
    onEditEnd();
    try {
      await sendMessage(id, { ...sent, headers: accountHeaders(), replaces: editing, onAccepted(accepted) {
        clearDraft(id, accepted);
        onAccepted(accepted);
      } });
    } catch (failure) {
      // What was typed is not lost; something else may have been typed meanwhile.
      const { text: typed } = draftOf(id).peek();
      changeDraft(id, { text: [sent.text, typed].filter(Boolean).join("\n"), images: sent.images });
      setError(failure);
    }
  };
  const onKeyDown = (event) => {
    if (picker.onKeyDown(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
    if (event.key === "Escape" && editing) onEditEnd();
  };
  const onInput = (event) => {
    changeDraft(id, { text: event.target.value });
    picker.onInput(event);
  };
  return html`<form class="chat-form ${dragging ? "dragging" : ""}" onSubmit=${submit} ...${drop}>
    ${error && html`<${ErrorMessage} error=${error} />`}
    ${editing && html`<p class="hint row spread"><span>${t("agent.editing")}</span><${Button} small kind="quiet" onClick=${onEditEnd}>${t("action.cancel")}<//></p>`}
    <${BudgetNote} />
    ${images.length > 0 && html`<${Attachments} id=${id} images=${images} />`}
    ${tooMany && html`<${TooMany} id=${id} model=${model} models=${models} text=${text} images=${images} />`}
    <div class="chat-line"><label class="visually-hidden" for="message">${t("agent.message")}</label>
      <${AttachButton} id=${id} />
      <div class="prompt-field"><textarea ref=${field} id="message" rows="1" placeholder=${t("agent.placeholder")} value=${text} ...${picker.aria}
        onInput=${onInput} onKeyDown=${onKeyDown} onBlur=${picker.onBlur}></textarea>${picker.list}</div>
      ${isBusy ? html`<${Button} icon="stop" busy=${stopping} label=${t("agent.stop")} onClick=${stop} />`
        : html`<${Button} kind="primary" type="submit" icon="send" label=${t("agent.send")} disabled=${!isReady} />`}</div>
    <div class="chat-settings"><${Select} label=${t("param.model")} value=${model.id} onChange=${(value) => changeDraft(id, { model: value })} options=${models.map((item) => [item.id, nameOf(item, models)])} /><${RunOn} /></div></form>`;
}

// Models of the same name show their ids.
const nameOf = (model, models) => (model.kind === "chat" ? t("mode.chat") : models.some((other) => other !== model && other.model_name === model.model_name) ? `${model.model_name} (${model.id})` : model.model_name);

// Said before the message is sent: the model takes no pictures, or not so many.
function TooMany({ id, model, models, text, images }) {
  const other = models.find((item) => item.kind === "image" && item.references >= images.length);
  const keep = () => changeDraft(id, { images: images.slice(0, model.references) });
  const make = () => {
    openDraft({ mode: "image", prompt: text, images });
    clearDraft(id);
  };
  return html`<div class="hint row warning" role="status"><${Icon} name="alert" size=${16} />
    <span>${model.references ? t("agent.takes_pictures", { n: model.references }) : t(model.kind === "chat" ? "agent.reads_text" : "agent.takes_none")}</span>
    ${other && html`<${Button} small onClick=${() => changeDraft(id, { model: other.id })}>${t("agent.use_model", { model: other.model_name })}<//>
      <${Button} small onClick=${make}>${t("agent.to_images")}<//>`}
    <${Button} small kind="quiet" onClick=${keep}>${t("agent.remove_pictures")}<//></div>`;
}
