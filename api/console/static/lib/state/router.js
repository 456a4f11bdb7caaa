// Maps URLs below /console to pages. A page gets `params` and `query`; links are ordinary links.
import { html, signal } from "../ui/preact.js";
import { askToLeave } from "../ui/components.js";
import { hasUnsaved, hasUnsavedDialog } from "./unsaved.js";

const root = new URL("console", document.baseURI).pathname;

function readLocation() {
  const path = location.pathname.slice(root.length).replace(/^\/+|\/+$/g, "");
  return { path, query: Object.fromEntries(new URLSearchParams(location.search)) };
}

export const route = signal(readLocation());

const leavesForm = (path) => hasUnsaved() && path !== route.value.path;

// The address that the page has; Back has already changed it when the page receives the event.
let shown = location.href;

addEventListener("popstate", async () => {
  const next = readLocation();
  if (leavesForm(next.path) || hasUnsavedDialog()) {
    history.pushState(null, "", shown);
    if (await askToLeave()) history.back();
    return;
  }
  shown = location.href;
  route.value = next;
});

// The URL path of a page such as `jobs/job_1?status=failed`; `?mode=video` is a query of the start page.
export const pagePath = (path) => root + (path && !path.startsWith("?") ? `/${path}` : path);

export async function navigate(path, { replace = false, state = null } = {}) {
  const target = new URL(pagePath(path), location.href).pathname.slice(root.length).replace(/^\/+|\/+$/g, "");
  if (leavesForm(target) && !(await askToLeave())) return;
  const before = route.value.path;
  history[replace ? "replaceState" : "pushState"](state, "", pagePath(path));
  shown = location.href;
  route.value = readLocation();
  if (route.value.path !== before) scrollTo(0, 0);
}

// Change parts of the query; an empty value removes the parameter. Each change is a step that Back undoes; `typed` = the
// parameter that is being typed: all its changes in a row are one step.
export function setQuery(changes, { typed = null } = {}) {
  const query = { ...route.value.query, ...changes };
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(set).toString();
  navigate(route.value.path + (text ? `?${text}` : ""), { replace: typed !== null && history.state?.typed === typed, state: typed && { typed } });
}

export function Link({ to, children, ...rest }) {
  const onClickLink = (event) => {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    rest.onClick?.(event);
    navigate(to);
  };
  return html`<a ...${rest} href=${pagePath(to)} onClick=${onClickLink}>${children}</a>`;
}

// The page whose pattern (such as `jobs/:id`) matches the path, and its params; null without a match.
export function matchRoute(pages, path) {
  const parts = path.split("/");
  for (const page of pages) {
    const pattern = page.path.split("/");
    if (pattern.length !== parts.length) continue;
    const params = {};
    const matches = pattern.every((part, n) => {
      if (!part.startsWith(":")) return part === parts[n];
      params[part.slice(1)] = decodeURIComponent(parts[n]);
      return parts[n] !== "";
    });
    if (matches) return { page, params };
  }
  return null;
}
