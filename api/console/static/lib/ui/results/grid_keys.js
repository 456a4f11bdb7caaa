// A grid of tiles by mouse, keyboard and finger. One listener for all tiles, so that thousands of them cost nothing.
import { useEffect, useRef } from "../preact.js";
import { deleteResults, setFavourites, setPinned } from "../../api/results.js";
import { toast } from "../components.js";
import { mayMark } from "./marks.js";
import { clearSelection, isSelecting, selectAll, selection, toggle } from "./selection.js";

const LONG_PRESS_MS = 450;
const FINGER_MOVES = 10;

// The tile in the next row (`step` = 1) or the one before it that stands nearest below or above.
function vertical(tiles, tile, step) {
  const from = tile.getBoundingClientRect();
  const middle = from.left + from.width / 2;
  let best = null;
  let row = null;
  for (let n = tiles.indexOf(tile) + step; tiles[n]; n += step) {
    const box = tiles[n].getBoundingClientRect();
    if (Math.abs(box.top - from.top) < 2) continue;
    row ??= box.top;
    if (Math.abs(box.top - row) >= 2) break;
    const distance = Math.abs(box.left + box.width / 2 - middle);
    if (!best || distance < best.distance) best = { tile: tiles[n], distance };
  }
  return best?.tile;
}

const MOVES = {
  ArrowLeft: (tiles, tile) => tiles[tiles.indexOf(tile) - 1],
  ArrowRight: (tiles, tile) => tiles[tiles.indexOf(tile) + 1],
  ArrowUp: (tiles, tile) => vertical(tiles, tile, -1),
  ArrowDown: (tiles, tile) => vertical(tiles, tile, 1),
  Home: (tiles) => tiles[0],
  End: (tiles) => tiles.at(-1),
};

const warn = (error) => toast(error.message, "bad");

// Returns the properties of the element that contains the tiles (`[data-id]`, each with a `[data-action="open"]`). `open(index)`
// opens an item. `main` = it is the list of the page: its keys also work where nothing has the focus.
export function useGrid(items, open, { main = false } = {}) {
  const grid = useRef(null);
  const latest = useRef(null);
  latest.current = { items, open };
  const press = useRef({ timer: 0, done: false });
  const find = (element) => {
    const tile = element.closest?.("[data-id]");
    const index = tile ? latest.current.items.findIndex((item) => item.id === tile.dataset.id) : -1;
    return { tile, index, item: latest.current.items[index] };
  };
  // The item, or all selected ones if it is one of them.
  const targets = (item) => (selection.peek().has(item.id) ? [...selection.peek().values()] : [item]);
  const star = (chosen) => setFavourites(chosen, !chosen.every(({ file }) => file.favourite)).catch(warn);

  const onClick = (event) => {
    const { item, index } = find(event.target);
    if (!item) return;
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (press.current.done) {
      press.current.done = false;
      return;
    }
    if (action === "star") star([item]);
    else if (action === "select" || event.shiftKey || event.ctrlKey || event.metaKey || (action === "open" && isSelecting())) {
      toggle(item, latest.current.items, { range: event.shiftKey });
    } else if (action === "open") latest.current.open(index);
  };

  const onKeyDown = (event) => {
    if (document.querySelector("dialog[open], .pswp") || event.target.matches("input, textarea, select")) return;
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "a") {
      event.preventDefault();
      selectAll(latest.current.items);
      return;
    }
    if (event.key === "Escape" && isSelecting()) {
      clearSelection();
      return;
    }
    const { tile, item } = find(event.target);
    if (!item || command || event.altKey) return;
    const isOpener = event.target.dataset.action === "open";
    if (MOVES[event.key] && isOpener) {
      event.preventDefault();
      const next = MOVES[event.key]([...grid.current.querySelectorAll("[data-id]")], tile);
      if (!next) return;
      if (event.shiftKey) toggle(find(next).item, latest.current.items, { range: selection.peek().has(item.id) });
      focusTile(next);
    } else if (event.key === " " && isOpener) {
      event.preventDefault();
      toggle(item, latest.current.items, { range: event.shiftKey });
    } else if (mayMark(item.job) && event.key.toLowerCase() === "s") star(targets(item));
    else if (mayMark(item.job) && event.key.toLowerCase() === "p") {
      const chosen = targets(item);
      setPinned(chosen, !chosen.every(({ file }) => file.pinned)).catch(warn);
    } else if (mayMark(item.job) && event.key === "Delete") removeAt(tile, targets(item));
  };

  async function removeAt(tile, chosen) {
    const ids = [...grid.current.querySelectorAll("[data-id]")].map((one) => one.dataset.id);
    const gone = new Set(chosen.map((one) => one.id));
    const after = ids.slice(ids.indexOf(tile.dataset.id)).find((id) => !gone.has(id)) ?? ids.findLast((id) => !gone.has(id));
    const deleted = await deleteResults(chosen).catch(warn);
    if (deleted) requestAnimationFrame(() => focusTile(grid.current?.querySelector(`[data-id="${after}"]`)));
  }

  // A finger that rests on a tile begins a selection.
  const stopPress = () => clearTimeout(press.current.timer);
  const onPointerDown = (event) => {
    stopPress();
    const { item } = find(event.target);
    press.current = { timer: 0, done: false, x: event.clientX, y: event.clientY, touch: event.pointerType === "touch" };
    if (!item || event.pointerType !== "touch") return;
    press.current.timer = setTimeout(() => {
      press.current.done = true;
      toggle(item, latest.current.items);
      navigator.vibrate?.(15);
    }, LONG_PRESS_MS);
  };
  const onPointerMove = (event) => {
    if (Math.hypot(event.clientX - press.current.x, event.clientY - press.current.y) > FINGER_MOVES) stopPress();
  };
  // The menu of the picture would cover the tiles.
  const onContextMenu = (event) => press.current.touch && find(event.target).item && event.preventDefault();
  useEffect(() => stopPress, []);
  useKeys(onKeyDown, grid, main);

  return { ref: grid, onClick, onPointerDown, onPointerMove, onPointerUp: stopPress, onPointerCancel: stopPress, onContextMenu };
}

function useKeys(handle, grid, main) {
  const latest = useRef(handle);
  latest.current = handle;
  useEffect(() => {
    const listen = (event) => (grid.current?.contains(event.target) || (main && (event.target === document.body || event.target.id === "main"))) && latest.current(event);
    const suppress = (event) => event.key === " " && event.target.dataset?.action === "open" && event.preventDefault();
    addEventListener("keydown", listen);
    addEventListener("keyup", suppress);
    return () => {
      removeEventListener("keydown", listen);
      removeEventListener("keyup", suppress);
    };
  }, []);
}

function focusTile(tile) {
  tile?.querySelector('[data-action="open"]')?.focus();
}
