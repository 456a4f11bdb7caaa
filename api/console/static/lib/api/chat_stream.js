// Answers of chats: reads the chunks of a stream.
import { api } from "./client.js";

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

// Reads a stream to its end. `onText(text)` gets the whole text so far, `onStage(line)` what the answer waits for.
// Throws the error that the stream reports.
export async function readAnswer(response, { onText, onStage }) {
  let text = "";
  for await (const event of readEvents(response.body)) {
    if (event.error) throw Object.assign(new Error(event.error.message), { code: event.error.code });
    const delta = event.choices?.[0]?.delta ?? {};
    if (delta.content) {
      text += delta.content;
      onText(text);
    }
    if (delta.reasoning_content) onStage(delta.reasoning_content.trim());
  }
}

// A person who sends a message again after a failure wants another try, not the same failure.
const HEADERS = { "X-Dreamery-Job": "always" };

export const postChat = (body, headers) => api.post("/v1/chat/completions", body, { raw: true, headers: { ...HEADERS, ...headers } });
export const followAnswer = (id) => api.get(`/v1/conversations/${id}/stream`, {}, { raw: true });
