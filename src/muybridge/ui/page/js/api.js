// Calls of the service. Every failure is a Refusal, which says it in words and knows the field that caused it.

export class Refusal extends Error {
  constructor(status, { message, param = null, code = "internal" }) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
  }
}

let signIn = null;
/** What is called when the service asks for a token; resolves when there is one. */
export function onSignIn(ask) {
  signIn = ask;
}

async function call(method, path, body, headers = {}, isRepeat = false) {
  const isForm = body instanceof FormData;
  let response;
  try {
    response = await fetch(path, {
      method,
      body: body === undefined || isForm ? body : JSON.stringify(body),
      headers: body === undefined || isForm ? headers : { "Content-Type": "application/json", ...headers },
    });
  } catch {
    throw new Refusal(0, { message: "", code: "unreachable" });
  }
  if (response.status === 401 && signIn && !isRepeat) {
    await signIn();
    return call(method, path, body, headers, true);
  }
  const said = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, said.error ?? { message: response.statusText });
  return said;
}

function withFile(file, name = "file") {
  const form = new FormData();
  form.append(name, file);
  return form;
}

const of = (id) => `v1/videos/${encodeURIComponent(id)}`;

export const session = () => call("GET", "v1/session", undefined, {}, true);
export const beginSession = (token) => call("POST", "v1/session", { token }, {}, true);
export const schema = () => call("GET", "v1/schema");
export const models = () => call("GET", "v1/models");
export const loras = () => call("GET", "v1/loras");
export const queue = () => call("GET", "v1/queue");

/** A page of videos; filters that are empty are left out. */
export function videos(filters = {}) {
  const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  return call("GET", `v1/videos?${query}`);
}

export const video = (id) => call("GET", of(id));
export const create = (request, more = {}) =>
  call("POST", "v1/videos", { request, ...more }, { "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` });
export const cancel = (id) => call("POST", `${of(id)}/cancel`);
export const remove = (id) => call("DELETE", of(id));
export const move = (id, before) => call("PATCH", of(id), { before });
export const redo = (id, segments, following) => call("POST", `${of(id)}/redo`, { segments, following });
export const upload = (file) => call("POST", "v1/uploads", withFile(file));
export const aboutUpload = (id) => call("GET", `${uploadUrl(id)}/about`);
export const settingsOf = (file) => call("POST", "v1/settings", withFile(file));

export const contentUrl = (id, variant) => `${of(id)}/content?variant=${variant}`;
export const uploadUrl = (id) => `v1/uploads/${encodeURIComponent(id)}`;
export const eventsUrl = "v1/events";
