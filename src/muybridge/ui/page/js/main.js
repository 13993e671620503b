// The page, put together.

import * as api from "./api.js";
import { loadCatalog, whenModelsAreKnown } from "./catalog.js";
import { $, openDialog, toast } from "./dom.js";
import { touch } from "./draft.js";
import { acceptDrops } from "./drop.js";
import { reason } from "./errors.js";
import { framesOfDraft, showForm } from "./form.js";
import { showGallery } from "./gallery.js";
import { chooseLanguage, language, loadLanguage, t } from "./i18n.js";
import { follow, running, whenJobsChange, whenLinkChanges } from "./jobs.js";
import { showQueue } from "./queue.js";
import { showSchemaForm } from "./schema_form.js";
import { showSizes } from "./sizes.js";
import { showSlots } from "./slots.js";
import { applyTheme, showTheme } from "./theme.js";
import { showTimeline } from "./timeline.js";

/** Ask for a token until the service takes one. */
function askForToken() {
  const dialog = $("#token");
  openDialog(dialog);
  dialog.onclick = null; // there is nothing behind it yet
  dialog.oncancel = (event) => event.preventDefault();
  return new Promise((resolve) => {
    $("form", dialog).onsubmit = async (event) => {
      event.preventDefault();
      try {
        await api.beginSession($("#token-input").value);
        dialog.close();
        resolve();
      } catch (error) {
        if (!(error instanceof api.Refusal)) throw error;
        $("#token-error").textContent = reason(error);
        $("#token-error").hidden = false;
        $("#token-input").select();
      }
    };
  });
}

function showState() {
  const place = $("#service-state");
  let isUp = true;
  const say = () => {
    const count = running().length;
    place.dataset.state = isUp ? (count ? "busy" : "ready") : "away";
    place.textContent = t(isUp ? (count ? "state.busy" : "state.ready") : "state.away");
  };
  whenLinkChanges((now) => {
    isUp = now;
    say();
  });
  whenJobsChange(say);
  say();
}

/** Signed in where that is needed, and knowing what there is to choose from. */
async function begun() {
  const { token_needed: isNeeded, signed_in: isKnown } = await api.session();
  if (isNeeded && !isKnown) await askForToken();
  await loadCatalog();
}

async function start() {
  applyTheme();
  showTheme();
  let asking = null;
  api.onSignIn(() => (asking ??= askForToken().finally(() => (asking = null))));
  // Asked for at once, looked at when there are words to say what is wrong.
  const known = begun();
  known.catch(() => undefined);
  await loadLanguage();
  $("#language").value = language;
  $("#language").addEventListener("change", (event) => chooseLanguage(event.target.value));
  try {
    await known;
  } catch (error) {
    if (!(error instanceof api.Refusal)) throw error;
    toast(reason(error), "error");
    setTimeout(() => location.reload(), 5000);
    return;
  }
  showForm();
  showSizes();
  showSlots();
  showTimeline(framesOfDraft);
  showQueue();
  showState();
  acceptDrops();
  follow();
  performance.mark("usable");
  whenModelsAreKnown(touch);
  await showGallery();
  document.documentElement.dataset.ready = "";
  // Folded away at first, so it is made when there is time.
  (window.requestIdleCallback ?? setTimeout)(() => showSchemaForm($("#advanced")));
}

start();
