// References of the form: dropped, pasted or selected. They become the frames of a video, or what the prompt refers to.
import { html, useEffect, useRef, useState } from "../preact.js";
import { platformUrl } from "../../api/client.js";
import { draft, mostOf, numberReferences, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { createReference, readReferences } from "../../state/pictures.js";
import { Button, RadioGroup, toast } from "../components.js";
import { Icon } from "../icons.js";

// Add files after those that are there, as far as the model takes them.
async function addFiles(files, model) {
  const { references, refused, shrunk } = await readReferences(files, model.input_limits);
  for (const change of shrunk) toast(t("play.shrunk", change), "plain");
  if (refused.length) toast(t("play.not_pictures", { names: refused.join(t("list.separator")) }), "bad");
  const images = [...draft.value.images];
  for (const reference of references) {
    const most = mostOf(model, reference.media);
    if (images.filter(({ media }) => media === reference.media).length < most) images.push(reference);
    else toast(t(`play.too_many_${reference.media}`, { n: most, name: reference.name }), "bad");
  }
  updateDraft({ images, missingUploads: 0 });
}

// Whether an omni model leaves the choice between frames and references.
const hasChoice = ({ mode, images }, model) => mode === "video" && model.omni && images.length > 0
  && images.length <= Number(model.first_frame) + Number(model.end_frame) && images.every(({ media }) => media === "image");

// What a file field offers for a model.
const accepted = (model) => `image/*,.heic,.heif${model.omni ? ",video/*,audio/*" : ""}`;
const isFull = ({ images }, model) => ["image", "video", "audio"].every((media) => images.filter((item) => item.media === media).length >= mostOf(model, media));
const selectFiles = (model) => (event) => {
  // A copy: the list of a file field empties with the field.
  addFiles([...event.target.files], model);
  event.target.value = "";
};

// A small button in place of the large area: the composer of phones.
export function AttachFiles({ values, model }) {
  if (!model.references || isFull(draft.value, model)) return null;
  const label = t(values.mode === "image" ? "play.references" : "play.video_images");
  return html`<label class="button icon-only attach" title=${label}><input type="file" class="visually-hidden" accept=${accepted(model)} multiple aria-label=${label} onChange=${selectFiles(model)} /><${Icon} name="image" size=${18} /></label>`;
}

// `compact` = only what is there, in one row; `paste` = files that are pasted into the page are added.
export function References({ values, model, compact = false, paste: pasted = true }) {
  const { images, missingUploads } = draft.value;
  const [dragging, setDragging] = useState(false);
  const add = (files) => addFiles([...files], model);
  const latest = useRef(add);
  latest.current = add;
  useEffect(() => {
    if (!pasted) return undefined;
    const paste = (event) => event.clipboardData?.files.length && latest.current(event.clipboardData.files);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, [pasted]);
  if (!images.length && !missingUploads && (compact || !model.references)) return null;
  const drop = (event) => {
    event.preventDefault();
    setDragging(false);
    const link = event.dataTransfer.getData("text/uri-list");
    if (event.dataTransfer.files.length) add(event.dataTransfer.files);
    else if (link.includes("/v1/files/") && images.filter(({ media }) => media === "image").length < model.references) updateDraft({ images: [...images, createReference(link, "")] });
  };
  const used = numberReferences(values.images);
  const unused = images.length - used.length;
  return html`<div class="field ${compact ? "compact" : ""}">${!compact && html`<span class="label">${t(values.mode === "image" ? "play.references" : "play.video_images")}</span>`}
    <div class="drop ${dragging ? "dragging" : ""}" onDragOver=${(event) => { event.preventDefault(); setDragging(true); }} onDragLeave=${() => setDragging(false)} onDrop=${drop}>
      ${images.map((image, n) => html`<${Reference} key=${image.id} image=${image} n=${n} use=${used.find((item) => item.image.id === image.id)} values=${values} model=${model} />`)}
      ${!compact && !isFull(draft.value, model) && html`<label class="drop-add ${images.length ? "short" : ""}"><input type="file" accept=${accepted(model)} multiple
        onChange=${selectFiles(model)} /><${Icon} name="upload" /><span>${t(images.length ? "play.add" : model.omni ? "play.drop_files" : "play.drop_images")}</span></label>`}
    </div>
    ${!compact && values.frames && values.images.length === 2 && html`<div><${Button} small icon="swap" onClick=${() => moveForward(1)}>${t("play.swap_frames")}<//></div>`}
    ${unused > 0 && html`<p class="hint row warning"><${Icon} name="alert" size=${16} /><span>${t(model.references ? "play.model_takes" : "play.model_takes_none", { n: model.references, unused })}</span></p>`}
    ${missingUploads > 0 && html`<p class="hint row warning" role="status"><${Icon} name="alert" size=${16} /><span>${t("play.uploads_missing", { n: missingUploads })}</span>
      <${Button} small kind="quiet" onClick=${() => updateDraft({ missingUploads: 0 })}>${t("play.go_without")}<//></p>`}
    ${!compact && hasChoice(values, model) && html`<${RadioGroup} label=${t("play.use_as")} value=${values.frames ? "frames" : "references"} onChange=${(imagesAs) => updateDraft({ imagesAs })}
      options=${[["frames", t("play.as_frames")], ["references", t("play.as_references")]]} />`}
  </div>`;
}

function moveForward(n) {
  const images = [...draft.value.images];
  [images[n - 1], images[n]] = [images[n], images[n - 1]];
  updateDraft({ images });
}

// `use` = its number among those that the model takes; undefined if the model does not take it.
function Reference({ image, n, use, values, model }) {
  let role = t(`play.reference_${image.media}`, { n: use?.number ?? n + 1 });
  if (use && values.frames) role = t(use.number > 1 ? "play.end_frame" : "play.first_frame");
  const remove = () => updateDraft({ images: draft.value.images.filter((item) => item.id !== image.id) });
  const isOrdered = n > 0 && use && !values.frames;
  return html`<figure class="reference ${use ? "" : "unused"}"><div class="reference-picture"><${Preview} image=${image} role=${role} />
      <${Button} small icon="close" label=${t("play.remove", { name: role })} onClick=${remove} />
      ${isOrdered && html`<${Button} small icon="left" class="reference-move" label=${t("play.move", { name: role })} onClick=${() => moveForward(n)} />`}</div>
    <figcaption class="hint">${use ? role : t("play.not_used")}${use && model.omni && !values.frames && html` <code>${use.mention}</code>`}</figcaption></figure>`;
}

const ICONS = { image: "image", video: "video", audio: "play" };

function Preview({ image, role }) {
  if (!image.source) return html`<span class="reference-name"><span class="spinner" aria-hidden="true"></span></span>`;
  const source = image.upload ? image.source : platformUrl(image.source);
  if (image.preview && image.media === "image") return html`<img src=${source} alt=${role} />`;
  return html`<span class="reference-name" role="img" aria-label=${role}><${Icon} name=${ICONS[image.media]} /><span>${image.name}</span></span>`;
}
