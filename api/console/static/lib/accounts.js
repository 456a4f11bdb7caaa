// Upstream accounts as pages show them: state and why, load, credits; adding some; changing one.
import { html, useState } from "./ui.js";
import { api } from "./api.js";
import { number, t } from "./language.js";
import { Ago, Button, Dialog, Failure, Status, TextArea, TextField, useAction, toast, confirm } from "./parts.js";

// Why an account is as it is, in one line.
export function AccountState({ account, why = true }) {
  const closed = account.state === "ok" && !account.open_now;
  const until = account.rest_until ?? (closed ? account.opens_at : null);
  return html`<div class="account-state"><${Status} word=${closed ? "off_hours" : account.state} />
    ${why && (account.state_code || until) && html`<p class="hint">${account.state_code && html`<code>${account.state_code}</code> `}${until && html`${t("accounts.until")} <${Ago} at=${until} />`}</p>`}</div>`;
}

export function Load({ account, defaults }) {
  const slots = (account.max_images ?? defaults?.max_images ?? 0) + (account.max_videos ?? defaults?.max_videos ?? 0);
  const label = t("accounts.load_of", { n: account.in_flight, slots });
  return html`<div class="load"><span class="numeric">${account.in_flight}${slots ? ` / ${slots}` : ""}</span>
    <div class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${slots || 1} aria-valuenow=${Math.min(account.in_flight, slots || 1)}><i style=${{ width: `${slots ? Math.min((100 * account.in_flight) / slots, 100) : 0}%` }}></i></div></div>`;
}

// Of the jobs that ended, how many succeeded; null when none did.
export const successOf = (sum) => (sum && sum.succeeded + sum.failed ? Math.round((100 * sum.succeeded) / (sum.succeeded + sum.failed)) : null);

export const hoursOf = ({ working_hours: hours }) => {
  if (!hours) return t("accounts.always");
  const days = hours.days.length === 7 ? "" : `${hours.days.map((day) => t(`day.${day}`)).join(" ")} `;
  return `${days}${hours.start}–${hours.end} ${hours.zone}`;
};

export function AddAccounts({ onClose, onAdded }) {
  const [wish, setWish] = useState({ tokens: "", label: "", groups: "", user: "" });
  const [result, setResult] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (value) => setWish({ ...wish, [name]: value });
  const add = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      setResult(await api.post("/admin/v1/accounts", { tokens: wish.tokens, label: wish.label.trim(), groups: words(wish.groups), user: wish.user.trim() || undefined }));
      onAdded();
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  if (result) return html`<${Imported} result=${result} onClose=${onClose} />`;
  return html`<${Dialog} wide title=${t("accounts.add")} onClose=${onClose}><form class="stack" onSubmit=${add}>
    <${TextArea} label=${t("accounts.tokens")} hint=${t("accounts.tokens_hint")} value=${wish.tokens} onInput=${set("tokens")} class="mono" rows="6" required spellcheck="false" autocomplete="off" placeholder=${"us-SESSIONID\nSESSIONID:cn\nsocks5://user:password@host:1080@SESSIONID"} />
    <div class="fields"><${TextField} label=${t("accounts.label")} value=${wish.label} onInput=${set("label")} maxlength="100" />
      <${TextField} label=${t("accounts.groups")} hint=${t("accounts.groups_hint")} value=${wish.groups} onInput=${set("groups")} />
      <${TextField} label=${t("accounts.user")} hint=${t("accounts.user_hint")} value=${wish.user} onInput=${set("user")} maxlength="120" /></div>
    ${error && html`<${Failure} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.back")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!wish.tokens.trim()}>${t("accounts.add_action")}<//></div>
    ${busy && html`<p class="hint" role="status">${t("accounts.checking")}</p>`}
  </form><//>`;
}

export const words = (text) => text.split(/[\s,]+/).filter(Boolean);

// What became of each line, in the order they were given.
function Imported({ result, onClose }) {
  const lines = [...result.data, ...result.refused].sort((one, other) => one.line - other.line);
  return html`<${Dialog} wide title=${t("accounts.added")} onClose=${onClose} actions=${html`<${Button} kind="primary" onClick=${onClose}>${t("action.done")}<//>`}>
    <ol class="import" aria-label=${t("accounts.added")}>${lines.map((one) => {
      const wrong = one.error ?? one.check?.error;
      const live = one.check?.live;
      return html`<li key=${one.line} class="row"><span class="hint numeric">${one.line}</span><div class="grow"><strong>${one.label ?? one.token ?? t("accounts.unreadable")}</strong>
        <p class="hint">${[one.check?.region, one.check?.credits != null && t("accounts.credits_n", { n: number(one.check.credits) }), wrong && wrong.message, one.check && !one.check.done && t("accounts.check_later")].filter(Boolean).join(" · ")}</p></div>
        ${one.outcome ? html`<${Status} tone=${one.outcome === "duplicate" ? "off" : wrong || live === false ? "wait" : "good"}>${t(`accounts.outcome_${one.outcome}`)}<//>` : html`<${Status} tone="bad">${t("accounts.refused")}<//>`}</li>`;
    })}</ol><//>`;
}

// The buttons for an account as it is now.
export function AccountActions({ account, onChanged, compact = false }) {
  const path = `/admin/v1/accounts/${account.id}`;
  const [change, changing] = useAction(async (body) => onChanged(await api.patch(path, body)));
  const [check, checking] = useAction(async () => {
    const found = await api.post(`${path}/check`);
    onChanged(found);
    const wrong = found.check.error;
    toast(wrong ? wrong.message : found.check.done ? t("accounts.checked") : t("accounts.check_later"), wrong ? "bad" : "good");
  });
  const [leave, leaving] = useAction(async () => {
    if (!(await confirm({ title: t("accounts.retire"), text: t("accounts.retire_text", { name: account.label }), action: t("accounts.retire_action") }))) return;
    onChanged(await api.delete(path));
    toast(t("accounts.retired"));
  });
  const stopped = account.state === "paused" || account.state === "blocked";
  // In a table only the icons; their labels name the account.
  const button = ({ icon, word, named, ...rest }) => html`<${Button} small icon=${icon} label=${t(named, { name: account.label })} ...${rest}>${!compact && t(word)}<//>`;
  return html`<div class="row end">${button({ icon: "pulse", word: "accounts.check", named: "accounts.check_one", busy: checking, onClick: check })}
    ${account.state === "resting" && button({ icon: "again", word: "accounts.end_rest", named: "accounts.end_rest_one", busy: changing, onClick: () => change({ rested: true }) })}
    ${account.state !== "retired" && button({ icon: stopped ? "play" : "pause", word: stopped ? "accounts.resume" : "accounts.pause", named: stopped ? "accounts.resume_one" : "accounts.pause_one", busy: changing, onClick: () => change({ paused: !stopped }) })}
    ${!compact && account.state !== "retired" && html`<${Button} small kind="danger" icon="trash" busy=${leaving} onClick=${leave}>${t("accounts.retire_action")}<//>`}</div>`;
}

export function RegionOf({ account }) {
  return html`<span class="nowrap">${account.country ?? account.region}</span>`;
}

