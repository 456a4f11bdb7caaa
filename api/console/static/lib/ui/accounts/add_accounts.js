// The dialog that adds accounts, and the result of each line.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { useLoaded } from "../../api/loading.js";
import { formatNumber, t } from "../../state/language.js";
import { loadModels } from "../../state/models.js";
import { Button, Dialog, ErrorMessage, Select, StatusBadge, TextArea, TextField, useAction, useSubmit } from "../components.js";
import { loadAvailable } from "./available.js";
import { CredentialHelp } from "./help.js";
import { ReplaceDialog } from "./replace.js";
import { ADMIN_BASE, splitList } from "./views.js";

// `base` = the API path: of all accounts, or of one's own, which have no groups and no owner to choose.
export function AddAccountsDialog({ base, onClose, onAdded }) {
  const providers = useLoaded(() => api.get("/v1/accounts/providers")).data?.data ?? [];
  const [form, setForm] = useState({ tokens: "", label: "", groups: "", user: "", provider: "", region: "", limit_group: "" });
  const [result, setResult] = useState(null);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const provider = providers.find((item) => item.name === form.provider) ?? providers[0];
  const keys = provider?.credential === "key";
  const ofPlatform = base === ADMIN_BASE;
  const region = keys ? (provider.regions.includes(form.region) ? form.region : provider.regions[0]) : undefined;
  const sites = (provider?.sites ?? []).map((site) => ({ ...site, currency: provider.currencies[site.region] })).filter((site) => !keys || site.region === region);
  const [add, busy, error] = useSubmit(async () => {
    const ofKeys = keys ? { region, limit_group: form.limit_group.trim() || null } : {};
    const ofOwner = ofPlatform ? { groups: splitList(form.groups), user: form.user.trim() || undefined } : {};
    setResult(await api.post(base, { tokens: form.tokens, label: form.label.trim(), provider: provider?.name, ...ofOwner, ...ofKeys }));
    onAdded();
    loadAvailable();
    loadModels(0);
  });
  if (result) return html`<${ImportResults} result=${result} base=${base} onClose=${onClose} onChanged=${onAdded} />`;
  return html`<${Dialog} wide title=${t("accounts.add")} unsaved=${Boolean(form.tokens.trim() || form.label || form.groups || form.user) && !busy} onClose=${onClose}><form class="stack" onSubmit=${add}>
    ${providers.length > 1 && html`<div class="fields"><${Select} label=${t("accounts.provider")} value=${provider.name} onChange=${set("provider")} options=${providers.map((item) => [item.name, item.title])} />
      ${keys && html`<${Select} label=${t("fact.region")} value=${region} onChange=${set("region")} options=${provider.regions.map((item) => [item, provider.currencies[item] ? `${item} (${provider.currencies[item]})` : item])} />`}</div>`}
    <${TextArea} label=${t(keys ? "accounts.keys" : "accounts.tokens")} hint=${t(keys ? "accounts.keys_hint" : "accounts.tokens_hint")} value=${form.tokens} onInput=${set("tokens")} class="mono" rows=${keys ? "3" : "6"} required spellcheck="false" autocomplete="off" placeholder=${keys ? "" : "us-SESSIONID\nSESSIONID:cn\nsocks5://user:password@host:1080@SESSIONID"} />
    <${CredentialHelp} key=${provider?.name} sites=${sites} />
    ${keys && html`<${TextField} label=${t("accounts.limit_group")} hint=${t("accounts.limit_group_hint")} value=${form.limit_group} onInput=${set("limit_group")} maxlength="60" />`}
    <div class="fields"><${TextField} label=${t("accounts.label")} value=${form.label} onInput=${set("label")} maxlength="100" />
      ${ofPlatform && html`<${TextField} label=${t("accounts.groups")} hint=${t("accounts.groups_hint")} value=${form.groups} onInput=${set("groups")} />
      <${TextField} label=${t("accounts.user")} hint=${t("accounts.user_hint")} value=${form.user} onInput=${set("user")} maxlength="120" />`}</div>
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!form.tokens.trim()}>${t("accounts.add_action")}<//></div>
    ${busy && html`<p class="hint" role="status">${t("accounts.checking")}</p>`}
  </form><//>`;
}

// The result of each pasted line, in the order of the lines. What upstream does not recognise can be replaced or removed here.
function ImportResults({ result, base, onClose, onChanged }) {
  const [lines, setLines] = useState(() => [...result.data, ...result.refused].sort((first, second) => first.line - second.line));
  const [replacing, setReplacing] = useState(null);
  const change = (line, account) => {
    setLines((all) => all.map((item) => (item === line ? { ...line, ...account } : item)));
    onChanged();
  };
  const [remove] = useAction(async (line) => change(line, await api.delete(`${base}/${line.id}`)));
  return html`<${Dialog} wide title=${t("accounts.import_results")} onClose=${onClose} actions=${html`<${Button} kind="primary" onClick=${onClose}>${t("action.done")}<//>`}>
    ${result.warnings.map((warning) => html`<p key=${warning} class="notice" role="status">${warning}</p>`)}
    <ol class="import" aria-label=${t("accounts.import_results")}>${lines.map((line) => html`<${ImportedLine} key=${line.line} line=${line} onReplace=${() => setReplacing(line)} onRemove=${() => remove(line)} />`)}</ol>
    ${replacing && html`<${ReplaceDialog} account=${replacing} path=${`${base}/${replacing.id}`} onClose=${() => setReplacing(null)} onChanged=${(account) => change(replacing, account)} />`}<//>`;
}

function ImportedLine({ line, onReplace, onRemove }) {
  const error = line.error ?? line.check?.error;
  const unknown = line.state === "needs_login";
  const facts = [line.check?.region, line.key?.models && t("accounts.key_models", { n: line.key.models.length }), line.key?.scope && t(`accounts.scope_${line.key.scope}`), line.check?.credits != null && t("accounts.credits_n", { n: formatNumber(line.check.credits) }), !unknown && error && error.message, line.check && !line.check.done && t("accounts.check_pending")];
  const outcome = () => {
    if (!line.outcome) return html`<${StatusBadge} tone="bad">${t("accounts.refused")}<//>`;
    if (line.state === "retired") return html`<${StatusBadge} status="retired" />`;
    if (unknown) return html`<${StatusBadge} tone="bad">${t("accounts.not_accepted")}<//>`;
    return html`<${StatusBadge} tone=${line.outcome === "duplicate" ? "off" : error ? "wait" : "good"}>${t(`accounts.outcome_${line.outcome}`)}<//>`;
  };
  return html`<li class="row"><span class="hint numeric">${t("accounts.line", { n: line.line })}</span><div class="grow"><strong>${line.label ?? line.token ?? t("accounts.unreadable")}</strong>
    <p class="hint">${facts.filter(Boolean).join(" · ")}</p>
    ${unknown && html`<p class="hint">${t(line.key ? "accounts.key_unknown" : "accounts.session_unknown")}</p><div class="row below"><${Button} small icon="key" onClick=${onReplace}>${t(line.key ? "accounts.replace_key" : "accounts.replace")}<//><${Button} small icon="trash" onClick=${onRemove}>${t("accounts.retire_action")}<//></div>`}</div>
    ${outcome()}</li>`;
}
