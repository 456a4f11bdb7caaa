// Words in the reader's language, from the one table in i18n.js, and numbers and times as that language writes them.
import { computed, effect, signal } from "./ui.js";
import { remembered } from "./store.js";
import TABLE from "../i18n.js";

const system = (navigator.languages ?? [navigator.language]).find((one) => /^(zh|en)\b/i.test(one)) ?? "en";
export const language = remembered("language", /^zh/i.test(system) ? "zh" : "en");
const column = computed(() => (language.value === "zh" ? 1 : 0));
const locale = computed(() => (language.value === "zh" ? "zh-CN" : "en"));

effect(() => {
  document.documentElement.lang = locale.value;
});

// The text of a key with `{name}` filled in. A key that is not in the table shows itself.
export function t(key, values = {}) {
  const text = TABLE[key]?.[column.value] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export const known = (key) => key in TABLE;

export const number = (value) => (value == null ? "–" : new Intl.NumberFormat(locale.value).format(value));

export const moment = (seconds) =>
  seconds == null
    ? "–"
    : new Intl.DateTimeFormat(locale.value, { dateStyle: "medium", timeStyle: "medium" }).format(seconds * 1000);

// Moves on now and then, so that what is told in relation to it does too.
const now = signal(Date.now() / 1000);
setInterval(() => {
  now.value = Date.now() / 1000;
}, 10000);

const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

// "3 minutes ago".
export function ago(seconds) {
  if (seconds == null) return "–";
  const away = Math.min(seconds - Math.max(now.value, seconds), 0);
  const [unit, size] = STEPS.find(([, one]) => Math.abs(away) >= one) ?? STEPS[3];
  return new Intl.RelativeTimeFormat(locale.value, { numeric: "auto" }).format(Math.round(away / size), unit);
}

// "4 s", "2 min 5 s", "1 h 3 min".
export function duration(seconds) {
  if (seconds == null) return "–";
  const whole = Math.round(seconds);
  if (seconds < 10 && seconds !== whole) return t("unit.s", { n: seconds.toFixed(1) });
  if (whole < 60) return t("unit.s", { n: whole });
  if (whole < 3600) return t("unit.min_s", { m: Math.floor(whole / 60), s: whole % 60 });
  return t("unit.h_min", { h: Math.floor(whole / 3600), m: Math.floor((whole % 3600) / 60) });
}

export function bytes(count) {
  if (count == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), 4);
  const value = count / 1000 ** power;
  return `${number(Math.round(value * (value < 10 && power ? 10 : 1)) / (value < 10 && power ? 10 : 1))} ${units[power]}`;
}

// A place on a time axis: the hour where the places are less than a day apart, else the day; `whole` with both.
export function shortDate(seconds, unit, whole = false) {
  const day = { month: "short", day: "numeric" };
  const hour = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const wanted = unit >= 86400 ? day : whole ? { ...day, ...hour } : hour;
  return new Intl.DateTimeFormat(locale.value, wanted).format(seconds * 1000);
}

// "in 3 hours"; what is past already is told like `ago`.
export function until(seconds) {
  const away = seconds - now.value;
  if (away <= 0) return ago(seconds);
  const [unit, size] = STEPS.find(([, one]) => away >= one) ?? STEPS[3];
  return new Intl.RelativeTimeFormat(locale.value, { numeric: "auto" }).format(Math.round(away / size), unit);
}
