// Components that every page uses.
import { html, signal, useEffect, useId, useRef, useState } from "./preact.js";
import { formatAgo, formatDateTime, formatUntil, t } from "../state/language.js";
import { messageParts, wordsOf } from "../state/message_text.js";
import { dropUnsaved, useUnsaved } from "../state/unsaved.js";
import { Icon } from "./icons.js";

export function Button({ kind = "plain", icon, busy = false, small = false, label, children, ...rest }) {
  // An icon-only button needs a label for screen readers and as tooltip.
  const labelled = label ? { "aria-label": label, title: label } : {};
  return html`<button type="button" ...${labelled} ...${rest} disabled=${rest.disabled || busy} aria-busy=${busy || undefined}
    class="button ${kind} ${small ? "small" : ""} ${children ? "" : "icon-only"} ${rest.class ?? ""}">
    ${busy ? html`<span class="spinner" aria-hidden="true"></span>` : icon && html`<${Icon} name=${icon} size=${small ? 16 : 18} />`}
    ${children && html`<span>${children}</span>`}
  </button>`;
}

// A labelled form control. `children` = function(id, describedBy) that renders the control.
export function Field({ label, hint, error, children }) {
  const id = useId();
  const note = error ?? hint;
  return html`<div class="field ${error ? "invalid" : ""}">
    <label for=${id}>${label}</label>
    ${children(id, note ? `${id}-note` : undefined)}
    ${note && html`<p id="${id}-note" class=${error ? "field-error" : "hint"}>${note}</p>`}
  </div>`;
}

export function Select({ label, value, options, onChange, ...rest }) {
  // `options` = [value, text] pairs, or plain values.
  const pairs = options.map((item) => (Array.isArray(item) ? item : [item, String(item)]));
  return html`<${Field} label=${label} ...${rest}>${(id, describedBy) => html`<select id=${id} aria-describedby=${describedBy}
    value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${pairs.map(([item, text]) => html`<option key=${item} value=${item} selected=${String(item) === String(value)}>${text}</option>`)}
  </select>`}<//>`;
}

export function TextField({ label, hint, error, value, onInput, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(id, describedBy) => html`<input id=${id}
    aria-describedby=${describedBy} aria-invalid=${error ? "true" : undefined} value=${value}
    onInput=${(event) => onInput(event.target.value)} ...${rest} />`}<//>`;
}

export function TextArea({ label, hint, error, value, onInput, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(id, describedBy) => html`<textarea id=${id}
    aria-describedby=${describedBy} aria-invalid=${error ? "true" : undefined} value=${value}
    onInput=${(event) => onInput(event.target.value)} ...${rest}></textarea>`}<//>`;
}

// A search field that calls `onChange` when typing pauses.
export function SearchField({ label, value, onChange }) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => setText(value), [value]);
  const onInput = (event) => {
    setText(event.target.value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onChange(event.target.value.trim()), 300);
  };
  return html`<div class="field"><label for="search">${label}</label><div class="search"><${Icon} name="search" size=${18} />
    <input id="search" type="search" class="with-icon" maxlength="200" value=${text} onInput=${onInput} /></div></div>`;
}

// A row of radio buttons. `options` = [value, text, icon].
export function RadioGroup({ label, value, options, onChange, hideLabel = false }) {
  const name = useId();
  return html`<fieldset class="choice"><legend class=${hideLabel ? "visually-hidden" : ""}>${label}</legend><div class="choice-row">
    ${options.map(([item, text, icon]) => html`<label key=${item} class="choice-item">
      <input type="radio" name=${name} value=${item} checked=${item === value} onChange=${() => onChange(item)} />
      <span>${icon && html`<${Icon} name=${icon} size=${18} />`}${text}</span>
    </label>`)}
  </div></fieldset>`;
}

