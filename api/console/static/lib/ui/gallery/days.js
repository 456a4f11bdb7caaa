// Results under headings: one for each day on which their jobs were accepted.
import { language, t } from "../../state/language.js";

const startOfDay = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
const DAY_MS = 86400000;

// "Today", "Yesterday", "Friday, 20 November", with the year if it is another one.
function dayTitle(day, today) {
  if (day === today) return t("gallery.today");
  if (Math.round((today - day) / DAY_MS) === 1) return t("gallery.yesterday");
  const year = new Date(day).getFullYear() === new Date(today).getFullYear() ? {} : { year: "numeric" };
  return new Intl.DateTimeFormat(language.value === "zh" ? "zh-CN" : "en", { weekday: "long", day: "numeric", month: "long", ...year }).format(day);
}

// Split a list in its order: [{ day, title, items }].
export function groupByDay(items) {
  const today = startOfDay(new Date());
  const days = [];
  for (const item of items) {
    const day = startOfDay(new Date(item.job.created_at * 1000));
    if (days.at(-1)?.day !== day) days.push({ day, title: dayTitle(day, today), items: [] });
    days.at(-1).items.push(item);
  }
  return days;
}
