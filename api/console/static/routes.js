// Every page of the console, one line each. `scope`: who sees it; `icon`: it is in the menu; `tab`: also at the bottom
// of a phone; `under`: which entry of the menu it belongs to. Its name in the menu is `nav.<name>` in i18n.js.
export const PAGES = [
  { path: "", name: "playground", group: "main", icon: "spark", tab: true, load: () => import("./pages/playground.js") },
  { path: "jobs", name: "jobs", group: "main", icon: "list", tab: true, load: () => import("./pages/jobs.js") },
  { path: "jobs/:id", name: "job", under: "jobs", load: () => import("./pages/job.js") },
  { path: "gallery", name: "gallery", group: "main", icon: "grid", tab: true, load: () => import("./pages/gallery.js") },
  { path: "usage", name: "usage", group: "account", icon: "chart", load: () => import("./pages/usage.js") },
  { path: "keys", name: "keys", group: "account", icon: "key", scope: "read", load: () => import("./pages/keys.js") },
  { path: "webhooks", name: "webhooks", group: "account", icon: "hook", scope: "read", load: () => import("./pages/webhooks.js") },
  { path: "accounts", name: "accounts", group: "admin", icon: "pool", scope: "admin", load: () => import("./pages/accounts.js") },
  { path: "accounts/:id", name: "account", under: "accounts", scope: "admin", load: () => import("./pages/account.js") },
  { path: "users", name: "users", group: "admin", icon: "users", scope: "admin", load: () => import("./pages/users.js") },
  { path: "users/:id", name: "user", under: "users", scope: "admin", load: () => import("./pages/user.js") },
  { path: "system", name: "system", group: "admin", icon: "pulse", scope: "admin", load: () => import("./pages/system.js") },
  { path: "audit", name: "audit", group: "admin", icon: "book", scope: "admin", load: () => import("./pages/audit.js") },
];
