// Sizes: the model's own, ratios at a resolution, that of the picture, or exact numbers.

import { modelFacts, schema, usedModel } from "./catalog.js";
import { $, h } from "./dom.js";
import { condition, draft, read, touch, whenChanged, write } from "./draft.js";
import { bindNumber } from "./fields.js";
import { number, t } from "./i18n.js";

const RATIOS = ["own", "16:9", "4:3", "1:1", "3:4", "9:16", "fit", "exact"];
let chosen = "own";

const facts = () => modelFacts(usedModel(draft.document));
const round = (value, multiple) => Math.max(multiple, Math.round(value / multiple) * multiple);

/** The base of the model itself: the side of a square with as many pixels. */
const ownBase = () => Math.round(Math.sqrt(facts().width * facts().height) / 16) * 16 || 64;

/** The size of a ratio at a base: the published one where there is one, else as many pixels in whole multiples. */
function sizeOf(ratio, base) {
  const preset = schema.presets.sizes.find((each) => each.ratio === ratio && each.base === base);
  const multiple = facts().size_multiple;
  if (preset && preset.width % multiple === 0 && preset.height % multiple === 0) return preset;
  const [across, down] = ratio.split(":").map(Number);
  const stretch = Math.sqrt(across / down);
  return { width: round(base * stretch, multiple), height: round(base / stretch, multiple) };
}

function bases() {
  const all = new Set([ownBase(), ...schema.presets.sizes.map((each) => each.base)]);
  return [...all].sort((a, b) => a - b);
}

const followed = () => {
  const first = condition("keyframes")?.pictures?.["0"] ?? condition("source")?.video;
  return first ? draft.uploads[first] : null;
};

/** What is chosen, as the document says it. */
function recognise() {
  const { width, height, fit } = draft.document.shape ?? {};
  if (fit !== undefined) return { ratio: "fit", base: fit };
  if (width === undefined && height === undefined) return { ratio: "own", base: ownBase() };
  if (chosen === "exact") return { ratio: "exact", base: ownBase() };
  for (const base of bases()) {
    for (const ratio of RATIOS.filter((each) => each.includes(":"))) {
      const size = sizeOf(ratio, base);
      if (size.width === width && size.height === height) return { ratio, base };
    }
  }
  return { ratio: "exact", base: ownBase() };
}

function choose(ratio, base) {
  chosen = ratio;
  const { width, height, fit, ...rest } = draft.document.shape ?? {};
  if (ratio === "fit") rest.fit = base;
  else if (ratio === "exact") Object.assign(rest, { width: width ?? facts().width, height: height ?? facts().height });
  else if (ratio !== "own") {
    const size = sizeOf(ratio, base);
    Object.assign(rest, { width: size.width, height: size.height });
  }
  write("shape", Object.keys(rest).length ? rest : undefined);
}

function option(ratio) {
  const input = h("input", { type: "radio", name: "ratio", value: ratio, onchange: () => choose(ratio, Number($("#base").value) || ownBase()) });
  const shape = h("i", { "aria-hidden": "true" });
  const [across, down] = ratio.includes(":") ? ratio.split(":").map(Number) : [1, 1];
  const scale = 18 / Math.max(across, down);
  shape.style.width = `${across * scale}px`;
  shape.style.height = `${down * scale}px`;
  if (ratio === "exact" || ratio === "fit" || ratio === "own") shape.style.borderStyle = ratio === "own" ? "solid" : "dashed";
  return h("label", { class: "ratio" }, input, shape, ratio.includes(":") ? ratio : t(`size.${ratio}`));
}

function show() {
  const { ratio, base } = recognise();
  chosen = ratio;
  const known = facts();
  for (const input of $("#ratios").querySelectorAll("input")) {
    input.checked = input.value === ratio;
    if (input.value === "fit") input.disabled = !followed() && ratio !== "fit";
  }
  $("#base-field").hidden = ratio === "own" || ratio === "exact";
  $("#exact").hidden = ratio !== "exact";
  const all = new Set([...bases(), base]);
  $("#base").replaceChildren(...[...all].sort((a, b) => a - b).map((each) => h("option", { value: each, ".selected": each === base }, String(each))));
  const { width = known.width, height = known.height } = draft.document.shape ?? {};
  const picture = followed();
  const isUnknown = ratio === "own" && !known.isKnown;
  const said = isUnknown ? "" : ratio === "fit" && picture ? t("size.like", picture) : `${number(width, 0)} × ${number(height, 0)}`;
  $("#size-said").textContent = said;
}

export function showSizes() {
  $("#ratios").append(...RATIOS.map(option));
  $("#base").addEventListener("change", () => choose(recognise().ratio, Number($("#base").value)));
  bindNumber($("#width"), "shape.width", () => facts().width);
  bindNumber($("#height"), "shape.height", () => facts().height);
  for (const id of ["#width", "#height"]) $(id).addEventListener("focus", () => (chosen = "exact"));
  whenChanged(show);
  // A size that follows a picture has nothing to follow when the picture is gone.
  whenChanged(() => {
    if (read("shape.fit") !== undefined && !condition("keyframes") && !condition("source")) {
      delete draft.document.shape.fit;
      touch();
    }
  });
}
