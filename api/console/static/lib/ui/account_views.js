// Views of upstream accounts: state, load, import dialog and action buttons.
import { html, useState } from "./preact.js";
import { api } from "../api/client.js";
import { useLoaded } from "../api/loading.js";
import { formatNumber, t } from "../state/language.js";
import { Button, confirm, Dialog, ErrorMessage, RelativeTime, Select, StatusBadge, TextArea, TextField, toast, useAction } from "./components.js";

// The state of an account, with its reason and the time it is available again.
export function AccountState({ account }) {
  const offHours = account.state === "ok" && !account.open_now;
  const resumesAt = account.rest_until ?? (offHours ? account.opens_at : null);
  return html`<div class="account-state">${account.key && account.state === "blocked" ? html`<${StatusBadge} tone="bad">${t("accounts.stopped")}<//>` : html`<${StatusBadge} status=${offHours ? "off_hours" : account.state} />`}
    ${(account.state_code || resumesAt) && html`<p class="hint">${account.state_code && html`<code>${account.state_code}</code> `}${resumesAt && html`${t("accounts.available_again")} <${RelativeTime} at=${resumesAt} />`}</p>`}</div>`;
}

export function Load({ account, defaults }) {
  const slots = (account.max_images ?? defaults?.max_images ?? 0) + (account.max_videos ?? defaults?.max_videos ?? 0);
  const label = t("accounts.load_of", { n: account.in_flight, slots });
  return html`<div class="load"><span class="numeric">${account.in_flight}${slots ? ` / ${slots}` : ""}</span>
    <div class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${slots || 1} aria-valuenow=${Math.min(account.in_flight, slots || 1)}><i style=${{ width: `${slots ? Math.min((100 * account.in_flight) / slots, 100) : 0}%` }}></i></div></div>`;
}

// The share of finished jobs that succeeded, in percent; null without finished jobs.
export const successRate = (sum) => (sum && sum.succeeded + sum.failed ? Math.round((100 * sum.succeeded) / (sum.succeeded + sum.failed)) : null);

export const formatWorkingHours = ({ working_hours: hours }) => {
  if (!hours) return t("accounts.always");
  const days = hours.days.length === 7 ? "" : `${hours.days.map((day) => t(`day.${day}`)).join(" ")} `;
  return `${days}${hours.start}–${hours.end} ${hours.zone}`;
};

export function AddAccountsDialog({ onClose, onAdded }) {
  const providers = useLoaded(() => api.get("/v1/accounts/providers")).data?.data ?? [];
  const [form, setForm] = useState({ tokens: "", label: "", groups: "", user: "", provider: "", region: "", limit_group: "" });
  const [result, setResult] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const provider = providers.find((item) => item.name === form.provider) ?? providers[0];
  const keys = provider?.credential === "key";
  const region = keys ? (provider.regions.includes(form.region) ? form.region : provider.regions[0]) : undefined;
  const add = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const ofKeys = keys ? { region, limit_group: form.limit_group.trim() || null } : {};
    try {
      setResult(await api.post("/admin/v1/accounts", { tokens: form.tokens, label: form.label.trim(), groups: splitList(form.groups), user: form.user.trim() || undefined, provider: provider?.name, ...ofKeys }));
      onAdded();
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  if (result) return html`<${ImportResults} result=${result} onClose=${onClose} />`;
  return html`<${Dialog} wide title=${t("accounts.add")} onClose=${onClose}><form class="stack" onSubmit=${add}>
    ${providers.length > 1 && html`<div class="fields"><${Select} label=${t("accounts.provider")} value=${provider.name} onChange=${set("provider")} options=${providers.map((item) => [item.name, item.title])} />
      ${keys && html`<${Select} label=${t("fact.region")} value=${region} onChange=${set("region")} options=${provider.regions.map((item) => [item, provider.currencies[item] ? `${item} (${provider.currencies[item]})` : item])} />`}</div>`}
    <${TextArea} label=${t(keys ? "accounts.keys" : "accounts.tokens")} hint=${t(keys ? "accounts.keys_hint" : "accounts.tokens_hint")} value=${form.tokens} onInput=${set("tokens")} class="mono" rows=${keys ? "3" : "6"} required spellcheck="false" autocomplete="off" placeholder=${keys ? "" : "us-SESSIONID\nSESSIONID:cn\nsocks5://user:password@host:1080@SESSIONID"} />
    ${keys && html`<${TextField} label=${t("accounts.limit_group")} hint=${t("accounts.limit_group_hint")} value=${form.limit_group} onInput=${set("limit_group")} maxlength="60" />`}
    <div class="fields"><${TextField} label=${t("accounts.label")} value=${form.label} onInput=${set("label")} maxlength="100" />
      <${TextField} label=${t("accounts.groups")} hint=${t("accounts.groups_hint")} value=${form.groups} onInput=${set("groups")} />
      <${TextField} label=${t("accounts.user")} hint=${t("accounts.user_hint")} value=${form.user} onInput=${set("user")} maxlength="120" /></div>
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!form.tokens.trim()}>${t("accounts.add_action")}<//></div>
    ${busy && html`<p class="hint" role="status">${t("accounts.checking")}</p>`}
  </form><//>`;
}

