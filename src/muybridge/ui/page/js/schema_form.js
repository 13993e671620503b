// Every setting that has no place of its own on the page, made from the schema of the service.

import { catalog, schema } from "./catalog.js";
import { $, h, icon, iconButton } from "./dom.js";
import { condition, read, setCondition, whenChanged, write } from "./draft.js";
import { attempt } from "./errors.js";
import { follow, parseNumber } from "./fields.js";
import { has, t } from "./i18n.js";
import { pickFiles, PICTURES, send, VIDEOS } from "./upload.js";

const SHOWN_ELSEWHERE = new Set([
  "prompt", "negative_prompt", "conditions", "segments", "shape.num_frames", "shape.width", "shape.height", "shape.fit", "shape.fps",
  "sampling.seed", "sampling.num_inference_steps", "sampling.guidance_scale", "sampling.scheduler", "motion.strength", "model.model", "model.motion_adapter", "model.loras",
]);
const OF_THE_SERVICE = new Set(["model.device", "model.memory"]);
const CONDITIONS_ELSEWHERE = new Set(["keyframes", "source", "mask"]);
const PICTURES_IN = new Set(["pictures"]);
const FILES_IN = new Set(["frames", "video", "mask"]);

/** A schema without references and without "or nothing". */
function plain(given, definitions) {
  let found = given;
  const choices = (found.anyOf ?? []).filter((each) => each.type !== "null");
  if (choices.length) found = { ...choices.find((each) => each.$ref) ?? choices[0], ...found, isOptional: choices.length < found.anyOf.length };
  if (found.$ref) found = { ...definitions[found.$ref.split("/").at(-1)], ...found };
  return found;
}

const capital = (text) => text.replace(/^./, (letter) => letter.toUpperCase());
const words = (name) => capital(name.replaceAll("_", " "));
const titleOf = (path, name) => t(`field.${path}`, {}, words(name));
const hintOf = (path, field) => (has(`hint.${path}`) ? t(`hint.${path}`) : capital((field.description ?? "").replaceAll("`", "")));

/** A value somewhere: of the draft by a path, or inside a condition. */
class Place {
  constructor(path, get, set) {
    Object.assign(this, { path, get, set });
  }

  static ofDraft(path) {
    return new Place(path, () => read(path), (value) => write(path, value));
  }
}

function labelled(place, name, field, control) {
  const hint = hintOf(place.path, field);
  const id = `field-${place.path.replace(/\W/g, "-")}`;
  control.id = id;
  control.dataset.path = place.path;
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  const made = h("div", { class: "field" }, h("label", { for: id }, titleOf(place.path, name)), control, hint && h("p", { class: "hint", id: `${id}-hint` }, hint));
  if (field.examples) offer(control, field.examples);
  return made;
}

function choice(place, field) {
  const select = h("select", {}, h("option", { value: "" }, t("default")), field.enum.map((each) => h("option", { value: each }, each)));
  follow(select, () => (select.value = place.get() ?? ""), () => place.set(select.value || undefined));
  return select;
}

function amount(place, field) {
  const input = h("input", { type: "number", min: field.minimum ?? field.exclusiveMinimum, max: field.maximum, step: field.type === "integer" ? 1 : "any", placeholder: field.default ?? t("default") });
  follow(input, () => (input.value = place.get() ?? ""), () => place.set(input.value === "" ? undefined : parseNumber(input.value)));
  return input;
}

function line(place, field, { parse = (text) => text, show = (value) => value } = {}) {
  const input = h("input", { type: "text", placeholder: typeof field.default === "string" ? field.default : "" });
  const refresh = () => (input.value = place.get() === undefined ? "" : show(place.get()));
  follow(input, refresh, () => place.set(input.value.trim() === "" ? undefined : parse(input.value)));
  return input;
}

const LISTED = { parse: (text) => text.split(/[,，]\s*/).filter(Boolean), show: (value) => [value].flat().join(", ") };
const NUMBERS = { parse: (text) => text.split(/[,，\s]+/).filter(Boolean).map(parseNumber), show: (value) => [value].flat().join(", ") };
const PAIRS = {
  parse: (text) => Object.fromEntries(text.split(/[,，]\s*/).filter(Boolean).map((each) => each.split("=").map((part) => part.trim()).concat("").slice(0, 2))),
  show: (value) => Object.entries(value).map((pair) => pair.join("=")).join(", "),
};

function checkbox(place, name, field) {
  const input = h("input", { type: "checkbox", "data-path": place.path });
  const usual = field.default ?? false;
  follow(input, () => (input.checked = place.get() ?? usual), () => place.set(input.checked === usual ? undefined : input.checked));
  const hint = hintOf(place.path, field);
  return h("div", { class: "field" }, h("label", { class: "check" }, input, titleOf(place.path, name)), hint && h("p", { class: "hint" }, hint));
}

