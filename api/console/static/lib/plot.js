// Plots over time, drawn by uPlot in the theme's colours; below each, the same numbers as a table.
import uPlot from "../vendor/uplot.js";
import { html, useEffect, useId, useMemo, useRef, useState } from "./ui.js";
import { language, number, shortDate, t } from "./language.js";
import { theme } from "./store.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const FONT = "12px ui-sans-serif, system-ui, sans-serif";

// The system's theme, while it is followed.
function useSystemTheme() {
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const watch = matchMedia("(prefers-color-scheme: dark)");
    const hear = () => setDark(watch.matches);
    watch.addEventListener("change", hear);
    return () => watch.removeEventListener("change", hear);
  }, []);
  return dark;
}

// Bars stand on each other: the tallest is drawn first, each later one over its foot.
function stacked(series) {
  const sums = [];
  for (const one of series) sums.push(one.values.map((value, n) => (value ?? 0) + (sums.at(-1)?.[n] ?? 0)));
  return sums.reverse();
}

function options({ series, bars, unit, width, height, onPoint }) {
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--muted"), font: FONT, ticks: { show: false }, grid };
  const order = bars ? [...series].reverse() : series;
  return {
    width, height, legend: { show: false }, padding: [12, 34, 0, 0],
    cursor: { y: false, points: { show: !bars }, drag: { x: false, y: false } },
    scales: { x: { time: true, range: (_plot, low, high) => (bars || low === high ? [low - unit / 2, high + unit / 2] : [low, high]) },
      y: { range: (_plot, _low, high) => [0, Math.max(high ?? 0, 1) * 1.08] } },
    axes: [
      { ...axis, grid: { show: false }, space: 64, size: 28, values: (_plot, times) => times.map((at) => shortDate(at, unit)) },
      { ...axis, size: 52, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7, 1e8], values: (_plot, values) => values.map(number) },
    ],
    series: [{}, ...order.map((one) => ({
      label: one.label, points: { show: !bars && one.values.length < 40, size: 5 }, stroke: colour(one.colour), width: bars ? 0 : 2,
      fill: bars ? colour(one.colour) : colour(one.soft ?? "--accent-soft"),
      paths: bars ? uPlot.paths.bars({ size: [0.72, 42], radius: order.length === 1 ? 0.15 : 0 }) : one.stepped ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear(),
    }))],
    hooks: { setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)] },
  };
}

// `series` = [{ label, values, colour: "--accent" }] over `times` (unix seconds); `unit` = seconds between two of them.
export function Plot({ label, times, series, bars = false, unit = 86400, height = 200 }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [point, setPoint] = useState(null);
  const title = useId();
  const dark = useSystemTheme();
  const data = useMemo(() => [times, ...(bars ? stacked(series) : series.map((one) => one.values))], [JSON.stringify([times, series])]);
  const look = `${theme.value} ${dark} ${language.value} ${bars} ${unit} ${height} ${series.map((one) => one.colour + one.label).join()}`;
  useEffect(() => {
    const made = new uPlot(options({ series, bars, unit, width: box.current.clientWidth || 300, height, onPoint: setPoint }), data, box.current);
    plot.current = made;
    const watch = new ResizeObserver(([one]) => made.setSize({ width: Math.max(one.contentRect.width, 120), height }));
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [look]);
  useEffect(() => plot.current?.setData(data), [data]);
  const at = point !== null && times[point] !== undefined ? point : null;
  return html`<figure class="plot" aria-labelledby=${title}>
    <figcaption class="row spread"><h2 id=${title}>${label}</h2>
      <p class="plot-key hint">${at !== null && html`<span class="numeric">${shortDate(times[at], unit, true)}</span>`}${series.map((one) => html`<span key=${one.label} class="row"><svg width="10" height="10" aria-hidden="true"><rect class="plot${one.colour}" width="10" height="10" rx="3" /></svg>
        ${one.label}${at !== null && html`<strong class="numeric">${number(one.values[at])}</strong>`}</span>`)}</p></figcaption>
    <div ref=${box} class="plot-box" aria-hidden="true"></div>
    <details class="more"><summary>${t("plot.table")}</summary><div class="table-wrap plot-table" tabindex="0" role="region" aria-label=${label}><table class="table plain"><thead><tr><th>${t("plot.time")}</th>${series.map((one) => html`<th key=${one.label} class="end">${one.label}</th>`)}</tr></thead>
      <tbody>${times.map((time, n) => html`<tr key=${time}><td>${shortDate(time, unit, true)}</td>${series.map((one) => html`<td key=${one.label} class="end numeric">${number(one.values[n])}</td>`)}</tr>`).reverse()}</tbody></table></div></details></figure>`;
}
