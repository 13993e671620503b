// Keyframes on a line of frames: dragged, moved by arrow keys, added by a click where there is none.

import { uploadUrl } from "./api.js";
import { $, h } from "./dom.js";
import { condition, whenChanged } from "./draft.js";
import { t } from "./i18n.js";
import { pin, sent } from "./slots.js";
import { pickFiles, PICTURES } from "./upload.js";
import { attempt } from "./errors.js";

let framesNow = () => 16;
const pictures = () => condition("keyframes")?.pictures ?? {};

/** The frame that a key stands for; negative ones count from the end. */
const frameOf = (key) => (Number(key) < 0 ? framesNow() + Number(key) : Number(key));

function move(key, frame) {
  const target = String(Math.max(0, Math.min(framesNow() - 1, frame)));
  const id = pictures()[key];
  if (target === key || id === undefined || Object.keys(pictures()).some((other) => other !== key && frameOf(other) === Number(target))) return key;
  pin(key, null);
  pin(target, id);
  return target;
}

function handle(key, id) {
  const frame = frameOf(key);
  const last = Math.max(1, framesNow() - 1);
  const button = h(
    "button",
    {
      type: "button",
      class: "handle",
      role: "slider",
      "aria-label": t("timeline.picture"),
      "aria-valuemin": 0,
      "aria-valuemax": framesNow() - 1,
      "aria-valuenow": frame,
      "aria-valuetext": t("timeline.at", { frame }),
      title: t("timeline.at", { frame }),
      "data-frame": key,
    },
    h("img", { src: uploadUrl(id), alt: "" }),
  );
  button.style.left = `${(100 * Math.min(frame, last)) / last}%`;
  button.addEventListener("keydown", (event) => onKey(event, key, frame));
  button.addEventListener("pointerdown", (event) => drag(event, key));
  return button;
}

function onKey(event, key, frame) {
  const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -8, PageUp: 8 }[event.key];
  if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    pin(key, null);
  } else if (step) {
    event.preventDefault();
    const now = move(key, frame + step);
    $(`#timeline [data-frame="${now}"]`)?.focus();
  } else if (event.key === "Home" || event.key === "End") {
    event.preventDefault();
    const now = move(key, event.key === "Home" ? 0 : framesNow() - 1);
    $(`#timeline [data-frame="${now}"]`)?.focus();
  }
}

function drag(event, key) {
  event.preventDefault();
  let now = key;
  // Every move draws the line anew, so it is looked up each time.
  const onMove = (moved) => (now = move(now, frameAt($("#timeline .track"), moved.clientX)));
  const onEnd = () => {
    for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
    $(`#timeline [data-frame="${now}"]`)?.focus();
  };
  const listeners = { pointermove: onMove, pointerup: onEnd, pointercancel: onEnd };
  for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
}

function frameAt(track, x) {
  const { left, width } = track.getBoundingClientRect();
  return Math.round(Math.max(0, Math.min(1, (x - left) / width)) * (framesNow() - 1));
}

async function addAt(event, track) {
  if (event.target.closest(".handle")) return;
  const frame = frameAt(track, event.clientX);
  const [file] = await pickFiles(PICTURES);
  if (file) await attempt(async () => pin(String(frame), await sent(file, "picture")));
}

function show() {
  const entries = Object.entries(pictures());
  const place = $("#timeline");
  place.hidden = entries.length === 0;
  if (place.hidden) return;
  const last = Math.max(1, framesNow() - 1);
  const ticks = h("div", { class: "ticks", "aria-hidden": "true" });
  const every = Math.ceil(framesNow() / 48);
  for (let frame = 0; frame < framesNow(); frame += every) {
    const tick = h("i");
    tick.style.left = `${(100 * frame) / last}%`;
    ticks.append(tick);
  }
  const track = h("div", { class: "track", role: "group", "aria-label": t("timeline") }, ticks, entries.map(([key, id]) => handle(key, id)));
  track.addEventListener("click", (event) => addAt(event, track));
  place.replaceChildren(
    track,
    h("div", { class: "track-scale" }, h("span", {}, t("timeline.first")), h("span", {}, t("timeline.hint")), h("span", {}, t("timeline.last", { frame: framesNow() - 1 }))),
  );
}

/** Show the line; `frames` says how long the video is. */
export function showTimeline(frames) {
  framesNow = frames;
  whenChanged(show);
}

