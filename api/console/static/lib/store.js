// Small values that outlive the page: in local storage, where the browser allows it.
import { signal, effect } from "./ui.js";

const PREFIX = "dreamery.";

export function remembered(name, fallback) {
  let first = fallback;
  try {
    const text = localStorage.getItem(PREFIX + name);
    if (text !== null) first = text;
  } catch {
    // Not remembered, then.
  }
  const kept = signal(first);
  effect(() => {
    try {
      if (kept.value === fallback) localStorage.removeItem(PREFIX + name);
      else localStorage.setItem(PREFIX + name, kept.value);
    } catch {
      // Not remembered, then.
    }
  });
  return kept;
}

// "auto" follows the system.
export const theme = remembered("theme", "auto");

effect(() => {
  const root = document.documentElement;
  if (theme.value === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme.value;
});
