// The title and the icon of the browser's tab: the page, how many jobs run, and whether some ended while nobody looked.
import { computed, effect, signal } from "../ui/preact.js";
import { openJobIds } from "../api/jobs.js";

export const pageTitle = signal("Dreamery");
// How many jobs ended since the tab was hidden.
export const endedUnseen = signal(0);

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) endedUnseen.value = 0;
});

effect(() => {
  const running = openJobIds.value.size;
  document.title = `${endedUnseen.value ? "✓ " : ""}${running ? `(${running}) ` : ""}${pageTitle.value}`;
});

const SIZE = 64;
const link = document.querySelector('link[rel="icon"]');
const plain = link && { href: link.href, type: link.type };
let picture = null;

function loadPicture() {
  picture ??= new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = plain.href;
  });
  return picture;
}

// The icon with a badge: a number while jobs run, a green dot when some have ended.
async function drawIcon(running, done) {
  const canvas = document.createElement("canvas");
  canvas.width = SIZE;
  canvas.height = SIZE;
  const context = canvas.getContext("2d");
  context.drawImage(await loadPicture(), 0, 0, SIZE, SIZE);
  context.beginPath();
  context.arc(44, 20, 20, 0, 2 * Math.PI);
  context.fillStyle = done ? "#1f9254" : "#c8451f";
  context.fill();
  context.fillStyle = "#fff";
  context.font = "bold 26px sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(done ? "✓" : running > 9 ? "9+" : String(running), 44, 21);
  return canvas.toDataURL("image/png");
}

const badge = computed(() => (endedUnseen.value ? "done" : openJobIds.value.size ? String(Math.min(openJobIds.value.size, 10)) : ""));

effect(() => {
  const wanted = badge.value;
  if (!link) return;
  if (!wanted) Object.assign(link, plain);
  else {
    drawIcon(Number(wanted), wanted === "done").then((href) => badge.peek() === wanted && Object.assign(link, { href, type: "image/png" }), () => {});
  }
});
