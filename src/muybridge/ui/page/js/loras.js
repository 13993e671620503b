// LoRAs and the weight of each.

import { catalog } from "./catalog.js";
import { h, iconButton, toast } from "./dom.js";
import { read, whenChanged, write } from "./draft.js";
import { number, t } from "./i18n.js";

const chosen = () => read("model.loras") ?? {};

function put(name, weight) {
  const next = { ...chosen() };
  if (weight === null) delete next[name];
  else next[name] = weight;
  write("model.loras", Object.keys(next).length ? next : undefined);
}

/** One that was trained for certain steps and guidance sets them too. */
function take({ id, sampling }) {
  put(id, sampling ? 1 : 0.8);
  if (!sampling) return;
  for (const [name, value] of Object.entries(sampling)) write(`sampling.${name}`, value);
  toast(t("loras.sampling"));
}

function row(name, index) {
  const id = `lora-${index}`;
  const output = h("output", { for: id, class: "said value" }, number(chosen()[name], 2));
  const slider = h("input", { type: "range", id, min: -1, max: 2, step: 0.05, "aria-label": t("loras.weight", { name }), ".value": chosen()[name] });
  slider.addEventListener("input", () => {
    output.textContent = number(Number(slider.value), 2);
    put(name, Number(slider.value));
  });
  return h("div", { class: "lora" }, h("b", {}, name), iconButton("close", t("loras.remove", { name }), () => put(name, null)), h("div", { class: "row" }, slider, output));
}

export function showLoras(place) {
  const rows = h("div");
  const add = h("select", { id: "add-lora", "aria-label": t("loras.add") });
  add.addEventListener("change", () => add.value && take(catalog.loras.find(({ id }) => id === add.value)));
  place.append(rows, add);
  let shown;
  whenChanged(() => {
    const names = Object.keys(chosen());
    if (names.join("\n") === shown) return;
    shown = names.join("\n");
    rows.replaceChildren(...names.map(row));
    const free = catalog.loras.filter(({ id }) => !names.includes(id));
    add.replaceChildren(h("option", { value: "" }, t(catalog.loras.length ? "loras.add" : "loras.none")), ...free.map(({ id }) => h("option", { value: id }, id)));
    add.disabled = free.length === 0;
  });
}
