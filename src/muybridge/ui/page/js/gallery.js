// Videos that are made: a grid that plays, with filters, and two of them picked to be compared.

import * as api from "./api.js";
import { catalog } from "./catalog.js";
import { openCompare } from "./compare.js";
import { $, $$, h, iconButton, toast } from "./dom.js";
import { useRequest } from "./draft.js";
import { attempt } from "./errors.js";
import { t } from "./i18n.js";
import { fetchPage, finished, forget, jobs, learn, modelsSeen, whenFinished, whenJobsChange } from "./jobs.js";
import { openViewer } from "./viewer.js";

const cards = new Map();
const picked = new Set();
const filters = { q: "", model: "", status: "" };
const STEP = 40;
const KEPT = "muybridge.autoplay";
const stillness = matchMedia("(prefers-reduced-motion: reduce)");
let next = null;
let most = STEP;

export const sizeOf = (job) => (job.width ? `${job.width} × ${job.height}` : "");
const isPlaying = () => $("#autoplay").checked;

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.visible = isIntersecting;
    if (isIntersecting && isPlaying()) play(target);
    else target.pause();
  }
});

function play(video) {
  video.preload = "auto";
  video.play().catch(() => undefined); // a browser that does not want to is not a failure
}

function pick(job, isPicked) {
  if (isPicked) picked.add(job.id);
  else picked.delete(job.id);
  while (picked.size > 2) picked.delete([...picked][0]);
  showPicked();
}

function showPicked() {
  for (const [id, card] of cards) {
    const box = $(".pick input", card);
    if (box) box.checked = picked.has(id);
  }
  $("#gallery").classList.toggle("picking", picked.size > 0);
  $("#compare-bar").hidden = picked.size === 0;
  $("#compare-said").textContent = t(picked.size === 2 ? "compare.two" : "compare.one");
  $("#compare-open").disabled = picked.size !== 2;
}

function movingPicture(job) {
  const video = h("video", { muted: true, loop: true, playsinline: true, preload: "none", poster: api.contentUrl(job.id, "thumbnail"), class: job.width <= 128 ? "tiny" : null, "aria-hidden": "true", tabindex: "-1" });
  video.muted = true;
  video.src = api.contentUrl(job.id, "video");
  watcher.observe(video);
  return video;
}

function completedCard(job) {
  const video = movingPicture(job);
  const open = h("button", { type: "button", class: "open", "aria-label": t("gallery.open", { prompt: job.prompt || t("no-prompt") }), onclick: () => openViewer(job.id, shown()) }, video);
  open.addEventListener("mouseenter", () => play(video));
  open.addEventListener("focus", () => stillness.matches || play(video));
  for (const name of ["mouseleave", "blur"]) open.addEventListener(name, () => isPlaying() || video.pause());
  const box = h("input", { type: "checkbox", onchange: (event) => pick(job, event.target.checked) });
  const meta = [sizeOf(job), job.num_frames && t("meta.frames", { frames: job.num_frames }), job.seed !== null && t("seed.is", { seed: job.seed })];
  return h(
    "li",
    { class: "card", "data-id": job.id },
    open,
    h("label", { class: "pick check" }, box, t("compare")),
    h("div", { class: "about" }, h("p", { class: "prompt" }, job.prompt || t("no-prompt")), h("p", { class: "said" }, meta.filter(Boolean).join(" · "))),
  );
}

function failedCard(job) {
  const isCancelled = job.error?.code === "cancelled";
  const again = () => attempt(async () => learn([await api.create(job.request)]));
  const edit = () => {
    useRequest(job.request);
    $("#prompt").focus();
    toast(t("used"));
  };
  const drop = () =>
    attempt(async () => {
      await api.remove(job.id);
      forget(job.id);
    });
  return h(
    "li",
    { class: `card failed${isCancelled ? " cancelled" : ""}`, "data-id": job.id },
    h("div", { class: "open" }, h("p", { class: "why" }, isCancelled ? t("failed.cancelled") : job.error?.message ?? t("error.unknown"))),
    h(
      "div",
      { class: "about" },
      h("p", { class: "prompt" }, job.prompt || t("no-prompt")),
      h("p", { class: "said" }, job.model),
      h("div", { class: "buttons" }, iconButton("again", t("failed.again"), again), iconButton("edit", t("use"), edit), iconButton("bin", t("delete"), drop)),
    ),
  );
}

