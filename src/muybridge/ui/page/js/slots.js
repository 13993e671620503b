// Places for pictures: the first frame, the last, any between, and a video to start from.

import { modelFacts, usedModel } from "./catalog.js";
import { $, h, icon, iconButton, toast } from "./dom.js";
import { condition, draft, read, setCondition, touch, whenChanged } from "./draft.js";
import { showAtField } from "./errors.js";
import { Refusal, uploadUrl } from "./api.js";
import { t } from "./i18n.js";
import { openMask } from "./mask.js";
import { pickFiles, PICTURES, send, VIDEOS } from "./upload.js";

const pictures = () => condition("keyframes")?.pictures ?? {};

/** Pin a picture to a frame, or take it away with null; what else is said of keyframes stays. */
export function pin(frame, id) {
  const { kind, pictures: now = {}, ...rest } = condition("keyframes") ?? {};
  const next = { ...now };
  if (id === null) delete next[frame];
  else next[frame] = id;
  setCondition("keyframes", Object.keys(next).length ? { ...rest, pictures: next } : null);
}

/** The id of a file that is sent, or was; one of another kind than the place is for is refused. */
export async function sent(file, kind) {
  const id = typeof file === "string" ? file : await send(file);
  if (draft.uploads[id].kind !== kind) throw new Refusal(400, { message: t(`slot.no-${kind}`), code: "input_unreadable" });
  return id;
}

/** Take pictures to start from: the first into the draft, the others each for a video of its own. */
export async function takeStarts(files) {
  await taking("start", async () => {
    const ids = [];
    for (const file of files) ids.push(await sent(file, "picture"));
    if (ids.length > 1) draft.starts = ids.slice(1);
    if (ids.length) pin("0", ids[0]);
  });
}

export async function takeEnd(files) {
  await taking("end", async () => pin("-1", await sent(files[0], "picture")));
}

/** Take a video to start from; gives whether it could be. */
export async function takeSource(files) {
  return taking("video", async () => {
    const id = await sent(files[0], "video");
    setCondition("mask", null);
    setCondition("source", { video: id });
  });
}

async function taking(name, action) {
  if (!SLOTS[name].isOf()) {
    toast(whyNoPictures(), "error");
    return false;
  }
  const slot = $(`#slot-${name}`);
  slot?.classList.add("busy");
  try {
    await action();
    return true;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showAtField(Object.assign(error, { param: name === "video" ? "init_video" : "keyframes" }));
    return false;
  } finally {
    slot?.classList.remove("busy");
  }
}

/** Whether the model makes anything of pictures; one that nothing is known of yet may. */
function takesPictures() {
  const { takes, networks = [] } = modelFacts(usedModel(draft.document));
  if (!takes || takes.includes("picture channels") || networks.includes("keyframes")) return true;
  return takes.includes("keyframes") && Boolean(read("model.networks.keyframes"));
}

const SLOTS = {
  start: { accept: PICTURES, multiple: true, take: takeStarts, id: () => pictures()["0"], drop: dropStart, isOf: takesPictures },
  end: { accept: PICTURES, take: takeEnd, id: () => pictures()["-1"], drop: () => pin("-1", null), isOf: takesPictures },
  frame: { accept: PICTURES, take: (files) => takeBetween(files[0]), id: () => null, isOf: takesPictures },
  video: { accept: VIDEOS, take: takeSource, id: () => condition("source")?.video, drop: dropSource, sign: "video", isOf: () => true },
};

/** Of several the next one comes in its place. */
function dropStart() {
  const [next = null, ...rest] = draft.starts;
  draft.starts = rest;
  pin("0", next);
}

function dropSource() {
  setCondition("mask", null);
  setCondition("source", null);
}

/** Into the largest gap between pictures that are there. */
async function takeBetween(file, length = Number($("#frames").value || $("#frames").placeholder) || 16) {
  await taking("frame", async () => {
    const id = await sent(file, "picture");
    const taken = Object.keys(pictures()).map(Number).map((frame) => (frame < 0 ? length + frame : frame));
    const ends = [...new Set([0, length - 1, ...taken])].sort((a, b) => a - b);
    const gaps = ends.slice(1).map((end, index) => ({ size: end - ends[index], middle: Math.round((end + ends[index]) / 2) }));
    const { middle } = gaps.reduce((best, gap) => (gap.size > best.size ? gap : best), { size: 0, middle: 0 });
    pin(String(middle), id);
  });
}

