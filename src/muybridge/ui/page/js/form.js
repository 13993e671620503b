// The everyday settings of a video, and sending them.

import * as api from "./api.js";
import { catalog, modelFacts, usedModel } from "./catalog.js";
import { $, h, icon, toast } from "./dom.js";
import { clear, condition, draft, randomSeed, read, requests, touch, whenChanged, write } from "./draft.js";
import { clearErrors, showAtField } from "./errors.js";
import { bind, bindNumber, follow } from "./fields.js";
import { duration, number, t } from "./i18n.js";
import { learn } from "./jobs.js";
import { showLoras } from "./loras.js";
import { showTravel } from "./travel.js";

const facts = () => modelFacts(usedModel(draft.document));
const sourceFrames = () => draft.uploads[condition("source")?.video]?.num_frames;

/** Frames of the video that the draft stands for. */
export const framesOfDraft = () => Number(read("shape.num_frames")) || sourceFrames() || facts().num_frames;

const SCHEDULERS = ["ddim", "dpm++2m", "dpm++2m-karras", "euler", "euler-a", "euler-trailing", "lcm", "pndm", "unipc"];
const TOY = ["left", "heart", "grow"];

function showPrompt() {
  const prompt = $("#prompt");
  const first = (value) => (typeof value === "object" ? value["0"] ?? "" : value);
  const change = () => {
    const now = read("prompt");
    if (typeof now === "object" && now !== null) write("prompt", { ...now, 0: prompt.value });
    else write("prompt", prompt.value === "" ? undefined : prompt.value);
  };
  follow(prompt, () => (prompt.value = first(read("prompt") ?? "")), change);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("#composer").requestSubmit();
  });
  whenChanged(() => {
    const isToy = usedModel(draft.document).startsWith("demo/");
    const show = isToy && !prompt.value;
    if (show === ($("#examples").childElementCount > 0)) return;
    $("#examples").replaceChildren(...(show ? TOY.map(example) : []));
  });
}

const example = (name) => {
  const text = t(`example.${name}`);
  return h("button", { type: "button", class: "chip", onclick: () => write("prompt", text) }, text);
};

function showModels() {
  const model = $("#model");
  bind(model, "model.model");
  const options = () => {
    const name = read("model.model");
    const names = catalog.models.map((each) => each.id);
    if (name && !names.includes(name)) names.push(name); // of a file from elsewhere: the service says whether it has it
    return names.map((each) => h("option", { value: each }, each));
  };
  let shown = "";
  whenChanged(() => {
    const made = options();
    const key = made.map((each) => each.value).join("\n");
    if (key !== shown) model.replaceChildren(...made);
    shown = key;
    model.value = usedModel(draft.document);
  });
}

function showAdapters() {
  const select = $("#adapter");
  select.append(h("option", { value: "" }, t("adapter.own")), ...catalog.motion_adapters.map(({ id }) => h("option", { value: id }, id)));
  bind(select, "model.motion_adapter");
}

function showLength() {
  const slider = $("#frames-slider");
  const usual = () => sourceFrames() ?? facts().num_frames;
  const atOnce = () => facts().frames_at_once ?? facts().num_frames;
  bindNumber($("#frames"), "shape.num_frames", usual);
  bindNumber(slider, "shape.num_frames", usual);
  whenChanged(() => {
    const multiple = facts().frame_multiple;
    slider.step = multiple;
    slider.min = multiple;
    slider.max = Math.max(read("segments") ? atOnce() * 10 : atOnce() * 4, 64, framesOfDraft());
    slider.value = framesOfDraft();
    const fps = Number(read("shape.fps")) || facts().fps;
    $("#length-said").textContent = duration(framesOfDraft() / fps);
  });
  bindNumber($("#fps"), "shape.fps", () => facts().fps);
}

function showSampling() {
  $("#scheduler").append(h("option", { value: "" }, t("scheduler.own")), ...SCHEDULERS.map((name) => h("option", { value: name }, name)));
  bind($("#scheduler"), "sampling.scheduler");
  bindNumber($("#steps"), "sampling.num_inference_steps", () => facts().steps);
  bindNumber($("#steps-slider"), "sampling.num_inference_steps", () => facts().steps);
  bindNumber($("#guidance"), "sampling.guidance_scale", () => facts().guidance);
  bindNumber($("#guidance-slider"), "sampling.guidance_scale", () => facts().guidance);
  bind($("#negative"), "negative_prompt");
  bindNumber($("#strength"), "motion.strength", () => 1);
  whenChanged(() => {
    const strength = read("motion.strength") ?? 1;
    $("output[for=strength]").textContent = typeof strength === "number" ? number(strength, 2) : t("strength.by-frame");
  });
  const copies = $("#copies");
  const change = () => {
    draft.copies = Math.max(1, Math.min(16, Math.round(Number(copies.value)) || 1));
    touch();
  };
  follow(copies, () => (copies.value = draft.copies), change);
}

