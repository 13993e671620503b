// What there is to choose from: models and what goes into them, as the service lists them.

import * as api from "./api.js";

export const catalog = { models: [], motion_adapters: [], loras: [], vaes: [], controls: [], embeddings: [] };
export let schema = { request: { properties: {}, $defs: {} }, conditions: {}, presets: { sizes: [] } };

const PLACES = { model: "models", motion_adapter: "motion_adapters", lora: "loras", vae: "vaes", control: "controls", embedding: "embeddings" };

export async function loadCatalog() {
  const [models, loras, found] = await Promise.all([api.models(), api.loras(), api.schema()]);
  schema = found;
  for (const each of [...models.data, ...loras.data.map((lora) => ({ ...lora, kind: "lora" }))]) {
    const place = catalog[PLACES[each.kind ?? "model"]];
    if (place && !place.some((other) => other.id === each.id)) place.push(each);
  }
  for (const name of Object.keys(catalog)) {
    for (const each of models[name] ?? []) {
      const entry = typeof each === "string" ? { id: each } : each;
      if (!catalog[name].some((other) => other.id === entry.id)) catalog[name].push(entry);
    }
  }
}

/** What is known of a model; where no worker has told yet, what holds for most. */
export function modelFacts(name) {
  const found = catalog.models.find((each) => each.id === name) ?? {};
  const facts = { ...found, ...(found.description_ ?? {}) };
  return {
    ...facts,
    width: facts.width ?? 512,
    height: facts.height ?? 512,
    num_frames: facts.num_frames ?? 16,
    fps: facts.fps ?? 8,
    steps: facts.steps ?? facts.num_inference_steps ?? 25,
    guidance: facts.guidance ?? facts.guidance_scale ?? 7.5,
    frame_multiple: facts.frame_multiple ?? 1,
    size_multiple: facts.size_multiple ?? 16,
    takes: facts.takes ?? null,
  };
}

export function usedModel(document) {
  return document.model?.model ?? catalog.models[0]?.id ?? "demo/animatediff";
}
