// Files from people: picked or dropped, sent once, and known from then on by the id of the upload.

import * as api from "./api.js";
import { $ } from "./dom.js";
import { draft } from "./draft.js";

/** Let people pick files; resolves with them, with none where they think better of it. */
export function pickFiles(accept, multiple = false) {
  const picker = $("#file-picker");
  picker.accept = accept;
  picker.multiple = multiple;
  picker.value = "";
  return new Promise((resolve) => {
    picker.onchange = () => resolve([...picker.files]);
    picker.oncancel = () => resolve([]);
    picker.click();
  });
}

/** Send a file; gives its id. */
export async function send(file) {
  const { id, ...facts } = await api.upload(file);
  draft.uploads[id] = facts;
  return id;
}

export const PICTURES = "image/png,image/jpeg,image/webp";
export const VIDEOS = "video/mp4,video/quicktime,video/webm,image/gif,image/webp";
