// Application shell: sign-in, navigation and the current page.
import { html, render, useEffect, useRef, useState } from "./lib/ui/preact.js";
import { hasScope, loadSession, session, signOut, unreachable } from "./lib/api/client.js";
import { connected } from "./lib/api/event_stream.js";
import { openJobIds, startJobFeed } from "./lib/api/jobs.js";
import { formatNumber, t } from "./lib/state/language.js";
import { Link, matchRoute, route } from "./lib/state/router.js";
import { pageTitle } from "./lib/state/tab.js";
import { Button, ConfirmDialog, Dialog, EmptyState, ErrorMessage, Loading, Toasts, useAction } from "./lib/ui/components.js";
import { Icon } from "./lib/ui/icons.js";
import { ApiDocsLink, Brand, Preferences } from "./lib/ui/system/brand.js";
import { SignIn } from "./lib/ui/access/sign_in.js";
import { InstallHint } from "./lib/ui/system/install.js";
import { AlbumDialogs } from "./lib/ui/albums/dialogs.js";
import { UseInvitation } from "./lib/ui/access/invitation.js";
import { SelectionBar } from "./lib/ui/results/selection_bar.js";
import { Attention } from "./lib/ui/system/attention.js";
import { NoticeBar } from "./lib/ui/system/notices.js";
import { Compare } from "./lib/ui/viewer/compare.js";
import { startViewer } from "./lib/ui/viewer/viewer.js";
import { PAGES } from "./routes.js";

const visiblePages = () => PAGES.filter((page) => page.icon && (!page.scope || hasScope(page.scope)));

// Pages are small. Once they are loaded, the menu works without a connection.
function preloadPages() {
  const load = () => visiblePages().forEach((page) => page.load().catch(() => {}));
  const timer = setTimeout(load, 1000);
  return () => clearTimeout(timer);
}

function Navigation({ activePage, onNavigate }) {
  const pages = visiblePages();
  const groups = [...new Set(pages.map((page) => page.group))];
  return html`<nav aria-label=${t("nav.label")}>${groups.map((group) => html`<div key=${group} class="nav-group">
    ${group !== "main" && html`<h2>${t(`nav.group_${group}`)}</h2>`}
    <ul>${pages.filter((page) => page.group === group).map((page) => html`<li key=${page.path}>
      <${Link} to=${page.path} class="nav-link" aria-current=${page.name === activePage ? "page" : undefined} onClick=${onNavigate}>
        <${Icon} name=${page.icon} />${t(`nav.${page.name}`)}${page.name === "jobs" && openJobIds.value.size > 0 && html`<span class="count" title=${t("nav.open_jobs", { n: openJobIds.value.size })}>${formatNumber(openJobIds.value.size)}</span>`}<//></li>`)}</ul></div>`)}</nav>`;
}

function CurrentUser() {
  const [endSession, busy] = useAction(signOut);
  return html`<div class="current-user"><div class="user-name"><strong>${session.value.user}</strong><span>${t(`role.${session.value.role}`)}</span></div>
    <${Button} kind="quiet" icon="sign_out" busy=${busy} label=${t("action.sign_out")} onClick=${endSession} /></div>`;
}

function Page({ found }) {
  const [loaded, setLoaded] = useState(null);
  const [error, setError] = useState(null);
  const page = found?.page;
  // The browser may keep the failure of a module, and after an update the old modules are gone: load the whole page.
  const reload = () => loadSession().then(() => location.reload(), setError);
  useEffect(() => {
    if (!page) return undefined;
    setError(null);
    // A page that arrives after the user opened another one must not replace the present one.
    let left = false;
    page.load().then(
      (module) => left || setLoaded({ page, Body: module.default }),
      (failure) => left || setError(failure instanceof TypeError ? unreachable() : failure),
    );
    return () => {
      left = true;
    };
  }, [page]);
  useEffect(() => {
    pageTitle.value = `${t(page ? `nav.${page.name}` : "page.unknown")} · Dreamery`;
  });
  if (!page) return html`<${EmptyState} heading="h1" icon="search" title=${t("page.unknown")}><${Link} to="">${t("page.home")}<//><//>`;
  if (page.scope && !hasScope(page.scope)) return html`<${EmptyState} heading="h1" icon="lock" title=${t("page.forbidden")}><p>${t(page.scope === "admin" ? "page.forbidden_text" : "page.forbidden_scope")}</p><${Link} to="">${t("page.home")}<//><//>`;
  if (error) return html`<${ErrorMessage} error=${error} onRetry=${reload} />`;
  if (loaded?.page !== page) return html`<${Loading} />`;
  return html`<${loaded.Body} key=${page.path + JSON.stringify(found.params)} params=${found.params} query=${route.value.query} />`;
}

