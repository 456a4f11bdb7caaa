// Every page of the console, one line each. `scope`: who sees it; `icon`: it is in the menu; `tab`: also at the bottom
// of a phone; `under`: which entry of the menu it belongs to. Its name in the menu is `nav.<name>` in i18n.js.
export const PAGES = [
  { path: "", name: "playground", group: "main", icon: "spark", tab: true, load: () => import("./pages/playground.js") },
  { path: "jobs", name: "jobs", group: "main", icon: "list", tab: true, load: () => import("./pages/jobs.js") },
  { path: "jobs/:id", name: "job", under: "jobs", load: () => import("./pages/job.js") },
  { path: "gallery", name: "gallery", group: "main", icon: "grid", tab: true, load: () => import("./pages/gallery.js") },
];