// Check boxes. `options` = [value, text, hint].
export function CheckboxGroup({ label, options, selected, onChange, hideLabel = false }) {
  const toggle = (value) => onChange(selected.includes(value) ? selected.filter((item) => item !== value) : options.map(([item]) => item).filter((item) => item === value || selected.includes(item)));
  return html`<fieldset class="choice"><legend class=${hideLabel ? "visually-hidden" : ""}>${label}</legend><div class="checks">
    ${options.map(([value, text, hint]) => html`<label key=${value} class="check"><input type="checkbox" checked=${selected.includes(value)} onChange=${() => toggle(value)} /><span>${text}${hint && html`<span class="hint">${hint}</span>`}</span></label>`)}
  </div></fieldset>`;
}

// A relative time such as "3 minutes ago" with the exact time as tooltip. Only this component renders again as time passes.
export const RelativeTime = ({ at }) => html`<time datetime=${new Date(at * 1000).toISOString()} title=${formatDateTime(at)}>${at * 1000 > Date.now() + 1000 ? formatUntil(at) : formatAgo(at)}</time>`;

export function Loading({ label }) {
  return html`<div class="state" role="status"><span class="spinner large" aria-hidden="true"></span><p>${label ?? t("state.loading")}</p></div>`;
}

// `heading` = "h1" where it is the whole page.
export function EmptyState({ icon = "spark", title, heading = "h2", children }) {
  return html`<div class="state empty"><span class="state-icon"><${Icon} name=${icon} size=${28} /></span><${heading}>${title}<//>
    ${children && html`<div class="state-text">${children}</div>`}</div>`;
}

// A message of the API: what is code there is code here, and times are in the viewer's format.
export const Message = ({ text }) => messageParts(text).map((part) => (typeof part === "string" ? part : html`<code>${part.code}</code>`));

// An error code in words, if there are words for it.
export const CodeName = ({ code }) => (wordsOf(code) ? html`<span>${wordsOf(code)}</span>` : html`<code>${code}</code>`);

// An API error, its request id for those who look into the logs, and a button to try again. A code that has words adds nothing to the message.
export function ErrorMessage({ error, onRetry }) {
  const details = [wordsOf(error.code) ? "" : error.code, error.requestId].filter(Boolean);
  return html`<div class="failure" role="alert"><${Icon} name="alert" /><div>
    <p class="failure-text"><${Message} text=${error.message} /></p>
    ${details.length > 0 && html`<p class="failure-details">${details.join(" · ")}</p>`}
  </div>${onRetry && html`<${Button} small onClick=${onRetry}>${t("action.try_again")}<//>`}</div>`;
}

const TONES = {
  queued: "wait", in_progress: "busy", completed: "good", failed: "bad", cancelled: "off",
  ok: "good", paused: "off", resting: "wait", retired: "off", active: "good", revoked: "off", expired: "off",
  in_grace: "wait", enabled: "good", disabled: "off", pending: "wait", sending: "busy", delivered: "good", validating: "wait", finalizing: "busy", cancelling: "wait",
  needs_login: "bad", no_credits: "wait", unchecked: "wait", blocked: "bad", off_hours: "off", failing: "wait",
};

// A coloured status. The text is `status.<status>` unless `children` are given; `tone` overrides the colour.
export function StatusBadge({ status, tone, children }) {
  return html`<span class="status tone-${tone ?? TONES[status] ?? "off"}"><i aria-hidden="true"></i>${children ?? t(`status.${status}`)}</span>`;
}

export function Progress({ value, label }) {
  const isKnown = value != null;
  return html`<div class="progress ${isKnown ? "" : "indeterminate"}" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${isKnown ? Math.round(value) : undefined}><i style=${{ width: isKnown ? `${value}%` : "30%" }}></i></div>`;
}

export function PageHeader({ title, lead, children }) {
  return html`<header class="page-header"><div><h1>${title}</h1>${lead && html`<p class="lead">${lead}</p>`}</div>
    ${children && html`<div class="page-actions">${children}</div>`}</header>`;
}

// The height of a text field follows its text, up to the limit of the style sheet; `null` = the style sheet decides.
export function useGrowth(field, text) {
  useEffect(() => {
    if (text === null) return;
    const { style } = field.current;
    style.height = "auto";
    style.height = `${field.current.scrollHeight + 2}px`;
  }, [text]);
}

// --- copying ---

