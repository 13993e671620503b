// Controls that show one value of the draft and change it.

import { read, whenChanged, write } from "./draft.js";

const isActive = (input) => document.activeElement === input;

/** Bind an input to a path. `usual` gives what the model takes where nothing is said; it is shown, not sent. */
export function bind(input, path, { parse = (text) => text, show = (value) => value, usual = null } = {}) {
  input.addEventListener("input", () => {
    const text = input.value.trim() === "" && input.type !== "range" ? undefined : parse(input.value);
    write(path, text);
  });
  whenChanged(() => {
    const value = read(path);
    if (usual) {
      const said = usual();
      if (input.type !== "range" && input.tagName !== "SELECT") input.placeholder = said ?? "";
      if (value === undefined && input.type === "range") input.value = said ?? input.min;
    }
    if (isActive(input) && input.type !== "range") return;
    if (value === undefined) {
      if (input.type !== "range") input.value = "";
    } else input.value = show(value);
  });
}

/** What people type is sent as it is where it is no number, so that the service says what is wrong with it. */
export function parseNumber(text) {
  const found = Number(text);
  return Number.isFinite(found) ? found : text;
}

export const bindNumber = (input, path, usual) => bind(input, path, { parse: parseNumber, usual });

