// The form of an alert channel: a webhook, or mail over a server of the operator.
import { html, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { formatNumber, language, t } from "../../state/language.js";
import { Button, CheckboxGroup, Dialog, ErrorMessage, RadioGroup, Select, TextField, useSubmit } from "../components.js";

const BASE = "/admin/v1/alerts/channels";
const PORTS = { starttls: 587, tls: 465, none: 25 };

// The title of a rule. That of the storage names how full it is, as its threshold counts what is free.
export const ruleTitle = (name, threshold) => t(`alert_rule.${name}`, { full: threshold == null ? "…" : formatNumber(100 - threshold) });

export function ChannelDialog({ channel, rules, onClose, onSaved }) {
  const mail = channel.mail ?? { host: "", port: PORTS.starttls, security: "starttls", username: "", sender: "", recipients: [] };
  const before = { ...mail, kind: channel.kind ?? "webhook", name: channel.name ?? "", language: channel.language ?? language.value, url: channel.url ?? "", recipients: mail.recipients.join(", "), password: "",
    all: String(!channel.rules), rules: channel.rules ?? rules.map((rule) => rule.name) };
  const [form, setForm] = useState(before);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const [save, busy, error] = useSubmit(async () => {
    const body = { name: form.name.trim(), language: form.language, rules: form.all === "true" ? null : form.rules };
    if (form.kind === "webhook") body.url = form.url.trim();
    else {
      body.mail = { host: form.host.trim(), port: Number(form.port), security: form.security, username: form.username.trim(), sender: form.sender.trim(), recipients: form.recipients.split(/[\s,;]+/).filter(Boolean) };
      if (form.password) body.password = form.password;
    }
    onSaved(await (channel.id ? api.patch(`${BASE}/${channel.id}`, body) : api.post(BASE, { ...body, kind: form.kind })));
  });
  return html`<${Dialog} title=${t(channel.id ? "alerts.edit_channel" : "alerts.add_channel")} unsaved=${JSON.stringify(form) !== JSON.stringify(before) && !busy} onClose=${onClose}><form class="stack" onSubmit=${save}>
    ${!channel.id && html`<${RadioGroup} label=${t("alerts.kind")} value=${form.kind} onChange=${set("kind")} options=${[["webhook", t("alerts.kind_webhook"), "webhook"], ["email", t("alerts.kind_email"), "send"]]} />`}
    <${TextField} label=${t("alerts.name")} required maxlength="80" value=${form.name} onInput=${set("name")} />
    ${form.kind === "webhook" ? html`<${TextField} label=${t("webhooks.url")} hint=${t("alerts.url_hint")} type="url" required value=${form.url} onInput=${set("url")} placeholder="https://example.com/hooks/alerts" />` : html`<${MailFields} form=${form} setForm=${setForm} isNew=${!channel.id} />`}
    <${Select} label=${t("alerts.language")} value=${form.language} onChange=${set("language")} options=${[["en", "English"], ["zh", "中文"]]} />
    <${Select} label=${t("alerts.rules")} value=${form.all} onChange=${set("all")} options=${[["true", t("alerts.all_rules")], ["false", t("alerts.some_rules")]]} />
    ${form.all === "false" && html`<${CheckboxGroup} hideLabel label=${t("alerts.rules")} options=${rules.map((rule) => [rule.name, ruleTitle(rule.name, rule.threshold)])} selected=${form.rules} onChange=${set("rules")} />`}
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy}>${t("action.save")}<//></div></form><//>`;
}

function MailFields({ form, setForm, isNew }) {
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const setSecurity = (security) => setForm({ ...form, security, port: Object.values(PORTS).includes(Number(form.port)) ? PORTS[security] : form.port });
  return html`<${TextField} label=${t("alerts.host")} required maxlength="253" value=${form.host} onInput=${set("host")} placeholder="smtp.example.com" />
    <${Select} label=${t("alerts.security")} value=${form.security} onChange=${setSecurity} options=${[["starttls", "STARTTLS"], ["tls", "TLS"], ["none", t("alerts.security_none")]]} />
    <${TextField} label=${t("alerts.port")} type="number" required min="1" max="65535" value=${form.port} onInput=${set("port")} />
    <${TextField} label=${t("alerts.username")} hint=${t("alerts.username_hint")} maxlength="254" autocomplete="off" value=${form.username} onInput=${set("username")} />
    <${TextField} label=${t("alerts.password")} hint=${isNew ? undefined : t("alerts.password_hint")} type="password" autocomplete="new-password" maxlength="500" value=${form.password} onInput=${set("password")} />
    <${TextField} label=${t("alerts.sender")} type="email" required value=${form.sender} onInput=${set("sender")} />
    <${TextField} label=${t("alerts.recipients")} hint=${t("alerts.recipients_hint")} required value=${form.recipients} onInput=${set("recipients")} />`;
}
