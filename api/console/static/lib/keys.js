// API keys as tables and dialogs: one's own (`/v1/keys`) and those of another user (`/admin/v1/keys`).
import { html, useEffect, useState } from "./ui.js";
import { api, may, session } from "./api.js";
import { t } from "./language.js";
import { Ago, Button, Checks, Dialog, Failure, Select, Status, TextField, confirm, toast, useAction } from "./parts.js";
import { ShownOnce } from "./secrets.js";

const DAYS = ["", "7", "30", "90", "365"];
const GRACES = [["0", "keys.grace_none"], ["3600", "keys.grace_hour"], ["86400", "keys.grace_day"], ["604800", "keys.grace_week"]];

const alive = (key) => key.status === "active";

// `base` = where these keys live; `changes` = whether they may be made, replaced, revoked.
export function KeyTable({ base, keys, changes, onChanged }) {
  const [rotating, setRotating] = useState(null);
  const [made, setMade] = useState(null);
  const [revoke] = useAction(async (key) => {
    const text = t(key.current ? "keys.revoke_own_text" : "keys.revoke_text", { name: key.name });
    if (!(await confirm({ title: t("keys.revoke"), text, action: t("keys.revoke_action") }))) return;
    await api.delete(`${base}/${key.id}`);
    toast(t("keys.revoked"));
    onChanged();
  });
  return html`<div class="table-wrap"><table class="table"><thead><tr><th>${t("keys.name")}</th><th>${t("keys.rights")}</th><th>${t("filter.status")}</th><th>${t("keys.used")}</th><th>${t("keys.expires")}</th><th class="end"><span class="quiet-text">${t("table.actions")}</span></th></tr></thead>
    <tbody>${keys.map((key) => html`<tr key=${key.id}><td data-label=${t("keys.name")}><div><strong>${key.name}</strong>${key.current && html` <span class="tag">${t("keys.current")}</span>`}<p class="hint mono">${key.prefix}…</p></div></td>
      <td data-label=${t("keys.rights")}><div>${key.scopes ? key.scopes.map((scope) => t(`scope.${scope}`)).join(", ") : t("keys.all_rights")}${key.models && html`<p class="hint clamp-one" title=${key.models.join(", ")}>${t("keys.models_n", { n: key.models.length })}: ${key.models.join(", ")}</p>`}</div></td>
      <td data-label=${t("filter.status")}><${Status} word=${key.status} /></td>
      <td data-label=${t("keys.used")}>${key.last_used_at ? html`<${Ago} at=${key.last_used_at} />` : t("keys.unused")}</td>
      <td data-label=${t("keys.expires")}>${key.expires_at ? html`<${Ago} at=${key.expires_at} />` : t("keys.never")}</td>
      <td class="end">${changes && alive(key) && html`<div class="row end"><${Button} small icon="again" onClick=${() => setRotating(key)} aria-label=${t("keys.rotate_one", { name: key.name })}>${t("action.rotate")}<//>
        <${Button} small kind="quiet" icon="trash" label=${t("keys.revoke_one", { name: key.name })} onClick=${() => revoke(key)} /></div>`}</td></tr>`)}</tbody></table></div>
    ${rotating && html`<${Rotate} base=${base} of=${rotating} onClose=${() => setRotating(null)} onMade=${(key) => { setRotating(null); setMade(key); onChanged(); }} />`}
    ${made && html`<${NewKeyShown} made=${made} onClose=${() => setMade(null)} />`}`;
}

function Rotate({ base, of, onClose, onMade }) {
  const [grace, setGrace] = useState("0");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const rotate = async () => {
    setBusy(true);
    try {
      onMade(await api.post(`${base}/${of.id}/rotate`, { grace_seconds: Number(grace) }));
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t("keys.rotate")} onClose=${onClose} actions=${html`<${Button} onClick=${onClose}>${t("action.back")}<//><${Button} kind="primary" busy=${busy} onClick=${rotate}>${t("action.rotate")}<//>`}>
    <p>${t(of.current ? "keys.rotate_own_text" : "keys.rotate_text", { name: of.name })}</p>
    <${Select} label=${t("keys.grace")} value=${grace} onChange=${setGrace} options=${GRACES.map(([value, key]) => [value, t(key)])} />
    ${error && html`<${Failure} error=${error} />`}<//>`;
}

export function NewKeyShown({ made, onClose }) {
  const curl = `curl ${new URL("v1/images/generations", document.baseURI).href} \\\n  -H "Authorization: Bearer ${made.key}" -H "Content-Type: application/json" \\\n  -d '{"prompt": "a red paper boat"}'`;
  return html`<${ShownOnce} title=${t("keys.made")} text=${t("keys.made_text")} secret=${made.key} label=${t("keys.key")} onClose=${onClose}>
    <details class="more"><summary>curl</summary><pre class="sample" tabindex="0">${curl}</pre></details><//>`;
}

// The dialog that makes a key. `wish` = what is sent besides (the user, for administrators).
export function NewKey({ base, wish = {}, role, onClose, onMade }) {
  const scopes = ["generate", "read", "admin"].filter((scope) => (role ? scope !== "admin" || role === "admin" : may(scope)));
  const [name, setName] = useState("");
  const [chosen, setChosen] = useState(scopes.filter((scope) => scope !== "admin"));
  const [days, setDays] = useState("");
  const [models, setModels] = useState([]);
  const [known, setKnown] = useState([]);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    // Without the list the key is for all models.
    api.get("/v1/models").then(({ data }) => setKnown(data.filter((one) => !one.alias_of && (role || !session.value.models || session.value.models.includes(one.id)))), () => {});
  }, []);
  const make = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const expires = days ? new Date(Date.now() + Number(days) * 86400e3).toISOString() : undefined;
    try {
      onMade(await api.post(base, { ...wish, name: name.trim() || undefined, scopes: chosen, models: models.length ? models : undefined, expires_at: expires }));
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t("keys.new")} onClose=${onClose}><form class="stack" onSubmit=${make}>
    <${TextField} label=${t("keys.name")} hint=${t("keys.name_hint")} value=${name} onInput=${setName} maxlength="100" placeholder="default" />
    <${Checks} label=${t("keys.rights")} options=${scopes.map((scope) => [scope, t(`scope.${scope}`), t(`scope.${scope}_text`)])} chosen=${chosen} onChange=${setChosen} />
    <${Select} label=${t("keys.expires")} value=${days} onChange=${setDays} options=${DAYS.map((n) => [n, n ? t("keys.days", { n }) : t("keys.never")])} />
    ${known.length > 0 && html`<details class="more"><summary>${models.length ? t("keys.models_n", { n: models.length }) : t("keys.models_all")}</summary>
      <${Checks} label=${t("keys.models")} hideLabel options=${known.map((one) => [one.id, one.id])} chosen=${models} onChange=${setModels} /></details>`}
    ${error && html`<${Failure} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.back")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!chosen.length}>${t("keys.make")}<//></div>
  </form><//>`;
}
