// What a model costs, takes and makes, in words.
import { formatDuration, formatMoney, formatNumber, t } from "../../state/language.js";

const amountOf = ({ credits, currency, cost }) => (currency ? t("play.cost", { n: formatMoney(cost, currency) }) : t("model.credits", { n: formatNumber(credits) }));

// "4 credits for 4 images"; empty if the price is not known.
export function priceText({ price, kind }) {
  if (!price) return "";
  const what = kind === "image" ? t(price.pictures === 1 ? "model.one_image" : "model.images", { n: price.pictures }) : formatDuration(price.seconds);
  return t("model.price", { price: amountOf(price), what });
}

export const timeText = (model) => (model.typical_seconds ? t("play.wait", { time: formatDuration(model.typical_seconds) }) : "");

// What it takes beside the prompt.
export function inputsText(model) {
  const found = [];
  if (model.references) found.push(t(model.omni || model.kind === "image" ? "model.takes_images" : "model.takes_frames", { n: model.references }));
  if (model.reference_videos) found.push(t("model.takes_clips", { n: model.reference_videos }));
  if (model.reference_audios) found.push(t("model.takes_sounds", { n: model.reference_audios }));
  if (model.omni && model.first_frame) found.push(t(model.end_frame ? "model.both_frames" : "model.one_frame"));
  return found.length ? found.join(t("list.separator")) : t("model.takes_text");
}

// The sizes, ratios and lengths that it makes.
export function shapeText(model) {
  const parts = [model.resolutions.join(", ")];
  if (model.ratios?.length) parts.push(t("model.ratios", { n: model.ratios.length }));
  if (model.durations?.length) {
    const seconds = model.durations.filter((item) => item > 0);
    const [shortest, longest] = [Math.min(...seconds), Math.max(...seconds)];
    parts.push(shortest === longest ? formatDuration(shortest) : t("model.lengths", { shortest, longest }));
  }
  return parts.filter(Boolean).join(" · ");
}

// [name, text] of each line of a card; only what is known.
export const factsOf = (model) => [
  ["price", priceText(model)],
  ["time", timeText(model)],
  ["inputs", inputsText(model)],
  ["shape", shapeText(model)],
  ["regions", model.regions.map((region) => region.toUpperCase()).join(", ")],
].filter(([, text]) => text);
