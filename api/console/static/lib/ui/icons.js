// Icons: 24 x 24, drawn in the colour of the surrounding text.
import { html } from "./preact.js";

const PATHS = {
  spark: "M12 3l1.9 5.1L19 10l-5.1 1.9L12 17l-1.9-5.1L5 10l5.1-1.9zM19 15l.8 2.2L22 18l-2.2.8L19 21l-.8-2.2L16 18l2.2-.8z",
  image: "M4 5h16v14H4zM4 16l4.5-4.5 4 4 2.5-2.5L20 17M15.5 9.5h.01",
  video: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.7h4M4 14.3h4M16 9.7h4M16 14.3h4",
  chat: "M4 5h16v11H10l-4.5 4v-4H4z",
  list: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  grid: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  key: "M14.5 9.5a4.5 4.5 0 1 0-3.6 4.4L13 16h2v2h2v2h3v-3l-6-5.6a4.5 4.5 0 0 0 .5-1.9zM8.5 8.5h.01",
  chart: "M4 20V4M4 20h16M8 16v-5M12 16V7M16 16v-3",
  database: "M4 7c0-1.7 3.6-3 8-3s8 1.3 8 3-3.6 3-8 3-8-1.3-8-3zM4 7v10c0 1.7 3.6 3 8 3s8-1.3 8-3V7M4 12c0 1.7 3.6 3 8 3s8-1.3 8-3",
  users: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20a6.5 6.5 0 0 1 13 0M16 4.5a3.5 3.5 0 0 1 0 6M18 14.5a6.5 6.5 0 0 1 3.5 5.5",
  webhook: "M9 8.5a3 3 0 1 1 4.5 2.6L16 16M7.5 13.5a3 3 0 1 0 3 4.5H17M19.5 20a3 3 0 1 0-2.5-5.4M12 8.5l-3.5 7",
  activity: "M3 12h4l3-8 4 16 3-8h4",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M4 12H2M22 12h-2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  screen: "M3 5h18v11H3zM9 20h6M12 16v4",
  globe: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM3 12h18M12 3c2.5 2.5 3.5 5.5 3.5 9s-1 6.5-3.5 9c-2.5-2.5-3.5-5.5-3.5-9s1-6.5 3.5-9z",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.5l4.5 4.5L19 7.5",
  download: "M12 4v11M7.5 11l4.5 4.500L16.5 11M5 20h14",
  upload: "M12 16V5M7.5 9L12 4.5 16.5 9M5 20h14",
  star: "M12 4l2.5 5.2 5.7.8-4.1 4 1 5.7-5.1-2.7-5.1 2.7 1-5.7-4.1-4 5.7-.8z",
  repeat: "M20 11a8 8 0 1 0-2.3 6.300M20 5v6h-6",
  swap: "M4 8h15M15.5 4.500L19 8l-3.5 3.500M20 16H5M8.5 12.500L5 16l3.5 3.500",
  remake: "M4 7h3.500c4 0 5 10 9 10H20M4 17h3.500c1.5 0 2.6-1.4 3.5-3M13.5 9c.8-1.2 1.7-2 3-2H20M17.5 4.500L20 7l-2.5 2.500M17.5 14.500L20 17l-2.5 2.5",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  menu: "M4 7h16M4 12h16M4 17h16",
  sign_out: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  plus: "M12 5v14M5 12h14",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l4.5 4.5",
  right: "M9 5l7 7-7 7",
  left: "M15 5l-7 7 7 7",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  alert: "M12 4l9 16H3zM12 10v4M12 17h.01",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5M12 8h.01",
  stop: "M6 6h12v12H6z",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3.5 2",
  code: "M8.5 7l-5 5 5 5M15.5 7l5 5-5 5",
  send: "M4 12l16-8-5 16-3.5-6.500zM11.5 13.500L20 4",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  book: "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11M9 8h6",
  edit: "M4 20h4L19 9l-4-4L4 16z",
};

export function Icon({ name, fill = false, size = 20 }) {
  return html`<svg class="icon ${fill ? "icon-fill" : ""}" viewBox="0 0 24 24" width=${size} height=${size}
    aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}
