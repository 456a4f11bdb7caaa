// Accounts that need somebody, and actions for all accounts at once.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { formatNumber, t } from "../../state/language.js";
import { Link } from "../../state/router.js";
import { Button, toast } from "../components.js";
import { Icon } from "../icons.js";
import { hasLowCredits, LOW_CREDITS, stateOf } from "./views.js";

const MOST_NAMES = 5;
const PARALLEL = 4;

// `page` = the page of one account, such as `accounts`.
export function AccountWarnings({ accounts, page }) {
  const groups = [
    ["warn_login", accounts.filter((account) => account.state === "needs_login")],
    ["warn_blocked", accounts.filter((account) => account.state === "blocked")],
    ["warn_no_credits", accounts.filter((account) => stateOf(account) === "no_credits")],
    ["warn_low_credits", accounts.filter(hasLowCredits)],
  ].filter(([, found]) => found.length);
  if (!groups.length) return null;
  return html`<ul class="account-warnings" aria-label=${t("accounts.warnings")}>${groups.map(([name, found]) => html`<li key=${name} class="notice wait"><${Icon} name="alert" size=${18} /><span>${t(`accounts.${name}`, { n: formatNumber(found.length), credits: LOW_CREDITS })} ${found.slice(0, MOST_NAMES).map((account, n) => html`${n > 0 && t("list.separator")}<${Link} key=${account.id} to=${`${page}/${account.id}`}>${account.label}<//>`)}${found.length > MOST_NAMES && " …"}</span></li>`)}</ul>`;
}

// Calls `run(account)` for all, a few at once; `onStep` after each. Returns the results; a failed call is its error.
async function forAll(accounts, run, onStep) {
  const waiting = [...accounts];
  const results = [];
  const work = async () => {
    while (waiting.length) {
      const account = waiting.shift();
      results.push(await run(account).catch((error) => error));
      onStep(results.length);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
  return results;
}

// "Check all" and "Claim daily credits". Keys have no credits to claim.
export function BulkActions({ accounts, base, onChanged }) {
  const [progress, setProgress] = useState(null);
  const run = async (action, chosen, report) => {
    const onStep = (n) => setProgress({ action, n, of: chosen.length });
    onStep(0);
    const results = await forAll(chosen, (account) => api.post(`${base}/${account.id}/${action}`), onStep);
    results.filter((item) => item.id).forEach(onChanged);
    setProgress(null);
    report(results);
  };
  const check = () => run("check", accounts, (results) => {
    const working = results.filter((item) => item.check?.live).length;
    toast(t("accounts.checked_all", { n: formatNumber(working), of: formatNumber(results.length) }), working === results.length ? "good" : "bad");
  });
  const sessions = accounts.filter((account) => !account.key && account.state === "ok");
  const receive = () => run("receive", sessions, (results) => {
    const gained = results.reduce((sum, item) => sum + (item.receive?.gained ?? 0), 0);
    const failed = results.filter((item) => !item.receive || item.receive.error).length;
    toast([t("accounts.claimed_all", { n: formatNumber(gained) }), failed && t("accounts.claims_failed", { n: formatNumber(failed) })].filter(Boolean).join(" "), failed ? "bad" : "good");
  });
  const text = (action, label) => (progress?.action === action ? t("accounts.progress", progress) : t(label));
  return html`${accounts.length > 1 && html`<${Button} icon="activity" busy=${progress?.action === "check"} disabled=${progress !== null} onClick=${check}>${text("check", "accounts.check_all")}<//>`}
    ${sessions.length > 0 && html`<${Button} icon="star" busy=${progress?.action === "receive"} disabled=${progress !== null} onClick=${receive}>${text("receive", "accounts.claim_all")}<//>`}`;
}
