// What PhotoSwipe shows of an item: a picture with its thumbnail as placeholder, or a player for a video or sound.
import { platformUrl } from "../../api/client.js";
import { thumbnailUrl } from "../../api/jobs.js";
import { mediaOf, titleOf } from "./items.js";

// Until a file without stored dimensions has loaded.
const GUESS = 1024;
const PLAYER_WIDTH = 480;
const PLAYER_HEIGHT = 64;
// The lower part of a video, where its controls are.
const CONTROLS_HEIGHT = 64;

export function slideOf(item) {
  const { file } = item;
  const media = mediaOf(file);
  const alt = titleOf(item);
  if (media === "audio") return { type: media, item, alt, width: PLAYER_WIDTH, height: PLAYER_HEIGHT };
  const size = { width: file.width || GUESS, height: file.height || GUESS };
  if (media === "video") return { type: media, item, alt, ...size };
  return { src: platformUrl(file.url), msrc: thumbnailUrl(file), item, alt, ...size };
}

function createPlayer({ item, alt, type }) {
  const player = document.createElement(type);
  player.className = `viewer-${type}`;
  player.src = platformUrl(item.file.url);
  player.controls = true;
  player.loop = type === "video";
  player.playsInline = true;
  player.preload = "metadata";
  if (item.file.thumbnail_url) player.poster = platformUrl(item.file.thumbnail_url);
  player.setAttribute("aria-label", alt);
  return player;
}

const isPlayer = (content) => content.type === "video" || content.type === "audio";
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Players instead of PhotoSwipe's own content. They start when their slide appears, unless the user prefers less motion.
export function addPlayers(pswp) {
  pswp.on("contentLoad", (event) => {
    const { content } = event;
    if (!isPlayer(content)) return;
    event.preventDefault();
    content.element ??= createPlayer(content.data);
    content.state = "loading";
    content.onLoaded();
  });
  pswp.on("contentActivate", ({ content }) => {
    // A browser may refuse to play without a click; the controls are there.
    if (isPlayer(content) && !isStill()) content.element?.play().catch(() => {});
  });
  pswp.on("contentDeactivate", ({ content }) => isPlayer(content) && content.element?.pause());
  pswp.on("contentRemove", ({ content }) => isPlayer(content) && content.element?.pause());
  // The mouse belongs to the controls of a player; a finger swipes everywhere but there.
  pswp.on("pointerDown", (event) => {
    const { target, pointerType, clientY } = event.originalEvent;
    const player = target.closest("video, audio");
    if (player && (pointerType === "mouse" || clientY > player.getBoundingClientRect().bottom - CONTROLS_HEIGHT)) event.preventDefault();
  });
}

// Files of unknown dimensions get those of the loaded picture.
export function measurePictures(pswp) {
  pswp.on("loadComplete", ({ slide, content, isError }) => {
    const { file } = content.data.item;
    if (isError || content.type !== "image" || file.width || !content.element.naturalWidth) return;
    [file.width, file.height] = [content.element.naturalWidth, content.element.naturalHeight];
    pswp.refreshSlideContent(slide.index);
  });
}