function showSeed() {
  const lock = $("#lock");
  bindNumber($("#seed"), "sampling.seed", () => t("seed.random"));
  $("#seed").addEventListener("input", () => setLocked($("#seed").value !== ""));
  $("#dice").append(icon("dice"));
  $("#dice").addEventListener("click", () => {
    write("sampling.seed", randomSeed());
    setLocked(true);
  });
  lock.addEventListener("click", () => setLocked(!draft.seedLocked));
  whenChanged(() => {
    lock.setAttribute("aria-pressed", draft.seedLocked);
    lock.replaceChildren(icon(draft.seedLocked ? "locked" : "unlocked"));
  });
}

function setLocked(isLocked) {
  draft.seedLocked = isLocked;
  touch();
}

function showLong() {
  const long = $("#long");
  long.addEventListener("change", () => write("segments", long.checked ? {} : undefined));
  bindNumber($("#segment-frames"), "segments.frames", () => facts().frames_at_once ?? facts().num_frames);
  bindNumber($("#overlap"), "segments.overlap", () => 4);
  bind($("#strategy"), "segments.strategy");
  whenChanged(() => {
    long.checked = read("segments") !== undefined;
    $("#long-fields").hidden = $("#segments-said").hidden = !long.checked;
    $("#segments-said").textContent = t("long.count", { count: segmentsOf(draft.document, facts()) });
  });
}

/** How many segments a request is made in. */
export function segmentsOf(document, known) {
  const size = Number(document.segments?.frames) || known.frames_at_once || known.num_frames;
  const overlap = Number(document.segments?.overlap) || 4;
  const frames = Number(document.shape?.num_frames) || known.num_frames;
  return frames <= size || size <= overlap ? 1 : 1 + Math.ceil((frames - size) / (size - overlap));
}

/** What is set inside a fold that is closed, in a few words. */
function showSummaries() {
  const said = (fold, words) => ($(`#${fold} .summary-said`).textContent = words.filter(Boolean).join(" · "));
  whenChanged(() => {
    const { model = {}, sampling = {}, motion = {}, segments } = draft.document;
    const count = Object.keys(model.loras ?? {}).length;
    said("fold-style", [model.motion_adapter, count && t("loras.count", { count }), motion.strength !== undefined && motion.strength !== 1 && t("strength.is", { strength: motion.strength })]);
    said("fold-sampling", [t("steps.is", { steps: sampling.num_inference_steps ?? facts().steps }), draft.seedLocked && sampling.seed !== undefined && t("seed.is", { seed: sampling.seed })]);
    said("fold-long", [segments && t("long.count", { count: segmentsOf(draft.document, facts()) })]);
    const amount = (1 + draft.starts.length) * draft.copies;
    $("#generate span").textContent = amount > 1 ? t("generate.many", { count: amount }) : t("generate");
  });
}

async function submit(event) {
  event.preventDefault();
  clearErrors();
  const button = $("#generate");
  button.disabled = true;
  try {
    const all = requests();
    for (const request of all) learn([await api.create(request)]);
    toast(all.length > 1 ? t("sent.many", { count: all.length }) : t("sent"));
    if (matchMedia("(max-width: 899px)").matches) $("#videos").scrollIntoView();
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    showAtField(error);
  } finally {
    button.disabled = false;
    if (document.activeElement === document.body) button.focus({ preventScroll: true });
  }
}

export function showForm() {
  showPrompt();
  showModels();
  showAdapters();
  showLoras($("#loras"));
  showTravel($("#travel"));
  showLength();
  showSampling();
  showSeed();
  showLong();
  showSummaries();
  $("#composer").addEventListener("submit", submit);
  $("#composer").addEventListener("input", clearErrors);
  $("#clear").addEventListener("click", () => {
    clearErrors();
    clear();
    $("#prompt").focus();
  });
}
