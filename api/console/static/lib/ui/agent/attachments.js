// Pictures of a message that is being written: added as files, pasted, dropped, or chosen among results with @.
import { html, useEffect, useRef, useState } from "../preact.js";
import { api, platformUrl } from "../../api/client.js";
import { jobFiles, jobTitle, thumbnailUrl } from "../../api/jobs.js";
import { changeDraft, draftOf } from "../../state/chat_drafts.js";
import { t } from "../../state/language.js";
import { createReference, readReferences } from "../../state/pictures.js";
import { Button, toast } from "../components.js";
import { Icon } from "../icons.js";

const RECENT = 8;

const addImages = (id, images) => changeDraft(id, { images: [...draftOf(id).peek().images, ...images] });

export async function addFiles(id, files) {
  const { references, refused } = await readReferences([...files].filter(({ type }) => !/^(?:video|audio)\//.test(type)));
  const others = [...files].filter(({ type }) => /^(?:video|audio)\//.test(type)).map(({ name }) => name);
  if (refused.length || others.length) toast(t("agent.not_pictures", { names: [...refused, ...others].join(", ") }), "bad");
  if (references.length) addImages(id, references);
}

// The handlers of a place where pictures can be dropped, and whether one is over it. Pasting works in the whole page.
export function useDrop(id) {
  const [dragging, setDragging] = useState(false);
  const latest = useRef(id);
  latest.current = id;
  useEffect(() => {
    const paste = (event) => event.clipboardData?.files.length && addFiles(latest.current, event.clipboardData.files);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  const onDrop = (event) => {
    event.preventDefault();
    setDragging(false);
    const link = event.dataTransfer.getData("text/uri-list");
    if (event.dataTransfer.files.length) addFiles(id, event.dataTransfer.files);
    else if (link.includes("/v1/files/")) addImages(id, [createReference(link.replace("/thumbnail", "/content"), "")]);
  };
  const onDragOver = (event) => {
    event.preventDefault();
    setDragging(true);
  };
  return [{ onDragOver, onDragLeave: () => setDragging(false), onDrop }, dragging];
}

export function Attachments({ id, images }) {
  const remove = (image) => changeDraft(id, { images: draftOf(id).peek().images.filter((item) => item.id !== image.id) });
  return html`<div class="attachments">${images.map((image, n) => html`<figure key=${image.id} class="reference"><div class="reference-picture">
    ${!image.source ? html`<span class="reference-name"><span class="spinner" aria-hidden="true"></span></span>`
      : image.preview ? html`<img src=${image.upload ? image.source : platformUrl(image.source)} alt=${t("agent.attached", { n: n + 1 })} />`
        : html`<span class="reference-name" role="img" aria-label=${t("agent.attached", { n: n + 1 })}><${Icon} name="image" /><span>${image.name}</span></span>`}
    <${Button} small icon="close" label=${t("agent.remove", { n: n + 1 })} onClick=${() => remove(image)} /></div></figure>`)}</div>`;
}

export function AttachButton({ id }) {
  const select = (event) => {
    addFiles(id, [...event.target.files]);
    event.target.value = "";
  };
  return html`<label class="button icon-only attach" title=${t("agent.attach")}><input type="file" class="visually-hidden" accept="image/*,.heic,.heif" multiple aria-label=${t("agent.attach")} onChange=${select} /><${Icon} name="image" size=${18} /></label>`;
}

// Typing @ in a text field offers the newest pictures: { list, onInput, onKeyDown, onBlur, aria }. The chosen one is attached.
export function useResultPicker(element, id, results) {
  const [typed, setTyped] = useState(null);
  const [recent, setRecent] = useState(null);
  const [active, setActive] = useState(0);
  useEffect(() => {
    if (typed === null || recent) return;
    api.get("/v1/jobs", { kind: "image", status: "completed", limit: RECENT }).then(({ data }) => setRecent(data), () => setRecent([]));
  }, [typed === null]);
  const jobs = [...new Map([...results, ...(recent ?? [])].map((job) => [job.id, job])).values()];
  const words = (typed ?? "").slice(1).toLowerCase();
  const pictures = jobs.flatMap((job) => jobFiles(job).filter(({ mime }) => mime.startsWith("image/")).map((file) => ({ file, name: jobTitle(job) })));
  const found = typed === null ? [] : pictures.filter(({ name }) => name.toLowerCase().includes(words)).slice(0, RECENT);
  const current = Math.min(active, found.length - 1);
  const close = () => setTyped(null);
  const choose = ({ file, name }) => {
    const { selectionStart: end } = element.current;
    const { text } = draftOf(id).peek();
    changeDraft(id, { text: text.slice(0, end - typed.length) + text.slice(end) });
    addImages(id, [createReference(file.url, name)]);
    close();
    element.current.focus();
  };
  const onInput = (event) => {
    setTyped(event.target.value.slice(0, event.target.selectionStart).match(/(?:^|\s)(@[^\s@]{0,40})$/)?.[1] ?? null);
    setActive(0);
  };
  // Returns whether the key was for the list.
  const onKeyDown = (event) => {
    if (!found.length || event.isComposing) return false;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) setActive((current + step + found.length) % found.length);
    else if (event.key === "Enter" || event.key === "Tab") choose(found[current]);
    else if (event.key === "Escape") close();
    else return false;
    event.preventDefault();
    return true;
  };
  const list = found.length > 0 && html`<ul id="pictures" class="mentions" role="listbox" aria-label=${t("agent.pictures")}>${found.map((item, n) => html`<li key=${item.file.url} id=${`picture-${n}`} role="option" aria-selected=${n === current}
    onMouseDown=${(event) => { event.preventDefault(); choose(item); }}><img src=${thumbnailUrl(item.file, { small: true })} alt="" /><span class="clamp-one">${item.name}</span></li>`)}</ul>`;
  const aria = found.length ? { "aria-controls": "pictures", "aria-activedescendant": `picture-${current}`, "aria-autocomplete": "list" } : {};
  return { list, onKeyDown, onInput, onBlur: close, aria };
}
