// Views of upstream accounts: state, load and action buttons. `base` = the API path of the accounts.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { lookup } from "../../../i18n/index.js";
import { Button, CodeName, confirm, RelativeTime, StatusBadge, toast, useAction } from "../components.js";
import { ReplaceDialog } from "./replace.js";

export const ADMIN_BASE = "/admin/v1/accounts";
export const OWN_BASE = "/v1/accounts";

// Fewer credits than this are called low: they last for some pictures only.
export const LOW_CREDITS = 20;

const creditsLeft = (account) => account.credits_left ?? account.credits;

// No check has reached upstream yet, and no job has run: nobody knows whether the credential is good.
const isUnchecked = (account) => Boolean(account.check_code) && account.credits_at === null && account.last_submit_at === null;

// The state that people care about: an account that cannot pay, or that was never checked, is not "working".
export function stateOf(account) {
  if (account.state !== "ok") return account.state;
  if (isUnchecked(account)) return "unchecked";
  if (!account.key && creditsLeft(account) !== null && creditsLeft(account) <= 0) return "no_credits";
  return "ok";
}

export const hasLowCredits = (account) => account.state === "ok" && !account.key && creditsLeft(account) > 0 && creditsLeft(account) < LOW_CREDITS;

// Whether upstream has never recognised the credential: a session that worked has a balance.
const neverWorked = (account) => account.state === "needs_login" && account.credits_at === null;

// Why upstream does not take jobs on an account. Some codes mean less for one account than for a job.
export const Reason = ({ code }) => (lookup(`reason.${code}`) ? html`<span>${t(`reason.${code}`)}</span>` : html`<${CodeName} code=${code} />`);

// The state of an account, with its reason and the time it is available again.
export function AccountState({ account }) {
  const state = stateOf(account);
  const offHours = account.state === "ok" && !account.open_now;
  const resumesAt = account.rest_until ?? (offHours ? account.opens_at : null);
  let badge = html`<${StatusBadge} status=${offHours ? "off_hours" : state} />`;
  if (account.key && state === "blocked") badge = html`<${StatusBadge} tone="bad">${t("accounts.stopped")}<//>`;
  else if (neverWorked(account)) badge = html`<${StatusBadge} tone="bad">${t("accounts.not_accepted")}<//>`;
  return html`<div class="account-state">${badge}
    ${(account.state_code || resumesAt) && html`<p class="hint">${account.state_code && html`<${Reason} code=${account.state_code} />`}${account.state_code && resumesAt && " · "}${resumesAt && html`${t("accounts.available_again")} <${RelativeTime} at=${resumesAt} />`}</p>`}</div>`;
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

// The entries of a text separated by spaces or commas.
export const splitList = (text) => text.split(/[\s,]+/).filter(Boolean);

// The buttons that fit the state of an account.
export function AccountActions({ account, base, onChanged, compact = false }) {
  const path = `${base}/${account.id}`;
  const [replacing, setReplacing] = useState(false);
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
  const lost = account.state === "needs_login";
  return html`<div class="row end">${compact && lost && button({ icon: "key", label: account.key ? "accounts.replace_key_one" : "accounts.replace_one", onClick: () => setReplacing(true) })}
    ${button({ icon: "activity", text: "accounts.check", label: "accounts.check_one", busy: checking, onClick: check })}
    ${account.state === "resting" && button({ icon: "repeat", text: "accounts.resume_now", label: "accounts.resume_now_one", busy: updating, onClick: () => update({ rested: true }) })}
    ${account.state !== "retired" && !(compact && lost) && button({ icon: stopped ? "play" : "pause", text: stopped ? "accounts.resume" : "accounts.pause", label: stopped ? "accounts.resume_one" : "accounts.pause_one", busy: updating, onClick: () => update({ paused: !stopped }) })}
    ${account.state !== "retired" && (lost || !compact) && button({ icon: "trash", text: "accounts.retire_action", label: "accounts.retire_one", kind: "danger", busy: retiring, onClick: retire })}
    ${replacing && html`<${ReplaceDialog} account=${account} path=${path} onClose=${() => setReplacing(false)} onChanged=${onChanged} />`}</div>`;
}

export function AccountRegion({ account }) {
  return html`<span class="nowrap">${account.key ? `${account.provider} · ` : ""}${account.country ?? account.region}</span>`;
}

// The models that upstream refuses on the account while its other models work, each with a button that opens it again.
export function RestingModels({ account, base, onChanged }) {
  const [reopen, reopening] = useAction(async (model) => {
    onChanged(await api.patch(`${base}/${account.id}`, { reopen_models: [model] }));
    toast(t("accounts.reopened", { model }));
  });
  if (!account.model_rests.length) return null;
  return html`<section class="card"><h2>${t("accounts.resting_models")}</h2><p class="hint">${t("accounts.resting_models_hint")}</p>
    <ul class="stack gap">${account.model_rests.map((rest) => html`<li key=${rest.model} class="row"><div class="grow"><strong>${rest.model}</strong> <${CodeName} code=${rest.code} />
      ${rest.detail && html`<p class="hint break">${rest.detail}</p>`}<p class="hint">${rest.closed ? t("accounts.closed") : html`${t("accounts.available_again")} <${RelativeTime} at=${rest.until} />`}</p></div>
      <${Button} small icon="repeat" label=${t("accounts.reopen_one", { model: rest.model })} busy=${reopening} onClick=${() => reopen(rest.model)}>${t("accounts.reopen")}<//></li>`)}</ul></section>`;
}

