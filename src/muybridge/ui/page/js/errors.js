// What the service refuses is said at the field that caused it.

import { Refusal } from "./api.js";
import { $, $$, h, toast } from "./dom.js";
import { t } from "./i18n.js";

/** The reason of a failure in the page's language, where it is the page that knows it. */
export function reason(error) {
  if (error instanceof Refusal && error.code === "unreachable") return t("error.unreachable");
  return error.message || t("error.unknown");
}

const OTHER_NAMES = {
  init_video: "conditions.source",
  strength: "conditions.source",
  mask: "conditions.mask",
  keyframes: "conditions.keyframes",
  size: "shape.width",
  frames: "shape.num_frames",
  steps: "sampling.num_inference_steps",
  model: "model.model",
};

/** The field that a parameter of an error belongs to, or null. */
export function fieldOf(param) {
  if (!param) return null;
  const fields = $$("[data-path]", $("#composer"));
  const candidates = [param, OTHER_NAMES[param]].filter(Boolean);
  for (const path of candidates) {
    // The longest path that is the parameter, stands above it, or ends like it.
    const known = fields
      .filter(({ dataset }) => path === dataset.path || path.startsWith(`${dataset.path}.`) || dataset.path.endsWith(`.${path}`))
      .sort((a, b) => b.dataset.path.length - a.dataset.path.length);
    if (known.length) return known[0];
  }
  const kind = /conditions[./]\d*[./]?([\w-]+)/.exec(param)?.[1];
  return kind ? fields.find(({ dataset }) => dataset.path === `conditions.${kind}`) ?? null : null;
}

export function clearErrors() {
  $("#form-error").hidden = true;
  for (const each of $$(".field-error[id^=error-]")) each.remove();
  for (const each of $$("[aria-invalid]")) {
    each.removeAttribute("aria-invalid");
    each.removeAttribute("aria-errormessage");
  }
}

/** Show a failure of a request at its field, opened and focused; without one, above the button. */
export function showAtField(error) {
  const text = reason(error);
  const field = fieldOf(error.param) ?? fieldOf(/^([a-z_]+(?:\.[\w/-]+)*)[: ]/.exec(text)?.[1]);
  if (!field) {
    const place = $("#form-error");
    place.textContent = text;
    place.hidden = false;
    place.scrollIntoView({ block: "nearest" });
    return;
  }
  for (let place = field; place; place = place.parentElement) {
    if (place instanceof HTMLDetailsElement) place.open = true;
  }
  const id = `error-${field.dataset.path.replace(/\W/g, "-")}`;
  const note = h("p", { class: "field-error", id, role: "alert" }, text);
  (field.closest(".field") ?? field).append(note);
  const control = field.matches("input, select, textarea, button") ? field : $("input, select, textarea, button", field);
  control?.setAttribute("aria-invalid", "true");
  control?.setAttribute("aria-errormessage", id);
  control?.focus();
  field.scrollIntoView({ block: "center" });
}

/** Carry something out; what fails is said in a toast. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    toast(reason(error), "error");
    return undefined;
  }
}
