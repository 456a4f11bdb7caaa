// Tells that jobs have ended while no tab of the console is visible: a notification and a sound, if the user wants them.
import { effect, signal, useEffect, useRef } from "../preact.js";
import { session } from "../../api/client.js";
import { isOpen, jobFiles, jobTitle, thumbnailUrl, useJobEvents } from "../../api/jobs.js";
import { readStored, writeStored } from "../../state/draft_storage.js";
import { t } from "../../state/language.js";
import { navigate, pagePath } from "../../state/router.js";
import { endedUnseen } from "../../state/tab.js";

// Jobs that end together make one notification.
const COLLECT_MS = 1200;
const REMEMBERED = 300;
const VISIBLE_LOCK = "dreamery.visible";
const TELL_LOCK = "dreamery.tell";
const settingsKey = (user) => `dreamery.attention.${user}`;
const notifiedKey = (user) => `dreamery.notified.${user}`;

// { notify, sound }, for each user of this browser.
export const attention = signal({ notify: false, sound: false });

effect(() => {
  const user = session.value?.user;
  attention.value = { notify: false, sound: false, ...(user ? readStored("localStorage", settingsKey(user)) : null) };
});

export function setAttention(changes) {
  attention.value = { ...attention.value, ...changes };
  writeStored("localStorage", settingsKey(session.value.user), attention.value);
}

// Notifications need https, or a page of this machine.
export const canNotify = () => "Notification" in globalThis && isSecureContext;

// Two short notes, made by the browser. Browsers allow sound after the first click on the page.
let audio = null;
export async function playSound() {
  audio ??= new AudioContext();
  await audio.resume();
  for (const [n, frequency] of [660, 880].entries()) {
    const start = audio.currentTime + n * 0.16;
    const tone = audio.createOscillator();
    const volume = audio.createGain();
    tone.frequency.value = frequency;
    volume.gain.setValueAtTime(0.0001, start);
    volume.gain.exponentialRampToValueAtTime(0.18, start + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.0001, start + 0.3);
    tone.connect(volume).connect(audio.destination);
    tone.start(start);
    tone.stop(start + 0.32);
  }
}

// While a tab is visible it holds a lock, which other tabs see.
function holdWhileVisible() {
  if (!navigator.locks) return () => {};
  let release = null;
  const change = () => {
    release?.();
    release = null;
    if (!document.hidden) navigator.locks.request(VISIBLE_LOCK, { mode: "shared" }, () => new Promise((resolve) => { release = resolve; }));
  };
  change();
  document.addEventListener("visibilitychange", change);
  return () => {
    document.removeEventListener("visibilitychange", change);
    release?.();
  };
}

async function isSomeTabVisible() {
  if (!navigator.locks) return !document.hidden;
  return (await navigator.locks.query()).held.some(({ name }) => name === VISIBLE_LOCK);
}

// The jobs that no tab has announced yet; they count as announced from now on.
function claim(jobs) {
  const key = notifiedKey(session.value?.user);
  const notified = Object.values(readStored("localStorage", key) ?? {});
  const fresh = jobs.filter(({ id }) => !notified.includes(id));
  writeStored("localStorage", key, [...notified, ...fresh.map(({ id }) => id)].slice(-REMEMBERED));
  return fresh;
}

function describe(jobs) {
  if (jobs.length > 1) return { title: t("attention.several", { n: jobs.length }), path: "jobs" };
  const [job] = jobs;
  const [file] = jobFiles(job);
  return { title: t(`attention.${job.status}`), body: jobTitle(job).slice(0, 200), icon: file && thumbnailUrl(file, { small: true }), path: `jobs/${job.id}` };
}

async function show(jobs) {
  if (!canNotify() || Notification.permission !== "granted") return;
  const { title, path, ...options } = describe(jobs);
  const shown = { ...options, tag: jobs[0].id, data: { path: pagePath(path) } };
  try {
    const notification = new Notification(title, shown);
    notification.onclick = () => {
      window.focus();
      navigate(path);
      notification.close();
    };
  } catch {
    // Phones show notifications of an installed page only.
    (await navigator.serviceWorker?.getRegistration())?.showNotification(title, shown);
  }
}

async function tell(jobs) {
  if (await isSomeTabVisible()) return;
  const act = async () => {
    const fresh = claim(jobs);
    if (!fresh.length) return;
    const { notify, sound } = attention.value;
    if (notify) await show(fresh);
    if (sound) await playSound().catch(() => {});
  };
  await (navigator.locks ? navigator.locks.request(TELL_LOCK, act) : act());
}

// Part of the shell: watches the feed.
export function Attention() {
  const open = useRef(new Set());
  const ended = useRef([]);
  const timer = useRef(0);
  useEffect(holdWhileVisible, []);
  useEffect(() => () => clearTimeout(timer.current), []);
  useJobEvents(({ job }) => {
    if (!job) return;
    if (isOpen(job)) {
      open.current.add(job.id);
      return;
    }
    if (!open.current.delete(job.id) || !document.hidden || job.status === "cancelled") return;
    endedUnseen.value += 1;
    ended.current.push(job);
    timer.current ||= setTimeout(() => {
      timer.current = 0;
      tell(ended.current.splice(0));
    }, COLLECT_MS);
  });
  return null;
}
