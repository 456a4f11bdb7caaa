// Webhook endpoints with their secrets, and the delivery log, which is polled faster while deliveries are pending.
import { html, useState } from "../lib/ui/preact.js";
import { api, hasScope } from "../lib/api/client.js";
import { useLoaded, usePolling } from "../lib/api/loading.js";
import { formatDuration, t } from "../lib/state/language.js";
import { Link, setQuery } from "../lib/state/router.js";
import { Button, CheckboxGroup, confirm, Dialog, EmptyState, ErrorMessage, Loading, PageHeader, RelativeTime, Select, StatusBadge, TextField, toast, useAction, useSubmit } from "../lib/ui/components.js";
import { SecretDialog } from "../lib/ui/access/secret_dialog.js";

const EVENTS = [...["completed", "failed", "cancelled", "started"].map((item) => `job.${item}`), ...["completed", "failed", "expired", "cancelled"].map((item) => `batch.${item}`)];
const STATUSES = ["pending", "sending", "delivered", "failed"];
const BASE = "/v1/webhooks";
const eventName = (event) => t(`event.${event.replace(".", "_")}`);

export default function Webhooks({ query }) {
  const loaded = useLoaded(() => api.get(`${BASE}/endpoints`));
  const [editing, setEditing] = useState(null); // an endpoint, or {} for a new one
  const [secret, setSecret] = useState(null);
  const editable = hasScope("generate");
  const endpoints = loaded.data?.data ?? [];
  const saved = (endpoint) => {
    setEditing(null);
    if (endpoint.secret) setSecret(endpoint.secret);
    loaded.reload();
  };
  return html`<${PageHeader} title=${t("nav.webhooks")} lead=${t("webhooks.lead")}>${editable && html`<${Button} kind="primary" icon="plus" onClick=${() => setEditing({})}>${t("webhooks.add")}<//>`}<//>
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${!loaded.data && loaded.loading && html`<${Loading} />`}
    <div class="stack">${loaded.data && !endpoints.length && html`<div class="card"><${EmptyState} icon="webhook" title=${t("webhooks.empty")}><p>${t("webhooks.empty_text")}</p><//></div>`}
      ${endpoints.length > 0 && html`<ul class="hooks" aria-label=${t("webhooks.endpoints")}>${endpoints.map((item) => html`<${Endpoint} key=${item.id} endpoint=${item} editable=${editable} onEdit=${() => setEditing(item)} onChanged=${loaded.reload} onSecret=${setSecret} />`)}</ul>`}
      <${Deliveries} endpoints=${endpoints} query=${query} editable=${editable} /></div>
    ${editing && html`<${EndpointDialog} endpoint=${editing} onClose=${() => setEditing(null)} onSaved=${saved} />`}
    ${secret && html`<${SecretDialog} title=${t("webhooks.secret")} text=${t("webhooks.secret_text")} secret=${secret} label=${t("webhooks.secret")} onClose=${() => setSecret(null)} />`}`;
}

function Endpoint({ endpoint, editable, onEdit, onChanged, onSecret }) {
  const path = `${BASE}/endpoints/${endpoint.id}`;
  const [test, testing] = useAction(async () => {
    await api.post(`${path}/test`);
    toast(t("webhooks.test_sent"));
    deliveryLog.reload();
  });
  const [rotate, rotating] = useAction(async () => {
    if (!(await confirm({ title: t("webhooks.rotate"), text: t("webhooks.rotate_text"), action: t("action.rotate"), danger: false }))) return;
    onSecret((await api.post(`${path}/rotate`)).secret);
    onChanged();
  });
  const [pause, pausing] = useAction(async () => {
    await api.patch(path, { disabled: !endpoint.disabled });
    onChanged();
  });
  const [remove, removing] = useAction(async () => {
    if (!(await confirm({ title: t("webhooks.delete"), text: t("webhooks.delete_text", { url: endpoint.url }), action: t("action.delete") }))) return;
    await api.delete(path);
    onChanged();
  });
  return html`<li class="card hook"><div class="row spread"><strong class="mono break">${endpoint.url}</strong><${StatusBadge} status=${endpoint.disabled ? "disabled" : endpoint.failing_since ? "failing" : "enabled"} /></div>
    ${endpoint.description && html`<p>${endpoint.description}</p>`}
    <p class="hint">${endpoint.events.map(eventName).join(t("list.separator"))}${endpoint.scope === "key" ? ` · ${t("webhooks.scope_key")}` : ""}</p>
    ${endpoint.disabled && html`<p class="hint">${endpoint.disabled_reason}${endpoint.disabled_at && html` · <${RelativeTime} at=${endpoint.disabled_at} />`}</p>`}
    ${!endpoint.disabled && endpoint.failing_since && html`<p class="hint">${t("webhooks.failing_since")} <${RelativeTime} at=${endpoint.failing_since} /></p>`}
    ${endpoint.previous_secret_expires_at && html`<p class="hint">${t("webhooks.old_secret")} <${RelativeTime} at=${endpoint.previous_secret_expires_at} /></p>`}
    ${editable && html`<div class="row"><${Button} small icon="send" busy=${testing} onClick=${test}>${t("webhooks.test")}<//><${Button} small icon="edit" onClick=${onEdit}>${t("action.edit")}<//>
      <${Button} small icon="repeat" busy=${rotating} onClick=${rotate}>${t("webhooks.rotate")}<//><${Button} small icon=${endpoint.disabled ? "play" : "pause"} busy=${pausing} onClick=${pause}>${t(endpoint.disabled ? "accounts.resume" : "accounts.pause")}<//>
      <${Button} small kind="quiet" icon="trash" busy=${removing} label=${t("webhooks.delete")} onClick=${remove} /></div>`}</li>`;
}

// Lets an endpoint reload the delivery log after a test event.
const deliveryLog = { reload() {} };

function Deliveries({ endpoints, query, editable }) {
  const filter = { status: query.status, endpoint_id: query.endpoint };
  const [limit, setLimit] = useState(20);
  const [pending, setPending] = useState(false);
  const loaded = usePolling(async () => {
    const page = await api.get(`${BASE}/deliveries`, { ...filter, limit });
    setPending(page.data.some((item) => item.status === "pending" || item.status === "sending"));
    return page;
  }, pending ? 1.5 : 8, [filter.status, filter.endpoint_id, limit]);
  deliveryLog.reload = loaded.reload;
  const [open, setOpen] = useState(null);
  const rows = loaded.data?.data ?? [];
  const withAll = (options) => [["", t("filter.any")], ...options];
  return html`<section class="card flush"><header class="card-head row spread"><h2>${t("webhooks.deliveries")}</h2><div class="row log-filters"><${Select} label=${t("filter.status")} value=${query.status ?? ""} onChange=${(status) => setQuery({ status })} options=${withAll(STATUSES.map((item) => [item, t(`status.${item}`)]))} />
      ${endpoints.length > 1 && html`<${Select} label=${t("webhooks.endpoint")} value=${query.endpoint ?? ""} onChange=${(endpoint) => setQuery({ endpoint })} options=${withAll(endpoints.map((item) => [item.id, item.url]))} />`}</div></header>
    ${loaded.error && !loaded.data && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${loaded.data && !rows.length && html`<p class="hint pad">${t("webhooks.no_deliveries")}</p>`}
    ${rows.length > 0 && html`<div class="table-wrap"><table class="table deliveries"><thead><tr><th>${t("webhooks.event")}</th><th>${t("filter.status")}</th><th>${t("webhooks.response")}</th><th>${t("plot.time")}</th><th class="end"><span class="visually-hidden">${t("table.actions")}</span></th></tr></thead>
      <tbody>${rows.map((item) => html`<${Delivery} key=${item.id} delivery=${item} editable=${editable} open=${open === item.id} onOpen=${() => setOpen(open === item.id ? null : item.id)} onReplayed=${loaded.reload} />`)}</tbody></table></div>`}
    ${loaded.data?.has_more && limit < 100 && html`<p class="pad"><${Button} small onClick=${() => setLimit(100)}>${t("action.more")}<//></p>`}</section>`;
}

function Delivery({ delivery, editable, open, onOpen, onReplayed }) {
  const [replay, replaying] = useAction(async () => {
    await api.post(`${BASE}/deliveries/${delivery.id}/replay`);
    toast(t("webhooks.replayed"));
    onReplayed();
  });
  const response = delivery.last_status ? `HTTP ${delivery.last_status}` : delivery.last_error ?? "–";
  return html`<tr><td data-label=${t("webhooks.event")}><div><strong title=${delivery.event}>${eventName(delivery.event)}</strong>${delivery.job_id && html` <${Link} to=${`jobs/${delivery.job_id}`}>${t("nav.job")}<//>`}<p class="hint mono break clamp" title=${delivery.url}>${delivery.url}</p></div></td>
      <td data-label=${t("filter.status")}><div><${StatusBadge} status=${delivery.status} />${delivery.next_try_at && html`<p class="hint">${t("webhooks.next_attempt")} <${RelativeTime} at=${delivery.next_try_at} /></p>`}</div></td>
      <td data-label=${t("webhooks.response")}><span class="break">${response}</span></td><td data-label=${t("plot.time")}><${RelativeTime} at=${delivery.created_at} /></td>
      <td class="end"><div class="row end"><${Button} small kind="quiet" aria-expanded=${open} onClick=${onOpen}>${t("webhooks.attempts", { n: delivery.attempts.length })}<//>${editable && html`<${Button} small icon="repeat" busy=${replaying} disabled=${delivery.status === "sending"} onClick=${replay}>${t("webhooks.replay")}<//>`}</div></td></tr>
    ${open && html`<tr class="detail"><td colspan="5"><ol class="attempts" aria-label=${t("webhooks.attempts_label")}>${delivery.attempts.map((item) => html`<li key=${item.n}><span class="numeric">${item.n}.</span> <${RelativeTime} at=${item.at} /> · ${item.status ? `HTTP ${item.status}` : item.error ?? t("webhooks.result_unknown")}${item.error && item.status ? ` · ${item.error}` : ""}${item.seconds !== null ? ` · ${formatDuration(item.seconds)}` : ""}</li>`)}${!delivery.attempts.length && html`<li class="hint">${t("webhooks.no_attempts")}</li>`}</ol><p class="hint">webhook-id <code>${delivery.id}</code></p></td></tr>`}`;
}

function EndpointDialog({ endpoint, onClose, onSaved }) {
  const before = { url: endpoint.url ?? "", description: endpoint.description ?? "", events: endpoint.events ?? EVENTS.slice(0, 3), scope: "user" };
  const [form, setForm] = useState(before);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const [save, busy, error] = useSubmit(async () => {
    const body = { url: form.url.trim(), description: form.description, events: form.events };
    onSaved(await (endpoint.id ? api.patch(`${BASE}/endpoints/${endpoint.id}`, body) : api.post(`${BASE}/endpoints`, { ...body, scope: form.scope })));
  });
  return html`<${Dialog} title=${t(endpoint.id ? "webhooks.edit" : "webhooks.add")} unsaved=${JSON.stringify(form) !== JSON.stringify(before) && !busy} onClose=${onClose}><form class="stack" onSubmit=${save}>
    <${TextField} label=${t("webhooks.url")} hint=${t("webhooks.url_hint")} type="url" required value=${form.url} onInput=${set("url")} placeholder="https://example.com/hooks/dreamery" />
    <${TextField} label=${t("webhooks.description")} value=${form.description} onInput=${set("description")} maxlength="500" />
    <${CheckboxGroup} label=${t("webhooks.events")} options=${EVENTS.map((event) => [event, eventName(event)])} selected=${form.events} onChange=${set("events")} />
    ${!endpoint.id && html`<${Select} label=${t("webhooks.scope")} value=${form.scope} onChange=${set("scope")} options=${[["user", t("webhooks.scope_user")], ["key", t("webhooks.scope_key")]]} />`}
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!form.url.trim() || !form.events.length}>${t(endpoint.id ? "action.save" : "webhooks.add")}<//></div></form><//>`;
}
