// Prompts that change on the way: from a frame on, another text.

import { h, icon, iconButton } from "./dom.js";
import { read, whenChanged, write } from "./draft.js";
import { t } from "./i18n.js";

const texts = () => {
  const prompt = read("prompt");
  return typeof prompt === "object" && prompt !== null ? prompt : null;
};

/** A prompt that never changes is plain text again. */
function put(next) {
  const frames = Object.keys(next);
  write("prompt", frames.length === 1 && frames[0] === "0" ? next[0] || undefined : next);
}

function row(frame, text) {
  const at = h("input", { type: "number", min: 1, ".value": frame, "aria-label": t("travel.frame") });
  const words = h("input", { type: "text", ".value": text, "aria-label": t("travel.text") });
  at.addEventListener("change", () => {
    const { [frame]: moved, ...rest } = texts();
    put({ ...rest, [Number(at.value) || frame]: moved });
  });
  words.addEventListener("input", () => put({ ...texts(), [frame]: words.value }));
  const drop = () => {
    const { [frame]: gone, ...rest } = texts();
    put(rest);
  };
  return h("div", { class: "travel-row" }, at, words, iconButton("close", t("travel.remove"), drop));
}

export function showTravel(place) {
  const rows = h("div");
  const add = h("button", { type: "button", class: "chip" }, icon("plus"), t("travel.add"));
  add.addEventListener("click", () => {
    const now = texts() ?? { 0: read("prompt") ?? "" };
    put({ ...now, [Math.max(...Object.keys(now).map(Number)) + 8]: "" });
    rows.lastElementChild?.querySelector("input[type=text]").focus();
  });
  place.append(rows, add);
  let shown;
  whenChanged(() => {
    const later = Object.entries(texts() ?? {}).filter(([frame]) => frame !== "0");
    const key = later.map(([frame]) => frame).join();
    if (key === shown) return;
    shown = key;
    rows.replaceChildren(...later.map(([frame, text]) => row(frame, text)));
  });
}
