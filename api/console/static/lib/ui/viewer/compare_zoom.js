// One zoom for both pictures of a comparison: wheel, pinch, double click, drag. panzoom computes, both pictures are moved.
import Panzoom from "../../../vendor/panzoom/panzoom.js";

const MAX_SCALE = 8;
const DOUBLE_CLICK_SCALE = 2.5;

// `slider` = the img-comparison-slider in `area`, or null. Returns { zoomIn(), zoomOut(), reset(), stop() }.
export function zoomTogether(area, slider) {
  const [first, second] = area.querySelectorAll("img");
  // panzoom measures what is drawn: during an animation it would take a size between two for the limit.
  const animate = false;
  const apply = (_, { scale, x, y }) => {
    for (const picture of [first, second]) picture.style.transform = `scale(${scale}) translate(${x}px, ${y}px)`;
    // At full size a drag anywhere moves the divider; in a zoomed picture only the handle does, and the rest moves the picture.
    if (slider) slider.handle = scale > 1;
  };
  const panzoom = Panzoom(first, { noBind: true, maxScale: MAX_SCALE, minScale: 1, contain: "outside", panOnlyWhenZoomed: true, cursor: "", handleStartEvent: () => {}, setTransform: apply });

  // An event on the second picture, moved to the same place of the first.
  function onFirst(event) {
    const [own, shown] = [first.parentElement.getBoundingClientRect(), event.target === second ? second.parentElement.getBoundingClientRect() : null];
    const [dx, dy] = shown ? [shown.left - own.left, shown.top - own.top] : [0, 0];
    return { clientX: event.clientX - dx, clientY: event.clientY - dy, deltaX: event.deltaX, deltaY: event.deltaY, pointerId: event.pointerId, target: first, preventDefault: () => event.preventDefault(), stopPropagation() {} };
  }
  function isOnHandle({ clientX, clientY }) {
    const box = slider?.querySelector("[slot=handle]").getBoundingClientRect();
    return box && clientX >= box.left && clientX <= box.right && clientY >= box.top && clientY <= box.bottom;
  }
  const onDown = (event) => isOnHandle(event) || panzoom.handleDown(onFirst(event));
  const onMove = (event) => panzoom.handleMove(onFirst(event));
  const onUp = (event) => panzoom.handleUp(onFirst(event));
  const onWheel = (event) => panzoom.zoomWithWheel(onFirst(event), { animate: false });
  const onDoubleClick = (event) => {
    if (panzoom.getScale() > 1) panzoom.reset({ animate });
    else panzoom.zoomToPoint(DOUBLE_CLICK_SCALE, onFirst(event), { animate });
  };
  area.addEventListener("pointerdown", onDown);
  area.addEventListener("wheel", onWheel, { passive: false });
  area.addEventListener("dblclick", onDoubleClick);
  document.addEventListener("pointermove", onMove);
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, onUp);
  return {
    zoomIn: () => panzoom.zoomIn({ animate }),
    zoomOut: () => panzoom.zoomOut({ animate }),
    reset: () => panzoom.reset({ animate }),
    stop() {
      document.removeEventListener("pointermove", onMove);
      for (const name of ["pointerup", "pointercancel"]) document.removeEventListener(name, onUp);
    },
  };
}
