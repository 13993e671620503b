// Files dropped anywhere: a video of ours gives its settings, pictures are what to start from.

import * as api from "./api.js";
import { $, icon, toast } from "./dom.js";
import { draft, useRequest } from "./draft.js";
import { reason } from "./errors.js";
import { t } from "./i18n.js";
import { takeSource, takeStarts } from "./slots.js";
import { pickFiles, send, VIDEOS } from "./upload.js";

const isPicture = (file) => /^image\/(png|jpeg|webp)$/.test(file.type);

/** Use what a file says of itself; one that says nothing is what to start from. */
export async function takeFile(file) {
  try {
    const { request, missing } = await api.settingsOf(file);
    useRequest(request);
    $("#prompt").focus();
    const names = missing.map((kind) => t(`field.conditions.${kind}`, {}, kind)).join(", ");
    toast(missing.length ? t("drop.missing", { names }) : t("used"));
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    if (error.status !== 400 && error.status !== 404) toast(reason(error), "error");
    else await takeUnknown(file);
  }
}

/** A still is what to start from, and what moves is what to change, whatever its name says. */
async function takeUnknown(file) {
  let id;
  try {
    id = await send(file);
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    toast(reason(error), "error");
    return;
  }
  if (draft.uploads[id].kind === "picture") await takeStarts([id]);
  else if (await takeSource([id])) toast(t("drop.no-settings"));
}

async function takeFiles(files) {
  const pictures = files.filter(isPicture);
  if (files.length > 1 && pictures.length) await takeStarts(pictures);
  else if (files.length) await takeFile(files[0]);
}

export function acceptDrops() {
  const veil = $("#drop-veil");
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    veil.hidden = depth === 0;
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    depth = 0;
    veil.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    takeFiles([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) takeFiles(files);
  });
  $("#open-file").prepend(icon("video"));
  $("#open-file").addEventListener("click", async () => {
    const [file] = await pickFiles(`${VIDEOS},image/png`);
    if (file) await takeFile(file);
  });
}
