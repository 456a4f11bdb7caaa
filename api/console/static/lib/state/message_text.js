// Messages of the API for people: names of fields and codes as words, times in the viewer's format.
import { formatDateTime, language } from "./language.js";
import { lookup } from "../../i18n/index.js";

const PART = /`([^`\n]+)`|\b(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?:Z| UTC)/g;

// The words for an error code or the name of a limit; undefined if there are none.
export const wordsOf = (name) => lookup(`code.${name}`, language.value) ?? lookup(`limit.${name}`, language.value);

// The message as parts: texts, and { code } for what has to stay as it is written.
export function messageParts(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(PART)) {
    const [whole, code, day, time] = found;
    const words = code && wordsOf(code);
    const shown = code ? (words ? `“${words}”` : { code }) : formatDateTime(new Date(`${day}T${time}Z`).getTime() / 1000);
    parts.push(text.slice(end, found.index), shown);
    end = found.index + whole.length;
  }
  return [...parts, text.slice(end)];
}
