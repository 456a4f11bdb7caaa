// Applies the saved theme before the first paint, so that the page does not flash.
(() => {
  let saved = null;
  try {
    saved = localStorage.getItem("dreamery.theme");
  } catch {
    // Local storage is disabled: use the system's theme.
  }
  if (saved === "light" || saved === "dark") document.documentElement.dataset.theme = saved;
})();
