// What is known of the videos of the service: told once by a list, then by one stream of events for all of them.

import * as api from "./api.js";

export const jobs = new Map(); // id -> video, as the service shows it, and `preview`, the address of its last preview
const forgotten = new Set(); // ids never come again
const changed = new EventTarget();
const link = { isUp: null };
const REFRESH_MS = 300;
const STALE_MS = 10_000;
let isScheduled = false;
let refreshing = null;
let watching = null;
let numWaiting = 0;
let lastEvent = "";

/** Be told when any video changed, at most once a frame. */
export function whenJobsChange(listener) {
  changed.addEventListener("change", listener);
}

export const whenFinished = (listener) => changed.addEventListener("finished", (event) => listener(event.detail));
export const whenLinkChanges = (listener) => changed.addEventListener("link", () => listener(link.isUp));

function tell() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    changed.dispatchEvent(new Event("change"));
  });
  // Frames stand still in tabs that nobody sees; what is shown must be right when somebody looks again.
  if (document.hidden) setTimeout(() => isScheduled && ((isScheduled = false), changed.dispatchEvent(new Event("change"))), 250);
}

const isOver = (job) => job.status === "completed" || job.status === "failed";

/** Take in what the service says of videos; what is older than what is known is passed over. */
export function learn(list) {
  for (const job of list) {
    if (forgotten.has(job.id)) continue;
    const known = jobs.get(job.id);
    if (known && (job.revision ?? 0) < (known.revision ?? 0)) continue;
    if (job.status === "queued" || known?.status === "queued") refreshQueue();
    jobs.set(job.id, { ...known, ...job, preview: previewOf(job) });
    if (known && !isOver(known) && isOver(job)) changed.dispatchEvent(new CustomEvent("finished", { detail: jobs.get(job.id) }));
  }
  tell();
}

/** The address of the last preview of a video that is being made. */
const previewOf = ({ id, status, preview_step: step }) => (status === "in_progress" && step ? `${api.contentUrl(id, "preview")}&step=${step}` : null);

export function forget(id) {
  if (jobs.get(id)?.status === "queued") refreshQueue();
  jobs.delete(id);
  forgotten.add(id);
  tell();
}

/** Ask soon how many wait and which are next: who leaves the queue moves all behind. */
function refreshQueue(delay = REFRESH_MS) {
  refreshing ??= setTimeout(async () => {
    refreshing = null; // what changes from now on is asked for anew
    try {
      const { waiting, videos } = await api.queue();
      numWaiting = waiting;
      const places = new Map(videos.map((job) => [job.id, job.queue_position]));
      for (const job of queued()) jobs.set(job.id, { ...job, queue_position: places.get(job.id) ?? null });
      for (const job of videos) if (!forgotten.has(job.id) && (jobs.get(job.id)?.revision ?? -1) < job.revision) jobs.set(job.id, { ...job, preview: null });
      tell();
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
    }
  }, delay);
}

/** How many wait, those that are not known here included. */
export const countWaiting = () => Math.max(numWaiting, queued().length);

export const running = () => [...jobs.values()].filter((job) => job.status === "in_progress").sort((a, b) => (a.started_at ?? 0) - (b.started_at ?? 0));
export const queued = () => [...jobs.values()].filter((job) => job.status === "queued").sort((a, b) => (a.queue_position ?? 1e9) - (b.queue_position ?? 1e9) || a.created_at - b.created_at);

const newestFirst = (a, b) => b.created_at - a.created_at || (b.revision ?? 0) - (a.revision ?? 0);

/** Those that are over and fit the filters, the newest first. */
export function finished({ status = "", model = "", q = "" } = {}) {
  const wanted = q.trim().toLowerCase();
  return [...jobs.values()]
    .filter((job) => (status ? job.status === status : isOver(job)))
    .filter((job) => !model || job.model === model)
    .filter((job) => !wanted || (job.prompt ?? "").toLowerCase().includes(wanted))
    .sort(newestFirst);
}

export const modelsSeen = () => [...new Set([...jobs.values()].map((job) => job.model))].sort();

/** Fetch a page of videos; gives where the next one begins, null at the end. */
export async function fetchPage(filters, after = null) {
  const page = await api.videos({ limit: 40, after, ...filters, status: filters.status || "over" });
  learn(page.data);
  return page.has_more ? page.last_id : null;
}

function onProgress({ id, ...rest }) {
  const job = jobs.get(id);
  if (!job) return refresh(id);
  // Within an attempt progress never falls.
  jobs.set(id, { ...job, ...rest });
  return tell();
}

async function refresh(id) {
  try {
    learn([await api.video(id)]);
  } catch (error) {
    if (error.status === 404) forget(id);
    else if (!(error instanceof api.Refusal)) throw error;
  }
}

const HANDLERS = {
  snapshot: ({ videos }) => learn(videos),
  job: (data) => learn([data]),
  progress: onProgress,
  preview: ({ id, step }) => {
    const job = jobs.get(id);
    if (job) jobs.set(id, { ...job, preview: previewOf({ ...job, preview_step: step }) });
    tell();
  },
  done: (data) => learn([data]),
  removed: ({ id }) => forget(id),
};

/** Follow the service; the browser connects again by itself, and the first thing told is how everything stands. */
export function follow() {
  // Of other people's videos nothing is told, but they go before ours.
  watching ??= setInterval(() => !document.hidden && queued().length && refreshQueue(0), STALE_MS);
  // A browser that connects again by itself says what it was told last; one that gave up does not.
  const source = new EventSource(lastEvent ? `${api.eventsUrl}?after=${lastEvent}` : api.eventsUrl);
  for (const [name, handle] of Object.entries(HANDLERS)) {
    source.addEventListener(name, (event) => {
      lastEvent = event.lastEventId;
      handle(JSON.parse(event.data));
    });
  }
  const say = (isUp) => {
    if (link.isUp === isUp) return;
    link.isUp = isUp;
    changed.dispatchEvent(new Event("link"));
  };
  source.onopen = () => say(true);
  source.onerror = () => {
    say(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  };
}
