// The language of the console: its texts, and numbers, times and sizes in that language's format.
import { computed, effect, signal } from "../ui/preact.js";
import { persistentSignal } from "./preferences.js";
import { lookup } from "../../i18n/index.js";

const browserLanguage = (navigator.languages ?? [navigator.language]).find((tag) => /^(zh|en)\b/i.test(tag)) ?? "en";
export const language = persistentSignal("language", /^zh/i.test(browserLanguage) ? "zh" : "en");
const locale = computed(() => (language.value === "zh" ? "zh-CN" : "en"));

effect(() => {
  document.documentElement.lang = locale.value;
});

// The text of a key in the current language, with `{name}` placeholders replaced. An unknown key is returned as it is.
export function t(key, values = {}) {
  const text = lookup(key, language.value) ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export const formatNumber = (value) => (value == null ? "–" : new Intl.NumberFormat(locale.value).format(value));

// An amount of money in a currency such as "USD"; small costs have three decimals.
export const formatMoney = (amount, currency) =>
  amount == null ? "–" : new Intl.NumberFormat(locale.value, { style: "currency", currency: currency.toUpperCase(), maximumFractionDigits: 3 }).format(amount);

export const formatDateTime = (seconds) =>
  seconds == null
    ? "–"
    : new Intl.DateTimeFormat(locale.value, { dateStyle: "medium", timeStyle: "medium" }).format(seconds * 1000);

// Updated every 10 seconds, so that relative times stay current.
const now = signal(Date.now() / 1000);
setInterval(() => {
  now.value = Date.now() / 1000;
}, 10000);

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

// "3 minutes ago".
export function formatAgo(seconds) {
  if (seconds == null) return "–";
  const distance = Math.min(seconds - Math.max(now.value, seconds), 0);
  const [unit, size] = UNITS.find(([, length]) => Math.abs(distance) >= length) ?? UNITS[3];
  return new Intl.RelativeTimeFormat(locale.value, { numeric: "auto" }).format(Math.round(distance / size), unit);
}

// "4 s", "2 min 5 s", "2 min", "1 h 3 min", "1 h".
export function formatDuration(seconds) {
  if (seconds == null) return "–";
  const whole = Math.round(seconds);
  if (seconds < 10 && seconds !== whole) return t("unit.s", { n: seconds.toFixed(1) });
  if (whole < 60) return t("unit.s", { n: whole });
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  if (h) return m ? t("unit.h_min", { h, m }) : t("unit.h", { h });
  return s ? t("unit.min_s", { m, s }) : t("unit.min", { m });
}

export function formatBytes(count) {
  if (count == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), 4);
  const value = count / 1000 ** power;
  return `${formatNumber(Math.round(value * (value < 10 && power ? 10 : 1)) / (value < 10 && power ? 10 : 1))} ${units[power]}`;
}

// A label on a time axis: the day if ticks are a day or more (`unit`, in seconds) apart, otherwise the hour; `full` adds the day.
export function formatAxisTime(seconds, unit, full = false) {
  const day = { month: "short", day: "numeric" };
  const hour = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const format = unit >= 86400 ? day : full ? { ...day, ...hour } : hour;
  return new Intl.DateTimeFormat(locale.value, format).format(seconds * 1000);
}

// "in 3 hours"; a time in the past is formatted like `formatAgo`.
export function formatUntil(seconds) {
  const distance = seconds - now.value;
  if (distance <= 0) return formatAgo(seconds);
  const [unit, size] = UNITS.find(([, length]) => distance >= length) ?? UNITS[3];
  return new Intl.RelativeTimeFormat(locale.value, { numeric: "auto" }).format(Math.round(distance / size), unit);
}
