// The browsers in which a user is signed in, for the user's own page and for administrators.
import { html } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { Button, confirm, RelativeTime, toast, useAction } from "../components.js";

const BROWSERS = [[/Edg\//, "Edge"], [/OPR\//, "Opera"], [/Firefox\//, "Firefox"], [/Chrome\//, "Chrome"], [/Safari\//, "Safari"]];
const SYSTEMS = [[/Android/, "Android"], [/iPhone|iPad/, "iOS"], [/Windows/, "Windows"], [/Mac OS X/, "macOS"], [/Linux/, "Linux"]];
const match = (table, text) => table.find(([pattern]) => pattern.test(text))?.[1];

// "Firefox, Linux", or the beginning of what the browser calls itself.
const deviceName = (agent) => [match(BROWSERS, agent), match(SYSTEMS, agent)].filter(Boolean).join(", ") || agent.slice(0, 40) || t("access.unknown_device");

// `base` = API path below which the sessions are; `onChanged` gets the new list of `SignInMethods`.
export function SessionTable({ methods, base, onChanged }) {
  const [end] = useAction(async (session) => {
    if (session.current && !(await confirm({ title: t("access.end"), text: t("access.end_own"), action: t("access.end") }))) return;
    onChanged(await api.delete(`${base}/sessions/${session.id}`));
    toast(t("access.ended"));
  });
  if (!methods.sessions.length) return html`<p class="hint pad">${t("access.none")}</p>`;
  return html`<div class="table-wrap"><table class="table"><thead><tr><th>${t("access.device")}</th><th>${t("access.method")}</th><th>${t("access.used")}</th><th>${t("access.ends")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
    <tbody>${methods.sessions.map((one) => html`<tr key=${one.id}><td data-label=${t("access.device")}><div><strong title=${one.device}>${deviceName(one.device)}</strong>${one.current && html` <span class="tag">${t("access.current")}</span>`}<p class="hint mono">${one.address}</p></div></td>
      <td data-label=${t("access.method")}>${one.method === "key" ? t("access.method_key", { name: one.key ?? "" }) : t(`access.method_${one.method}`)}</td>
      <td data-label=${t("access.used")}><${RelativeTime} at=${one.last_used_at} /></td><td data-label=${t("access.ends")}><${RelativeTime} at=${one.expires_at} /></td>
      <td class="end"><${Button} small icon="sign_out" onClick=${() => end(one)} aria-label=${t("access.end_one", { name: deviceName(one.device) })}>${t("access.end")}<//></td></tr>`)}</tbody></table></div>`;
}
