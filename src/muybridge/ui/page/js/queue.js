// What is being made and what waits: moved, edited, copied, taken away.

import * as api from "./api.js";
import { $, h, icon, iconButton, keepingFocus, toast } from "./dom.js";
import { useRequest } from "./draft.js";
import { attempt } from "./errors.js";
import { duration, memory, number, t } from "./i18n.js";
import { countWaiting, forget, learn, queued, running, whenJobsChange } from "./jobs.js";

const SHOWN = 100;
const rows = new Map(); // id -> {element, update}

/** The first picture that a request starts from. */
export function pictureOf(request) {
  for (const each of request?.conditions ?? []) {
    const id = each.kind === "source" ? each.video : each.kind === "keyframes" ? Object.values(each.pictures)[0] : null;
    if (id) return api.uploadUrl(id);
  }
  return null;
}

function setShot(place, address) {
  if (place.dataset.shows === (address ?? "")) return;
  place.dataset.shows = address ?? "";
  if (!address) return place.replaceChildren(icon("video"));
  // The picture before stays until the next one is there, so that nothing flickers.
  const image = h("img", { alt: "" });
  image.onload = () => place.dataset.shows === address && place.replaceChildren(image);
  image.src = address;
  return undefined;
}

async function cancel(job) {
  await attempt(async () => learn([await api.cancel(job.id)]));
}

/** Take a waiting video back into the form. */
async function edit(job) {
  const kept = await attempt(async () => (await api.cancel(job.id)) ?? true);
  if (!kept) return;
  useRequest(job.request);
  await attempt(async () => {
    await api.remove(job.id);
    forget(job.id);
  });
  $("#prompt").focus();
  toast(t("queue.editing"));
}

const copy = (job) => attempt(async () => learn([await api.create(job.request)]));

/** Put a video before another one, or last. */
async function move(id, before) {
  const done = await attempt(async () => {
    learn([await api.move(id, before)]);
    return true;
  });
  if (done) await attempt(async () => learn((await api.queue()).videos));
}

function stepUp(job) {
  const all = queued();
  const at = all.findIndex((each) => each.id === job.id);
  return at > 0 ? move(job.id, all[at - 1].id) : undefined;
}

function stepDown(job) {
  const all = queued();
  const at = all.findIndex((each) => each.id === job.id);
  return at < all.length - 1 ? move(job.id, all[at + 2]?.id ?? null) : undefined;
}

function metaOf(job) {
  const parts = [job.model];
  if (job.num_frames) parts.push(t("meta.frames", { frames: job.num_frames }));
  if (job.width) parts.push(`${job.width} × ${job.height}`);
  if (job.cost) parts.push(t("meta.needs", { memory: memory(job.cost.peak_bytes) }));
  return parts.join(" · ");
}

function runningRow(job) {
  let now = job;
  const shot = h("div", { class: "shot" });
  const prompt = h("p", { class: "prompt" });
  const bar = h("progress", { max: 100, "aria-label": t("queue.progress") });
  const said = h("p", { class: "said" });
  const stop = h("button", { type: "button", onclick: () => cancel(now) }, icon("close"), t("queue.cancel"));
  const element = h("li", { class: "job running", "data-id": job.id }, shot, h("div", { class: "words" }, prompt, bar, said), h("div", { class: "buttons" }, stop));
  const update = (next) => {
    now = next;
    setShot(shot, next.preview ?? pictureOf(next.request));
    if (next.width && next.height) shot.style.aspectRatio = `${next.width} / ${next.height}`;
    shot.classList.toggle("tiny", (next.width ?? 999) <= 128);
    prompt.textContent = next.prompt || t("no-prompt");
    bar.value = next.progress ?? 0;
    const phase = next.steps && next.phase === "denoise" ? t("queue.step", { step: next.step, steps: next.steps }) : t(`phase.${next.phase ?? "start"}`);
    const left = next.eta_seconds >= 0.5 ? t("queue.left", { time: duration(next.eta_seconds) }) : "";
    said.textContent = [phase, left, next.attempts > 1 && t("queue.attempt", { attempt: next.attempts })].filter(Boolean).join(" · ");
  };
  return { element, update, kind: "running" };
}

function queuedRow(job) {
  let now = job;
  const shot = h("div", { class: "shot" });
  const prompt = h("p", { class: "prompt" });
  const said = h("p", { class: "said" });
  const buttons = h(
    "div",
    { class: "buttons" },
    iconButton("up", t("queue.up"), () => stepUp(now)),
    iconButton("down", t("queue.down"), () => stepDown(now)),
    iconButton("edit", t("queue.edit"), () => edit(now)),
    iconButton("copy", t("queue.copy"), () => copy(now)),
    iconButton("close", t("queue.cancel"), () => cancel(now)),
  );
  const element = h("li", { class: "job", draggable: "true", "data-id": job.id }, shot, h("div", { class: "words" }, prompt, said), buttons);
  onDrag(element, () => now.id);
  const update = (next) => {
    now = next;
    setShot(shot, pictureOf(next.request));
    prompt.textContent = next.prompt || t("no-prompt");
    said.textContent = [next.queue_position && t("queue.position", { position: number(next.queue_position, 0) }), metaOf(next)].filter(Boolean).join(" · ");
  };
  return { element, update, kind: "queued" };
}

function onDrag(element, id) {
  element.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("application/x-muybridge", id());
    event.dataTransfer.effectAllowed = "move";
    element.classList.add("dragged");
  });
  element.addEventListener("dragend", () => element.classList.remove("dragged"));
  element.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("application/x-muybridge")) return;
    event.preventDefault();
    element.classList.add("target");
  });
  element.addEventListener("dragleave", () => element.classList.remove("target"));
  element.addEventListener("drop", (event) => {
    element.classList.remove("target");
    const moved = event.dataTransfer.getData("application/x-muybridge");
    if (!moved) return;
    event.preventDefault();
    event.stopPropagation();
    if (moved !== id()) move(moved, id());
  });
}

/** Rows stay the elements they are as long as their video is of the same kind, so that focus and drags survive. */
function fill(list, all, make, kind) {
  const wanted = all.map((job) => {
    let row = rows.get(job.id);
    if (!row || row.kind !== kind) rows.set(job.id, (row = make(job)));
    row.update(job);
    return row.element;
  });
  keepingFocus(list, () => {
    for (const each of [...list.children]) if (!wanted.includes(each)) each.remove();
    wanted.forEach((element, index) => list.children[index] !== element && list.insertBefore(element, list.children[index] ?? null));
  });
}

function show() {
  const now = running();
  const waiting = queued().slice(0, SHOWN);
  fill($("#running"), now, runningRow, "running");
  fill($("#queued"), waiting, queuedRow, "queued");
  $("#queue-section").hidden = now.length + waiting.length === 0;
  const count = countWaiting();
  $("#queue-said").textContent = count > waiting.length ? t("queue.waiting.some", { count: number(count, 0), shown: waiting.length }) : count ? t("queue.waiting", { count }) : "";
  for (const id of rows.keys()) if (!now.some((job) => job.id === id) && !waiting.some((job) => job.id === id)) rows.delete(id);
}

export function showQueue() {
  whenJobsChange(show);
}
