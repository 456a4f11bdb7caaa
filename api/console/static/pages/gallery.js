// Finished images and videos: search, favourites, single downloads and a zip of selected results.
import { html, useState } from "../lib/ui/preact.js";
import { platformUrl } from "../lib/api/client.js";
import { jobFiles, jobPrompt, jobTitle, thumbnailUrl } from "../lib/api/jobs.js";
import { useInfiniteScroll, useJobPages } from "../lib/api/pagination.js";
import { formatDuration, t } from "../lib/state/language.js";
import { Link, setQuery } from "../lib/state/router.js";
import { Button, EmptyState, ErrorMessage, Loading, PageHeader, RadioGroup, SearchField, toast } from "../lib/ui/components.js";
import { Icon } from "../lib/ui/icons.js";
import { FavouriteButton } from "../lib/ui/job_views.js";
import { itemKey, useViewer } from "../lib/ui/viewer/viewer.js";

const MAX_JOBS_IN_ZIP = 100;

export default function Gallery({ query }) {
  const kind = query.kind ?? "all";
  const favourite = query.favourite === "true";
  const filter = { status: "completed", kind: kind === "all" ? "image,video" : kind, favourite: favourite ? "true" : undefined, q: query.q };
  const pages = useJobPages("/v1/jobs", { ...filter, limit: 40 }, (job) => matchesFilter(job, filter, favourite));
  const end = useInfiniteScroll(pages.loadMore);
  const [selected, setSelected] = useState(null); // ids of the selected jobs; null = not selecting
  const items = pages.items.flatMap((job) => jobFiles(job).map((file, n) => ({ job, file, n })));
  const open = useViewer(items, { onNearEnd: pages.loadMore });
  const filtered = kind !== "all" || favourite || query.q;
  const toggle = (id) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    if (next.size > MAX_JOBS_IN_ZIP) toast(t("gallery.too_many", { n: MAX_JOBS_IN_ZIP }), "bad");
    else setSelected(next);
  };
  return html`<${PageHeader} title=${t("nav.gallery")} lead=${t("gallery.lead")}>
      ${selected === null
        ? html`<${Button} icon="check" disabled=${!items.length} onClick=${() => setSelected(new Set())}>${t("gallery.select")}<//>`
        : html`<span class="hint" role="status">${t("gallery.selected", { n: selected.size })}</span>
          <${Button} onClick=${() => setSelected(new Set(pages.items.slice(0, MAX_JOBS_IN_ZIP).map((job) => job.id)))}>${t("gallery.select_all")}<//>
          <a class="button primary ${selected.size ? "" : "off"}" aria-disabled=${!selected.size} download href=${selected.size ? platformUrl(`v1/files/archive?ids=${[...selected].join(",")}`) : undefined}><${Icon} name="download" size=${18} /><span>${t("gallery.zip")}</span></a>
          <${Button} kind="quiet" icon="close" label=${t("gallery.cancel_selection")} onClick=${() => setSelected(null)} />`}<//>
    <div class="filters gallery-filters" role="search"><${SearchField} label=${t("filter.prompt")} value=${query.q ?? ""} onChange=${(q) => setQuery({ q }, { typed: "q" })} />
      <${RadioGroup} label=${t("filter.kind")} value=${kind} onChange=${(value) => setQuery({ kind: value === "all" ? "" : value })}
        options=${[["all", t("filter.any")], ["image", t("kind.images"), "image"], ["video", t("kind.videos"), "video"]]} />
      <button type="button" class="button ${favourite ? "on" : ""}" aria-pressed=${favourite} onClick=${() => setQuery({ favourite: favourite ? "" : "true" })}><${Icon} name="star" fill=${favourite} size=${18} /><span>${t("gallery.favourites")}</span></button></div>
    ${pages.error && html`<${ErrorMessage} error=${pages.error} onRetry=${pages.reload} />`}
    <ul class="tiles">${items.map(({ job, file, n }, index) => html`<${Tile} key=${file.url} job=${job} file=${file} n=${n} isSelected=${selected && selected.has(job.id)} selecting=${selected !== null}
      onToggle=${() => toggle(job.id)} onOpen=${() => open(index)} />`)}</ul>
    ${!pages.loading && !pages.error && !items.length && html`<div class="card"><${EmptyState} icon=${favourite ? "star" : "grid"} title=${t(filtered ? "gallery.no_match" : "gallery.empty")}>
      ${filtered ? html`<${Button} onClick=${() => setQuery({ kind: "", favourite: "", q: "" })}>${t("jobs.clear")}<//>` : html`<p>${t("gallery.empty_text")}</p><${Link} to="" class="button primary">${t("jobs.create")}<//>`}<//></div>`}
    ${pages.loading && html`<${Loading} />`}
    <div ref=${end}></div>`;
}

function matchesFilter(job, filter, favourite) {
  return (
    job.status === "completed" && filter.kind.split(",").includes(job.kind) && (!favourite || job.favourite) &&
    (!filter.q || jobPrompt(job).toLowerCase().includes(filter.q.toLowerCase()))
  );
}

function Tile({ job, file, n, selecting, isSelected, onToggle, onOpen }) {
  const isVideo = file.mime.startsWith("video/");
  const thumbnail = thumbnailUrl(file);
  const label = t(isVideo ? "gallery.open_video" : "gallery.open_image", { prompt: jobTitle(job).slice(0, 80), n: n + 1 });
  const aspectRatio = { "--aspect-ratio": (file.width || 1) / (file.height || 1) };
  return html`<li class="tile ${isSelected ? "selected" : ""}" style=${aspectRatio}>
    <button type="button" class="tile-open" data-view=${itemKey({ job, file })} aria-label=${selecting ? t("gallery.select_one", { prompt: jobTitle(job).slice(0, 80) }) : label} aria-pressed=${selecting ? Boolean(isSelected) : undefined} onClick=${selecting ? onToggle : onOpen}>
      ${thumbnail ? html`<img src=${thumbnail} alt="" loading="lazy" decoding="async" width=${file.width} height=${file.height} />` : html`<${Icon} name="video" size=${32} />`}</button>
    ${isVideo && html`<span class="tile-badge"><${Icon} name="video" size=${14} />${file.seconds ? formatDuration(file.seconds) : ""}</span>`}
    ${selecting && html`<span class="tile-check" aria-hidden="true">${isSelected && html`<${Icon} name="check" size=${18} />`}</span>`}
    ${!selecting && html`<div class="tile-footer"><p class="clamp-one">${jobTitle(job)}</p><${FavouriteButton} job=${job} /></div>`}</li>`;
}
