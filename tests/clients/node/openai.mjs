// The openai SDK for Node: `openai.mjs PART...`, parts: images, edits, streams, chat, videos, slow.
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

const imageFormat = (b64) => {
  const bytes = Buffer.from(b64, "base64");
  if (bytes.subarray(1, 4).toString() === "PNG") return "png";
  if (bytes.subarray(8, 12).toString() === "WEBP") return "webp";
  return bytes[0] === 0xff && bytes[1] === 0xd8 ? "jpeg" : "?";
};

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function readStream(content) {
  const stream = await client.chat.completions.create({
    model: "jimeng-4.0",
    messages: [{ role: "user", content }],
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let finish = null;
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  await assertImageLinks(text);
  assert.equal(finish, "stop");
  assert.equal(usage.total_tokens, 0);
}

async function assertImageLinks(text) {
  const links = [...text.matchAll(/!\[[^\]]*\]\((\S+?)\)/g)].map((match) => match[1]);
  assert.ok(links.length > 0, text);
  for (const link of links) assert.match((await fetch(link)).headers.get("content-type"), /^image\//);
}

const parts = {
  async images() {
    const linked = await client.images.generate({ prompt: "a boat", n: 2, size: "512x512" });
    assert.equal(linked.data.length, 2);
    const image = await fetch(linked.data[0].url);
    assert.match(image.headers.get("content-type"), /^image\//);
    // The request that LibreChat sends.
    const inline = await client.images.generate({
      model: "gpt-image-1", prompt: "a boat", n: 1, background: "auto", quality: "auto", size: "auto",
      output_format: "png",
    });
    assert.equal(imageFormat(inline.data[0].b64_json), "png");
    await assert.rejects(client.images.generate({ prompt: "a boat", size: "huge" }), { status: 400, param: "size" });
  },
  async edits() {
    const files = [await toFile(RED, "a.png", { type: "image/png" }), await toFile(RED, "b.png")];
    for (const image of [files[0], files]) {
      const response = await client.images.edit({
        image, prompt: "a boat", n: 1, size: "512x512", input_fidelity: "high", output_format: "webp",
        response_format: "b64_json",
      });
      assert.equal(imageFormat(response.data[0].b64_json), "webp");
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
    await assertImageLinks(whole.choices[0].message.content);
    await readStream("a boat -re 1k");
    const request = client.chat.completions.create({ model: "gpt-9", messages: [{ role: "user", content: "a" }], stream: true });
    await assert.rejects(request, { status: 404, code: "model_not_found", param: "model" });
  },
  async videos() {
    const frame = await toFile(RED, "red.png", { type: "image/png" });
    let video = await client.videos.create({ model: "sora-2", prompt: "a boat", seconds: "4", input_reference: frame });
    assert.equal(video.object, "video");
    for (let polls = 0; polls < 240 && !["completed", "failed"].includes(video.status); polls += 1) {
      await pause(500);
      video = await client.videos.retrieve(video.id);
    }
    assert.equal(video.status, "completed", JSON.stringify(video));
    const content = Buffer.from(await (await client.videos.downloadContent(video.id)).arrayBuffer());
    assert.equal(content.subarray(4, 8).toString(), "ftyp");
    const thumbnail = await client.videos.downloadContent(video.id, { variant: "thumbnail" });
    assert.match(thumbnail.headers.get("content-type"), /^image\//);
    const ids = [];
    for await (const item of client.videos.list({ limit: 1 })) ids.push(item.id);
    assert.deepEqual(ids, [video.id]);
    assert.equal((await client.videos.delete(video.id)).deleted, true);
  },
  async slow() {
    await readStream("a boat [[seconds:10]]");
  },
};

for (const part of process.argv.slice(2)) {
  await parts[part]();
  console.log(part, "ok");
}