function Shell() {
  const [menu, setMenu] = useState(false);
  const main = useRef(null);
  useEffect(startJobFeed, []);
  useEffect(startViewer, []);
  useEffect(preloadPages, []);
  const found = matchRoute(PAGES, route.value.path);
  const activePage = found?.page.parent ?? found?.page.name;
  const skipToContent = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`<div class="shell">
    <a class="skip-link" href="#main" onClick=${skipToContent}>${t("nav.skip")}</a>
    <aside class="sidebar"><${Link} to="" class="brand-link"><${Brand} /><//><${Navigation} activePage=${activePage} /><div class="sidebar-footer"><${ApiDocsLink} /><${Preferences} /><${CurrentUser} /></div></aside>
    <header class="topbar"><${Link} to="" class="brand-link"><${Brand} /><//><${Button} kind="quiet" icon="menu" label=${t("nav.menu")} onClick=${() => setMenu(true)} /></header>
    ${menu && html`<${Dialog} drawer title=${t("nav.menu")} onClose=${() => setMenu(false)}><${Navigation} activePage=${activePage} onNavigate=${() => setMenu(false)} /><${ApiDocsLink} /><${Preferences} /><${CurrentUser} /><//>`}
    ${!connected.value && html`<p class="offline" role="status"><span class="spinner" aria-hidden="true"></span>${t("live.lost")}</p>`}
    <${Attention} /><main id="main" ref=${main} tabindex="-1"><${NoticeBar} /><${InstallHint} /><${Page} found=${found} /></main>
    <nav class="tab-bar" aria-label=${t("nav.quick")}>${visiblePages().filter((page) => page.inTabBar).map((page) => html`<${Link} key=${page.path} to=${page.path}
      aria-current=${page.name === activePage ? "page" : undefined}><${Icon} name=${page.icon} /><span>${t(`nav.${page.name}`)}</span><//>`)}</nav>
    <${SelectionBar} /><${Compare} />
  </div>`;
}

// The page comes from the service worker because the server did not respond. It is loaded again as soon as it does.
const isWithoutServer = document.documentElement.dataset.session === "unknown";
const RETRY_MS = 5000;

function waitForServer() {
  const look = () => loadSession().then(() => location.reload(), () => {});
  const timer = setInterval(look, RETRY_MS);
  addEventListener("online", look);
  return () => {
    clearInterval(timer);
    removeEventListener("online", look);
  };
}

function App() {
  const [error, setError] = useState(null);
  const start = () => {
    setError(null);
    loadSession().catch(setError);
  };
  useEffect(() => {
    if (session.value === undefined) start();
  }, []);
  useEffect(() => (isWithoutServer ? waitForServer() : undefined), []);
  let view = html`<${Shell} />`;
  if (route.value.path === "invitation") return html`<${UseInvitation} /><${Toasts} />`;
  if (error) view = html`<main id="main" class="centered"><div class="stack">${isWithoutServer && html`<p class="row" role="status"><span class="spinner" aria-hidden="true"></span>${t("live.lost")}</p>`}
    <${ErrorMessage} error=${error} onRetry=${isWithoutServer ? () => location.reload() : start} /></div></main>`;
  else if (session.value === undefined) view = html`<main id="main" class="centered"><${Loading} /></main>`;
  else if (session.value === null) view = html`<${SignIn} />`;
  return html`${view}${session.value && html`<${AlbumDialogs} />`}<${Toasts} /><${ConfirmDialog} />`;
}

render(html`<${App} />`, document.getElementById("app"));
