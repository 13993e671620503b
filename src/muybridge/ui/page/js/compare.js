// Two videos side by side, frame by frame in step, and what is different between their settings.

import * as api from "./api.js";
import { $, h, icon, iconButton, openDialog } from "./dom.js";
import { t } from "./i18n.js";
import { settingLines } from "./viewer.js";

function player(job) {
  const video = h("video", { src: api.contentUrl(job.id, "video"), playsinline: true, preload: "auto", class: job.width <= 128 ? "tiny" : null, "aria-label": job.prompt ?? "" });
  video.muted = true;
  return video;
}

/** Frames lie between two moments; the middle of one is where every browser shows it. */
const middle = (frame, job) => (frame + 0.5) / job.fps;

class Pair {
  constructor(left, right) {
    this.jobs = [left, right];
    this.videos = [player(left), player(right)];
    this.frames = Math.max(left.num_frames, right.num_frames);
    this.slider = h("input", { type: "range", min: 0, max: this.frames - 1, step: 1, ".value": 0, "aria-label": t("compare.frame"), oninput: () => this.seek(Number(this.slider.value)) });
    this.said = h("output", { class: "said value" });
    this.button = iconButton("pause", t("compare.play"), () => this.toggle());
    const [first, second] = this.videos;
    first.addEventListener("ended", () => this.#again());
    for (const video of this.videos) video.addEventListener("loadeddata", () => this.#begin(), { once: true });
    first.requestVideoFrameCallback?.((_, data) => this.#keep(data));
    this.waiting = 2;
    this.second = second;
  }

  #begin() {
    this.waiting -= 1;
    if (this.waiting === 0 && !matchMedia("(prefers-reduced-motion: reduce)").matches) this.play();
    this.say();
  }

  /** The second follows the first; it is only moved when it is more than half a frame off. */
  #keep({ mediaTime }) {
    const [first, second] = this.videos;
    if (!first.paused && second.duration && mediaTime < second.duration && Math.abs(second.currentTime - mediaTime) > 0.5 / this.jobs[1].fps) second.currentTime = mediaTime;
    if (!first.paused && first.ended === false && second.paused && mediaTime < second.duration) second.play().catch(() => undefined);
    this.#show(Math.floor(mediaTime * this.jobs[0].fps + 0.001));
    first.requestVideoFrameCallback((_, data) => this.#keep(data));
  }

  #again() {
    for (const video of this.videos) video.currentTime = 0;
    this.play();
  }

  #show(frame) {
    this.slider.value = frame;
    this.said.textContent = `${frame + 1} / ${this.frames}`;
  }

  get isPlaying() {
    return !this.videos[0].paused;
  }

  play() {
    for (const video of this.videos) video.play().catch(() => undefined);
    this.say();
  }

  pause() {
    for (const video of this.videos) video.pause();
    this.say();
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  say() {
    this.button.replaceChildren(icon(this.isPlaying ? "pause" : "play"));
  }

  /** Both at one frame; the shorter one stays at its last. */
  seek(frame) {
    this.pause();
    const wanted = Math.max(0, Math.min(this.frames - 1, frame));
    this.videos.forEach((video, index) => (video.currentTime = middle(Math.min(wanted, this.jobs[index].num_frames - 1), this.jobs[index])));
    this.#show(wanted);
  }

  step(by) {
    this.seek(Number(this.slider.value) + by);
  }
}

function differences(left, right) {
  const [one, two] = [left, right].map((job) => new Map([...settingLines(job.request ?? {}), ["sampling.seed", String(job.seed)], ["model.model", job.model]]));
  const paths = [...new Set([...one.keys(), ...two.keys()])].filter((path) => one.get(path) !== two.get(path) && !path.startsWith("conditions"));
  if (!paths.length) return h("p", { class: "hint" }, t("compare.same"));
  const row = (path) => h("tr", {}, h("th", { scope: "row" }, t(`field.${path}`, {}, path.split(".").at(-1).replaceAll("_", " "))), [one, two].map((values) => h("td", {}, values.get(path) ?? "–")));
  return h("table", {}, h("tbody", {}, paths.map(row)));
}

export function openCompare(left, right) {
  const dialog = $("#compare");
  const pair = new Pair(left, right);
  const side = (index) => h("figure", {}, pair.videos[index], h("figcaption", {}, pair.jobs[index].prompt || t("no-prompt")));
  dialog.replaceChildren(
    h("div", { class: "dialog-head" }, h("h2", { id: "compare-title" }, t("compare.title")), iconButton("close", t("close"), () => dialog.close())),
    h("div", { class: "sides" }, side(0), side(1)),
    h("div", { class: "row" }, pair.button, iconButton("back", t("compare.back"), () => pair.step(-1)), iconButton("forward", t("compare.forward"), () => pair.step(1)), pair.slider, pair.said),
    h("div", { class: "differences" }, differences(left, right)),
  );
  dialog.onclose = () => pair.pause();
  openDialog(dialog);
}
