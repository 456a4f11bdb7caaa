// The names of references in a prompt: typing @ offers them.
import { html, useState } from "../preact.js";
import { numberReferences, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { platformUrl } from "../../api/client.js";
import { Icon } from "../icons.js";

const ICONS = { image: "image", video: "video", audio: "play" };

// For a text field with the prompt: { list, onKeyDown, onInput, aria }. `element` = the ref of the field.
export function useMentions(element, values, model) {
  const [typed, setTyped] = useState(null);
  const [active, setActive] = useState(0);
  const all = model.omni ? numberReferences(values.images) : [];
  const found = typed === null ? [] : all.filter(({ mention }) => mention.startsWith(typed.toLowerCase()));
  const current = Math.min(active, found.length - 1);
  const close = () => setTyped(null);
  const insert = ({ mention }) => {
    const { selectionStart: end } = element.current;
    const start = end - typed.length;
    const text = values.prompt;
    updateDraft({ prompt: `${text.slice(0, start)}${mention} ${text.slice(end).replace(/^ /, "")}` });
    close();
    // After the field shows the new text.
    setTimeout(() => {
      element.current.focus();
      element.current.setSelectionRange(start + mention.length + 1, start + mention.length + 1);
    });
  };
  const onInput = (event) => {
    const before = event.target.value.slice(0, event.target.selectionStart);
    setTyped(before.match(/(?:^|[^\w.])(@\w*)$/)?.[1] ?? null);
    setActive(0);
  };
  // Returns whether the key was for the list.
  const onKeyDown = (event) => {
    if (!found.length || event.isComposing) return false;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) setActive((current + step + found.length) % found.length);
    else if (event.key === "Enter" || event.key === "Tab") insert(found[current]);
    else if (event.key === "Escape") close();
    else return false;
    event.preventDefault();
    return true;
  };
  const list = found.length > 0 && html`<ul id="mentions" class="mentions" role="listbox" aria-label=${t("play.mentions")}>${found.map((item, n) => html`<li key=${item.mention} id=${`mention-${n}`} role="option" aria-selected=${n === current}
    onMouseDown=${(event) => { event.preventDefault(); insert(item); }}>${item.image.media === "image" && item.image.preview && item.image.source
      ? html`<img src=${item.image.upload ? item.image.source : platformUrl(item.image.source)} alt="" />` : html`<${Icon} name=${ICONS[item.image.media]} />`}<strong>${item.mention}</strong><span class="hint clamp-one">${item.image.name}</span></li>`)}</ul>`;
  const aria = found.length ? { "aria-controls": "mentions", "aria-activedescendant": `mention-${current}`, "aria-autocomplete": "list" } : {};
  return { list, onKeyDown, onInput, onBlur: close, aria };
}
