// What there is to choose from: models and what goes into them, as the service lists them.

import * as api from "./api.js";

export const catalog = { models: [], motion_adapters: [], loras: [], vaes: [], controls: [], embeddings: [] };
export let schema = null;

const AGAIN_MS = 3000;

export async function loadCatalog() {
  const [models, loras, found] = await Promise.all([api.models(), api.loras(), api.schema()]);
  schema = found;
  catalog.loras = loras.data;
  take(models);
}

function take(models) {
  catalog.models = models.data;
  for (const kind of ["motion_adapters", "vaes", "controls", "embeddings"]) catalog[kind] = models[kind];
}

/** A service that has just begun knows little of its models: ask again until a worker has told, then call. */
export async function whenModelsAreKnown(call) {
  while (!catalog.models.some((each) => each.default)) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    try {
      take(await api.models());
    } catch (error) {
      if (!(error instanceof api.Refusal)) throw error;
    }
  }
  call();
}

/** What is known of a model; where no worker has told yet, what holds for most. */
export function modelFacts(name) {
  const { default: usual, ...facts } = { default: {}, ...catalog.models.find((each) => each.id === name) };
  return {
    ...facts,
    isKnown: usual.width !== undefined,
    width: usual.width ?? 512,
    height: usual.height ?? 512,
    num_frames: usual.num_frames ?? 16,
    fps: usual.fps ?? 8,
    steps: usual.num_inference_steps ?? 25,
    guidance: usual.guidance_scale ?? 7.5,
    frame_multiple: facts.frame_multiple ?? 1,
    size_multiple: facts.size_multiple ?? 16,
  };
}

export function usedModel(document) {
  return document.model?.model ?? catalog.models[0]?.id ?? "demo/animatediff";
}
