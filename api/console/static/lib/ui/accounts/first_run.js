// The card that leads from the sandbox to one's own account, and the note that results are tests until then.
import { html, signal, useState } from "../preact.js";
import { api, hasScope } from "../../api/client.js";
import { formatNumber, t } from "../../state/language.js";
import { loadModels } from "../../state/models.js";
import { Link } from "../../state/router.js";
import { persistentSignal } from "../../state/preferences.js";
import { Button, ErrorMessage, RadioGroup, TextField, toast, useSubmit } from "../components.js";
import { Icon } from "../icons.js";
import { loadAvailable, useAvailable } from "./available.js";
import { hostOf } from "./drawings.js";
import { SiteSteps, useSites } from "./help.js";
import { ADMIN_BASE, OWN_BASE } from "./views.js";

const hidden = persistentSignal("first_run_hidden", "");
// The account that was added here but that no check has reached, { path, reason }: the card is gone when it is the first one.
const unchecked = signal(null);

export const FirstRun = () => html`<${Unchecked} /><${FirstRunCard} />`;

function Unchecked() {
  if (!unchecked.value) return null;
  const { path, reason } = unchecked.value;
  return html`<div class="sandbox-note" role="alert"><${Icon} name="alert" size=${18} /><span>${t("first.unchecked", { reason })} <${Link} to=${path}>${t("first.show_account")}<//></span>
    <${Button} kind="quiet" small icon="close" label=${t("action.close")} onClick=${() => { unchecked.value = null; }} /></div>`;
}

// Shown while the user's jobs run on the sandbox only, or on nothing.
function FirstRunCard() {
  const accounts = useAvailable();
  if (!accounts || !(accounts.sandbox_only || (!accounts.own && !accounts.platform))) return null;
  const title = t(accounts.sandbox_only ? "first.sandbox" : "first.nothing");
  if (!hasScope("generate")) return html`<p class="sandbox-note" role="note"><${Icon} name="alert" size=${18} />${title}</p>`;
  if (hidden.value) {
    return html`<p class="sandbox-note" role="note"><${Icon} name="alert" size=${18} /><span>${title}</span><${Button} small onClick=${() => { hidden.value = ""; }}>${t("first.use_own")}<//></p>`;
  }
  return html`<section class="card first-run" aria-labelledby="first-run"><header><span class="state-icon"><${Icon} name="database" size=${22} /></span>
      <div><h2 id="first-run">${title}</h2><p class="muted">${t(!hasScope("admin") ? "first.text_member" : accounts.sandbox_only ? "first.text_admin" : "first.text_admin_nothing")}</p></div>
      <${Button} kind="quiet" icon="close" label=${t("first.hide")} onClick=${() => { hidden.value = "yes"; }} /></header>
    <${AddFirstAccount} base=${hasScope("admin") ? ADMIN_BASE : OWN_BASE} /></section>`;
}

// Steps of one site, a field for the credential, and what the check says about it.
function AddFirstAccount({ base }) {
  const sites = useSites();
  const [name, setName] = useState("");
  const [text, setText] = useState("");
  const [refused, setRefused] = useState(null);
  if (!sites.length) return null;
  const site = sites.find((item) => item.title === name) ?? sites[0];
  const key = !site.cookie;
  const [add, busy, error] = useSubmit(async () => {
    // What upstream did not recognise before is replaced by what is pasted now.
    if (refused) await api.delete(`${base}/${refused.id}`);
    setRefused(null);
    unchecked.value = null;
    const { data: [account] } = await api.post(base, { tokens: text.trim(), provider: site.provider, region: site.region });
    if (account.state === "needs_login") setRefused(account);
    else {
      const { check } = account;
      if (check?.error) unchecked.value = { path: `${base === ADMIN_BASE ? "accounts" : "my-accounts"}/${account.id}`, reason: check.error.message };
      else toast(check && !check.done ? t("accounts.check_pending") : t("first.works", { credits: account.credits === null ? "" : t("accounts.credits_n", { n: formatNumber(account.credits) }) }));
      setText("");
    }
    await loadAvailable();
    loadModels(0);
  });
  return html`<div class="first-run-body"><div class="stack"><${RadioGroup} label=${t("help.site")} value=${site.title} onChange=${setName} options=${sites.map((item) => [item.title, item.title])} />
      <form class="stack" onSubmit=${add}><${TextField} label=${t(key ? "first.key" : "first.session", { cookie: site.cookie })} hint=${t("first.stored")} type="password" autocomplete="off" spellcheck="false" required value=${text} onInput=${setText} />
        ${refused && html`<div class="failure" role="alert"><${Icon} name="alert" /><div><p class="failure-text">${t(key ? "accounts.key_unknown" : "accounts.session_unknown")}</p><p>${t("first.mistakes", { cookie: site.cookie ?? "", host: hostOf(site) })}</p></div></div>`}
        ${error && html`<${ErrorMessage} error=${error} />`}
        <div class="row"><${Button} kind="primary" icon="check" type="submit" busy=${busy} disabled=${!text.trim()}>${t("accounts.add_action")}<//><${Link} to=${base === ADMIN_BASE ? "accounts" : "my-accounts"}>${t("first.several")}<//></div>
        ${busy && html`<p class="hint" role="status">${t("accounts.checking")}</p>`}</form></div>
    <${SiteSteps} site=${site} /></div>`;
}
