// Finished pictures and videos one by one, by day: filters, favourites, selection, and actions on many at once.
import { html, useEffect, useRef, useState } from "../lib/ui/preact.js";
import { hasScope } from "../lib/api/client.js";
import { useLongList } from "../lib/api/pagination.js";
import { useResultPages } from "../lib/api/results.js";
import { language, t } from "../lib/state/language.js";
import { Link } from "../lib/state/router.js";
import { Button, EmptyState, ErrorMessage, Loading, PageHeader } from "../lib/ui/components.js";
import { groupByDay } from "../lib/ui/gallery/days.js";
import { clearFilters, filterOf, Filters, isFiltered, tileSize } from "../lib/ui/gallery/filters.js";
import { useGrid } from "../lib/ui/results/grid_keys.js";
import { VIEWER_ACTIONS } from "../lib/ui/results/marks.js";
import { beginSelection, clearSelection, isSelecting, selectAll, selection, toggle } from "../lib/ui/results/selection.js";
import { checkSizes } from "../lib/ui/results/thumbnail.js";
import { forgetTiles, resultTile } from "../lib/ui/results/tile.js";
import { useViewer } from "../lib/ui/viewer/viewer.js";

const PAGE = 60;

export default function Gallery({ query }) {
  const pages = useResultPages(filterOf(query), PAGE);
  const { items } = pages;
  const [drawn, end] = useLongList(pages);
  const open = useViewer(items, {
    onNearEnd: pages.loadMore,
    selection: { has: (item) => selection.value.has(item.id), toggle: (item) => toggle(item, items) },
    actions: VIEWER_ACTIONS,
  });
  const grid = useGrid(items, open, { main: true });
  const tabStop = useTabStop(grid.ref, items);
  useEffect(() => forgetTiles, []);
  useEffect(checkSizes, [tileSize.value]);
  const filtered = isFiltered(query);
  const selected = selection.value;
  const selecting = isSelecting();
  return html`<${PageHeader} title=${t("nav.gallery")} lead=${t("gallery.lead")}>
      ${items.length > 0 && html`<${Button} icon=${selecting ? "close" : "check"} onClick=${selecting ? clearSelection : beginSelection}>${t(selecting ? "action.cancel" : "gallery.select")}<//>
        <${Button} icon="check" onClick=${() => selectAll(items)}>${t("gallery.select_all")}<//>`}<//>
    <${Filters} query=${query} />
    ${pages.error && html`<${ErrorMessage} error=${pages.error} onRetry=${pages.reload} />`}
    <div class="gallery ${selecting ? "selecting" : ""}" style=${{ "--row": `${tileSize.value}px` }} ...${grid}>
      ${groupByDay(drawn).map(({ day, title, items: ofDay }) => html`<section key=${day} class="gallery-day" aria-label=${title}><h2>${title}</h2>
        <ul class="tiles">${ofDay.map((item) => resultTile(item, { selected: selected.has(item.id), tabStop: item.id === tabStop }, language.value))}</ul></section>`)}</div>
    ${!pages.loading && !pages.error && !items.length && html`<div class="card"><${EmptyState} icon=${query.favourite ? "star" : "grid"} title=${t(filtered ? "gallery.no_match" : "gallery.empty")}>
      ${filtered ? html`<${Button} onClick=${clearFilters}>${t("jobs.clear")}<//>` : html`<p>${t("gallery.empty_text")}</p>${hasScope("generate") && html`<${Link} to="" class="button primary">${t("jobs.create")}<//>`}`}<//></div>`}
    ${pages.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

// The tile that Tab reaches: the one that had the focus last, else the first.
function useTabStop(grid, items) {
  const [id, setId] = useState(null);
  const latest = useRef(null);
  latest.current = setId;
  useEffect(() => {
    const element = grid.current;
    const listen = (event) => latest.current(event.target.closest("[data-id]")?.dataset.id ?? null);
    element.addEventListener("focusin", listen);
    return () => element.removeEventListener("focusin", listen);
  }, []);
  return items.some((item) => item.id === id) ? id : items[0]?.id;
}
