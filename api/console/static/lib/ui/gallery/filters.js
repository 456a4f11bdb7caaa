// The filters of the gallery, its order and the size of its tiles. They are in the address, except the size.
import { html, useEffect, useState } from "../preact.js";
import { api } from "../../api/client.js";
import { t } from "../../state/language.js";
import { persistentSignal } from "../../state/preferences.js";
import { setQuery } from "../../state/router.js";
import { Button, RadioGroup, SearchField, Select, TextField } from "../components.js";
import { Icon } from "../icons.js";

const SHAPES = ["landscape", "portrait", "square"];
const FILTERS = ["q", "kind", "model", "shape", "from", "to", "favourite"];
const MORE = ["model", "shape", "from", "to"];
const KINDS = ["image", "video"];

// The height of a row of tiles in pixels.
export const tileSize = persistentSignal("tile_size", "220");
const SIZES = { min: 110, max: 440, step: 10 };

export const isFiltered = (query) => FILTERS.some((name) => query[name]);
export const clearFilters = () => setQuery(Object.fromEntries(FILTERS.map((name) => [name, ""])));

// Seconds of the start of a local day such as "2026-11-30", `days` later; undefined if the text is no day.
function secondsOfDay(text, days = 0) {
  const [year, month, day] = /^\d{4}-\d\d-\d\d$/.test(text ?? "") ? text.split("-").map(Number) : [];
  return year ? Math.floor(new Date(year, month - 1, day + days).getTime() / 1000) : undefined;
}

const among = (value, values) => (values.includes(value) ? value : undefined);

// The query of `/v1/results` for the query of the page; what is unknown there does not count.
export const filterOf = (query) => ({
  order: query.sort === "oldest" ? "asc" : "desc",
  q: query.q,
  kind: among(query.kind, KINDS),
  model: query.model,
  ratio: among(query.shape, SHAPES),
  favourite: query.favourite === "true" ? true : undefined,
  created_after: secondsOfDay(query.from),
  created_before: secondsOfDay(query.to, 1),
});

export function Filters({ query }) {
  const [models, setModels] = useState([]);
  const [open, setOpen] = useState(MORE.some((name) => query[name]));
  useEffect(() => {
    // If they cannot be loaded, the other filters still work.
    api.get("/v1/models").then(({ data }) => setModels(data.filter((item) => !item.alias_of && item.kind !== "chat")), () => {});
  }, []);
  const several = new Set(models.map((item) => item.model_name)).size < models.length;
  const known = models.map((item) => [item.id, several ? `${item.model_name} (${item.id})` : item.model_name]);
  const options = query.model && !known.some(([id]) => id === query.model) ? [[query.model, query.model], ...known] : known;
  const favourite = query.favourite === "true";
  const used = MORE.filter((name) => query[name]).length;
  return html`<div class="gallery-filters" role="search">
    <div class="gallery-filter-row"><${SearchField} label=${t("filter.prompt")} value=${query.q ?? ""} onChange=${(q) => setQuery({ q }, { typed: "q" })} />
      <${RadioGroup} label=${t("filter.kind")} value=${among(query.kind, KINDS) ?? "all"} onChange=${(kind) => setQuery({ kind: kind === "all" ? "" : kind })}
        options=${[["all", t("filter.any")], ["image", t("kind.images"), "image"], ["video", t("kind.videos"), "video"]]} />
      <div class="row gallery-buttons"><button type="button" class="button ${favourite ? "on" : ""}" aria-pressed=${favourite} onClick=${() => setQuery({ favourite: favourite ? "" : "true" })}><${Icon} name="star" fill=${favourite} size=${18} /><span>${t("gallery.favourites")}</span></button>
        <${Button} icon="filter" aria-expanded=${open} aria-controls="gallery-more" onClick=${() => setOpen(!open)}>${used ? t("gallery.more_used", { n: used }) : t("gallery.more")}<//>
        ${isFiltered(query) && html`<${Button} kind="quiet" icon="close" onClick=${clearFilters}>${t("jobs.clear")}<//>`}</div></div>
    ${open && html`<div class="gallery-more" id="gallery-more">
      <${Select} label=${t("filter.model")} value=${query.model ?? ""} options=${[["", t("filter.any")], ...options]} onChange=${(model) => setQuery({ model })} />
      <${Select} label=${t("gallery.shape")} value=${query.shape ?? ""} options=${[["", t("filter.any")], ...SHAPES.map((item) => [item, t(`gallery.shape_${item}`)])]} onChange=${(shape) => setQuery({ shape })} />
      <${TextField} type="date" label=${t("gallery.from")} value=${query.from ?? ""} max=${query.to} onInput=${(from) => setQuery({ from }, { typed: "from" })} />
      <${TextField} type="date" label=${t("gallery.to")} value=${query.to ?? ""} min=${query.from} onInput=${(to) => setQuery({ to }, { typed: "to" })} />
      <${Select} label=${t("gallery.sort")} value=${query.sort ?? ""} options=${[["", t("gallery.newest")], ["oldest", t("gallery.oldest")]]} onChange=${(sort) => setQuery({ sort })} />
      <${TextField} type="range" label=${t("gallery.tile_size")} value=${tileSize.value} ...${SIZES} onInput=${(size) => { tileSize.value = size; }} /></div>`}</div>`;
}
