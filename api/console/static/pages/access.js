// The signed-in user's own access: the password, and the browsers in which the user is signed in.
import { html, useState } from "../lib/ui/preact.js";
import { api, session } from "../lib/api/client.js";
import { useLoaded } from "../lib/api/loading.js";
import { t } from "../lib/state/language.js";
import { Button, EmptyState, ErrorMessage, Loading, PageHeader, toast, useAction, useSubmit } from "../lib/ui/components.js";
import { SecretField } from "../lib/ui/access/sign_in.js";
import { SessionTable } from "../lib/ui/access/sign_in_views.js";

const PATH = "/console/sign-in";

export default function Access() {
  const loaded = useLoaded(() => api.get(PATH));
  const methods = loaded.data;
  let body = html`<${Loading} />`;
  if (loaded.error?.status === 403) body = html`<div class="card"><${EmptyState} icon="key" title=${t("access.by_key")}>${t("access.by_key_text")}<//></div>`;
  else if (loaded.error) body = html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`;
  else if (methods) body = html`<div class="stack"><${PasswordForm} key=${methods.password} methods=${methods} onChanged=${loaded.setData} /><${Sessions} methods=${methods} onChanged=${loaded.setData} /></div>`;
  return html`<${PageHeader} title=${t("nav.access")} lead=${t("access.lead", { name: session.value?.user ?? "" })} />${body}`;
}

function PasswordForm({ methods, onChanged }) {
  const [current, setCurrent] = useState("");
  const [password, setPassword] = useState("");
  const [submit, busy, error] = useSubmit(async () => {
    onChanged(await api.put(`${PATH}/password`, { current: methods.password ? current : null, password }));
    setCurrent("");
    setPassword("");
    toast(t("access.password_saved"));
  });
  return html`<section class="card"><h2>${t(methods.password ? "access.change_password" : "access.set_password")}</h2><p class="hint">${t("access.password_text")}</p>
    <form class="stack narrow" onSubmit=${submit}><input type="text" name="username" autocomplete="username" value=${methods.user} hidden readonly />
      ${methods.password && html`<${SecretField} label=${t("access.current_password")} name="current-password" autocomplete="current-password" required value=${current} onInput=${setCurrent} />`}
      <${SecretField} label=${t("access.new_password")} hint=${t("access.password_rule")} name="new-password" autocomplete="new-password" required minlength="10" value=${password} onInput=${setPassword} />
      ${error && html`<${ErrorMessage} error=${error} />`}<div class="row end"><${Button} kind="primary" type="submit" busy=${busy} disabled=${!password}>${t("action.save")}<//></div></form></section>`;
}

function Sessions({ methods, onChanged }) {
  const [endOthers, ending] = useAction(async () => {
    onChanged(await api.delete(`${PATH}/sessions`));
    toast(t("access.others_ended"));
  });
  return html`<section class="card flush"><header class="row spread card-head"><h2>${t("access.sessions")}</h2>
    ${methods.sessions.length > 1 && html`<${Button} small busy=${ending} onClick=${endOthers}>${t("access.end_others")}<//>`}</header>
    <${SessionTable} methods=${methods} base=${PATH} onChanged=${onChanged} /></section>`;
}