/** Files of a condition: one, or pictures by frame; what was picked is uploaded at once. */
function files(place, name, isByFrame, isPicture) {
  const said = h("span", { class: "said" });
  const frame = isByFrame ? h("input", { type: "number", class: "short", ".value": 0, "aria-label": t("travel.frame") }) : null;
  const pick = h("button", { type: "button", class: "chip" }, icon("plus"), t("file.pick"));
  pick.addEventListener("click", () =>
    attempt(async () => {
      const picked = await pickFiles(isPicture ? PICTURES : `${VIDEOS},${PICTURES}`, !isByFrame && isPicture);
      const ids = [];
      for (const file of picked) ids.push(await send(file));
      if (!ids.length) return;
      place.set(isByFrame ? { ...place.get(), [frame.value]: ids[0] } : isPicture ? ids : ids[0]);
    }),
  );
  const drop = iconButton("close", t("file.remove"), () => place.set(undefined));
  whenChanged(() => {
    const value = place.get();
    drop.hidden = value === undefined;
    said.textContent = value === undefined ? "" : isByFrame ? t("file.frames", { frames: Object.keys(value).join(", ") }) : t("file.count", { count: [value].flat().length });
  });
  return h("div", { class: "field", "data-path": place.path }, h("h4", {}, titleOf(place.path, name)), h("div", { class: "row" }, frame, pick, said, drop));
}

function fieldOf(place, name, given, definitions) {
  const field = plain(given, definitions);
  if (field.properties) return group(place, name, field, definitions);
  if (field.enum) return labelled(place, name, field, choice(place, field));
  if (field.type === "boolean") return checkbox(place, name, field);
  if (field.type === "integer" || field.type === "number") return labelled(place, name, field, amount(place, field));
  if (field.type === "array") return labelled(place, name, field, line(place, field, field.items?.type === "string" ? LISTED : NUMBERS));
  if (field.type === "object") return labelled(place, name, field, line(place, field, PAIRS));
  return labelled(place, name, field, line(place, field));
}

/** A record that may be there or not, behind a box that is ticked. */
function group(place, name, field, definitions) {
  const box = h("input", { type: "checkbox" });
  const inner = Object.entries(field.properties).map(([key, each]) => fieldOf(Place.ofDraft(`${place.path}.${key}`), key, each, definitions));
  const fields = h("div", { class: "fields" }, inner);
  box.addEventListener("change", () => place.set(box.checked ? {} : undefined));
  whenChanged(() => {
    box.checked = place.get() !== undefined && place.get() !== null;
    fields.hidden = !box.checked;
  });
  const hint = hintOf(place.path, field);
  return h("fieldset", { class: "group", "data-path": place.path }, h("legend", {}, h("label", { class: "check" }, box, titleOf(place.path, name))), hint && h("p", { class: "hint" }, hint), fields);
}

/** Whether it is made of what lives in memory only, which no call brings. */
const holdsTensors = (given) =>
  Object.values(given.properties).some(({ type, additionalProperties: each }) => type === "object" && each !== undefined && Object.keys(each).length === 0);

/** One further kind of condition, such as sketches or the pictures of a control. */
function conditionGroup(kind, given) {
  const of = (key) =>
    new Place(
      `conditions.${kind}.${key}`,
      () => condition(kind)?.[key],
      (value) => {
        const { kind: _, ...now } = condition(kind) ?? {};
        if (value === undefined) delete now[key];
        else now[key] = value;
        setCondition(kind, Object.keys(now).length ? now : null);
      },
    );
  const fields = Object.entries(given.properties)
    .filter(([key]) => key !== "kind")
    .map(([key, each]) => {
      if (PICTURES_IN.has(key)) return files(of(key), key, plain(each, given.$defs ?? {}).type === "object", true);
      if (FILES_IN.has(key)) return files(of(key), key, false, false);
      return fieldOf(of(key), key, each, given.$defs ?? {});
    });
  const path = `conditions.${kind}`;
  const details = h("details", { "data-path": path }, h("summary", {}, titleOf(path, kind.replaceAll("-", " "))), h("p", { class: "hint" }, hintOf(path, given)), h("div", { class: "fold" }, fields));
  whenChanged(() => condition(kind) && (details.open = true));
  return details;
}

export function showSchemaForm(place) {
  const { properties, $defs: definitions } = schema.request;
  const loose = [];
  const groups = [];
  for (const [name, each] of Object.entries(properties)) {
    if (SHOWN_ELSEWHERE.has(name)) continue;
    const field = plain(each, definitions);
    if (!field.properties) {
      loose.push(fieldOf(Place.ofDraft(name), name, each, definitions));
      continue;
    }
    const inner = Object.entries(field.properties)
      .filter(([key]) => !SHOWN_ELSEWHERE.has(`${name}.${key}`) && !OF_THE_SERVICE.has(`${name}.${key}`))
      .map(([key, one]) => fieldOf(Place.ofDraft(`${name}.${key}`), key, one, definitions));
    if (inner.length) groups.push(h("fieldset", { class: "group" }, h("legend", {}, titleOf(name, name)), h("div", { class: "fields" }, inner)));
  }
  if (loose.length) groups.unshift(h("div", { class: "group" }, h("div", { class: "fields" }, loose)));
  const kinds = Object.entries(schema.conditions).filter(([kind, given]) => !CONDITIONS_ELSEWHERE.has(kind) && !holdsTensors(given));
  place.replaceChildren(...groups, ...kinds.map(([kind, given]) => conditionGroup(kind, given)));
  suggest("#field-model-vae", "vaes");
  suggest("#field-conditions-control-model", "controls");
}

/** Offer the names that the service knows where a name is asked for. */
function suggest(selector, kind) {
  const input = $(selector);
  if (input && catalog[kind].length) offer(input, catalog[kind].map((each) => each.id));
}

/** Values to choose from, of an input that takes others too. */
function offer(input, values) {
  const id = `${input.id}-known`;
  input.after(h("datalist", { id }, values.map((value) => h("option", { value }))));
  input.setAttribute("list", id);
}
