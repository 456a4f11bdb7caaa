// Addresses below /console <-> pages. A page reads `params` and `query`; links are ordinary links.
import { html, signal } from "./ui.js";

const root = new URL("console", document.baseURI).pathname;

function read() {
  const path = location.pathname.slice(root.length).replace(/^\/+|\/+$/g, "");
  return { path, query: Object.fromEntries(new URLSearchParams(location.search)) };
}

export const place = signal(read());

addEventListener("popstate", () => {
  place.value = read();
});

// The full address of a page's path such as `jobs/job_1?status=failed`.
export const address = (path) => (path ? `${root}/${path}` : root);

export function go(path, { replace = false } = {}) {
  const before = place.value.path;
  history[replace ? "replaceState" : "pushState"](null, "", address(path));
  place.value = read();
  if (place.value.path !== before) scrollTo(0, 0);
}

// Set parts of the query; an empty value removes its name.
export function setQuery(changes) {
  const query = { ...place.value.query, ...changes };
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(set).toString();
  go(place.value.path + (text ? `?${text}` : ""), { replace: true });
}

export function Link({ to, children, ...rest }) {
  const follow = (event) => {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    rest.onClick?.(event);
    go(to);
  };
  return html`<a ...${rest} href=${address(to)} onClick=${follow}>${children}</a>`;
}

// The page whose pattern (`jobs/:id`) fits the path, and its params.
export function match(pages, path) {
  const parts = path.split("/");
  for (const page of pages) {
    const wanted = page.path.split("/");
    if (wanted.length !== parts.length) continue;
    const params = {};
    const fits = wanted.every((word, n) => {
      if (!word.startsWith(":")) return word === parts[n];
      params[word.slice(1)] = decodeURIComponent(parts[n]);
      return parts[n] !== "";
    });
    if (fits) return { page, params };
  }
  return null;
}