function slotOf(name) {
  const { accept, multiple, take, id, drop, sign, isOf } = SLOTS[name];
  const add = h("button", {
    type: "button",
    class: "add",
    onclick: async () => {
      const files = await pickFiles(accept, multiple);
      if (files.length) await take(files);
    },
  });
  const slot = h("div", { class: "slot", id: `slot-${name}` }, add);
  slot.addEventListener("dragover", (event) => {
    event.preventDefault();
    slot.classList.add("over");
  });
  slot.addEventListener("dragleave", () => slot.classList.remove("over"));
  slot.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    slot.classList.remove("over");
    $("#drop-veil").hidden = true;
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
  let shown;
  whenChanged(() => {
    const now = id() ?? null;
    add.disabled = now === null && !isOf();
    if (shown === now) return;
    shown = now;
    slot.classList.toggle("filled", now !== null);
    for (const each of [...slot.children].slice(1)) each.remove();
    const label = t(`slot.${name}`);
    if (now === null) {
      add.replaceChildren(icon(name === "frame" ? "plus" : sign ?? "picture"), label);
      add.removeAttribute("aria-label");
      return;
    }
    add.setAttribute("aria-label", t("slot.replace", { name: label }));
    add.replaceChildren(h("img", { src: uploadUrl(now), alt: "" }));
    slot.append(h("span", { class: "slot-name", "aria-hidden": "true" }, label), iconButton("close", t("slot.remove", { name: label }), () => {
      drop();
      add.focus();
    }));
  });
  return slot;
}

function whyNoPictures() {
  const { takes = [] } = modelFacts(usedModel(draft.document));
  return t(takes.includes("keyframes") ? "pictures.network" : "pictures.none");
}

function showNone() {
  const place = $("#no-pictures");
  place.hidden = takesPictures();
  place.textContent = whyNoPictures();
}

function showBatch() {
  const place = $("#batch");
  place.hidden = draft.starts.length === 0;
  if (place.hidden) return;
  const drop = (id) => {
    draft.starts = draft.starts.filter((each) => each !== id);
    touch();
  };
  place.replaceChildren(
    h("p", { class: "said" }, t("batch", { count: draft.starts.length + 1 })),
    h("div", { class: "thumbs" }, draft.starts.map((id) => h("div", { class: "thumb" }, h("img", { src: uploadUrl(id), alt: "" }), iconButton("close", t("batch.remove"), () => drop(id))))),
  );
}

let sourceShown;
function showSource() {
  const source = condition("source");
  const mask = condition("mask");
  const facts = draft.uploads[source?.video];
  const key = JSON.stringify([source?.video, mask?.mask, facts]);
  $("#source").hidden = !source;
  if (key === sourceShown || !source) return;
  sourceShown = key;
  const output = h("output", { class: "said value" });
  const slider = h("input", { type: "range", id: "source-strength", min: 0.05, max: 1, step: 0.05, ".value": source.strength ?? 0.8 });
  const said = () => (output.textContent = condition("source")?.strength ?? t("default"));
  slider.addEventListener("input", () => {
    const { kind, ...rest } = condition("source");
    setCondition("source", { ...rest, strength: Number(slider.value) });
    said();
  });
  said();
  $("#source").replaceChildren(
    ...(facts ? [h("p", { class: "said" }, t("source.facts", facts))] : []),
    h("div", { class: "field" }, h("label", { for: "source-strength" }, t("source.strength")), h("div", { class: "row" }, slider, output)),
    h(
      "div",
      { class: "row", "data-path": "conditions.mask" },
      h("button", { type: "button", id: "paint", onclick: () => openMask(source.video, facts) }, icon("brush"), t(mask ? "mask.again" : "mask.paint")),
      mask ? h("button", { type: "button", class: "quiet", onclick: () => setCondition("mask", null) }, t("mask.remove")) : null,
    ),
  );
}

export function showSlots() {
  $("#slots").append(...Object.keys(SLOTS).map(slotOf));
  whenChanged(showNone);
  whenChanged(showBatch);
  whenChanged(showSource);
}
