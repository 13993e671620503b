// Controls that show one value of the draft and change it.

import { read, whenChanged, write } from "./draft.js";

/** Show a value in a control on every change but those that come from typing in it. */
export function follow(input, show, change) {
  let isTyping = false;
  input.addEventListener("input", () => {
    isTyping = true;
    change();
    isTyping = false;
  });
  whenChanged(() => isTyping || show());
}

/** Bind an input to a path. `usual` gives what the model takes where nothing is said; it is shown, not sent. */
export function bind(input, path, { parse = (text) => text, show = (value) => value, usual = null } = {}) {
  const change = () => {
    const text = input.value.trim() === "" && input.type !== "range" ? undefined : parse(input.value);
    write(path, text);
  };
  const refresh = () => {
    const value = read(path);
    const said = usual?.();
    if (usual && input.type === "number") input.placeholder = said ?? "";
    if (value !== undefined) input.value = show(value);
    else if (input.type !== "range") input.value = "";
    else if (usual) input.value = said ?? input.min;
  };
  follow(input, refresh, change);
}

/**
 * What people type is sent as it is where it is no number, so that the service says what is wrong with it, and where it
 * is a whole number of more digits than numbers have here.
 */
export function parseNumber(text) {
  const found = Number(text);
  const isExact = Number.isFinite(found) && (Number.isSafeInteger(found) || !/^\s*-?\d+\s*$/.test(text));
  return isExact ? found : text;
}

export const bindNumber = (input, path, usual) => bind(input, path, { parse: parseNumber, usual });

