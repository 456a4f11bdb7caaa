// What everybody should know now: the announcement of an administrator, and maintenance. Shown above every page.
import { html, signal } from "../preact.js";
import { api } from "../../api/client.js";
import { usePolling } from "../../api/loading.js";
import { t } from "../../state/language.js";
import { persistentSignal } from "../../state/preferences.js";
import { Button } from "../components.js";
import { Icon } from "../icons.js";

const REFRESH_SECONDS = 60;
// The announcement that the viewer has closed: another one is shown again.
const closed = persistentSignal("closed_announcement", "");
const identityOf = ({ text, level, until }) => JSON.stringify([text, level, until]);

// `Notices` of the API document; null = not loaded yet.
export const notices = signal(null);

export async function loadNotices() {
  notices.value = await api.get("/v1/notices");
}

export function NoticeBar() {
  usePolling(loadNotices, REFRESH_SECONDS);
  const { announcement, maintenance } = notices.value ?? {};
  const shown = announcement && identityOf(announcement) !== closed.value;
  return html`${maintenance && html`<p class="notice wait above" role="status"><${Icon} name="pause" size=${18} /><span>${t("system.draining")} ${maintenance.reason}</span></p>`}
    ${shown && html`<div class="notice above ${announcement.level === "warning" ? "wait" : ""}" role="status"><${Icon} name=${announcement.level === "warning" ? "alert" : "info"} size=${18} /><span>${announcement.text}</span>
      <${Button} small kind="quiet" icon="close" label=${t("notice.close")} onClick=${() => { closed.value = identityOf(announcement); }} /></div>`}`;
}
