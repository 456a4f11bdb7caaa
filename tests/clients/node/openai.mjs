// The openai SDK for Node: `openai.mjs PART...` of pictures, edits, streams, chat, slow.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({
  baseURL: `${process.env.DREAMERY_URL}/v1`,
  apiKey: process.env.DREAMERY_KEY,
  maxRetries: 0,
  timeout: 60_000,
});
// A red PNG of 64 x 64 pixels.
const RED = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATElEQVR42u3PQQ0AAAgEoNP+nTWCbzdoQE1+6wgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIHBZShQF/CY4YrwAAAABJRU5ErkJggg==",
  "base64",
);

const kind = (b64) => {
  const bytes = Buffer.from(b64, "base64");
  if (bytes.subarray(1, 4).toString() === "PNG") return "png";
  if (bytes.subarray(8, 12).toString() === "WEBP") return "webp";
  return bytes[0] === 0xff && bytes[1] === 0xd8 ? "jpeg" : "?";
};

async function readStream(content) {
  const stream = await client.chat.completions.create({
    model: "jimeng-4.0",
    messages: [{ role: "user", content }],
    stream: true,
  });
  let text = "";
  let finish = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
  }
  assert.ok(text.includes("!["), text);
  assert.equal(finish, "stop");
}

const parts = {
  async pictures() {
    const linked = await client.images.generate({ prompt: "a boat", n: 2, size: "512x512" });
    assert.equal(linked.data.length, 2);
    const picture = await fetch(linked.data[0].url);
    assert.match(picture.headers.get("content-type"), /^image\//);
    // What LibreChat sends.
    const inline = await client.images.generate({
      model: "gpt-image-1", prompt: "a boat", n: 1, background: "auto", quality: "auto", size: "auto",
      output_format: "png",
    });
    assert.equal(kind(inline.data[0].b64_json), "png");
    await assert.rejects(client.images.generate({ prompt: "a boat", size: "huge" }), { status: 400, param: "size" });
  },
  async edits() {
    const files = [await toFile(RED, "a.png", { type: "image/png" }), await toFile(RED, "b.png")];
    for (const image of [files[0], files]) {
      const answer = await client.images.edit({
        image, prompt: "a boat", n: 1, size: "512x512", input_fidelity: "high", output_format: "webp",
        response_format: "b64_json",
      });
      assert.equal(kind(answer.data[0].b64_json), "webp");
    }
  },
  async streams() {
    const stream = await client.images.generate({ prompt: "a boat", n: 2, size: "512x512", stream: true });
    const types = [];
    for await (const event of stream) types.push(event.type);
    assert.deepEqual(types, ["image_generation.completed", "image_generation.completed"]);
  },
  async chat() {
    const whole = await client.chat.completions.create({
      model: "jimeng-4.0",
      messages: [{ role: "user", content: "a boat -re 1k" }],
    });
    assert.ok(whole.choices[0].message.content.includes("!["));
    await readStream("a boat -re 1k");
  },
  async slow() {
    await readStream("a boat [[seconds:40]]");
  },
};

for (const part of process.argv.slice(2)) {
  await parts[part]();
  console.log(part, "ok");
}
