// The dialog that gives an account a new session or key, and checks it at once.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { Button, Dialog, ErrorMessage, TextField, toast, useSubmit } from "../components.js";
import { CredentialHelp, useSites } from "./help.js";

// `path` = the API path of the account. `onChanged` receives the account after the check.
export function ReplaceDialog({ account, path, onClose, onChanged }) {
  const [session, setSession] = useState("");
  const sites = useSites().filter((site) => site.provider === account.provider && (account.region === "auto" || site.region === account.region || site.region === "auto"));
  const title = t(account.key ? "accounts.replace_key" : "accounts.replace");
  const [replace, busy, error] = useSubmit(async () => {
    onChanged(await api.patch(path, { session: session.trim() }));
    const checked = await api.post(`${path}/check`);
    onChanged(checked);
    if (checked.check.live === false) throw new Error(t(account.key ? "accounts.key_unknown" : "accounts.session_unknown"));
    toast(t("accounts.replaced"));
    onClose();
  });
  return html`<${Dialog} title=${title} unsaved=${Boolean(session.trim()) && !busy} onClose=${onClose}><form class="stack" onSubmit=${replace}><p>${t(account.key ? "accounts.replace_key_text" : "accounts.replace_text", { name: account.label })}</p>
    <${TextField} label=${t(account.key ? "accounts.new_key" : "accounts.session")} type="password" autocomplete="off" spellcheck="false" required value=${session} onInput=${setSession} />
    <${CredentialHelp} sites=${sites} />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!session.trim()}>${title}<//></div></form><//>`;
}
