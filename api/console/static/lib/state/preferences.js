// Preferences that are saved in the browser's local storage.
import { effect, signal } from "../ui/preact.js";

const PREFIX = "dreamery.";

// A signal with a text value that is loaded from local storage and saved there. Without storage it lives as long as the page.
export function persistentSignal(name, fallback) {
  let initial = fallback;
  try {
    const text = localStorage.getItem(PREFIX + name);
    if (text !== null) initial = text;
  } catch {
    // Local storage is disabled.
  }
  const preference = signal(initial);
  effect(() => {
    try {
      if (preference.value === fallback) localStorage.removeItem(PREFIX + name);
      else localStorage.setItem(PREFIX + name, preference.value);
    } catch {
      // Local storage is disabled.
    }
  });
  return preference;
}

const BAR_COLOURS = { light: "#ffffff", dark: "#1b1b20" };

// "auto" uses the system's theme.
export const theme = persistentSignal("theme", "auto");

effect(() => {
  const root = document.documentElement;
  if (theme.value === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme.value;
  // The bar of the window has the colour of the header; without a choice each follows the system.
  for (const meta of document.querySelectorAll('meta[name="theme-color"]')) {
    const own = meta.getAttribute("media").includes("dark") ? "dark" : "light";
    meta.content = BAR_COLOURS[theme.value === "auto" ? own : theme.value];
  }
});
