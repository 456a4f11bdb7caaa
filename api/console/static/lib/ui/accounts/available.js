// What the jobs of the signed-in user run on, and whose accounts the form asks for.
import { html, signal, useEffect } from "../preact.js";
import { api } from "../../api/client.js";
import { persistentSignal } from "../../state/preferences.js";
import { t } from "../../state/language.js";
import { Select } from "../components.js";

// { own, platform, sandbox_only }; null = not known.
export const available = signal(null);

export async function loadAvailable() {
  // Without it the page shows neither hints nor choices; the next page asks again.
  available.value = await api.get("/v1/accounts/available").catch(() => available.value);
}

export function useAvailable() {
  useEffect(() => {
    loadAvailable();
  }, []);
  return available.value;
}

// Whose accounts are asked for: any, own or pool.
export const runOn = persistentSignal("run_on", "any");
const hasChoice = () => available.value?.own > 0 && available.value.platform;

// The headers of a request that makes something.
export const accountHeaders = () => (hasChoice() && runOn.value !== "any" ? { "X-Accounts": runOn.value } : {});

// "Run on: any, mine, the platform's", for users who have both.
export function RunOn() {
  if (!hasChoice()) return null;
  return html`<${Select} label=${t("accounts.run_on")} value=${runOn.value} onChange=${(value) => { runOn.value = value; }} options=${["any", "own", "pool"].map((value) => [value, t(`accounts.run_on_${value}`)])} />`;
}
