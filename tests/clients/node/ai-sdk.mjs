// The Vercel AI SDK with @ai-sdk/openai-compatible and @ai-sdk/openai: `ai-sdk.mjs PART...`,
// parts: images, edits, chat, slow.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage, generateText, streamText } from "ai";

const options = { baseURL: `${process.env.DREAMERY_URL}/v1`, apiKey: process.env.DREAMERY_KEY };
const compatible = createOpenAICompatible({ name: "dreamery", ...options });
const openai = createOpenAI(options);
const RED = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATElEQVR42u3PQQ0AAAgEoNP+nTWCbzdoQE1+6wgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIHBZShQF/CY4YrwAAAABJRU5ErkJggg==",
  "base64",
);

async function readStream(prompt) {
  const failures = [];
  const result = streamText({
    model: compatible("jimeng-4.0"),
    prompt,
    maxRetries: 0,
    onError: ({ error }) => failures.push(error),
  });
  const text = await result.text;
  assert.deepEqual(failures, []);
  await assertImageLinks(text);
  assert.equal(await result.finishReason, "stop");
  // Progress lines arrive as reasoning parts.
  assert.ok((await result.reasoningText)?.includes("\n"));
}

async function assertImageLinks(text) {
  const links = [...text.matchAll(/!\[[^\]]*\]\((\S+?)\)/g)].map((match) => match[1]);
  assert.ok(links.length > 0, text);
  for (const link of links) assert.match((await fetch(link)).headers.get("content-type"), /^image\//);
}

const parts = {
  async images() {
    for (const [provider, model, n] of [[compatible, "jimeng-4.0", 2], [openai, "gpt-image-1", 1], [openai, "jimeng-4.0", 2]]) {
      const { images } = await generateImage({
        model: provider.imageModel(model), prompt: "a boat", n, size: "512x512", maxRetries: 0,
      });
      assert.equal(images.length, n);
      for (const image of images) assert.match(image.mediaType, /^image\/(png|jpeg|webp)$/);
    }
    await assert.rejects(
      generateImage({ model: compatible.imageModel("jimeng-4.0"), prompt: "a boat", size: "100x900", maxRetries: 0 }),
      (error) => error.statusCode === 400 && error.message.includes("aspect ratio"),
    );
  },
  async edits() {
    const { images } = await generateImage({
      model: compatible.imageModel("jimeng-4.0"),
      prompt: { text: "a boat", images: [RED, RED] },
      size: "512x512",
      maxRetries: 0,
    });
    assert.equal(images.length, 1);
  },
  async chat() {
    const { text } = await generateText({ model: compatible("jimeng-4.0"), prompt: "a boat -re 1k", maxRetries: 0 });
    await assertImageLinks(text);
    await readStream("a boat -re 1k");
    const messages = [{
      role: "user",
      content: [{ type: "text", text: "at night -re 1k" }, { type: "image", image: RED, mediaType: "image/png" }],
    }];
    await assertImageLinks((await generateText({ model: compatible("jimeng-4.0"), messages, maxRetries: 0 })).text);
    await assert.rejects(
      generateText({ model: compatible("gpt-9"), prompt: "a", maxRetries: 0 }),
      (error) => error.statusCode === 404 && error.message.includes("gpt-9"),
    );
  },
  async slow() {
    await readStream("a boat [[seconds:10]]");
  },
};

for (const part of process.argv.slice(2)) {
  await parts[part]();
  console.log(part, "ok");
}
