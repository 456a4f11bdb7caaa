// The console as an app of the device: its service worker, and a hint that is shown once.
import { html, signal, useEffect } from "../preact.js";
import { t } from "../../state/language.js";
import { isPhone } from "../../state/screen.js";
import { persistentSignal } from "../../state/preferences.js";
import { Button } from "../components.js";
import { Icon } from "../icons.js";

const REGISTER_AFTER_MS = 4000;

const answered = persistentSignal("install_hint", "");
// The browser's offer to install; Chromium makes it where the console is not installed.
const offer = signal(null);

addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  offer.value = event;
});
addEventListener("appinstalled", () => {
  offer.value = null;
  answered.value = "installed";
});

const isInstalled = () => matchMedia("(display-mode: standalone)").matches || navigator.standalone === true;
// Safari on iPhones and iPads makes no offer.
const isIos = () => /iP(hone|ad|od)/.test(navigator.userAgent);

// The page comes first: the worker's files are loaded when it has had its time. Browsers want https, or a page of this machine.
export function registerServiceWorker() {
  if (!("serviceWorker" in navigator)) return undefined;
  const register = () => navigator.serviceWorker.register(new URL("console/service-worker.js", document.baseURI), { scope: new URL("console", document.baseURI).pathname }).catch(() => {});
  const timer = setTimeout(register, REGISTER_AFTER_MS);
  return () => clearTimeout(timer);
}

// Part of the shell: on phones, until it is answered.
export function InstallHint() {
  useEffect(registerServiceWorker, []);
  if (!isPhone.value || answered.value || isInstalled() || !(offer.value || isIos())) return null;
  const install = async () => {
    const asked = offer.value;
    offer.value = null;
    await asked.prompt();
    answered.value = "asked";
  };
  return html`<aside class="install-hint" aria-label=${t("install.title")}><${Icon} name="download" /><p><strong>${t("install.title")}</strong> <span>${t(offer.value ? "install.text" : "install.text_ios")}</span></p>
    <div class="row">${offer.value && html`<${Button} small kind="primary" onClick=${install}>${t("install.action")}<//>`}
      <${Button} small kind="quiet" onClick=${() => { answered.value = "no"; }}>${t("install.no")}<//></div></aside>`;
}
