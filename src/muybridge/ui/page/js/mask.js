// Painting where a video is made anew: white on black, in the size of the video, sent as a picture.

import { uploadUrl } from "./api.js";
import { $, h, icon, iconButton, openDialog } from "./dom.js";
import { setCondition } from "./draft.js";
import { attempt } from "./errors.js";
import { t } from "./i18n.js";
import { send } from "./upload.js";

const PAINT = "#e8602c";

/** The strokes of one painting, drawn again from the list when one is taken back. */
class Painting {
  constructor(width, height) {
    this.canvas = h("canvas", { width, height, role: "img", tabindex: "0", "aria-label": t("mask.canvas") });
    this.strokes = [];
    this.size = Math.max(4, Math.round(Math.max(width, height) / 12));
    this.erases = false;
    this.cursor = [width / 2, height / 2];
    this.canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    this.canvas.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [((event.clientX - left) * this.canvas.width) / width, ((event.clientY - top) * this.canvas.height) / height];
  }

  #begin(event) {
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    const stroke = { points: [this.#place(event)], size: this.size, erases: this.erases };
    this.strokes.push(stroke);
    this.draw();
    this.canvas.onpointermove = (moved) => {
      stroke.points.push(this.#place(moved));
      this.draw();
    };
    this.canvas.onpointerup = this.canvas.onpointercancel = () => (this.canvas.onpointermove = null);
  }

  /** Arrow keys move a brush that the space bar puts down. */
  #onKey(event) {
    const [x, y] = this.cursor;
    const step = this.size / 2;
    const next = { ArrowLeft: [x - step, y], ArrowRight: [x + step, y], ArrowUp: [x, y - step], ArrowDown: [x, y + step] }[event.key];
    if (next) this.cursor = [Math.max(0, Math.min(this.canvas.width, next[0])), Math.max(0, Math.min(this.canvas.height, next[1]))];
    else if (event.key === " ") this.strokes.push({ points: [this.cursor], size: this.size, erases: this.erases });
    else return;
    event.preventDefault();
    this.draw();
    this.#outline();
  }

  #outline() {
    const pen = this.canvas.getContext("2d");
    pen.strokeStyle = "#fff";
    pen.lineWidth = Math.max(1, this.size / 10);
    pen.beginPath();
    pen.arc(...this.cursor, this.size / 2, 0, 2 * Math.PI);
    pen.stroke();
  }

  draw() {
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.lineCap = pen.lineJoin = "round";
    for (const { points, size, erases } of this.strokes) {
      pen.globalCompositeOperation = erases ? "destination-out" : "source-over";
      pen.strokeStyle = PAINT;
      pen.lineWidth = size;
      pen.beginPath();
      pen.moveTo(...points[0]);
      for (const point of points) pen.lineTo(...point);
      // A line of no length is not drawn: a dot needs a hair's breadth.
      if (points.length === 1) pen.lineTo(points[0][0] + 0.01, points[0][1]);
      pen.stroke();
    }
    pen.globalCompositeOperation = "source-over";
  }

  undo() {
    this.strokes.pop();
    this.draw();
  }

  /** White where it was painted, black elsewhere, without grey between. */
  async file() {
    const flat = h("canvas", { width: this.canvas.width, height: this.canvas.height });
    const pen = flat.getContext("2d");
    this.draw();
    pen.drawImage(this.canvas, 0, 0);
    const image = pen.getImageData(0, 0, flat.width, flat.height);
    for (let at = 0; at < image.data.length; at += 4) {
      const level = image.data[at + 3] > 127 ? 255 : 0;
      image.data.set([level, level, level, 255], at);
    }
    pen.putImageData(image, 0, 0);
    const blob = await new Promise((resolve) => flat.toBlob(resolve, "image/png"));
    return new File([blob], "mask.png", { type: "image/png" });
  }
}

/** Let people paint over the first frame of a video. */
export function openMask(video, facts) {
  const dialog = $("#mask");
  const { width = 512, height = 512 } = facts ?? {};
  const painting = new Painting(width, height);
  const size = h("input", { type: "range", id: "brush-size", min: 2, max: Math.max(16, Math.round(painting.canvas.width / 3)), ".value": painting.size, oninput: (event) => (painting.size = Number(event.target.value)) });
  const toggle = () => {
    painting.erases = !painting.erases;
    erase.setAttribute("aria-pressed", painting.erases);
  };
  const erase = h("button", { type: "button", class: "chip", "aria-pressed": "false", onclick: toggle }, t("mask.erase"));
  const use = async () => {
    const kept = await attempt(async () => setCondition("mask", { mask: await send(await painting.file()) }) ?? true);
    if (kept) dialog.close();
  };
  const stage = h("div", { class: "mask-stage" }, h("img", { src: uploadUrl(video), alt: "" }), painting.canvas);
  stage.style.setProperty("--aspect", width / height);
  dialog.replaceChildren(
    h("div", { class: "dialog-head" }, h("h2", { id: "mask-title" }, t("mask.title")), iconButton("close", t("close"), () => dialog.close())),
    stage,
    h("div", { class: "row" }, h("label", { for: "brush-size" }, t("mask.size")), size, erase, h("button", { type: "button", class: "chip", onclick: () => painting.undo() }, icon("undo"), t("mask.undo"))),
    h("div", { class: "actions" }, h("button", { type: "button", class: "primary", onclick: use }, icon("brush"), t("mask.use"))),
  );
  openDialog(dialog);
}
