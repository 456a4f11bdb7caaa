// Parts that every page is made of.
import { html, signal, useEffect, useId, useRef, useState } from "./ui.js";
import { Icon } from "./icons.js";
import { ago, moment, t, until } from "./language.js";

export { Icon } from "./icons.js";

export function Button({ kind = "plain", icon, busy = false, small = false, label, children, ...rest }) {
  // Without words the label is what a screen reader says and what hovering shows.
  const named = label ? { "aria-label": label, title: label } : {};
  return html`<button type="button" ...${named} ...${rest} disabled=${rest.disabled || busy} aria-busy=${busy || undefined}
    class="button ${kind} ${small ? "small" : ""} ${children ? "" : "bare"} ${rest.class ?? ""}">
    ${busy ? html`<span class="spinner" aria-hidden="true"></span>` : icon && html`<${Icon} name=${icon} size=${small ? 16 : 18} />`}
    ${children && html`<span>${children}</span>`}
  </button>`;
}

// A labelled control. `children` = function(id, describedBy) that renders it.
export function Field({ label, hint, error, children }) {
  const id = useId();
  const told = error ?? hint;
  return html`<div class="field ${error ? "wrong" : ""}">
    <label for=${id}>${label}</label>
    ${children(id, told ? `${id}-told` : undefined)}
    ${told && html`<p id="${id}-told" class=${error ? "field-error" : "hint"}>${told}</p>`}
  </div>`;
}

export function Select({ label, value, options, onChange, ...rest }) {
  // `options` = [value, text] pairs, or plain values.
  const pairs = options.map((one) => (Array.isArray(one) ? one : [one, String(one)]));
  return html`<${Field} label=${label} ...${rest}>${(id, told) => html`<select id=${id} aria-describedby=${told}
    value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${pairs.map(([one, text]) => html`<option key=${one} value=${one} selected=${String(one) === String(value)}>${text}</option>`)}
  </select>`}<//>`;
}

export function TextField({ label, hint, error, value, onInput, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(id, told) => html`<input id=${id}
    aria-describedby=${told} aria-invalid=${error ? "true" : undefined} value=${value}
    onInput=${(event) => onInput(event.target.value)} ...${rest} />`}<//>`;
}

export function TextArea({ label, hint, error, value, onInput, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error}>${(id, told) => html`<textarea id=${id}
    aria-describedby=${told} aria-invalid=${error ? "true" : undefined} value=${value}
    onInput=${(event) => onInput(event.target.value)} ...${rest}></textarea>`}<//>`;
}

// One of a few, as a row of radio buttons.
export function Choice({ label, value, options, onChange, hideLabel = false }) {
  const name = useId();
  return html`<fieldset class="choice"><legend class=${hideLabel ? "quiet-text" : ""}>${label}</legend><div class="choice-row">
    ${options.map(([one, text, icon]) => html`<label key=${one} class="choice-item">
      <input type="radio" name=${name} value=${one} checked=${one === value} onChange=${() => onChange(one)} />
      <span>${icon && html`<${Icon} name=${icon} size=${18} />`}${text}</span>
    </label>`)}
  </div></fieldset>`;
}

// Any of a few: check boxes. `options` = [value, text, hint].
export function Checks({ label, options, chosen, onChange, hideLabel = false }) {
  const flip = (value) => onChange(chosen.includes(value) ? chosen.filter((one) => one !== value) : options.map(([one]) => one).filter((one) => one === value || chosen.includes(one)));
  return html`<fieldset class="choice"><legend class=${hideLabel ? "quiet-text" : ""}>${label}</legend><div class="checks">
    ${options.map(([value, text, hint]) => html`<label key=${value} class="check"><input type="checkbox" checked=${chosen.includes(value)} onChange=${() => flip(value)} /><span>${text}${hint && html`<span class="hint">${hint}</span>`}</span></label>`)}
  </div></fieldset>`;
}

// A moment as "3 minutes ago"; the moment itself when hovered. Only this part is drawn again as time goes on.
export const Ago = ({ at }) => html`<time datetime=${new Date(at * 1000).toISOString()} title=${moment(at)}>${at * 1000 > Date.now() + 1000 ? until(at) : ago(at)}</time>`;

export function Loading({ label }) {
  return html`<div class="state" role="status"><span class="spinner large" aria-hidden="true"></span><p>${label ?? t("state.loading")}</p></div>`;
}

export function Empty({ icon = "spark", title, children }) {
  return html`<div class="state empty"><span class="state-mark"><${Icon} name=${icon} size=${28} /></span><h2>${title}</h2>
    ${children && html`<div class="state-text">${children}</div>`}</div>`;
}

