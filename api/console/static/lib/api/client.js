// Client of the platform's API. Uses the session cookie; failed requests throw ApiError.
import { signal } from "../ui/preact.js";
import { language, t } from "../state/language.js";
import { persistentSignal } from "../state/preferences.js";
import { forgetShares } from "../state/shared_files.js";

const base = new URL(document.baseURI);

// The signed-in user (`ConsoleSession` in the API document); null = signed out, undefined = not loaded yet.
export const session = signal(document.documentElement.dataset.session === "no" ? null : undefined);
// Why the sign-in form is shown although there was a session: what the server said.
export const endedSession = signal("");
export const hasScope = (scope) => session.value?.scopes.includes(scope) ?? false;

// A link as a URL on this page's own origin: the page's security policy forbids loading from another host.
export function platformUrl(link) {
  if (!link) return link;
  const start = link.indexOf("/v1/");
  return new URL(start >= 0 && /^https?:/.test(link) ? link.slice(start + 1) : link.replace(/^\//, ""), base).href;
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

// The server, or the network before it, does not respond.
export const unreachable = () => new ApiError(0, { message: t("error.unreachable"), code: "unreachable" });

// The failure of a response with this status; `failure` = its JSON, if it is any.
function toError(status, failure, headers) {
  // The session has ended: the shell shows the sign-in form.
  if (status === 401 && session.value) {
    endedSession.value = failure?.error?.message ?? t("signin.ended");
    session.value = null;
  }
  return new ApiError(status, failure?.error, headers);
}

const commonHeaders = () => ({ "Accept-Language": language.value === "zh" ? "zh-CN" : "en", ...(session.value ? { "X-CSRF-Token": session.value.csrf_token } : {}) });

async function call(method, path, body, { headers = {}, signal: abort, raw = false } = {}) {
  const requestHeaders = { ...commonHeaders(), ...headers };
  if (method === "GET") delete requestHeaders["X-CSRF-Token"];
  let content = body;
  if (body !== undefined && !(body instanceof FormData)) {
    requestHeaders["Content-Type"] = "application/json";
    content = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(platformUrl(path), { method, headers: requestHeaders, body: content, signal: abort, credentials: "same-origin" });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (!response.ok) throw toError(response.status, await response.json().catch(() => null), response.headers);
  if (raw) return response;
  if (response.status === 204) return null;
  return response.json().catch((error) => {
    throw error.name === "AbortError" ? error : unreachable();
  });
}

const withQuery = (path, query) => {
  const params = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return params.length ? `${path}?${new URLSearchParams(params)}` : path;
};

export const api = {
  get: (path, query, options) => call("GET", withQuery(path, query), undefined, options),
  post: (path, body, options) => call("POST", path, body, options),
  put: (path, body, options) => call("PUT", path, body, options),
  patch: (path, body, options) => call("PATCH", path, body, options),
  delete: (path, { body, ...options } = {}) => call("DELETE", path, body, options),
};

// Send a form with files; `onProgress` gets the share that was sent, 0 to 1. `fetch` does not report it.
export function upload(path, form, { headers = {}, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", platformUrl(path));
    request.responseType = "json";
    for (const [name, value] of Object.entries({ ...commonHeaders(), ...headers })) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onerror = () => reject(unreachable());
    request.onload = () => {
      const answer = request.response;
      if (request.status < 300 && answer) resolve(answer);
      else if (request.status < 300) reject(unreachable());
      else reject(toError(request.status, answer, { get: (name) => request.getResponseHeader(name) }));
    };
    request.send(form);
  });
}

export async function loadSession() {
  try {
    session.value = await api.get("/console/session");
  } catch (error) {
    if (error.status !== 401) throw error;
    // The browser had a session when the page was loaded.
    endedSession.value ||= error.message;
    session.value = null;
  }
}

// How the person signed in the last time: "key" or "password". The form offers it first.
export const lastSignIn = persistentSignal("sign-in", "key");

async function begin(way, path, body, options) {
  session.value = await api.post(path, body, options);
  endedSession.value = "";
  lastSignIn.value = way;
}

// `keep` = the browser keeps the session when it closes.
export const signIn = (key, keep) => begin("key", "/console/session", { keep }, { headers: { Authorization: `Bearer ${key}` } });
export const signInWithPassword = (name, password, keep) => begin("password", "/console/session/password", { name, password, keep });
export const useInvitation = (token, password) => begin(password ? "password" : lastSignIn.value, "/console/session/invitation", { token, password: password || null });

// True from the click until the session has ended: streams close first, because the server refuses them afterwards.
export const isSigningOut = signal(false);

export async function signOut() {
  isSigningOut.value = true;
  try {
    await api.delete("/console/session");
    await forgetShares();
    endedSession.value = "";
    session.value = null;
  } finally {
    isSigningOut.value = false;
  }
}
