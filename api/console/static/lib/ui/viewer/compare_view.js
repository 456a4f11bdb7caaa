// Two pictures over each other with a slider, or side by side. Both show the same part at any zoom.
import { html, useEffect, useId, useRef, useState } from "../preact.js";
import { platformUrl } from "../../api/client.js";
import { thumbnailUrl } from "../../api/jobs.js";
import { useLoaded } from "../../api/loading.js";
import { t } from "../../state/language.js";
import { Button, ErrorMessage, Loading, RadioGroup } from "../components.js";
import { Thumbnail } from "../results/thumbnail.js";
import "../../../vendor/img-comparison-slider/img-comparison-slider.js";
import { changeCompared, closeCompare, comparedFrom } from "./compare.js";
import { zoomTogether } from "./compare_zoom.js";
import { itemKey, mediaOf, modelOf, sizeOf, titleOf } from "./items.js";
import { findItem, setAddress } from "./viewer.js";

const MOST_CHOICES = 60;

// A full-screen native dialog: the focus stays inside, and Escape closes it.
export function CompareView({ keys, as }) {
  const element = useRef(null);
  const zoom = useRef(null);
  const titleId = useId();
  const pair = useLoaded(() => Promise.all(keys.map(findItem)), [keys.join()]);
  useEffect(() => {
    const focused = document.activeElement;
    element.current.showModal();
    return () => focused?.isConnected && focused.focus();
  }, []);
  const setMode = (mode) => setAddress({ as: mode === "sides" ? mode : "" }, { replace: true, state: history.state });
  const onKeyDown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const handle = { "+": zoom.current?.zoomIn, "=": zoom.current?.zoomIn, "-": zoom.current?.zoomOut, 0: zoom.current?.reset, 1: () => setMode("slider"), 2: () => setMode("sides"), x: () => changeCompared(keys.toReversed()) }[event.key];
    if (!handle) return;
    event.preventDefault();
    handle();
  };
  const items = pair.data;
  return html`<dialog ref=${element} class="compare" aria-labelledby=${titleId} onKeyDown=${onKeyDown} onCancel=${(event) => { event.preventDefault(); closeCompare(); }}>
    <header class="compare-bar"><h2 id=${titleId}>${t("compare.title")}</h2>
      <${RadioGroup} hideLabel label=${t("compare.mode")} value=${as} options=${[["slider", t("compare.slider")], ["sides", t("compare.sides")]]} onChange=${setMode} />
      <div class="row"><${Button} kind="quiet" icon="swap" label=${t("compare.swap")} onClick=${() => changeCompared(keys.toReversed())} />
        <${Button} kind="quiet" icon="minus" label=${t("compare.zoom_out")} onClick=${() => zoom.current?.zoomOut()} />
        <${Button} kind="quiet" icon="plus" label=${t("compare.zoom_in")} onClick=${() => zoom.current?.zoomIn()} />
        <${Button} kind="quiet" icon="close" label=${t("action.close")} onClick=${closeCompare} /></div></header>
    ${pair.error && html`<${ErrorMessage} error=${pair.error} onRetry=${pair.reload} />`}
    ${!items && !pair.error && html`<${Loading} />`}
    ${items && html`<${Area} key=${as + keys.join()} items=${items} as=${as} zoom=${zoom} /><${Captions} items=${items} /><${Choices} keys=${keys} />`}
  </dialog>`;
}

const Picture = ({ item, ...rest }) => html`<img ...${rest} src=${platformUrl(item.file.url)} alt=${titleOf(item)} draggable=${false} />`;

function Area({ items, as, zoom }) {
  const area = useRef(null);
  const [value, setValue] = useState(50);
  useEffect(() => {
    const slider = area.current.querySelector("img-comparison-slider");
    const zooming = zoomTogether(area.current, slider);
    zoom.current = zooming;
    const onSlide = () => setValue(Math.round(slider.value));
    slider?.addEventListener("slide", onSlide);
    slider?.focus();
    return () => {
      zooming.stop();
      zoom.current = null;
      slider?.removeEventListener("slide", onSlide);
    };
  }, []);
  if (as === "sides") return html`<div ref=${area} class="compare-area sides">${items.map((item, n) => html`<figure key=${n}><${Picture} item=${item} /></figure>`)}</div>`;
  // The element knows the arrow keys; its role and value are for screen readers.
  return html`<div ref=${area} class="compare-area"><img-comparison-slider tabindex="0" role="slider" aria-label=${t("compare.divider")} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${value}>
    <${Picture} slot="first" item=${items[0]} /><${Picture} slot="second" item=${items[1]} /><span slot="handle" class="compare-handle" aria-hidden="true"></span></img-comparison-slider></div>`;
}

const Captions = ({ items }) => html`<div class="compare-captions">${items.map((item, n) => html`<div key=${n}><p class="clamp">${titleOf(item)}</p>
  <p class="hint numeric">${[modelOf(item), sizeOf(item.file)].filter(Boolean).join(" · ")}</p></div>`)}</div>`;

// The other pictures of the list: a click puts one in the place of the second.
function Choices({ keys }) {
  const items = comparedFrom().filter((item) => mediaOf(item.file) === "image" && itemKey(item) !== keys[0]).slice(0, MOST_CHOICES);
  if (items.length < 2) return null;
  return html`<ol class="compare-choices" aria-label=${t("compare.choose")}>${items.map((item, n) => html`<li key=${itemKey(item)}><button type="button" aria-current=${itemKey(item) === keys[1] ? "true" : undefined}
    aria-label=${t("compare.with", { n: n + 1, title: titleOf(item).slice(0, 80) })} onClick=${() => changeCompared([keys[0], itemKey(item)])}><${Thumbnail} src=${thumbnailUrl(item.file, { small: true })} /></button></li>`)}</ol>`;
}
