// Elements without markup in strings: what users and servers say becomes text, never HTML.

/** An element with attributes, listeners ("onclick") and properties (".value"), and children. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith(".")) element[name.slice(1)] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Change the children of a list; the focus stays where it is, or goes to what takes the place of its child. */
export function keepingFocus(list, change) {
  const focused = document.activeElement;
  const child = [...list.children].find((each) => each.contains(focused));
  const place = [...list.children].indexOf(child);
  const at = child ? $$("button, input, [tabindex]", child).indexOf(focused) : -1;
  change();
  if (!child || document.activeElement === focused) return;
  const next = list.contains(child) ? child : list.children[Math.min(place, list.children.length - 1)];
  const wanted = next && ($$("button, input, [tabindex]", next)[at] ?? $("button, input", next));
  (wanted ?? list.closest("[tabindex], section, form")?.querySelector("button, input, textarea"))?.focus();
}

const ICONS = {
  up: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  down: "M8 3v10M3.5 8.5 8 13l4.5-4.5",
  copy: "M6 6h7v7H6zM10 6V3H3v7h3",
  edit: "M3 13l.6-3L11 2.6l2.4 2.4L6 12.4 3 13z",
  close: "M4 4l8 8M12 4l-8 8",
  dice: "M3 3h10v10H3zM6 6h.01M10 10h.01M10 6h.01M6 10h.01",
  locked: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5",
  unlocked: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 4.8-1",
  plus: "M8 3v10M3 8h10",
  picture: "M2.5 3.5h11v9h-11zM2.5 10.5l3.5-3.5 3 3 2-2 2.5 2.5M10.5 6.2h.01",
  video: "M2.5 4h8v8h-8zM10.5 7l3.5-2v6l-3.5-2",
  play: "M5 3.5 12.5 8 5 12.5z",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  back: "M10.5 3.5 6 8l4.5 4.5",
  forward: "M5.5 3.5 10 8l-4.5 4.5",
  again: "M13 8a5 5 0 1 1-1.5-3.6M13 2.5v3h-3",
  save: "M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10",
  bin: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.5 9h6l.5-9",
  brush: "M13.5 2.5 7 9M6.8 9.2c-2.6-.6-3.4 1.3-3.6 2.3-.1.8-.7 1.4-1.2 1.6 2 .8 5.6.3 5.8-2.4z",
  undo: "M6 3 3 6l3 3M3 6h6.5a3.5 3.5 0 0 1 0 7H6",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  moon: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z",
};

/** A line drawing of 16 pixels; the button around it has the words. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", "aria-hidden": "true", class: "icon" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A small button that shows a drawing and is called by its words. */
export function iconButton(name, label, onclick, attributes = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

let toastTimer;
/** Say something that needs no answer; screen readers hear it. */
export function toast(text, kind = "note") {
  const place = $("#toast");
  place.textContent = text;
  place.dataset.kind = kind;
  place.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (place.hidden = true), kind === "error" ? 9000 : 3500);
}

/** Show a dialog; a click beside it closes it, focus goes back where it was. */
export function openDialog(dialog) {
  if (dialog.open) return;
  dialog.onclick = (event) => {
    if (event.target === dialog) dialog.close();
  };
  dialog.showModal();
}
