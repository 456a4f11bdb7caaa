// Small pictures of long lists. Only those near the screen are loaded, few at a time, so that the connections of the browser stay free
// for everything else; one that leaves the screen before it has come is given up.
import { html, useMemo } from "../preact.js";

// A browser has six connections to a server (HTTP/1.1); the job feed has one, and pages of the list need some.
const MOST_AT_ONCE = 3;
const AHEAD = "400px";
// Device pixels of the longer side up to which the small picture (128) is good enough.
const SMALL_UP_TO = 150;

const waiting = new Set();
const loading = new Set();
const observer = new IntersectionObserver(onChange, { rootMargin: AHEAD });

function onChange(entries) {
  for (const { target, isIntersecting, boundingClientRect: box } of entries) {
    if (!isIntersecting) giveUp(target);
    else if (isWanted(target, box)) waiting.add(target);
  }
  loadNext();
}

function isWanted(image, { width, height }) {
  const isLarge = Math.max(width, height) * devicePixelRatio > SMALL_UP_TO;
  image.wanted = image.dataset.small && !isLarge ? "small" : "src";
  return isOutdated(image) && !loading.has(image);
}

// A small one that has become larger on the screen is loaded again, never the other way round.
const isOutdated = (image) => image.loaded !== image.wanted && image.loaded !== "src";

function loadNext() {
  for (const image of waiting) {
    if (loading.size >= MOST_AT_ONCE) return;
    waiting.delete(image);
    loading.add(image);
    image.started = image.wanted;
    image.src = image.dataset[image.wanted];
  }
}

function giveUp(image) {
  waiting.delete(image);
  if (!loading.delete(image)) return;
  if (image.loaded) image.src = image.dataset[image.loaded];
  else image.removeAttribute("src");
}

function onEnd(event) {
  const image = event.currentTarget;
  if (!loading.delete(image)) return;
  // One that failed is tried again when it comes back to the screen.
  if (event.type === "load") image.loaded = image.started;
  else image.removeAttribute("src");
  // It has become larger while the small picture was on its way.
  if (image.loaded && isOutdated(image)) waiting.add(image);
  loadNext();
}

// The tiles have another size: look at each again.
export function checkSizes() {
  for (const image of document.querySelectorAll("img.thumbnail")) {
    observer.unobserve(image);
    observer.observe(image);
  }
}

// Preact calls the returned function with the element, and with null when that is gone.
function follow() {
  let image = null;
  return (element) => {
    if (element) observer.observe(element);
    else if (image) {
      observer.unobserve(image);
      giveUp(image);
      loadNext();
    }
    image = element;
  };
}

// `src` = the picture of 512 pixels, `small` = the one of 128 pixels, if there is one.
export function Thumbnail({ src, small, width, height }) {
  const ref = useMemo(follow, []);
  return html`<img ref=${ref} class="thumbnail" data-src=${src} data-small=${small} alt="" decoding="async" draggable=${false} width=${width} height=${height} onLoad=${onEnd} onError=${onEnd} />`;
}
