// Words of the page: one JSON file a language, chosen by the browser's languages or by hand.

import { $$ } from "./dom.js";

const LANGUAGES = ["en", "zh-CN"];
const KEPT = "muybridge.language";
let words = {};
export let language = "en";

function preferred() {
  const kept = localStorage.getItem(KEPT);
  if (LANGUAGES.includes(kept)) return kept;
  for (const each of navigator.languages) {
    if (each.toLowerCase().startsWith("zh")) return "zh-CN";
    if (each.toLowerCase().startsWith("en")) return "en";
  }
  return "en";
}

/** The words for a key, with {names} filled in; the key itself where there are none, or `otherwise`. */
export function t(key, values = {}, otherwise = key) {
  const text = words[key] ?? otherwise;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export const has = (key) => key in words;

export const number = (value, digits = 1) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

/** "12 s", "3 min 20 s". */
export function duration(seconds) {
  const whole = Math.max(0, seconds);
  if (whole < 60) return t("time.seconds", { s: whole < 10 ? number(whole, 1) : Math.round(whole) });
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return t("time.minutes", { m: minutes, s: Math.round(whole % 60) });
  return t("time.hours", { h: Math.floor(minutes / 60), m: minutes % 60 });
}

/** "120 MB", "11.4 GB". */
export const memory = (bytes) => (bytes < 1e9 ? `${number(Math.max(1, bytes / 1e6), 0)} MB` : `${number(bytes / 1e9)} GB`);

export const moment = (epoch) =>
  new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(epoch * 1000));

/** Put words into everything that has data-i18n, data-i18n-label and data-i18n-placeholder. */
export function translate(root = document) {
  for (const each of $$("[data-i18n]", root)) each.textContent = t(each.dataset.i18n);
  for (const each of $$("[data-i18n-label]", root)) {
    each.setAttribute("aria-label", t(each.dataset.i18nLabel));
    if (each.matches("button")) each.title = t(each.dataset.i18nLabel);
  }
  for (const each of $$("[data-i18n-placeholder]", root)) each.placeholder = t(each.dataset.i18nPlaceholder);
}

export async function loadLanguage() {
  language = preferred();
  words = await (await fetch(`lang/${language}.json`)).json();
  document.documentElement.lang = language;
  document.title = t("title");
  translate();
}

/** Keep another language and draw the page anew in it. */
export function chooseLanguage(name) {
  localStorage.setItem(KEPT, name);
  location.reload();
}
