// Comparing two pictures: `?compare=KEY,KEY` in the address. compare_view.js draws it, with its libraries, at the first use.
import { html, useEffect, useState } from "../preact.js";
import { unreachable } from "../../api/client.js";
import { route } from "../../state/router.js";
import { toast } from "../components.js";
import { itemKey } from "./items.js";
import { setAddress } from "./viewer.js";

// The list from which the pictures of the comparison were chosen.
let choice = [];
export const comparedFrom = () => choice;

// Open the comparison of two items ({ job, file }); others of `items` can be chosen there.
export function openCompare(first, second, items = []) {
  choice = items;
  setAddress({ view: "", compare: [first, second].map(itemKey).join(",") }, { state: { compare: true } });
}

export const changeCompared = (keys) => setAddress({ compare: keys.join(",") }, { replace: true, state: history.state });

export function closeCompare() {
  if (history.state?.compare) history.back();
  else setAddress({ compare: "", as: "" }, { replace: true });
}

export function Compare() {
  const keys = route.value.query.compare?.split(",") ?? [];
  const wanted = keys.length === 2;
  const [View, setView] = useState(null);
  useEffect(() => {
    if (!wanted || View) return;
    import("./compare_view.js").then(
      (module) => setView(() => module.CompareView),
      () => {
        toast(unreachable().message, "bad");
        closeCompare();
      },
    );
  }, [wanted]);
  return wanted && View && html`<${View} keys=${keys} as=${route.value.query.as === "sides" ? "sides" : "slider"} />`;
}
