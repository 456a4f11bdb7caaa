// The shell: who is signed in, navigation, the page that the address names.
import { html, render, useEffect, useState, useRef } from "./lib/ui.js";
import { may, resume, session, signIn, signOut } from "./lib/api.js";
import { openJobs, startFeed } from "./lib/jobs.js";
import { language, number, t } from "./lib/language.js";
import { connected } from "./lib/live.js";
import { Button, Confirmations, Dialog, Empty, Failure, Icon, Loading, TextField, Toasts, useAction } from "./lib/parts.js";
import { Link, match, place } from "./lib/router.js";
import { theme } from "./lib/store.js";
import { PAGES } from "./routes.js";

const Brand = () => html`<span class="brand"><svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true"><rect width="32" height="32" rx="8" />
  <path d="M21.6 19.6A8 8 0 0 1 12.4 10.4a8 8 0 1 0 9.2 9.2z" /><path d="M20.5 7l1 2.5 2.5 1-2.5 1-1 2.5-1-2.5-2.5-1 2.5-1z" /></svg>Dreamery</span>`;

const NEXT_THEME = { auto: "light", light: "dark", dark: "auto" };
const THEME_ICON = { auto: "screen", light: "sun", dark: "moon" };

function Switches() {
  return html`<div class="switches">
    <${Button} kind="quiet" icon=${THEME_ICON[theme.value]} label=${t("theme.now", { theme: t(`theme.${theme.value}`) })}
      onClick=${() => { theme.value = NEXT_THEME[theme.value]; }} />
    <${Button} kind="quiet" icon="globe" lang=${language.value === "zh" ? "en" : "zh-CN"}
      onClick=${() => { language.value = language.value === "zh" ? "en" : "zh"; }}>${language.value === "zh" ? "English" : "中文"}<//>
  </div>`;
}

function SignIn() {
  const [key, setKey] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await signIn(key.trim());
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  useEffect(() => {
    document.title = `${t("signin.title")} · Dreamery`;
  });
  return html`<div class="signin"><div class="signin-top"><${Brand} /><${Switches} /></div>
    <main id="main"><form class="card signin-card" onSubmit=${submit}>
      <h1>${t("signin.title")}</h1><p class="lead">${t("signin.lead")}</p>
      <${TextField} label=${t("signin.key")} hint=${t("signin.hint")} type="password" name="api-key" autocomplete="current-password"
        spellcheck="false" required placeholder="sk-dreamery-…" value=${key} onInput=${setKey} />
      ${error && html`<${Failure} error=${error} />`}
      <${Button} kind="primary" type="submit" busy=${busy} disabled=${!key.trim()}>${t("signin.action")}<//>
    </form></main></div>`;
}

const visible = () => PAGES.filter((page) => page.icon && (!page.scope || may(page.scope)));

function Navigation({ here, onFollow }) {
  const pages = visible();
  const groups = [...new Set(pages.map((page) => page.group))];
  return html`<nav aria-label=${t("nav.label")}>${groups.map((group) => html`<div key=${group} class="nav-group">
    ${group !== "main" && html`<h2>${t(`nav.group_${group}`)}</h2>`}
    <ul>${pages.filter((page) => page.group === group).map((page) => html`<li key=${page.path}>
      <${Link} to=${page.path} class="nav-link" aria-current=${page.name === here ? "page" : undefined} onClick=${onFollow}>
        <${Icon} name=${page.icon} />${t(`nav.${page.name}`)}${page.name === "jobs" && openJobs.value.size > 0 && html`<span class="count" title=${t("nav.open_jobs", { n: openJobs.value.size })}>${number(openJobs.value.size)}</span>`}<//></li>`)}</ul></div>`)}</nav>`;
}

function Account() {
  const [leave, busy] = useAction(signOut);
  return html`<div class="account"><div class="account-name"><strong>${session.value.user}</strong><span>${t(`role.${session.value.role}`)}</span></div>
    <${Button} kind="quiet" icon="leave" busy=${busy} label=${t("action.sign_out")} onClick=${leave} /></div>`;
}

function Page({ found }) {
  const [loaded, setLoaded] = useState(null);
  const [error, setError] = useState(null);
  const [turn, setTurn] = useState(0);
  const page = found?.page;
  useEffect(() => {
    if (!page) return;
    setError(null);
    page.load().then((module) => setLoaded({ page, Body: module.default }), setError);
  }, [page, turn]);
  useEffect(() => {
    document.title = `${t(page ? `nav.${page.name}` : "page.unknown")} · Dreamery`;
  });
  if (!page) return html`<${Empty} icon="search" title=${t("page.unknown")}><${Link} to="">${t("page.home")}<//><//>`;
  if (page.scope && !may(page.scope)) return html`<${Empty} icon="key" title=${t("page.forbidden")}>${t("page.forbidden_text")}<//>`;
  if (error) return html`<${Failure} error=${error} onRetry=${() => setTurn(turn + 1)} />`;
  if (loaded?.page !== page) return html`<${Loading} />`;
  return html`<${loaded.Body} key=${page.path + JSON.stringify(found.params)} params=${found.params} query=${place.value.query} />`;
}

function Shell() {
  const [menu, setMenu] = useState(false);
  const main = useRef(null);
  useEffect(startFeed, []);
  const found = match(PAGES, place.value.path);
  const here = found?.page.under ?? found?.page.name;
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`<div class="shell">
    <a class="skip" href="#main" onClick=${skip}>${t("nav.skip")}</a>
    <aside class="side"><${Link} to="" class="brand-link"><${Brand} /><//><${Navigation} here=${here} /><div class="side-foot"><${Switches} /><${Account} /></div></aside>
    <header class="top"><${Link} to="" class="brand-link"><${Brand} /><//><${Button} kind="quiet" icon="menu" label=${t("nav.menu")} onClick=${() => setMenu(true)} /></header>
    ${menu && html`<${Dialog} drawer title=${t("nav.menu")} onClose=${() => setMenu(false)}><${Navigation} here=${here} onFollow=${() => setMenu(false)} /><${Switches} /><${Account} /><//>`}
    ${!connected.value && html`<p class="offline" role="status"><span class="spinner" aria-hidden="true"></span>${t("live.lost")}</p>`}
    <main id="main" ref=${main} tabindex="-1"><${Page} found=${found} /></main>
    <nav class="tabs" aria-label=${t("nav.quick")}>${visible().filter((page) => page.tab).map((page) => html`<${Link} key=${page.path} to=${page.path}
      aria-current=${page.name === here ? "page" : undefined}><${Icon} name=${page.icon} /><span>${t(`nav.${page.name}`)}</span><//>`)}</nav>
  </div>`;
}

function App() {
  const [error, setError] = useState(null);
  const start = () => {
    setError(null);
    resume().catch(setError);
  };
  useEffect(() => {
    if (session.value === undefined) start();
  }, []);
  let view = html`<${Shell} />`;
  if (error) view = html`<main id="main" class="alone"><${Failure} error=${error} onRetry=${start} /></main>`;
  else if (session.value === undefined) view = html`<main id="main" class="alone"><${Loading} /></main>`;
  else if (session.value === null) view = html`<${SignIn} />`;
  return html`${view}<${Toasts} /><${Confirmations} />`;
}

render(html`<${App} />`, document.getElementById("app"));
