// The sign-in form: a key, a name and a password, or the OpenID provider of the platform.
import { html, useEffect, useState } from "../preact.js";
import { endedSession, lastSignIn, platformUrl, signIn, signInWithPassword } from "../../api/client.js";
import { t } from "../../state/language.js";
import { persistentSignal } from "../../state/preferences.js";
import { route } from "../../state/router.js";
import { Brand, Preferences } from "../system/brand.js";
import { Button, ErrorMessage, Field, RadioGroup, TextField, useSubmit } from "../components.js";
import { Icon } from "../icons.js";

const keep = persistentSignal("keep-signed-in", "yes");
// Set by the server: the text of the button of the OpenID provider, or "".
const providerLabel = document.documentElement.dataset.oidc;

// A field for a secret, with a button that shows it.
export function SecretField({ label, hint, error, value, onInput, ...rest }) {
  const [shown, setShown] = useState(false);
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(id, describedBy) => html`<div class="secret-field">
    <input id=${id} aria-describedby=${describedBy} type=${shown ? "text" : "password"} spellcheck=${false} autocapitalize="off" value=${value} onInput=${(event) => onInput(event.target.value)} ...${rest} />
    <${Button} small kind="quiet" aria-pressed=${shown} onClick=${() => setShown(!shown)}>${t(shown ? "signin.hide" : "signin.show")}<//></div>`}<//>`;
}

export const KeepSignedIn = () => html`<label class="check"><input type="checkbox" name="keep" checked=${keep.value === "yes"} onChange=${(event) => { keep.value = event.target.checked ? "yes" : "no"; }} /><span>${t("signin.keep")}</span></label>`;

export function SignInFrame({ title, children }) {
  useEffect(() => {
    document.title = `${title} · Dreamery`;
  });
  return html`<div class="signin"><div class="signin-top"><${Brand} /><${Preferences} /></div><main id="main">${children}</main></div>`;
}

export function SignIn() {
  const [values, setValues] = useState({ name: "", password: "", key: "" });
  const set = (name) => (value) => setValues({ ...values, [name]: value });
  const [method, setMethod] = useState(lastSignIn.value);
  const byKey = method === "key";
  const complete = byKey ? values.key.trim() : values.name.trim() && values.password;
  const failure = route.value.query.sign_in_error;
  const [submit, busy, error, setError] = useSubmit(async () => {
    if (byKey) await signIn(values.key.trim(), keep.value === "yes");
    else await signInWithPassword(values.name.trim(), values.password, keep.value === "yes");
  });
  return html`<${SignInFrame} title=${t("signin.title")}><form class="card signin-card" onSubmit=${submit}>
    <h1>${t("signin.title")}</h1><p class="lead">${t("signin.lead")}</p>
    ${endedSession.value && html`<p class="notice" role="status"><${Icon} name="alert" size=${18} /><span>${t("signin.ended_kept", { reason: endedSession.value })}</span></p>`}
    ${failure && html`<p class="notice" role="alert"><${Icon} name="alert" size=${18} /><span>${t(`signin.error_${failure}`)}</span></p>`}
    ${providerLabel && html`<a class="button primary" href=${platformUrl("console/oidc/start")}><span>${providerLabel}</span></a><p class="divider"><span>${t("signin.or")}</span></p>`}
    <${RadioGroup} hideLabel label=${t("signin.method")} value=${method} options=${[["key", t("signin.with_key")], ["password", t("signin.with_password")]]}
      onChange=${(value) => { setMethod(value); setError(null); }} />
    ${byKey ? html`<${SecretField} label=${t("signin.key")} hint=${t("signin.hint")} name="api-key" autocomplete="current-password" required placeholder="sk-dreamery-…" value=${values.key} onInput=${set("key")} />`
      : html`<${TextField} label=${t("signin.name")} name="username" autocomplete="username" required value=${values.name} onInput=${set("name")} />
        <${SecretField} label=${t("signin.password")} hint=${t("signin.password_hint")} name="password" autocomplete="current-password" required value=${values.password} onInput=${set("password")} />`}
    <${KeepSignedIn} />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <${Button} kind=${providerLabel ? "plain" : "primary"} type="submit" busy=${busy} disabled=${!complete}>${t("signin.action")}<//>
  </form><//>`;
}
