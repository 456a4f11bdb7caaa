// Takes the theme of the console, or the system's, before the first paint.
(() => {
  let saved = null;
  try {
    saved = localStorage.getItem("dreamery.theme");
  } catch {
    // Local storage is disabled: use the system's theme.
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const dark = saved === "dark" || (saved !== "light" && system.matches);
    // Swagger UI's own name of its dark theme.
    document.documentElement.classList.toggle("dark-mode", dark);
  };
  system.addEventListener("change", apply);
  apply();
})();