// The entries of a text separated by spaces or commas.
export const splitList = (text) => text.split(/[\s,]+/).filter(Boolean);

// The result of each pasted line, in the order of the lines.
function ImportResults({ result, onClose }) {
  const lines = [...result.data, ...result.refused].sort((first, second) => first.line - second.line);
  return html`<${Dialog} wide title=${t("accounts.import_results")} onClose=${onClose} actions=${html`<${Button} kind="primary" onClick=${onClose}>${t("action.done")}<//>`}>
    ${result.warnings.map((warning) => html`<p key=${warning} class="notice" role="status">${warning}</p>`)}
    <ol class="import" aria-label=${t("accounts.import_results")}>${lines.map((line) => {
      const error = line.error ?? line.check?.error;
      const live = line.check?.live;
      return html`<li key=${line.line} class="row"><span class="hint numeric">${line.line}</span><div class="grow"><strong>${line.label ?? line.token ?? t("accounts.unreadable")}</strong>
        <p class="hint">${[line.check?.region, line.key?.models && t("accounts.key_models", { n: line.key.models.length }), line.key?.scope && t(`accounts.scope_${line.key.scope}`), line.check?.credits != null && t("accounts.credits_n", { n: formatNumber(line.check.credits) }), error && error.message, line.check && !line.check.done && t("accounts.check_pending")].filter(Boolean).join(" · ")}</p></div>
        ${line.outcome ? html`<${StatusBadge} tone=${line.outcome === "duplicate" ? "off" : error || live === false ? "wait" : "good"}>${t(`accounts.outcome_${line.outcome}`)}<//>` : html`<${StatusBadge} tone="bad">${t("accounts.refused")}<//>`}</li>`;
    })}</ol><//>`;
}

// The buttons that fit the state of an account.
export function AccountActions({ account, onChanged, compact = false }) {
  const path = `/admin/v1/accounts/${account.id}`;
  const [update, updating] = useAction(async (body) => onChanged(await api.patch(path, body)));
  const [check, checking] = useAction(async () => {
    const checked = await api.post(`${path}/check`);
    onChanged(checked);
    const { error } = checked.check;
    toast(error ? error.message : checked.check.done ? t("accounts.checked") : t("accounts.check_pending"), error ? "bad" : "good");
  });
  const [retire, retiring] = useAction(async () => {
    if (!(await confirm({ title: t("accounts.retire"), text: t("accounts.retire_text", { name: account.label }), action: t("accounts.retire_action") }))) return;
    onChanged(await api.delete(path));
    toast(t("accounts.retired"));
  });
  const stopped = account.state === "paused" || account.state === "blocked";
  // Tables show only icons; their labels name the account.
  const button = ({ icon, text, label, ...rest }) => html`<${Button} small icon=${icon} label=${t(label, { name: account.label })} ...${rest}>${!compact && t(text)}<//>`;
  return html`<div class="row end">${button({ icon: "activity", text: "accounts.check", label: "accounts.check_one", busy: checking, onClick: check })}
    ${account.state === "resting" && button({ icon: "repeat", text: "accounts.resume_now", label: "accounts.resume_now_one", busy: updating, onClick: () => update({ rested: true }) })}
    ${account.state !== "retired" && button({ icon: stopped ? "play" : "pause", text: stopped ? "accounts.resume" : "accounts.pause", label: stopped ? "accounts.resume_one" : "accounts.pause_one", busy: updating, onClick: () => update({ paused: !stopped }) })}
    ${!compact && account.state !== "retired" && html`<${Button} small kind="danger" icon="trash" busy=${retiring} onClick=${retire}>${t("accounts.retire_action")}<//>`}</div>`;
}

export function AccountRegion({ account }) {
  return html`<span class="nowrap">${account.key ? `${account.provider} · ` : ""}${account.country ?? account.region}</span>`;
}

// The models that upstream refuses on the account while its other models work, each with a button that opens it again.
export function RestingModels({ account, onChanged }) {
  const [reopen, reopening] = useAction(async (model) => {
    onChanged(await api.patch(`/admin/v1/accounts/${account.id}`, { reopen_models: [model] }));
    toast(t("accounts.reopened", { model }));
  });
  if (!account.model_rests.length) return null;
  return html`<section class="card"><h2>${t("accounts.resting_models")}</h2><p class="hint">${t("accounts.resting_models_hint")}</p>
    <ul class="stack gap">${account.model_rests.map((rest) => html`<li key=${rest.model} class="row"><div class="grow"><strong>${rest.model}</strong> <code>${rest.code}</code>
      ${rest.detail && html`<p class="hint break">${rest.detail}</p>`}<p class="hint">${rest.closed ? t("accounts.closed") : html`${t("accounts.available_again")} <${RelativeTime} at=${rest.until} />`}</p></div>
      <${Button} small icon="repeat" label=${t("accounts.reopen_one", { model: rest.model })} busy=${reopening} onClick=${() => reopen(rest.model)}>${t("accounts.reopen")}<//></li>`)}</ul></section>`;
}

