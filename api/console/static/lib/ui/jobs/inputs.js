// The pictures, clips and sounds that a job was given.
import { html } from "../preact.js";
import { api, platformUrl } from "../../api/client.js";
import { useLoaded } from "../../api/loading.js";
import { t } from "../../state/language.js";
import { ErrorMessage } from "../components.js";
import { Icon } from "../icons.js";

const ICONS = { image: "image", video: "video", audio: "play" };

export function JobInputs({ job }) {
  const loaded = useLoaded((signal) => api.get(`/v1/jobs/${job.id}/inputs`, {}, { signal }), [job.id]);
  if (loaded.error) return html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`;
  if (!loaded.data?.data.length) return null;
  return html`<section class="card"><h2>${t("param.references")}</h2><div class="job-inputs">${loaded.data.data.map((item) => html`<${Input} key=${item.n} item=${item} />`)}</div></section>`;
}

function Input({ item }) {
  const label = item.role === "reference" ? `${t(`input.${item.media}`)} ${item.n + 1}` : t(`input.${item.role}`);
  let view = html`<span class="reference-name"><${Icon} name=${ICONS[item.media]} /><span>${t(item.source_url ? "input.link" : "input.removed")}</span></span>`;
  if (item.url && item.media === "image") view = html`<a href=${platformUrl(item.url)} target="_blank" rel="noopener"><img src=${platformUrl(item.url)} alt=${label} loading="lazy" width=${item.width} height=${item.height} /></a>`;
  if (item.url && item.media === "video") view = html`<video src=${platformUrl(item.url)} controls preload="none" playsinline aria-label=${label}></video>`;
  if (item.url && item.media === "audio") view = html`<audio src=${platformUrl(item.url)} controls preload="none" aria-label=${label}></audio>`;
  return html`<figure>${view}<figcaption class="hint">${label}</figcaption></figure>`;
}
