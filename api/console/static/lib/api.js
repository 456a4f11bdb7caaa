// Calls to the platform's own API, with the session cookie; failures arrive as ApiError with our error object.
import { signal } from "./ui.js";
import { language, t } from "./language.js";

const base = new URL(document.baseURI);

// Who is signed in: null = nobody, undefined = not known yet. See `ConsoleSession` in the API document.
export const session = signal(document.documentElement.dataset.session === "yes" ? undefined : null);
export const may = (scope) => session.value?.scopes.includes(scope) ?? false;

// An address of this platform, whichever host links in its answers name: the page may only load from its own.
export function here(link) {
  if (!link) return link;
  const at = link.indexOf("/v1/");
  return new URL(at >= 0 && /^https?:/.test(link) ? link.slice(at + 1) : link.replace(/^\//, ""), base).href;
}

export class ApiError extends Error {
  constructor(status, error, headers) {
    super(error?.message || t("error.status", { status }));
    this.status = status;
    this.code = error?.code ?? "";
    this.param = error?.param ?? null;
    this.requestId = headers?.get("x-request-id") ?? "";
    this.retryAfter = Number(headers?.get("retry-after")) || null;
  }
}

async function call(method, path, body, { headers = {}, signal: abort, raw = false } = {}) {
  const sent = { "Accept-Language": language.value === "zh" ? "zh-CN" : "en", ...headers };
  if (method !== "GET" && session.value) sent["X-CSRF-Token"] = session.value.csrf_token;
  let content = body;
  if (body !== undefined && !(body instanceof FormData)) {
    sent["Content-Type"] = "application/json";
    content = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(here(path), { method, headers: sent, body: content, signal: abort, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: t("error.unreachable"), code: "unreachable" });
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    // The session is over: the shell shows the sign-in form.
    if (answer.status === 401 && session.value) session.value = null;
    throw new ApiError(answer.status, told?.error, answer.headers);
  }
  if (raw) return answer;
  return answer.status === 204 ? null : answer.json();
}

const withQuery = (path, query) => {
  const set = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return set.length ? `${path}?${new URLSearchParams(set)}` : path;
};

export const api = {
  get: (path, query, options) => call("GET", withQuery(path, query), undefined, options),
  post: (path, body, options) => call("POST", path, body, options),
  put: (path, body, options) => call("PUT", path, body, options),
  patch: (path, body, options) => call("PATCH", path, body, options),
  delete: (path, options) => call("DELETE", path, undefined, options),
};

export async function resume() {
  try {
    session.value = await api.get("/console/session");
  } catch (error) {
    if (error.status !== 401) throw error;
    session.value = null;
  }
}

export async function signIn(key) {
  session.value = await api.post("/console/session", undefined, { headers: { Authorization: `Bearer ${key}` } });
}

export async function signOut() {
  await api.delete("/console/session");
  session.value = null;
}
