// Chat with the agent: streams its text, and shows the images and videos it creates.
import { html, signal, useEffect, useRef, useState } from "./preact.js";
import { api, hasScope } from "../api/client.js";
import { t } from "../state/language.js";
import { Link } from "../state/router.js";
import { Button, EmptyState, ErrorMessage, toast } from "./components.js";
import { Markdown } from "./markdown.js";

// Module state, so that the conversation continues while another page is shown.
const conversation = signal([]);
const busy = signal(false);
let abortController = null;

const updateLastMessage = (values) => {
  conversation.value = conversation.value.map((message, n) => (n === conversation.value.length - 1 ? { ...message, ...values } : message));
};

// Yields the JSON data of each server-sent event.
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const lines = buffer.split("\n");
    buffer = lines.pop();
    for (const line of lines) if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
  }
}

async function sendMessage(text) {
  conversation.value = [...conversation.value, { role: "user", content: text }, { role: "assistant", content: "", stage: "", job: null }];
  busy.value = true;
  abortController = new AbortController();
  try {
    const messages = conversation.value.slice(0, -1).filter((message) => message.content).map(({ role, content }) => ({ role, content }));
    const response = await api.post("/v1/chat/completions", { model: "agent", stream: true, messages }, {
      raw: true,
      signal: abortController.signal,
      // A person who sends a message again after a failure wants another try, not the same failure.
      headers: { "X-Dreamery-Job": "always" },
    });
    updateLastMessage({ job: response.headers.get("x-job-id") });
    let content = "";
    for await (const event of readEvents(response.body)) {
      if (event.error) throw Object.assign(new Error(event.error.message), { code: event.error.code });
      const delta = event.choices?.[0]?.delta ?? {};
      content += delta.content ?? "";
      updateLastMessage({ content, stage: delta.reasoning_content?.trim() || conversation.value.at(-1).stage });
    }
  } catch (error) {
    if (error.name !== "AbortError") updateLastMessage({ error });
  } finally {
    updateLastMessage({ stage: "" });
    busy.value = false;
  }
}

async function cancel() {
  const { job } = conversation.value.at(-1);
  abortController?.abort();
  if (job) await api.post(`/v1/jobs/${job}/cancel`).catch((error) => toast(error.message, "bad"));
}

export function AgentChat() {
  const [text, setText] = useState("");
  const end = useRef(null);
  useEffect(() => {
    if (conversation.value.length) end.current?.scrollIntoView({ block: "nearest" });
  }, [conversation.value]);
  const submit = (event) => {
    event.preventDefault();
    if (!text.trim() || busy.value) return;
    sendMessage(text.trim());
    setText("");
  };
  const submitOnEnter = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  return html`<section class="card chat" aria-label=${t("mode.chat")}>
    <div class="chat-log" role="log" aria-live="polite" tabindex="0" aria-label=${t("agent.conversation")}>
      ${!conversation.value.length && html`<${EmptyState} icon="chat" title=${t("agent.empty")}>${t("agent.empty_text")}<//>`}
      ${conversation.value.map((message, n) => html`<div key=${n} class="message ${message.role}"><span class="visually-hidden">${t(`agent.${message.role}`)}</span>
        ${message.content && (message.role === "assistant" ? html`<${Markdown} text=${message.content} />` : html`<div class="markdown plain">${message.content}</div>`)}
        ${message.error && html`<${ErrorMessage} error=${message.error} />`}
        ${message.stage && html`<p class="hint row"><span class="spinner" aria-hidden="true"></span>${message.stage}</p>`}
        ${!message.content && !message.stage && !message.error && busy.value && html`<span class="spinner" aria-hidden="true"></span>`}
        ${message.job && !busy.value && html`<${Link} to=${`jobs/${message.job}`} class="hint">${t("agent.job")}<//>`}</div>`)}
      <div ref=${end}></div></div>
    <form class="chat-form" onSubmit=${submit}><label class="visually-hidden" for="message">${t("agent.message")}</label>
      <textarea id="message" rows="1" placeholder=${t("agent.placeholder")} value=${text} disabled=${!hasScope("generate")} onInput=${(event) => setText(event.target.value)} onKeyDown=${submitOnEnter}></textarea>
      ${busy.value ? html`<${Button} icon="stop" label=${t("action.cancel")} onClick=${cancel} />`
        : html`<${Button} kind="primary" type="submit" icon="send" label=${t("agent.send")} disabled=${!text.trim()} />`}
      ${conversation.value.length > 0 && !busy.value && html`<${Button} icon="plus" label=${t("agent.new")} onClick=${() => { conversation.value = []; }} />`}</form>
  </section>`;
}
