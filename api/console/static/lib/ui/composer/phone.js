// The composer of phones: at the bottom, one line that grows; the settings are in a sheet, which Back closes.
import { html, useEffect, useRef } from "../preact.js";
import { t } from "../../state/language.js";
import { modelTitle } from "../../state/models.js";
import { navigate, route } from "../../state/router.js";
import { isPhone } from "../../state/screen.js";
import { Button, Dialog } from "../components.js";
import { Icon } from "../icons.js";
import { AttachFiles, References } from "./references.js";
import { Prompt, PromptTools } from "./prompt.js";

const addressWith = (query) => `?${new URLSearchParams(query)}`;

function openSheet() {
  navigate(addressWith({ ...route.peek().query, sheet: "settings" }), { state: { sheet: true } });
}

function closeSheet() {
  const { sheet, ...query } = route.peek().query;
  if (!sheet) return;
  if (history.state?.sheet) history.back();
  else navigate(addressWith(query), { replace: true });
}

// What the next request will be, in one line.
const summary = (values, model, rows) =>
  [[modelTitle(model, rows), values.many && values.manyModels.length > 0 && `+ ${values.manyModels.length}`].filter(Boolean).join(" "), !values.ratioOfFrame && (values.many && values.manyRatios.length ? values.manyRatios.join(", ") : values.ratio), values.resolution, values.count > 1 && `× ${values.count}`, values.duration > 0 && t("unit.s", { n: values.duration })].filter(Boolean).join(" · ");

// `settings` = the fields of the sheet, `notes` = what is said about the request, `action` = the button that sends it.
export function PhoneComposer({ values, model, common, rows, onSubmit, onKeyDown, settings, notes, estimate, action }) {
  const isOpen = route.value.query.sheet === "settings";
  return html`<form class="phone-composer" onSubmit=${onSubmit}>
    <div class="phone-notes">${notes}<${References} compact paste=${!isOpen} values=${values} model=${common} /></div>
    <button type="button" class="phone-summary" aria-haspopup="dialog" aria-label=${t("play.settings_now", { settings: summary(values, model, rows) })} onClick=${openSheet}>
      <${Icon} name="filter" size=${16} /><span class="clamp-one">${summary(values, model, rows)}</span></button>
    <div class="phone-line"><${AttachFiles} values=${values} model=${common} /><${Prompt} compact values=${values} model=${common} onKeyDown=${onKeyDown} onShow=${closeSheet} />${action}</div>
    ${isOpen && html`<${Dialog} sheet title=${t("play.settings")} onClose=${closeSheet} actions=${html`<div class="grow">${estimate}</div><${Button} kind="primary" onClick=${closeSheet}>${t("action.done")}<//>`}>
      <${PromptTools} values=${values} />${settings}<//>`}</form>`;
}

// The page follows its newest result as long as the reader is at the end.
const NEAR_END_PX = 160;

export function useEndOfPage(active) {
  const element = useRef(null);
  useEffect(() => {
    if (!active || !element.current) return undefined;
    const page = document.documentElement;
    let atEnd = true;
    let last = scrollY;
    // What is added below makes the way to the end longer, but only the reader goes up.
    const onScroll = () => {
      if (page.scrollHeight - scrollY - innerHeight < NEAR_END_PX) atEnd = true;
      else if (scrollY < last) atEnd = false;
      last = scrollY;
    };
    const follow = () => atEnd && scrollTo(0, page.scrollHeight);
    // Pictures that load later make it longer too.
    const observer = new ResizeObserver(follow);
    observer.observe(element.current);
    addEventListener("scroll", onScroll, { passive: true });
    return () => {
      observer.disconnect();
      removeEventListener("scroll", onScroll);
      // Turned to its side, a phone has the newest result at the top.
      if (!isPhone.peek()) scrollTo(0, 0);
    };
  }, [active]);
  return element;
}
