// The turns of a conversation: what the user sent, the answer, and its results as jobs like any other.
import { html, useEffect, useState } from "../preact.js";
import { api, hasScope, platformUrl } from "../../api/client.js";
import { cancelJob, isOpen, jobFiles, needsOtherPrompt } from "../../api/jobs.js";
import { editAndRemake } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { Link } from "../../state/router.js";
import { Button, CopyButton, ErrorMessage, Message, toast } from "../components.js";
import { Icon } from "../icons.js";
import { JobProgress, ResultGrid } from "../job_views.js";
import { Markdown } from "../markdown.js";
import { fileId } from "../viewer/items.js";

// Signs that stand at a word without a space.
const NO_GAP_BEFORE = /^[\s.,;:!?)\]}%»”’…\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]/;
const NO_GAP_AFTER = /[\s([{«“‘\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]$/;
const join = (text, rest) => (!text || !rest || NO_GAP_AFTER.test(text) || NO_GAP_BEFORE.test(rest) ? text + rest : `${text} ${rest}`);

// An answer that was cut off and the turns that continue it are shown as one: [{ first, last, turns, text }].
export function groupTurns(turns) {
  const groups = [];
  for (const turn of turns) {
    if (turn.continues && groups.length) {
      const group = groups.at(-1);
      groups[groups.length - 1] = { ...group, last: turn, turns: [...group.turns, turn], text: join(group.text, turn.content) };
    } else groups.push({ first: turn, last: turn, turns: [turn], text: turn.content });
  }
  return groups;
}

export const messageOf = (turn) => turn.messages.filter(({ role }) => role === "user").map(({ content }) => content).join("\n\n");

// `actions` = { edit, retry, proceed } for the newest turn; null for the others.
export function Turn({ group, actions }) {
  const { first, last, turns, text } = group;
  const results = turns.flatMap((turn) => turn.results);
  const files = new Set(results.flatMap(jobFiles).map(fileId));
  const message = messageOf(first);
  const notes = turns.map((turn) => turn.note).filter(Boolean);
  return html`<div class="message user"><span class="visually-hidden">${t("agent.user")}</span>
      ${first.inputs > 0 && html`<${SentPictures} turn=${first} />`}
      ${message && html`<div class="markdown plain">${message}</div>`}
      ${actions?.edit && html`<div class="message-actions"><${Button} small kind="quiet" icon="edit" label=${t("agent.edit")} onClick=${actions.edit} /></div>`}</div>
    <div class="message assistant"><span class="visually-hidden">${t("agent.assistant")}</span>
      ${text && html`<${Markdown} text=${text} shown=${files} />`}
      ${results.length > 0 && html`<div class="turn-results ${results.length === 1 ? "single" : ""}">${results.map((job) => html`<${Result} key=${job.id} job=${job} />`)}</div>`}
      ${notes.map((note) => html`<p class="hint">${note}</p>`)}
      ${last.stage && html`<p class="hint row"><span class="spinner" aria-hidden="true"></span>${last.stage}</p>`}
      ${!text && !last.stage && !last.error && last.answering && !results.length && html`<span class="spinner" role="status" aria-label=${t("state.loading")}></span>`}
      ${last.error && !results.length && html`<${ErrorMessage} error=${last.error} />`}
      ${last.cut_off && html`<p class="hint row warning" role="status"><${Icon} name="alert" size=${16} /><span>${t(last.status === "cancelled" ? "agent.stopped" : "agent.cut_off")}</span>
        ${actions?.proceed && html`<${Button} small kind="primary" onClick=${actions.proceed}>${t("agent.continue")}<//>`}</p>`}
      ${!last.answering && html`<div class="message-actions">${text && html`<${CopyButton} text=${text} />`}
        ${actions?.retry && html`<${Button} small kind="quiet" icon="repeat" onClick=${actions.retry}>${t("action.retry")}<//>`}
        ${last.id.startsWith("job_") && html`<${Link} to=${`jobs/${last.id}`} class="hint">${t("agent.job")}<//>`}</div>`}</div>`;
}

function Result({ job }) {
  return html`<section class="turn-result" aria-label=${t(`kind.${job.kind}`)}>
    ${isOpen(job) && html`<${JobProgress} job=${job} />`}
    ${job.error && html`<p class="failure small" role="status"><${Icon} name="alert" size=${18} /><span><${Message} text=${job.error.message} /></span></p>`}
    <${ResultGrid} job=${job} />
    <div class="row">${isOpen(job) && hasScope("generate") && html`<${Button} small icon="stop" disabled=${job.cancelling} onClick=${() => cancelJob(job).catch((error) => toast(error.message, "bad"))}>${t("action.cancel")}<//>`}
      ${!isOpen(job) && hasScope("generate") && html`<${Button} small icon="remake" onClick=${() => editAndRemake(job)}>${t(needsOtherPrompt(job) ? "action.edit_prompt" : "action.edit_and_remake")}<//>`}
      <${Link} to=${`jobs/${job.id}`} class="button small"><${Icon} name="right" size=${16} /><span>${t("action.details")}</span><//></div></section>`;
}

// The pictures that were sent with a message: those of this page, or the inputs of its job.
function SentPictures({ turn }) {
  const [inputs, setInputs] = useState([]);
  useEffect(() => {
    if (turn.images || !hasScope("read")) return;
    api.get(`/v1/jobs/${turn.id}/inputs`).then(({ data }) => setInputs(data.filter((item) => item.url)), () => {});
  }, [turn.id]);
  const shown = turn.images ? turn.images.filter(({ media, preview }) => media === "image" && preview).map(({ id, source, upload }) => [id, upload ? source : platformUrl(source)])
    : inputs.filter(({ media }) => media === "image").map(({ n, url }) => [n, platformUrl(url)]);
  const left = turn.inputs - shown.length;
  return html`<div class="sent-pictures">${shown.map(([key, source]) => html`<img key=${key} src=${source} alt=${t("agent.sent_picture")} />`)}
    ${left > 0 && shown.length === 0 && html`<span class="hint row"><${Icon} name="image" size=${16} />${t("agent.sent_pictures", { n: turn.inputs })}</span>`}</div>`;
}
