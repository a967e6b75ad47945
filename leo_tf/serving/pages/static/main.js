// The page: classes and their examples on the left, questions and answers on the right.
// The server keeps nothing: all state is in state.js.

import { beginAsking } from "./asking.js";
import { beginClasses } from "./classes.js";
import { $ } from "./dom.js";
import { describe } from "./model.js";
import { beginSaving } from "./saving.js";
import { on, state } from "./state.js";
import { beginTeaching } from "./teaching.js";
import { failed, retried } from "./work.js";

begin().catch((error) => {
  $("model").textContent = "The model is unknown.";
  failed(error);
});

async function begin() {
  $("origin").textContent = location.origin;
  state.model = await retried(describe);
  showModel();
  on("model", showModel);
  const { signatures, pictures } = state.model;
  const takes = (...names) => names.every((name) => signatures.includes(name));
  const withPictures = pictures && takes("embed_images") ? "page" : "features-only";
  const part = takes("adapt", "predict") ? withPictures : "queries-together";
  $(part).hidden = false;
  if (part !== "page") return;
  beginTeaching();
  beginAsking();
  beginSaving();
  beginClasses();
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
}

function showModel() {
  const { title, version, tested } = state.model;
  $("model").textContent = `${title}, version ${version}${tested ? `, ${tested}` : ""}.`;
}
