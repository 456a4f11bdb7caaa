// Where one's events go: endpoints with their secrets, and the log of what was sent, live while something is under way.
import { html, useState } from "../lib/ui.js";
import { api, may } from "../lib/api.js";
import { duration, t } from "../lib/language.js";
import { Ago, Button, Checks, Dialog, Empty, Failure, Loading, PageHead, Select, Status, TextField, confirm, toast, useAction, useLoaded } from "../lib/parts.js";
import { usePolled } from "../lib/polling.js";
import { Link, setQuery } from "../lib/router.js";
import { ShownOnce } from "../lib/secrets.js";

const EVENTS = ["completed", "failed", "cancelled", "started"].map((one) => `job.${one}`);
const STATUSES = ["pending", "sending", "delivered", "failed"];
const BASE = "/v1/webhooks";

export default function Webhooks({ query }) {
  const loaded = useLoaded(() => api.get(`${BASE}/endpoints`));
  const [editing, setEditing] = useState(null); // an endpoint, or {} for a new one
  const [secret, setSecret] = useState(null);
  const changes = may("generate");
  const endpoints = loaded.data?.data ?? [];
  const saved = (made) => {
    setEditing(null);
    if (made.secret) setSecret(made.secret);
    loaded.reload();
  };
  return html`<${PageHead} title=${t("nav.webhooks")} lead=${t("hooks.lead")}>${changes && html`<${Button} kind="primary" icon="plus" onClick=${() => setEditing({})}>${t("hooks.add")}<//>`}<//>
    ${loaded.error && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    <div class="stack">${loaded.data && !endpoints.length && html`<div class="card"><${Empty} icon="hook" title=${t("hooks.empty")}><p>${t("hooks.empty_text")}</p><//></div>`}
      ${endpoints.length > 0 && html`<ul class="hooks" aria-label=${t("hooks.endpoints")}>${endpoints.map((one) => html`<${Endpoint} key=${one.id} endpoint=${one} changes=${changes} onEdit=${() => setEditing(one)} onChanged=${loaded.reload} onSecret=${setSecret} />`)}</ul>`}
      <${Deliveries} endpoints=${endpoints} query=${query} changes=${changes} /></div>
    ${editing && html`<${Edit} endpoint=${editing} onClose=${() => setEditing(null)} onSaved=${saved} />`}
    ${secret && html`<${ShownOnce} title=${t("hooks.secret")} text=${t("hooks.secret_text")} secret=${secret} label=${t("hooks.secret")} onClose=${() => setSecret(null)} />`}`;
}

function Endpoint({ endpoint, changes, onEdit, onChanged, onSecret }) {
  const path = `${BASE}/endpoints/${endpoint.id}`;
  const [test, testing] = useAction(async () => {
    await api.post(`${path}/test`);
    toast(t("hooks.test_sent"));
    news.tell();
  });
  const [rotate, rotating] = useAction(async () => {
    if (!(await confirm({ title: t("hooks.rotate"), text: t("hooks.rotate_text"), action: t("action.rotate"), danger: false }))) return;
    onSecret((await api.post(`${path}/rotate`)).secret);
    onChanged();
  });
  const [pause, pausing] = useAction(async () => {
    await api.patch(path, { disabled: !endpoint.disabled });
    onChanged();
  });
  const [remove, removing] = useAction(async () => {
    if (!(await confirm({ title: t("hooks.delete"), text: t("hooks.delete_text", { url: endpoint.url }), action: t("action.delete") }))) return;
    await api.delete(path);
    onChanged();
  });
  return html`<li class="card hook"><div class="row spread"><strong class="mono break">${endpoint.url}</strong><${Status} word=${endpoint.disabled ? "disabled" : endpoint.failing_since ? "failing" : "enabled"} /></div>
    ${endpoint.description && html`<p>${endpoint.description}</p>`}
    <p class="hint">${endpoint.events.map((event) => t(`event.${event.replace(".", "_")}`)).join(", ")}${endpoint.scope === "key" ? ` · ${t("hooks.scope_key")}` : ""}</p>
    ${endpoint.disabled && html`<p class="hint">${endpoint.disabled_reason}${endpoint.disabled_at && html` · <${Ago} at=${endpoint.disabled_at} />`}</p>`}
    ${!endpoint.disabled && endpoint.failing_since && html`<p class="hint">${t("hooks.failing_since")} <${Ago} at=${endpoint.failing_since} /></p>`}
    ${endpoint.previous_secret_expires_at && html`<p class="hint">${t("hooks.two_secrets")} <${Ago} at=${endpoint.previous_secret_expires_at} /></p>`}
    ${changes && html`<div class="row"><${Button} small icon="send" busy=${testing} onClick=${test}>${t("hooks.test")}<//><${Button} small icon="edit" onClick=${onEdit}>${t("action.edit")}<//>
      <${Button} small icon="again" busy=${rotating} onClick=${rotate}>${t("hooks.rotate")}<//><${Button} small icon=${endpoint.disabled ? "play" : "pause"} busy=${pausing} onClick=${pause}>${t(endpoint.disabled ? "accounts.resume" : "accounts.pause")}<//>
      <${Button} small kind="quiet" icon="trash" busy=${removing} label=${t("hooks.delete")} onClick=${remove} /></div>`}</li>`;
}

// The log is read again at once when something was sent from here.
const news = { tell() {} };

function Deliveries({ endpoints, query, changes }) {
  const filter = { status: query.status, endpoint_id: query.endpoint };
  const [limit, setLimit] = useState(20);
  const [moving, setMoving] = useState(false);
  const loaded = usePolled(async () => {
    const page = await api.get(`${BASE}/deliveries`, { ...filter, limit });
    setMoving(page.data.some((one) => one.status === "pending" || one.status === "sending"));
    return page;
  }, moving ? 1.5 : 8, [filter.status, filter.endpoint_id, limit]);
  news.tell = loaded.reload;
  const [open, setOpen] = useState(null);
  const rows = loaded.data?.data ?? [];
  const any = (options) => [["", t("filter.any")], ...options];
  return html`<section class="card flush"><header class="card-head row spread"><h2>${t("hooks.log")}</h2><div class="row log-filters"><${Select} label=${t("filter.status")} value=${query.status ?? ""} onChange=${(status) => setQuery({ status })} options=${any(STATUSES.map((one) => [one, t(`status.${one}`)]))} />
      ${endpoints.length > 1 && html`<${Select} label=${t("hooks.endpoint")} value=${query.endpoint ?? ""} onChange=${(endpoint) => setQuery({ endpoint })} options=${any(endpoints.map((one) => [one.id, one.url]))} />`}</div></header>
    ${loaded.error && !loaded.data && html`<${Failure} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${loaded.data && !rows.length && html`<p class="hint pad">${t("hooks.log_empty")}</p>`}
    ${rows.length > 0 && html`<div class="table-wrap"><table class="table"><thead><tr><th>${t("hooks.event")}</th><th>${t("hooks.to")}</th><th>${t("filter.status")}</th><th>${t("hooks.answer")}</th><th>${t("plot.time")}</th><th class="end"><span class="quiet-text">${t("table.actions")}</span></th></tr></thead>
      <tbody>${rows.map((one) => html`<${Delivery} key=${one.id} delivery=${one} changes=${changes} open=${open === one.id} onOpen=${() => setOpen(open === one.id ? null : one.id)} onReplayed=${loaded.reload} />`)}</tbody></table></div>`}
    ${loaded.data?.has_more && limit < 100 && html`<p class="pad"><${Button} small onClick=${() => setLimit(100)}>${t("action.more")}<//></p>`}</section>`;
}

function Delivery({ delivery, changes, open, onOpen, onReplayed }) {
  const [replay, replaying] = useAction(async () => {
    await api.post(`${BASE}/deliveries/${delivery.id}/replay`);
    toast(t("hooks.replayed"));
    onReplayed();
  });
  const answer = delivery.last_status ? `HTTP ${delivery.last_status}` : delivery.last_error ?? "–";
  return html`<tr><td data-label=${t("hooks.event")}><div><code>${delivery.event}</code>${delivery.job_id && html`<p class="hint"><${Link} to=${`jobs/${delivery.job_id}`}>${t("nav.job")}<//></p>`}</div></td>
      <td data-label=${t("hooks.to")}><span class="mono break">${delivery.url}</span></td><td data-label=${t("filter.status")}><div><${Status} word=${delivery.status} />${delivery.next_try_at && html`<p class="hint">${t("hooks.next")} <${Ago} at=${delivery.next_try_at} /></p>`}</div></td>
      <td data-label=${t("hooks.answer")}><span class="break">${answer}</span></td><td data-label=${t("plot.time")}><${Ago} at=${delivery.created_at} /></td>
      <td class="end"><div class="row end"><${Button} small kind="quiet" aria-expanded=${open} onClick=${onOpen}>${t("hooks.tries", { n: delivery.attempts.length })}<//>${changes && html`<${Button} small icon="again" busy=${replaying} disabled=${delivery.status === "sending"} onClick=${replay}>${t("hooks.replay")}<//>`}</div></td></tr>
    ${open && html`<tr class="detail"><td colspan="6"><ol class="tries" aria-label=${t("hooks.tries_label")}>${delivery.attempts.map((one) => html`<li key=${one.n}><span class="numeric">${one.n}.</span> <${Ago} at=${one.at} /> · ${one.status ? `HTTP ${one.status}` : one.error ?? t("hooks.unknown")}${one.error && one.status ? ` · ${one.error}` : ""}${one.seconds !== null ? ` · ${duration(one.seconds)}` : ""}</li>`)}${!delivery.attempts.length && html`<li class="hint">${t("hooks.no_try")}</li>`}</ol><p class="hint">webhook-id <code>${delivery.id}</code></p></td></tr>`}`;
}

function Edit({ endpoint, onClose, onSaved }) {
  const [form, setForm] = useState({ url: endpoint.url ?? "", description: endpoint.description ?? "", events: endpoint.events ?? EVENTS.slice(0, 3), scope: "user" });
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const save = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const body = { url: form.url.trim(), description: form.description, events: form.events };
    try {
      onSaved(await (endpoint.id ? api.patch(`${BASE}/endpoints/${endpoint.id}`, body) : api.post(`${BASE}/endpoints`, { ...body, scope: form.scope })));
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t(endpoint.id ? "hooks.edit" : "hooks.add")} onClose=${onClose}><form class="stack" onSubmit=${save}>
    <${TextField} label=${t("hooks.url")} hint=${t("hooks.url_hint")} type="url" required value=${form.url} onInput=${set("url")} placeholder="https://example.com/hooks/dreamery" />
    <${TextField} label=${t("hooks.description")} value=${form.description} onInput=${set("description")} maxlength="500" />
    <${Checks} label=${t("hooks.events")} options=${EVENTS.map((event) => [event, t(`event.${event.replace(".", "_")}`)])} chosen=${form.events} onChange=${set("events")} />
    ${!endpoint.id && html`<${Select} label=${t("hooks.scope")} value=${form.scope} onChange=${set("scope")} options=${[["user", t("hooks.scope_user")], ["key", t("hooks.scope_key")]]} />`}
    ${error && html`<${Failure} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.back")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!form.url.trim() || !form.events.length}>${t(endpoint.id ? "action.save" : "hooks.add")}<//></div></form><//>`;
}
