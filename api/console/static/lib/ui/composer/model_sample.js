// The picture of a model: the user's newest result of it, or a small landscape in colours of its own.
import { html } from "../preact.js";
import { thumbnailUrl } from "../../api/jobs.js";

// A number that is the same for the same text.
function hash(text) {
  let value = 2166136261;
  for (const char of text) value = Math.imul(value ^ char.codePointAt(0), 16777619);
  // Names that differ in their last letter only get different colours.
  value = Math.imul(value ^ (value >>> 15), 2246822519);
  return (value ^ (value >>> 13)) >>> 0;
}

function Drawing({ id, kind }) {
  const seed = hash(id);
  const hue = seed % 360;
  const sunX = 22 + ((seed >>> 9) % 56);
  const ridge = 52 + ((seed >>> 15) % 12);
  const colour = (shift, saturation, light) => `hsl(${(hue + shift) % 360} ${saturation}% ${light}%)`;
  return html`<svg viewBox="0 0 100 75" preserveAspectRatio="xMidYMid slice" aria-hidden="true" focusable="false">
    <rect width="100" height="75" fill=${colour(0, 52, 78)} /><circle cx=${sunX} cy="26" r="10" fill=${colour(40, 78, 90)} />
    <path d=${`M0 ${ridge}L22 ${ridge - 20}L42 ${ridge}L66 ${ridge - 26}L100 ${ridge + 4}V75H0z`} fill=${colour(20, 38, 56)} />
    <path d=${`M0 ${ridge + 8}Q30 ${ridge - 2} 58 ${ridge + 9}T100 ${ridge + 6}V75H0z`} fill=${colour(34, 40, 40)} />
    ${kind === "video" && html`<circle cx="50" cy="37" r="13" fill="rgb(0 0 0 / 45%)" /><path d="M46 30.500L57 37L46 43.500z" fill="#fff" />`}</svg>`;
}

export function ModelSample({ model }) {
  const source = model.sample && thumbnailUrl(model.sample, { small: true });
  return html`<span class="model-sample">${source ? html`<img src=${source} alt="" loading="lazy" decoding="async" />` : html`<${Drawing} id=${model.alias_of ?? model.id} kind=${model.kind} />`}</span>`;
}