export function CopyButton({ text, label }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } catch {
      toast(t("copy.failed"), "bad");
    }
  };
  return html`<${Button} small icon=${done ? "check" : "copy"} onClick=${copy}>${done ? t("copy.done") : label ?? t("action.copy")}<//>`;
}

export const CodeBlock = ({ text, label }) => html`<div class="code"><pre tabindex="0" aria-label=${label}>${text}</pre><${CopyButton} text=${text} /></div>`;

// --- toasts ---

const toasts = signal([]);
let lastToast = 0;

// A short notice; errors stay longer. `tone` = good, bad or plain.
export function toast(text, tone = "good") {
  const id = ++lastToast;
  toasts.value = [...toasts.value.slice(-3), { id, text, tone }];
  setTimeout(() => dropToast(id), tone === "bad" ? 9000 : 4000);
}

const dropToast = (id) => {
  toasts.value = toasts.value.filter((item) => item.id !== id);
};

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">${toasts.value.map((item) => html`<div key=${item.id} class="toast ${item.tone}">
    <${Icon} name=${item.tone === "bad" ? "alert" : "check"} size=${18} /><span><${Message} text=${item.text} /></span>
    <${Button} small kind="quiet" icon="close" label=${t("action.close")} onClick=${() => dropToast(item.id)} /></div>`)}</div>`;
}

// --- dialogs: native, so that focus stays inside and Escape closes them ---

// `unsaved` = what was typed would be lost: closing it asks first. Its Cancel button does not ask: it says what it does.
export function Dialog({ title, onClose, unsaved = false, wide = false, drawer = false, sheet = false, children, actions }) {
  const element = useRef(null);
  const titleId = useId();
  useUnsaved(unsaved, { inDialog: true });
  const close = async () => (!unsaved || (await askToLeave())) && onClose();
  useEffect(() => {
    const focused = document.activeElement;
    element.current.showModal();
    return () => focused?.isConnected && focused.focus();
  }, []);
  const closeOnBackdrop = (event) => event.target === element.current && close();
  return html`<dialog ref=${element} class="dialog ${wide ? "wide" : ""} ${drawer ? "drawer" : ""} ${sheet ? "sheet" : ""}" aria-labelledby=${titleId}
    onClick=${closeOnBackdrop} onCancel=${(event) => { event.preventDefault(); close(); }}>
    <div class="dialog-content"><header><h2 id=${titleId}>${title}</h2>
      <${Button} kind="quiet" icon="close" label=${t("action.close")} onClick=${close} /></header>
      <div class="dialog-body">${children}</div>
      ${actions && html`<footer>${actions}</footer>`}</div>
  </dialog>`;
}

const pendingConfirmation = signal(null);

// Ask for confirmation; resolves to true or false.
export const confirm = ({ title, text, action, danger = true }) =>
  new Promise((resolve) => {
    pendingConfirmation.value = { title, text, action, danger, resolve };
  });

// Whether to leave without saving.
export async function askToLeave() {
  const leave = await confirm({ title: t("unsaved.title"), text: t("unsaved.text"), action: t("unsaved.leave") });
  if (leave) dropUnsaved();
  return leave;
}

export function ConfirmDialog() {
  const request = pendingConfirmation.value;
  if (!request) return null;
  const close = (confirmed) => {
    pendingConfirmation.value = null;
    request.resolve(confirmed);
  };
  return html`<${Dialog} title=${request.title} onClose=${() => close(false)} actions=${html`
    <${Button} onClick=${() => close(false)}>${t("action.cancel")}<//>
    <${Button} kind=${request.danger ? "danger" : "primary"} onClick=${() => close(true)}>${request.action}<//>`}><p>${request.text}</p><//>`;
}

// --- actions ---

// Wraps an action: [run, busy]. A failure is shown as a toast.
export function useAction(action) {
  const [busy, setBusy] = useState(false);
  const run = async (...values) => {
    setBusy(true);
    try {
      return await action(...values);
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "bad");
      return undefined;
    } finally {
      setBusy(false);
    }
  };
  return [run, busy];
}

// Wraps the submission of a form: [submit, busy, error, setError]. The form shows the failure, in `error`, until the next submission.
export function useSubmit(action) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await action();
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  return [submit, busy, error, setError];
}
