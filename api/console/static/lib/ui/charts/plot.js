// Plots over time, drawn by uPlot in the theme's colours, each with a table of the same numbers.
import { html, useEffect, useId, useMemo, useRef, useState } from "../preact.js";
import { formatAxisTime, formatNumber, language, t } from "../../state/language.js";
import { theme } from "../../state/preferences.js";
import uPlot from "../../../vendor/uplot/uplot.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const LONG_TABLE = 60;
const FONT = "12px ui-sans-serif, system-ui, sans-serif";

// Whether the system uses a dark theme.
function useSystemTheme() {
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const media = matchMedia("(prefers-color-scheme: dark)");
    const onChange = () => setDark(media.matches);
    media.addEventListener("change", onChange);
    return () => media.removeEventListener("change", onChange);
  }, []);
  return dark;
}

// Stacked bars: uPlot draws cumulative sums, the largest first, each later bar over its lower part.
function stacked(series) {
  const sums = [];
  for (const item of series) sums.push(item.values.map((value, n) => (value ?? 0) + (sums.at(-1)?.[n] ?? 0)));
  return sums.reverse();
}

// Neighbouring ticks with the same text show it once.
const withoutRepeats = (texts) => texts.map((text, n) => (text === texts[n - 1] ? "" : text));

function options({ series, bars, money, unit, ticks, width, height, range, onPoint }) {
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--muted"), font: FONT, ticks: { show: false }, grid };
  const order = bars ? [...series].reverse() : series;
  return {
    width, height, legend: { show: false }, padding: [12, 34, 0, 0],
    cursor: { y: false, points: { show: !bars }, drag: { x: false, y: false } },
    scales: { x: { time: true, range: (_plot, low, high) => range ?? (bars || low === high ? [low - unit / 2, high + unit / 2] : [low, high]) },
      y: { range: (_plot, _low, high) => [0, Math.max(high ?? 0, money ? 0.01 : 1) * 1.08] } },
    axes: [
      { ...axis, grid: { show: false }, space: 64, size: 28, values: (_plot, times) => withoutRepeats(times.map((time) => formatAxisTime(time, ticks))) },
      { ...axis, size: 52, incrs: [...(money ? [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5] : []), 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7, 1e8], values: (_plot, values) => values.map(formatNumber) },
    ],
    series: [{}, ...order.map((item) => ({
      label: item.label, points: { show: !bars && item.values.length < 40, size: 5 }, stroke: colour(item.colour), width: bars ? 0 : 2,
      fill: bars ? colour(item.colour) : colour(item.soft ?? "--accent-soft"),
      paths: bars ? uPlot.paths.bars({ size: [0.72, 42], radius: order.length === 1 ? 0.15 : 0 }) : item.stepped ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear(),
    }))],
    hooks: { setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)] },
  };
}

// `series` = [{ label, values, colour: "--accent" }] over `times` (unix seconds); `unit` = seconds between two of them;
// `range` = the first and the last time of the axis, else those of the values; `ticks` = as `unit`, for the labels of the axis.
export function Plot({ label, times, series, bars = false, money = false, unit = 86400, ticks = unit, height = 200, range }) {
  // A long table is made when it is opened.
  const [open, setOpen] = useState(times.length <= LONG_TABLE);
  const container = useRef(null);
  const plot = useRef(null);
  const [point, setPoint] = useState(null);
  const titleId = useId();
  const dark = useSystemTheme();
  const data = useMemo(() => [times, ...(bars ? stacked(series) : series.map((item) => item.values))], [JSON.stringify([times, series])]);
  const appearance = `${theme.value} ${dark} ${language.value} ${bars} ${unit} ${ticks} ${height} ${range} ${series.map((item) => item.colour + item.label).join()}`;
  useEffect(() => {
    const created = new uPlot(options({ series, bars, money, unit, ticks, width: container.current.clientWidth || 300, height, range, onPoint: setPoint }), data, container.current);
    plot.current = created;
    const observer = new ResizeObserver(([entry]) => created.setSize({ width: Math.max(entry.contentRect.width, 120), height }));
    observer.observe(container.current);
    return () => {
      observer.disconnect();
      created.destroy();
      plot.current = null;
    };
  }, [appearance]);
  useEffect(() => plot.current?.setData(data), [data]);
  const selected = point !== null && times[point] !== undefined ? point : null;
  return html`<figure class="plot" aria-labelledby=${titleId}>
    <figcaption class="row spread"><h2 id=${titleId}>${label}</h2>
      <p class="plot-key hint">${selected !== null && html`<span class="numeric">${formatAxisTime(times[selected], unit, true)}</span>`}${series.map((item) => html`<span key=${item.label} class="row"><svg width="10" height="10" aria-hidden="true"><rect class="plot${item.colour}" width="10" height="10" rx="3" /></svg>
        ${item.label}${selected !== null && html`<strong class="numeric">${formatNumber(item.values[selected])}</strong>`}</span>`)}</p></figcaption>
    <div ref=${container} class="plot-box" aria-hidden="true"></div>
    <details class="more" onToggle=${() => setOpen(true)}><summary>${t("plot.table")}</summary>${open && html`<div class="table-wrap plot-table" tabindex="0" role="region" aria-label=${label}><table class="table plain"><thead><tr><th>${t("plot.time")}</th>${series.map((item) => html`<th key=${item.label} class="end">${item.label}</th>`)}</tr></thead>
      <tbody>${times.map((time, n) => html`<tr key=${time}><td>${formatAxisTime(time, unit, true)}</td>${series.map((item) => html`<td key=${item.label} class="end numeric">${formatNumber(item.values[n])}</td>`)}</tr>`).reverse()}</tbody></table></div>`}</details></figure>`;
}
