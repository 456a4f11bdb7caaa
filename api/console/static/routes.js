// Every page of the console, one line each. `scope`: the right it requires; `icon`: it has a menu entry; `inTabBar`: it
// is also in the tab bar of phones; `parent`: the menu entry that it belongs to. The title is the text `nav.<name>`.
export const PAGES = [
  { path: "", name: "playground", group: "main", icon: "spark", inTabBar: true, load: () => import("./pages/playground.js") },
  { path: "jobs", name: "jobs", group: "main", icon: "list", inTabBar: true, load: () => import("./pages/jobs.js") },
  { path: "jobs/:id", name: "job", parent: "jobs", load: () => import("./pages/job.js") },
  { path: "batches", name: "batches", group: "main", icon: "stack", scope: "read", load: () => import("./pages/batches.js") },
  { path: "gallery", name: "gallery", group: "main", icon: "grid", inTabBar: true, load: () => import("./pages/gallery.js") },
  { path: "albums", name: "albums", group: "main", icon: "album", scope: "read", load: () => import("./pages/albums.js") },
  { path: "albums/:id", name: "album", parent: "albums", scope: "read", load: () => import("./pages/albums.js").then((page) => ({ default: page.AlbumPage })) },
  { path: "my-accounts", name: "my_accounts", group: "account", icon: "database", scope: "generate", load: () => import("./pages/accounts.js").then((page) => ({ default: page.OwnAccounts })) },
  { path: "my-accounts/:id", name: "account", parent: "my_accounts", scope: "generate", load: () => import("./pages/account.js").then((page) => ({ default: page.OwnAccount })) },
  { path: "usage", name: "usage", group: "account", icon: "chart", load: () => import("./pages/usage.js") },
  { path: "keys", name: "keys", group: "account", icon: "key", scope: "read", load: () => import("./pages/keys.js") },
  { path: "access", name: "access", group: "account", icon: "lock", load: () => import("./pages/access.js") },
  { path: "webhooks", name: "webhooks", group: "account", icon: "webhook", scope: "read", load: () => import("./pages/webhooks.js") },
  { path: "accounts", name: "accounts", group: "admin", icon: "database", scope: "admin", load: () => import("./pages/accounts.js") },
  { path: "accounts/:id", name: "account", parent: "accounts", scope: "admin", load: () => import("./pages/account.js") },
  { path: "users", name: "users", group: "admin", icon: "users", scope: "admin", load: () => import("./pages/users.js") },
  { path: "users/:id", name: "user", parent: "users", scope: "admin", load: () => import("./pages/user.js") },
  { path: "system", name: "system", group: "admin", icon: "activity", scope: "admin", load: () => import("./pages/system.js") },
  { path: "audit", name: "audit", group: "admin", icon: "book", scope: "admin", load: () => import("./pages/audit.js") },
];
