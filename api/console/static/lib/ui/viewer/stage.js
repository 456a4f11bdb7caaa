// The viewer's stage: PhotoSwipe with the console's own controls and keys.
import { html, render, signal } from "../preact.js";
import { t } from "../../state/language.js";
import PhotoSwipe from "../../../vendor/photoswipe/photoswipe.js";
import { actionsOf } from "./actions.js";
import { Bar, Foot, Panel } from "./controls.js";
import { itemKey } from "./items.js";
import { addPlayers, isStill, measurePictures, slideOf } from "./slides.js";

const NEAR_END = 6;
const PANEL_WIDTH = 340;
const NARROW = 700;
const ANIMATION_MS = 180;

// Open the viewer at the item of this key. `onMove(key)`: another item is shown; `onClose()`: the user closed the viewer.
// Returns { key(), update(list, key), close({ quick }) }.
export function createStage(list, key, { onMove, onClose }) {
  const indexOf = (items, wanted) => items.findIndex((item) => itemKey(item) === wanted);
  const state = signal({ ...list, index: Math.max(0, indexOf(list.items, key)), panel: false });
  const change = (values) => {
    state.value = { ...state.value, ...values };
  };
  const pswp = new PhotoSwipe(optionsOf(state));
  const viewer = { pswp, state, actions: actionsOf(state), toggle, close: () => pswp.close(), goTo: (index) => pswp.goTo(index) };
  let announced = true;

  function toggle(name) {
    change({ [name]: !state.value[name] });
    pswp.element.classList.toggle("viewer-with-panel", state.value.panel);
    pswp.updateSize(true);
  }

  pswp.addFilter("numItems", () => state.value.items.length);
  // The thumbnail is there until the picture has loaded.
  pswp.addFilter("placeholderSrc", (_, content) => content.data.msrc ?? false);
  pswp.addFilter("itemData", (_, index) => slideOf(state.value.items[index]));
  addPlayers(pswp);
  measurePictures(pswp);
  addControls(viewer);
  pswp.on("keydown", (event) => handleKey(event, viewer));
  pswp.on("change", () => {
    const { items, options } = state.value;
    if (pswp.currIndex === state.value.index || !items[pswp.currIndex]) return;
    change({ index: pswp.currIndex });
    onMove(itemKey(items[pswp.currIndex]));
    if (pswp.currIndex >= items.length - NEAR_END) options.onNearEnd?.();
  });
  pswp.on("close", () => announced && onClose());
  pswp.on("destroy", () => focusTile(state.value.items[state.value.index]));
  pswp.init();
  pswp.element.setAttribute("aria-modal", "true");
  pswp.element.setAttribute("aria-label", t("viewer.title"));
  if (state.value.index >= list.items.length - NEAR_END) list.options.onNearEnd?.();

  return {
    key: () => itemKey(state.value.items[state.value.index]),
    update(next, wanted) {
      const shown = state.value.index;
      let index = indexOf(next.items, wanted);
      // The picture was deleted: the next one takes its place.
      if (index < 0) index = Math.min(shown, next.items.length - 1);
      if (index < 0) return pswp.close();
      const before = neighbours(state.value.items, shown);
      const after = neighbours(next.items, index);
      change({ items: next.items, options: next.options, index });
      if (before.join() === after.join()) shiftSlides(pswp, index);
      else showSlides(pswp, index);
      if (itemKey(next.items[index]) !== wanted) onMove(itemKey(next.items[index]));
      return undefined;
    },
    close({ quick = false } = {}) {
      announced = false;
      const end = () => (quick ? pswp.destroy() : pswp.close());
      // PhotoSwipe ignores both while it opens.
      if (pswp.opener.isOpening) pswp.on("openingAnimationEnd", end);
      else end();
    },
  };
}

