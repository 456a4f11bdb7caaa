// The page behind an invitation link: it signs the user in once and offers to set a password.
import { html, useEffect, useState } from "../preact.js";
import { api, useInvitation } from "../../api/client.js";
import { t } from "../../state/language.js";
import { navigate } from "../../state/router.js";
import { Button, EmptyState, ErrorMessage, Loading, useSubmit } from "../components.js";
import { SecretField, SignInFrame } from "./sign_in.js";

export function UseInvitation() {
  const [token] = useState(() => location.hash.slice(1));
  const [found, setFound] = useState(null);
  const [password, setPassword] = useState("");
  const [accept, busy, error, setError] = useSubmit(async () => {
    await useInvitation(token, password);
    navigate("", { replace: true });
  });
  useEffect(() => {
    // The secret leaves the address bar and the history at once.
    history.replaceState(null, "", location.pathname);
    api.post("/console/session/invitation/look", { token: token || "-" }).then(setFound, setError);
  }, []);
  let body = html`<${Loading} />`;
  if (found?.state === "open") {
    body = html`<form class="card signin-card" onSubmit=${accept}><h1>${t("invite.title", { name: found.user })}</h1><p class="lead">${t("invite.lead")}</p>
      <input type="text" name="username" autocomplete="username" value=${found.user} hidden readonly />
      <${SecretField} label=${t("invite.password")} hint=${t("invite.password_hint")} name="password" autocomplete="new-password" minlength="10" value=${password} onInput=${setPassword} />
      ${error && html`<${ErrorMessage} error=${error} />`}
      <${Button} kind="primary" type="submit" busy=${busy}>${t("invite.accept")}<//></form>`;
  } else if (found || error) {
    body = html`<div class="card"><${EmptyState} heading="h1" icon="lock" title=${t(`invite.${found?.state ?? "unknown"}`)}><p>${error && error.code !== "invitation_invalid" ? error.message : t("invite.ask")}</p><${Button} onClick=${() => navigate("", { replace: true })}>${t("invite.to_sign_in")}<//><//></div>`;
  }
  return html`<${SignInFrame} title=${t("invite.page")}>${body}<//>`;
}
