// The request that is being written: the document that the service takes, read and changed by paths such as
// "shape.num_frames". It outlives a reload; pictures in it are ids of uploads.

import { aboutUpload } from "./api.js";

const KEPT = "muybridge.draft";
const changed = new EventTarget();

const EMPTY = () => ({
  document: {},
  uploads: {}, // id -> {kind, width, height, num_frames}, of files in the document
  starts: [], // further start pictures, each for a video of its own
  seedLocked: false,
  copies: 1,
});

export let draft = restored();

function restored() {
  try {
    return { ...EMPTY(), ...JSON.parse(localStorage.getItem(KEPT) ?? "{}") };
  } catch {
    return EMPTY();
  }
}

/** Keep the draft and tell everybody who shows a part of it. */
export function touch() {
  localStorage.setItem(KEPT, JSON.stringify(draft));
  changed.dispatchEvent(new Event("change"));
}

/** Be told of every change, and once now. */
export function whenChanged(listener) {
  changed.addEventListener("change", listener);
  listener();
}

export function read(path, document = draft.document) {
  return path.split(".").reduce((place, name) => place?.[name], document);
}

function isEmpty(value) {
  return value === undefined || value === null || (typeof value === "object" && Object.keys(value).length === 0);
}

/** Settings that mean something also where nothing is said in them. */
const MAY_BE_EMPTY = new Set(["segments", "windows", "free_init"]);

function put(place, [name, ...rest], value) {
  const next = { ...place };
  next[name] = rest.length ? put(next[name] ?? {}, rest, value) : value;
  if (next[name] === undefined || (rest.length && isEmpty(next[name]) && !MAY_BE_EMPTY.has(name))) delete next[name];
  return next;
}

/** Change one value; undefined takes it away, so that the model's default holds. */
export function write(path, value) {
  draft.document = put(draft.document, path.split("."), value);
  touch();
}

export const condition = (kind) => (draft.document.conditions ?? []).find((each) => each.kind === kind);

/** Change the condition of a kind, or take it away with null. */
export function setCondition(kind, values) {
  const others = (draft.document.conditions ?? []).filter((each) => each.kind !== kind);
  const all = values === null ? others : [...others, { kind, ...values }];
  write("conditions", all.length ? all : undefined);
}

/** Start from another request: of a video that was made, or of a file. */
export function useRequest(request, { keepSeed = true } = {}) {
  const copy = structuredClone(request);
  if (typeof copy.model === "string") copy.model = { model: copy.model };
  draft.document = copy;
  draft.starts = [];
  draft.seedLocked = keepSeed && copy.sampling?.seed !== undefined;
  touch();
  learnUploads();
}

/** What the files of the draft are that were sent from elsewhere: their sizes and lengths. */
async function learnUploads() {
  const unknown = uploadsIn(draft.document).filter((id) => !draft.uploads[id]);
  const found = await Promise.allSettled(unknown.map(aboutUpload));
  for (const { value } of found) {
    if (!value) continue; // gone: sending the request says so, at its field
    const { id, object, ...facts } = value;
    draft.uploads[id] = facts;
  }
  if (unknown.length) touch();
}

const uploadsIn = (document) => [...new Set(JSON.stringify(document.conditions ?? []).match(/upload_[0-9a-f]{32}/g) ?? [])];

export function clear() {
  const { model } = draft.document;
  draft = { ...EMPTY(), document: model ? { model: { model: model.model } } : {} };
  touch();
}

const LARGEST_SEED = 2 ** 32;
export const randomSeed = () => Math.floor(Math.random() * LARGEST_SEED);

/** The requests that the draft stands for: one for every start picture and copy, with seeds filled in. */
export function requests() {
  if (!draft.seedLocked || read("sampling.seed") === undefined) write("sampling.seed", randomSeed());
  const base = structuredClone(draft.document);
  const made = [];
  for (const start of [null, ...draft.starts]) {
    for (let copy = 0; copy < draft.copies; copy++) {
      const one = structuredClone(base);
      one.sampling.seed += copy;
      if (start) withStart(one, start);
      made.push(one);
    }
  }
  return made;
}

function withStart(document, picture) {
  document.conditions ??= [];
  let keyframes = document.conditions.find((each) => each.kind === "keyframes");
  if (!keyframes) document.conditions.push((keyframes = { kind: "keyframes", pictures: {} }));
  keyframes.pictures["0"] = picture;
}
