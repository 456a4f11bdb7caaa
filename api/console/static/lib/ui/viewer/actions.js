// What can be done with the picture that the viewer shows. A page may replace `star`, `isStarred` and `remove` (`options.actions`).
import { hasScope, platformUrl } from "../../api/client.js";
import { toast } from "../components.js";
import { VIEWER_ACTIONS } from "../results/marks.js";
import { openCompare } from "./compare.js";
import { isOwn, mediaOf } from "./items.js";

// A click on a link saves the file under the name that the server gives it.
function download({ file }) {
  const link = document.createElement("a");
  link.href = platformUrl(file.url);
  link.download = "";
  link.click();
}

// The other picture of a comparison: the next one, else the one before.
function partnerOf({ items, index }) {
  const picture = (item) => item && mediaOf(item.file) === "image";
  const after = items.slice(index + 1).find(picture);
  return after ?? items.slice(0, index).findLast(picture);
}

// The actions on the present item of `state`: functions, and what is allowed.
export function actionsOf(state) {
  const item = () => state.value.items[state.value.index];
  const own = () => ({ ...VIEWER_ACTIONS, ...state.value.options.actions });
  const mayChange = () => hasScope("generate") && !state.value.options.readOnly && isOwn(item());
  const run = async (action) => {
    try {
      await action(item());
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "bad");
    }
  };
  const mayCompare = () => mediaOf(item().file) === "image" && Boolean(partnerOf(state.value));
  return {
    mayChange,
    mayCompare,
    maySelect: () => Boolean(state.value.options.selection),
    isStarred: () => own().isStarred(item()),
    isSelected: () => state.value.options.selection.has(item()),
    star: () => mayChange() && run(own().star),
    remove: () => mayChange() && run(own().remove),
    download: () => download(item()),
    select: () => state.value.options.selection?.toggle(item()),
    compare: () => mayCompare() && openCompare(item(), partnerOf(state.value), state.value.items),
  };
}
