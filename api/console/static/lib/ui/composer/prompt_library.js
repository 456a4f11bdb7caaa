// Earlier prompts and named templates, as dialogs beside the prompt.
import { html, signal, useEffect, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { useLoaded } from "../../api/loading.js";
import { draft, editAndRemake, openDraft, replacePrompt } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { deleteTemplate, saveTemplate, templates } from "../../state/templates.js";
import { runOn } from "../accounts/available.js";
import { Button, Dialog, ErrorMessage, Loading, RelativeTime, SearchField, TextField, confirm } from "../components.js";

const HISTORY = 100;

// Which dialog is open. The dialogs are outside of the form: their own fields do not submit it.
const opened = signal("");
const close = () => {
  opened.value = "";
};

export const PromptButtons = () => html`<div class="row">${[["history", "clock"], ["templates", "book"]].map(([name, icon]) => html`<${Button} key=${name} small kind="quiet" icon=${icon}
  onClick=${() => { opened.value = name; }}>${t(`play.${name}`)}<//>`)}</div>`;

export function PromptDialogs() {
  useEffect(() => close, []);
  if (opened.value === "history") return html`<${History} />`;
  return opened.value === "templates" ? html`<${Templates} />` : null;
}

// The dialog gives the focus back when it closes; the prompt takes it afterwards.
function closeAnd(fill) {
  close();
  setTimeout(fill);
}

// The newest job of each prompt.
function byPrompt(jobs) {
  const found = new Map();
  for (const job of jobs) if (job.input.prompt && !found.has(job.input.prompt)) found.set(job.input.prompt, job);
  return [...found.values()];
}

function History() {
  const [search, setSearch] = useState("");
  const loaded = useLoaded((signal) => api.get("/v1/jobs", { limit: HISTORY, kind: "image,video", q: search }, { signal }), [search]);
  const jobs = byPrompt(loaded.data?.data ?? []);
  return html`<${Dialog} wide title=${t("play.history_title")} onClose=${close}>
    <${SearchField} label=${t("filter.prompt")} value=${search} onChange=${setSearch} />
    ${loaded.error && html`<${ErrorMessage} error=${loaded.error} onRetry=${loaded.reload} />`}
    ${loaded.loading && !loaded.data && html`<${Loading} />`}
    ${loaded.data && !jobs.length && html`<p class="muted">${t(search ? "play.history_no_match" : "play.history_empty")}</p>`}
    <ul class="prompt-list">${jobs.map((job) => html`<li key=${job.id}>
      <button type="button" class="prompt-choice" onClick=${() => closeAnd(() => replacePrompt(job.input.prompt))}><span class="clamp">${job.input.prompt}</span>
        <span class="hint">${job.model} · <${RelativeTime} at=${job.created_at} /></span></button>
      <${Button} small icon="remake" onClick=${() => closeAnd(() => editAndRemake(job))}>${t("play.with_settings")}<//></li>`)}</ul><//>`;
}

function Templates() {
  const [name, setName] = useState("");
  const save = (event) => {
    event.preventDefault();
    if (!name.trim()) return;
    saveTemplate(name.trim(), runOn.value, draft.value);
    setName("");
  };
  const open = (item) => closeAnd(() => {
    runOn.value = item.runOn ?? runOn.value;
    openDraft(item.values);
  });
  const remove = async (item) => {
    if (await confirm({ title: t("play.template_delete"), text: item.name, action: t("action.delete") })) deleteTemplate(item.name);
  };
  return html`<${Dialog} wide title=${t("play.templates")} onClose=${close}>
    <form class="template-form" onSubmit=${save}><${TextField} label=${t("play.template_name")} maxlength="80" value=${name} onInput=${setName} />
      <${Button} type="submit" disabled=${!name.trim()}>${t("play.template_save")}<//></form>
    <p class="hint">${t("play.template_hint")}</p>
    ${!templates.value.length && html`<p class="muted">${t("play.template_empty")}</p>`}
    <ul class="prompt-list">${templates.value.map((item) => html`<li key=${item.name}>
      <button type="button" class="prompt-choice" onClick=${() => open(item)}><strong>${item.name}</strong><span class="hint clamp-one">${t(`mode.${item.values.mode}`)} · ${item.values.prompt}</span></button>
      <${Button} small kind="quiet" icon="trash" label=${t("play.template_delete_one", { name: item.name })} onClick=${() => remove(item)} /></li>`)}</ul><//>`;
}
