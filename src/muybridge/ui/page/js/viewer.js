// One video, large, with what it was made from and what can be done with it.

import * as api from "./api.js";
import { modelFacts } from "./catalog.js";
import { $, h, icon, iconButton, openDialog, toast } from "./dom.js";
import { useRequest } from "./draft.js";
import { attempt } from "./errors.js";
import { segmentsOf } from "./form.js";
import { duration, memory, moment, number, t } from "./i18n.js";
import { forget, jobs, learn } from "./jobs.js";

/** Settings as lines of a name and a value, those that are records taken apart. */
export function settingLines(value, path = "") {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return [[path, value.join(", ")]];
  if (typeof value !== "object") return [[path, typeof value === "number" ? number(value, 4) : String(value)]];
  return Object.entries(value).flatMap(([name, each]) => settingLines(each, path ? `${path}.${name}` : name));
}

const nameOf = (path) => t(`field.${path}`, {}, path.split(".").at(-1).replaceAll("_", " "));

function factsOf(job) {
  const lines = [
    [t("model"), job.model],
    [t("size"), `${job.width} × ${job.height}`],
    [t("frames"), `${t("meta.frames", { frames: job.num_frames })} · ${duration(job.num_frames / job.fps)}`],
    [t("seed"), job.seed],
    [t("facts.created"), moment(job.created_at)],
  ];
  if (job.inference_time_s) lines.push([t("facts.took"), duration(job.inference_time_s)]);
  if (job.cost) lines.push([t("facts.needs"), memory(job.cost.peak_bytes)]);
  if (job.peak_memory_mb) lines.push([t("facts.memory"), memory(job.peak_memory_mb * 2 ** 20)]);
  const shown = new Set(["prompt", "model.model", "shape.width", "shape.height", "shape.num_frames", "sampling.seed"]);
  const { conditions, ...settings } = job.request ?? {};
  for (const [path, value] of settingLines(settings)) if (!shown.has(path)) lines.push([nameOf(path), value]);
  for (const each of conditions ?? []) lines.push([t("facts.with"), t(`field.conditions.${each.kind}`, {}, each.kind)]);
  return h("dl", { class: "facts" }, lines.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value ?? ""))]));
}

function downloads(job) {
  const link = (variant) => h("a", { href: api.contentUrl(job.id, variant), download: `${job.id}.${variant === "video" ? "mp4" : variant}` }, icon("save"), variant === "video" ? "mp4" : variant);
  return ["video", "gif", "webp"].filter((variant) => job.variants.includes(variant)).map(link);
}

function use(job, dialog) {
  useRequest({ ...job.request, sampling: { ...job.request.sampling, seed: job.seed ?? job.request.sampling?.seed } });
  dialog.close();
  $("#prompt").focus();
  toast(t("used"));
}

/** The segments of a long video, each of which can be made anew. */
function segmentsPart(job, video, dialog) {
  const count = job.segments ?? segmentsOf(job.request ?? {}, modelFacts(job.model));
  if (count < 2) return null;
  const chosen = new Set();
  const go = async (following) => {
    const made = await attempt(async () => (learn([await api.redo(job.id, [...chosen].sort((a, b) => a - b), following)]), true));
    if (made) {
      dialog.close();
      toast(t("sent"));
    }
  };
  const redo = h("button", { type: "button", disabled: true, onclick: () => go(false) }, icon("again"), t("segments.redo"));
  const on = h("button", { type: "button", disabled: true, onclick: () => go(true) }, t("segments.following"));
  const buttons = Array.from({ length: count }, (_, index) => {
    const button = h("button", { type: "button", "aria-pressed": "false", "aria-label": t("segments.one", { number: index + 1 }) }, String(index + 1));
    button.addEventListener("click", () => {
      if (!chosen.delete(index)) chosen.add(index);
      button.setAttribute("aria-pressed", chosen.has(index));
      redo.disabled = on.disabled = chosen.size === 0;
      video.currentTime = (video.duration * index) / count;
    });
    return button;
  });
  return h("section", { "aria-label": t("segments") }, h("div", { class: "segments" }, buttons), h("p", { class: "hint" }, t("segments.hint")), h("div", { class: "actions" }, redo, on));
}

function actionsOf(job, dialog) {
  const drop = async () => {
    if (!(await attempt(() => api.remove(job.id)))) return;
    dialog.close();
    forget(job.id);
    toast(t("deleted"));
  };
  return h(
    "div",
    { class: "actions" },
    h("button", { type: "button", class: "primary", onclick: () => use(job, dialog) }, t("use")),
    downloads(job),
    h("button", { type: "button", class: "quiet", onclick: drop }, icon("bin"), t("delete")),
  );
}

/** Show a video; `among` are those that the arrows lead to. */
export function openViewer(id, among = []) {
  const dialog = $("#viewer");
  const job = jobs.get(id);
  if (!job) return;
  const list = among.filter((each) => each.status === "completed").map((each) => each.id);
  const at = list.indexOf(id);
  const step = (by) => list[at + by] && openViewer(list[at + by], among);
  const video = h("video", { src: api.contentUrl(id, "video"), controls: true, loop: true, playsinline: true, class: job.width <= 128 ? "tiny" : null });
  video.muted = true;
  video.autoplay = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  dialog.replaceChildren(
    h(
      "div",
      { class: "dialog-head" },
      h("h2", { id: "viewer-title" }, job.prompt || t("no-prompt")),
      iconButton("back", t("viewer.previous"), () => step(-1), { disabled: at <= 0 }),
      iconButton("forward", t("viewer.next"), () => step(1), { disabled: at < 0 || at >= list.length - 1 }),
      iconButton("close", t("close"), () => dialog.close()),
    ),
    h("div", { class: "viewer-body" }, h("div", {}, video, segmentsPart(job, video, dialog)), h("div", {}, actionsOf(job, dialog), factsOf(job))),
  );
  dialog.onkeydown = (event) => {
    if (event.target.closest("input, video, .segments")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  };
  dialog.onclose = () => video.pause();
  openDialog(dialog);
}
