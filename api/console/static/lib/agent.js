// A conversation with the agent: its words as they come, the pictures and videos it makes.
import { html, signal, useEffect, useRef, useState } from "./ui.js";
import { api, here, may } from "./api.js";
import { t } from "./language.js";
import { Button, Empty, Failure, toast } from "./parts.js";
import { Link } from "./router.js";

// Kept while the page is open, so that looking at another page does not end the talk.
const talk = signal([]);
const busy = signal(false);
let stop = null;

const IMAGE = /!\[([^\]]*)\]\(([^)\s]+)\)/;
const LINK = /\[([^\]]*)\]\(([^)\s]+)\)/;

// The little Markdown that answers have: pictures, links, lines.
export function Words({ text }) {
  const parts = [];
  let rest = text;
  while (rest) {
    const found = rest.match(IMAGE) ?? rest.match(LINK);
    if (!found) break;
    if (found.index) parts.push(rest.slice(0, found.index));
    const [whole, name, link] = found;
    if (whole.startsWith("!")) parts.push(html`<a href=${here(link)} target="_blank" rel="noopener"><img src=${here(link)} alt=${name || t("kind.image")} loading="lazy" /></a>`);
    else if (/\/v1\/files\/[^/]+\/content/.test(link)) parts.push(html`<video src=${here(link)} controls loop playsinline preload="metadata" aria-label=${name || t("kind.video")}></video>`);
    else if (/^https?:/.test(link)) parts.push(html`<a href=${link} rel="noopener noreferrer" target="_blank">${name || link}</a>`);
    else parts.push(whole);
    rest = rest.slice(found.index + whole.length);
  }
  if (rest) parts.push(rest);
  return html`<div class="words">${parts}</div>`;
}

const setLast = (values) => {
  talk.value = talk.value.map((one, n) => (n === talk.value.length - 1 ? { ...one, ...values } : one));
};

async function* frames(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    kept += value;
    const lines = kept.split("\n");
    kept = lines.pop();
    for (const line of lines) if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
  }
}

async function say(text) {
  talk.value = [...talk.value, { role: "user", content: text }, { role: "assistant", content: "", stage: "", job: null }];
  busy.value = true;
  stop = new AbortController();
  try {
    const messages = talk.value.slice(0, -1).filter((one) => one.content).map(({ role, content }) => ({ role, content }));
    const answer = await api.post("/v1/chat/completions", { model: "agent", stream: true, messages }, { raw: true, signal: stop.signal });
    setLast({ job: answer.headers.get("x-job-id") });
    let content = "";
    for await (const frame of frames(answer.body)) {
      if (frame.error) throw Object.assign(new Error(frame.error.message), { code: frame.error.code });
      const delta = frame.choices?.[0]?.delta ?? {};
      content += delta.content ?? "";
      setLast({ content, stage: delta.reasoning_content?.trim() || talk.value.at(-1).stage });
    }
  } catch (error) {
    if (error.name !== "AbortError") setLast({ error });
  } finally {
    setLast({ stage: "" });
    busy.value = false;
  }
}

async function interrupt() {
  const { job } = talk.value.at(-1);
  stop?.abort();
  if (job) await api.post(`/v1/jobs/${job}/cancel`).catch((error) => toast(error.message, "bad"));
}

export function AgentChat() {
  const [text, setText] = useState("");
  const end = useRef(null);
  useEffect(() => {
    if (talk.value.length) end.current?.scrollIntoView({ block: "nearest" });
  }, [talk.value]);
  const submit = (event) => {
    event.preventDefault();
    if (!text.trim() || busy.value) return;
    say(text.trim());
    setText("");
  };
  const keys = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  return html`<section class="card talk" aria-label=${t("mode.chat")}>
    <div class="talk-lines" role="log" aria-live="polite" tabindex="0" aria-label=${t("agent.talk")}>
      ${!talk.value.length && html`<${Empty} icon="chat" title=${t("agent.empty")}>${t("agent.empty_text")}<//>`}
      ${talk.value.map((one, n) => html`<div key=${n} class="line ${one.role}"><span class="quiet-text">${t(`agent.${one.role}`)}</span>
        ${one.content && html`<${Words} text=${one.content} />`}
        ${one.error && html`<${Failure} error=${one.error} />`}
        ${one.stage && html`<p class="hint row"><span class="spinner" aria-hidden="true"></span>${one.stage}</p>`}
        ${!one.content && !one.stage && !one.error && busy.value && html`<span class="spinner" aria-hidden="true"></span>`}
        ${one.job && !busy.value && html`<${Link} to=${`jobs/${one.job}`} class="hint">${t("agent.job")}<//>`}</div>`)}
      <div ref=${end}></div></div>
    <form class="talk-form" onSubmit=${submit}><label class="quiet-text" for="say">${t("agent.say")}</label>
      <textarea id="say" rows="1" placeholder=${t("agent.placeholder")} value=${text} disabled=${!may("generate")} onInput=${(event) => setText(event.target.value)} onKeyDown=${keys}></textarea>
      ${busy.value ? html`<${Button} icon="stop" label=${t("action.cancel")} onClick=${interrupt} />`
        : html`<${Button} kind="primary" type="submit" icon="send" label=${t("agent.send")} disabled=${!text.trim()} />`}
      ${talk.value.length > 0 && !busy.value && html`<${Button} icon="plus" label=${t("agent.new")} onClick=${() => { talk.value = []; }} />`}</form>
  </section>`;
}
