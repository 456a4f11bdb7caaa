// Reference images of the form: dropped, pasted or selected. They become the frames of a video, or what the prompt refers to.
import { html, useEffect, useRef, useState } from "../preact.js";
import { platformUrl } from "../../api/client.js";
import { draft, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { createReference, readPictures } from "../../state/pictures.js";
import { Button, RadioGroup, toast } from "../components.js";
import { Icon } from "../icons.js";

// Add files after those that are there; `most` = what the model takes.
async function addFiles(files, most) {
  const { pictures, refused } = await readPictures(files);
  if (refused.length) toast(t("play.not_pictures", { names: refused.join(", ") }), "bad");
  const free = Math.max(most - draft.value.images.length, 0);
  if (pictures.length > free) toast(t("play.too_many", { n: most }), "bad");
  updateDraft({ images: [...draft.value.images, ...pictures.slice(0, free)], missingUploads: 0 });
}

// Whether an omni model leaves the choice between frames and references.
const hasChoice = ({ mode, images }, model) => mode === "video" && model.omni && images.length > 0 && images.length <= Number(model.first_frame) + Number(model.end_frame);

export function References({ values, model }) {
  const { images, missingUploads } = draft.value;
  const [dragging, setDragging] = useState(false);
  // A copy: the list of a file field empties with the field.
  const add = (files) => addFiles([...files], model.references);
  const latest = useRef(add);
  latest.current = add;
  useEffect(() => {
    const paste = (event) => event.clipboardData?.files.length && latest.current(event.clipboardData.files);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  if (!model.references && !images.length) return null;
  const drop = (event) => {
    event.preventDefault();
    setDragging(false);
    const link = event.dataTransfer.getData("text/uri-list");
    if (event.dataTransfer.files.length) add(event.dataTransfer.files);
    else if (link.includes("/v1/files/") && images.length < model.references) updateDraft({ images: [...images, createReference(link, "")] });
  };
  const selectFiles = (event) => {
    add(event.target.files);
    event.target.value = "";
  };
  const unused = images.length - values.images.length;
  return html`<div class="field"><span class="label">${t(values.mode === "image" ? "play.references" : "play.video_images")}</span>
    <div class="drop ${dragging ? "dragging" : ""}" onDragOver=${(event) => { event.preventDefault(); setDragging(true); }} onDragLeave=${() => setDragging(false)} onDrop=${drop}>
      ${images.map((image, n) => html`<${Reference} key=${image.id} image=${image} n=${n} values=${values} model=${model} />`)}
      ${images.length < model.references && html`<label class="drop-add ${images.length ? "short" : ""}"><input type="file" accept="image/*,.heic,.heif" multiple
        onChange=${selectFiles} /><${Icon} name="upload" /><span>${t(images.length ? "play.add" : "play.drop_images")}</span></label>`}
    </div>
    ${values.frames && values.images.length === 2 && html`<div><${Button} small icon="swap" onClick=${() => moveForward(1)}>${t("play.swap_frames")}<//></div>`}
    ${unused > 0 && html`<p class="hint row warning"><${Icon} name="alert" size=${16} /><span>${t(model.references ? "play.model_takes" : "play.model_takes_none", { n: model.references, unused })}</span></p>`}
    ${missingUploads > 0 && html`<p class="hint row warning" role="status"><${Icon} name="alert" size=${16} /><span>${t("play.uploads_missing", { n: missingUploads })}</span>
      <${Button} small kind="quiet" onClick=${() => updateDraft({ missingUploads: 0 })}>${t("play.go_without")}<//></p>`}
    ${hasChoice(values, model) && html`<${RadioGroup} label=${t("play.use_as")} value=${values.frames ? "frames" : "references"} onChange=${(imagesAs) => updateDraft({ imagesAs })}
      options=${[["frames", t("play.as_frames")], ["references", t("play.as_references")]]} />`}
  </div>`;
}

function moveForward(n) {
  const images = [...draft.value.images];
  [images[n - 1], images[n]] = [images[n], images[n - 1]];
  updateDraft({ images });
}

function Reference({ image, n, values, model }) {
  const isUsed = n < values.images.length;
  let role = t("play.reference", { n: n + 1 });
  if (isUsed && values.frames) role = t(n ? "play.end_frame" : "play.first_frame");
  const remove = () => updateDraft({ images: draft.value.images.filter((item) => item.id !== image.id) });
  const isOrdered = n > 0 && isUsed && !values.frames;
  return html`<figure class="reference ${isUsed ? "" : "unused"}"><div class="reference-picture"><${Picture} image=${image} role=${role} />
      <${Button} small icon="close" label=${t("play.remove", { name: role })} onClick=${remove} />
      ${isOrdered && html`<${Button} small icon="left" class="reference-move" label=${t("play.move", { name: role })} onClick=${() => moveForward(n)} />`}</div>
    <figcaption class="hint">${isUsed ? role : t("play.not_used")}${isUsed && model.omni && !values.frames && html` <code>@image${n + 1}</code>`}</figcaption></figure>`;
}

function Picture({ image, role }) {
  if (!image.source) return html`<span class="reference-name"><span class="spinner" aria-hidden="true"></span></span>`;
  if (!image.preview) return html`<span class="reference-name" role="img" aria-label=${role}><${Icon} name="image" /><span>${image.name}</span></span>`;
  return html`<img src=${image.upload ? image.source : platformUrl(image.source)} alt=${role} />`;
}