function optionsOf(state) {
  const duration = isStill() ? 0 : ANIMATION_MS;
  return {
    index: state.value.index,
    mainClass: "viewer",
    bgOpacity: 1,
    loop: false,
    wheelToZoom: true,
    imageClickAction: "zoom",
    maxZoomLevel: 6,
    showHideAnimationType: "fade",
    showAnimationDuration: duration,
    hideAnimationDuration: duration,
    zoomAnimationDuration: duration,
    close: false,
    zoom: false,
    counter: false,
    preloader: false,
    arrowPrevTitle: t("action.previous"),
    arrowNextTitle: t("action.next"),
    errorMsg: t("viewer.not_loaded"),
    paddingFn: ({ x, y }) => ({ top: 56, bottom: y < 500 ? 12 : 128, left: 0, right: state.value.panel && x > NARROW ? PANEL_WIDTH : 0 }),
  };
}

const neighbours = (items, index) => [-1, 0, 1].map((offset) => (items[index + offset] ? itemKey(items[index + offset]) : ""));

// The same slides at another place of the list, for example because a new picture stands before them.
function shiftSlides(pswp, index) {
  const offset = index - pswp.currIndex;
  if (offset) {
    pswp.contentLoader._cachedItems = pswp.contentLoader._cachedItems.filter((content) => content.hasSlide);
    for (const { slide } of pswp.mainScroll.itemHolders) {
      if (!slide) continue;
      slide.index += offset;
      slide.content.index += offset;
    }
    pswp.currIndex = index;
    pswp.potentialIndex = index;
  }
  pswp.dispatch("change");
}

function showSlides(pswp, index) {
  pswp.currIndex = index;
  pswp.potentialIndex = index;
  const { itemHolders } = pswp.mainScroll;
  for (const { slide } of itemHolders) slide?.setIsActive(false);
  pswp.contentLoader.destroy();
  itemHolders.forEach((holder, n) => pswp.setContent(holder, index - 1 + n, true));
  pswp.contentLoader.updateLazy();
  pswp.dispatch("change");
}

// Preact draws the bar, the foot and the panel; PhotoSwipe hides them together with its own.
function addControls(viewer) {
  const { pswp } = viewer;
  const roots = [];
  pswp.on("uiRegister", () => {
    for (const [name, Part] of [["bar", Bar], ["foot", Foot], ["panel", Panel]]) {
      pswp.ui.registerElement({
        name: `viewer-${name}`,
        className: `viewer-${name}`,
        order: 9,
        appendTo: "root",
        onInit: (element) => {
          roots.push(element);
          render(html`<${Part} viewer=${viewer} />`, element);
        },
      });
    }
  });
  pswp.on("destroy", () => roots.forEach((element) => render(null, element)));
}

const KEYS = {
  Home: ({ goTo }) => goTo(0),
  End: ({ goTo, state }) => goTo(state.value.items.length - 1),
  s: ({ actions }) => actions.star(),
  d: ({ actions }) => actions.download(),
  Delete: ({ actions }) => actions.remove(),
  x: ({ actions }) => actions.select(),
  c: ({ actions }) => actions.compare(),
  i: ({ toggle }) => toggle("panel"),
  " ": ({ pswp }) => togglePlayer(pswp),
};

function togglePlayer({ currSlide }) {
  const player = currSlide?.content.element;
  if (!player?.matches?.("video, audio")) return;
  if (player.paused) player.play().catch(() => {});
  else player.pause();
}

function handleKey(event, viewer) {
  const { originalEvent: key } = event;
  const typed = key.target instanceof Element ? key.target : document.body;
  const onPlayer = typed.matches("video, audio") && (key.key === " " || key.key.startsWith("Arrow"));
  // Another dialog is open before the viewer, or the key belongs to what has the focus.
  if (document.querySelector("dialog[open]") || typed.matches("input, textarea, select") || onPlayer) return event.preventDefault();
  // What gets the focus must be visible.
  if (key.key === "Tab") viewer.pswp.element.classList.add("pswp--ui-visible");
  const handle = KEYS[key.key.length === 1 ? key.key.toLowerCase() : key.key];
  if (!handle || key.ctrlKey || key.metaKey || key.altKey) return undefined;
  if (key.key === " " && typed.closest("button, a, summary")) return undefined;
  event.preventDefault();
  key.preventDefault();
  handle(viewer);
  return undefined;
}

// After PhotoSwipe has given the focus back: the tile of the last picture, if the page shows one.
function focusTile(item) {
  const tile = item && document.querySelector(`[data-view="${CSS.escape(itemKey(item))}"]`);
  tile?.focus({ preventScroll: false });
}
