// The audit log: who did what to whom, from where. Newest first, more as one scrolls.
import { html, useEffect, useRef, useState } from "../lib/ui.js";
import { api, here } from "../lib/api.js";
import { moment, t } from "../lib/language.js";
import { Button, Empty, Failure, Icon, Loading, PageHead, Select, TextField } from "../lib/parts.js";
import { useEnd } from "../lib/paging.js";
import { setQuery } from "../lib/router.js";

const AREAS = ["user", "key", "account", "job", "budget", "platform", "worker", "console", "audit"];
const SPANS = { "1h": 3600, "24h": 86400, "7d": 604800, "30d": 2592000 };

export default function Audit({ query }) {
  const filter = { action: query.action, since: SPANS[query.since] && Math.floor(Date.now() / 1000 - SPANS[query.since]) };
  const [state, setState] = useState({ acts: [], more: true, loading: true, error: null });
  const turn = useRef(0);
  async function load(after) {
    const mine = after ? turn.current : ++turn.current;
    setState((before) => ({ ...before, loading: true, error: null }));
    try {
      const page = await api.get("/admin/v1/audit", { ...filter, after, limit: 100 });
      if (mine === turn.current) setState((before) => ({ acts: after ? [...before.acts, ...page.data] : page.data, more: page.has_more, loading: false, error: null }));
    } catch (error) {
      if (mine === turn.current) setState((before) => ({ ...before, loading: false, error }));
    }
  }
  useEffect(() => {
    load(null);
  }, [query.action, query.since]);
  const end = useEnd(() => state.more && !state.loading && !state.error && state.acts.length && load(state.acts.at(-1).id));
  const known = AREAS.includes(query.action) || !query.action;
  const file = (format) => here(`admin/v1/audit/export?${new URLSearchParams(Object.entries({ format, ...filter }).filter(([, value]) => value))}`);
  return html`<${PageHead} title=${t("nav.audit")} lead=${t("audit.lead")}><${Button} icon="again" busy=${state.loading} onClick=${() => load(null)}>${t("audit.reload")}<//>
      <a class="button" download href=${file("csv")}><${Icon} name="download" size=${18} /><span>CSV</span></a><a class="button" download href=${file("jsonl")}><${Icon} name="download" size=${18} /><span>JSONL</span></a><//>
    <div class="filters three" role="search"><${Select} label=${t("audit.area")} value=${known ? query.action ?? "" : "other"} onChange=${(action) => action !== "other" && setQuery({ action })} options=${[["", t("filter.any")], ...AREAS.map((one) => [one, t(`audit.area_${one}`)]), ...(known ? [] : [["other", query.action]])]} />
      <${TextField} label=${t("audit.action")} value=${query.action ?? ""} onInput=${(action) => setQuery({ action: action.trim() })} placeholder="key.revoke" maxlength="60" spellcheck="false" />
      <${Select} label=${t("audit.since")} value=${query.since ?? ""} onChange=${(since) => setQuery({ since })} options=${[["", t("audit.ever")], ...Object.keys(SPANS).map((one) => [one, t(`audit.since_${one}`)])]} /></div>
    ${state.error && html`<${Failure} error=${state.error} onRetry=${() => load(null)} />`}
    ${!state.loading && !state.error && !state.acts.length && html`<div class="card"><${Empty} icon="book" title=${t("audit.none")} /></div>`}
    ${state.acts.length > 0 && html`<section class="card flush"><div class="table-wrap"><table class="table"><thead><tr><th>${t("plot.time")}</th><th>${t("audit.actor")}</th><th>${t("audit.action")}</th><th>${t("audit.target")}</th><th>${t("audit.details")}</th></tr></thead>
      <tbody>${state.acts.map((act) => html`<tr key=${act.id}><td data-label=${t("plot.time")} class="numeric nowrap">${moment(act.at)}</td><td data-label=${t("audit.actor")}><div>${act.actor}${act.address && html`<p class="hint numeric">${act.address}</p>`}</div></td>
        <td data-label=${t("audit.action")}><button type="button" class="chip mono" title=${t("audit.only")} onClick=${() => setQuery({ action: act.action })}>${act.action}</button></td><td data-label=${t("audit.target")}><span class="mono break">${act.target}</span></td>
        <td data-label=${t("audit.details")}><span class="details">${told(act.details)}</span></td></tr>`)}</tbody></table></div></section>`}
    ${state.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

// `{a: 1, b: null}` as "a: 1".
const told = (details) => Object.entries(details).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length)).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