const shown = () => finished(filters).slice(0, most);

function show() {
  const all = shown();
  const wanted = all.map((job) => {
    const key = `${job.status}`;
    let card = cards.get(job.id);
    if (!card || card.dataset.key !== key) {
      card = job.status === "completed" ? completedCard(job) : failedCard(job);
      card.dataset.key = key;
      cards.set(job.id, card);
    }
    return card;
  });
  const list = $("#gallery");
  for (const each of [...list.children]) {
    if (wanted.includes(each)) continue;
    const video = $("video", each);
    if (video) watcher.unobserve(video);
    each.remove();
    cards.delete(each.dataset.id);
  }
  wanted.forEach((card, index) => list.children[index] !== card && list.insertBefore(card, list.children[index] ?? null));
  for (const id of picked) if (!jobs.has(id)) picked.delete(id);
  showAspect(all);
  showEmpty(all.length === 0);
  $("#more").hidden = next === null && finished(filters).length <= most;
  showModels();
  showPicked();
}

/** All cards have one shape, that of most videos, so that rows are even. */
function showAspect(all) {
  const shapes = new Map();
  for (const { width, height } of all.filter((job) => job.status === "completed" && job.width)) {
    const shape = Math.max(0.7, Math.min(1.8, width / height));
    shapes.set(shape, (shapes.get(shape) ?? 0) + 1);
  }
  const [shape] = [...shapes].sort((a, b) => b[1] - a[1])[0] ?? [4 / 3];
  $("#gallery").style.setProperty("--card-aspect", shape);
}

function showEmpty(isEmpty) {
  const place = $("#empty");
  place.hidden = !isEmpty;
  if (!isEmpty) return;
  const isFiltered = Object.values(filters).some(Boolean);
  place.replaceChildren(h("img", { src: "mark.svg", alt: "", width: 72, height: 72 }), h("p", {}, t(isFiltered ? "gallery.no-match" : "gallery.empty")));
}

let modelsShown;
function showModels() {
  const names = [...new Set([...catalog.models.map(({ id }) => id), ...modelsSeen()])];
  if (names.join("\n") === modelsShown) return;
  modelsShown = names.join("\n");
  $("#filter-model").replaceChildren(h("option", { value: "" }, t("filter.every-model")), ...names.map((name) => h("option", { value: name, ".selected": name === filters.model }, name)));
}

let waiting;
function filter(name, value) {
  filters[name] = value;
  most = STEP;
  show();
  clearTimeout(waiting);
  waiting = setTimeout(() => attempt(async () => ((next = await fetchPage(filters)), show())), 250);
}

export async function showGallery() {
  $("#filter-text").addEventListener("input", (event) => filter("q", event.target.value));
  $("#filter-model").addEventListener("change", (event) => filter("model", event.target.value));
  $("#filter-status").addEventListener("change", (event) => filter("status", event.target.value));
  const autoplay = $("#autoplay");
  autoplay.checked = (localStorage.getItem(KEPT) ?? (stillness.matches ? "no" : "yes")) === "yes";
  autoplay.addEventListener("change", () => {
    localStorage.setItem(KEPT, autoplay.checked ? "yes" : "no");
    for (const video of $$("#gallery video")) autoplay.checked && video.dataset.visible === "true" ? play(video) : video.pause();
  });
  $("#more").addEventListener("click", async () => {
    most += STEP;
    if (next !== null) await attempt(async () => (next = await fetchPage(filters, next)));
    show();
  });
  $("#compare-clear").addEventListener("click", () => (picked.clear(), showPicked()));
  $("#compare-open").addEventListener("click", () => openCompare(...[...picked].map((id) => jobs.get(id))));
  whenJobsChange(show);
  whenFinished((job) => {
    if (job.status === "completed") toast(t("finished", { prompt: job.prompt || t("no-prompt") }));
    else if (job.error?.code !== "cancelled") toast(job.error?.message ?? t("error.unknown"), "error");
  });
  next = await attempt(() => fetchPage(filters)) ?? null;
  show();
}