// Our error object, with the way on: try again, and what to name when reporting it.
export function Failure({ error, onRetry }) {
  return html`<div class="failure" role="alert"><${Icon} name="alert" /><div>
    <p class="failure-text">${error.message}</p>
    ${(error.code || error.requestId) && html`<p class="failure-more">${[error.code, error.requestId].filter(Boolean).join(" · ")}</p>`}
  </div>${onRetry && html`<${Button} small onClick=${onRetry}>${t("action.try_again")}<//>`}</div>`;
}

const TONES = {
  queued: "wait", in_progress: "busy", completed: "good", failed: "bad", cancelled: "off",
  ok: "good", paused: "off", resting: "wait", retired: "off", active: "good", revoked: "off", expired: "off",
  in_grace: "wait", enabled: "good", disabled: "off", pending: "wait", sending: "busy", delivered: "good",
  needs_login: "bad", blocked: "bad", off_hours: "off", failing: "wait",
};

// A status word. `word` is looked up as `status.<word>`; another `tone` may be given.
export function Status({ word, tone, children }) {
  return html`<span class="status tone-${tone ?? TONES[word] ?? "off"}"><i aria-hidden="true"></i>${children ?? t(`status.${word}`)}</span>`;
}

export function Progress({ value, label }) {
  const known = value != null;
  return html`<div class="progress ${known ? "" : "unknown"}" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${known ? Math.round(value) : undefined}><i style=${{ width: known ? `${value}%` : "30%" }}></i></div>`;
}

export function PageHead({ title, lead, children }) {
  return html`<header class="page-head"><div><h1>${title}</h1>${lead && html`<p class="lead">${lead}</p>`}</div>
    ${children && html`<div class="page-actions">${children}</div>`}</header>`;
}

// --- copying ---

export function Copy({ text, label }) {
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

export const Code = ({ text, label }) => html`<div class="code"><pre tabindex="0" aria-label=${label}>${text}</pre><${Copy} text=${text} /></div>`;

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
  toasts.value = toasts.value.filter((one) => one.id !== id);
};

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">${toasts.value.map((one) => html`<div key=${one.id} class="toast ${one.tone}">
    <${Icon} name=${one.tone === "bad" ? "alert" : "check"} size=${18} /><span>${one.text}</span>
    <${Button} small kind="quiet" icon="close" label=${t("action.close")} onClick=${() => dropToast(one.id)} /></div>`)}</div>`;
}

// --- dialogs: the browser's own, so that focus stays inside and Escape closes ---

export function Dialog({ title, onClose, wide = false, drawer = false, children, actions }) {
  const box = useRef(null);
  const name = useId();
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  const outside = (event) => event.target === box.current && onClose();
  return html`<dialog ref=${box} class="dialog ${wide ? "wide" : ""} ${drawer ? "drawer" : ""}" aria-labelledby=${name}
    onClick=${outside} onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <div class="dialog-inside"><header><h2 id=${name}>${title}</h2>
      <${Button} kind="quiet" icon="close" label=${t("action.close")} onClick=${onClose} /></header>
      <div class="dialog-body">${children}</div>
      ${actions && html`<footer>${actions}</footer>`}</div>
  </dialog>`;
}

const question = signal(null);

// Ask before something that cannot be undone; resolves to true or false.
export const confirm = ({ title, text, action, danger = true }) =>
  new Promise((answer) => {
    question.value = { title, text, action, danger, answer };
  });

export function Confirmations() {
  const asked = question.value;
  if (!asked) return null;
  const end = (sure) => {
    question.value = null;
    asked.answer(sure);
  };
  return html`<${Dialog} title=${asked.title} onClose=${() => end(false)} actions=${html`
    <${Button} onClick=${() => end(false)}>${t("action.back")}<//>
    <${Button} kind=${asked.danger ? "danger" : "primary"} onClick=${() => end(true)}>${asked.action}<//>`}><p>${asked.text}</p><//>`;
}

// --- doing things ---

// Runs an action, shows its failure as a toast; [run, busy].
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

// Loads something when the component appears and when `inputs` change: { data, error, loading, reload, setData }.
export function useLoaded(load, inputs = []) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    setState((before) => ({ ...before, loading: true, error: null }));
    load(stop.signal).then(
      (data) => !stop.signal.aborted && setState({ data, error: null, loading: false }),
      (error) => !stop.signal.aborted && setState((before) => ({ ...before, error, loading: false })),
    );
    return () => stop.abort();
  }, [...inputs, turn]);
  return {
    ...state,
    reload: () => setTurn((before) => before + 1),
    setData: (change) => setState((before) => ({ ...before, data: typeof change === "function" ? change(before.data) : change })),
  };
}
