// Dark and light: as the system has it, until somebody chooses.

import { $, icon } from "./dom.js";

const KEPT = "muybridge.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const now = () => localStorage.getItem(KEPT) ?? (system.matches ? "dark" : "light");

export function applyTheme() {
  const kept = localStorage.getItem(KEPT);
  if (kept) document.documentElement.dataset.theme = kept;
}

export function showTheme() {
  const button = $("#theme");
  const show = () => button.replaceChildren(icon(now() === "dark" ? "sun" : "moon"));
  button.addEventListener("click", () => {
    localStorage.setItem(KEPT, now() === "dark" ? "light" : "dark");
    applyTheme();
    show();
  });
  system.addEventListener("change", show);
  show();
}
