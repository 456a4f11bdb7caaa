// The size of the screen: whether it is a phone, and how much of it the on-screen keyboard covers.
import { effect, signal } from "../ui/preact.js";

// Also the limit in the style sheets.
const phone = matchMedia("(max-width: 700px)");
export const isPhone = signal(phone.matches);
phone.addEventListener("change", () => {
  isPhone.value = phone.matches;
});

// Smaller changes are the browser's own bars.
const KEYBOARD_PX = 140;
const root = document.documentElement;
const isTyping = () => document.activeElement?.matches?.("textarea, select, input:not([type=checkbox], [type=radio], [type=file], [type=range])") ?? false;

// Some browsers make the page smaller for the keyboard, others cover it: `--keyboard` is what they cover, in px.
function watchKeyboard(viewport) {
  let width = 0;
  let tallest = 0;
  const update = () => {
    // Zoomed by hand: what is seen is a part of the page.
    if (Math.abs(viewport.scale - 1) > 0.05) return;
    if (width !== viewport.width) tallest = 0;
    width = viewport.width;
    tallest = Math.max(tallest, viewport.height);
    const isOpen = isPhone.value && isTyping() && tallest - viewport.height > KEYBOARD_PX;
    const covered = isOpen ? Math.max(0, Math.round(innerHeight - viewport.height - viewport.offsetTop)) : 0;
    root.style.setProperty("--keyboard", `${covered}px`);
    root.toggleAttribute("data-keyboard", isOpen);
  };
  viewport.addEventListener("resize", update);
  viewport.addEventListener("scroll", update);
  addEventListener("focusin", update);
  addEventListener("focusout", () => setTimeout(update));
  effect(update);
}

if (globalThis.visualViewport) watchKeyboard(visualViewport);
