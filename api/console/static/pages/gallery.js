// Finished pictures and videos: search, favourites, download one by one or many as a zip.
import { html, useState } from "../lib/ui.js";
import { here } from "../lib/api.js";
import { filesOf, promptOf, thumbnail, titleOf } from "../lib/jobs.js";
import { duration, t } from "../lib/language.js";
import { Button, Choice, Empty, Failure, Icon, Loading, PageHead, toast } from "../lib/parts.js";
import { Favourite, Lightbox } from "../lib/results.js";
import { Link, setQuery } from "../lib/router.js";
import { SearchField, useEnd, usePages } from "../lib/paging.js";

const MOST_IN_ZIP = 100;

export default function Gallery({ query }) {
  const kind = query.kind ?? "all";
  const favourite = query.favourite === "true";
  const wanted = { status: "completed", kind: kind === "all" ? "image,video" : kind, favourite: favourite ? "true" : undefined, q: query.q };
  const pages = usePages("/v1/jobs", { ...wanted, limit: 40 }, (job) => fits(job, wanted, favourite));
  const end = useEnd(pages.more);
  const [shown, setShown] = useState(null); // the address of a file
  const [chosen, setChosen] = useState(null); // ids of jobs, while choosing
  const items = pages.items.flatMap((job) => filesOf(job).map((file, n) => ({ job, file, n })));
  const at = items.findIndex(({ file }) => file.url === shown);
  const filtered = kind !== "all" || favourite || query.q;
  const choose = (id) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    if (next.size > MOST_IN_ZIP) toast(t("gallery.too_many", { n: MOST_IN_ZIP }), "bad");
    else setChosen(next);
  };
  return html`<${PageHead} title=${t("nav.gallery")} lead=${t("gallery.lead")}>
      ${chosen === null
        ? html`<${Button} icon="check" disabled=${!items.length} onClick=${() => setChosen(new Set())}>${t("gallery.choose")}<//>`
        : html`<span class="hint" role="status">${t("gallery.chosen", { n: chosen.size })}</span>
          <${Button} onClick=${() => setChosen(new Set(pages.items.slice(0, MOST_IN_ZIP).map((job) => job.id)))}>${t("gallery.all")}<//>
          <a class="button primary ${chosen.size ? "" : "off"}" aria-disabled=${!chosen.size} download href=${chosen.size ? here(`v1/files/archive?ids=${[...chosen].join(",")}`) : undefined}><${Icon} name="download" size=${18} /><span>${t("gallery.zip")}</span></a>
          <${Button} kind="quiet" icon="close" label=${t("gallery.stop")} onClick=${() => setChosen(null)} />`}<//>
    <div class="filters gallery-filters" role="search"><${SearchField} label=${t("filter.prompt")} value=${query.q ?? ""} onChange=${(q) => setQuery({ q })} />
      <${Choice} label=${t("filter.kind")} value=${kind} onChange=${(value) => setQuery({ kind: value === "all" ? "" : value })}
        options=${[["all", t("filter.any")], ["image", t("kind.images"), "image"], ["video", t("kind.videos"), "film"]]} />
      <button type="button" class="button ${favourite ? "on" : ""}" aria-pressed=${favourite} onClick=${() => setQuery({ favourite: favourite ? "" : "true" })}><${Icon} name="star" fill=${favourite} size=${18} /><span>${t("gallery.favourites")}</span></button></div>
    ${pages.error && html`<${Failure} error=${pages.error} onRetry=${pages.reload} />`}
    <ul class="tiles">${items.map(({ job, file, n }) => html`<${Tile} key=${file.url} job=${job} file=${file} n=${n} chosen=${chosen && chosen.has(job.id)} choosing=${chosen !== null}
      onChoose=${() => choose(job.id)} onShow=${() => setShown(file.url)} />`)}</ul>
    ${!pages.loading && !pages.error && !items.length && html`<div class="card"><${Empty} icon=${favourite ? "star" : "grid"} title=${t(filtered ? "gallery.none" : "gallery.empty")}>
      ${filtered ? html`<${Button} onClick=${() => setQuery({ kind: "", favourite: "", q: "" })}>${t("jobs.clear")}<//>` : html`<p>${t("gallery.empty_text")}</p><${Link} to="" class="button primary">${t("jobs.first")}<//>`}<//></div>`}
    ${pages.loading && html`<${Loading} />`}
    <div ref=${end}></div>
    ${at >= 0 && html`<${Lightbox} items=${items} at=${at} onMove=${(next) => setShown(items[next].file.url)} onClose=${() => setShown(null)} />`}`;
}

function fits(job, wanted, favourite) {
  return (
    job.status === "completed" && wanted.kind.split(",").includes(job.kind) && (!favourite || job.favourite) &&
    (!wanted.q || promptOf(job).toLowerCase().includes(wanted.q.toLowerCase()))
  );
}

function Tile({ job, file, n, choosing, chosen, onChoose, onShow }) {
  const video = file.mime.startsWith("video/");
  const picture = thumbnail(file);
  const label = t(video ? "gallery.open_video" : "gallery.open_picture", { prompt: titleOf(job).slice(0, 80), n: n + 1 });
  const shape = { "--shape": (file.width || 1) / (file.height || 1) };
  return html`<li class="tile ${chosen ? "chosen" : ""}" style=${shape}>
    <button type="button" class="tile-open" aria-label=${choosing ? t("gallery.choose_one", { prompt: titleOf(job).slice(0, 80) }) : label} aria-pressed=${choosing ? Boolean(chosen) : undefined} onClick=${choosing ? onChoose : onShow}>
      ${picture ? html`<img src=${picture} alt="" loading="lazy" decoding="async" width=${file.width} height=${file.height} />` : html`<${Icon} name="film" size=${32} />`}</button>
    ${video && html`<span class="tile-mark"><${Icon} name="film" size=${14} />${file.seconds ? duration(file.seconds) : ""}</span>`}
    ${choosing && html`<span class="tile-check" aria-hidden="true">${chosen && html`<${Icon} name="check" size=${18} />`}</span>`}
    ${!choosing && html`<div class="tile-foot"><p class="clamp-one">${titleOf(job)}</p><${Favourite} job=${job} /></div>`}</li>`;
}
