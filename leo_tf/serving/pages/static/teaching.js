// Teaching: the model adapts anew to all examples after each change, and what happened inside is drawn.

import { percent, plotLatents } from "./answers.js";
import { nameMistake } from "./classes.js";
import { $ } from "./dom.js";
import { on, state, tell } from "./state.js";
import { ask, failed } from "./work.js";

let change = 0; // a number for each: answers to earlier ones come too late
let outcome = "";
let latents = null; // {classes, latents_before, latents_after}

export function beginTeaching() {
  on("examples", () => adapt().catch(failed));
  on("names", () => { report(); plot(); });
}

async function adapt() {
  change += 1;
  const mine = change;
  const isStale = () => mine !== change;
  const classes = state.classes.filter(({ examples }) => examples.length);
  const support = classes.flatMap(({ examples }) => examples.map(({ features }) => Array.from(features)));
  const labels = classes.flatMap(({ examples }, i) => examples.map(() => i));
  const isAble = (signature) => !state.lack && state.model.signatures.includes(signature);
  state.taught = null;
  state.lack = missing(classes.length);
  report();
  try {
    const adapted = isAble("adapt") && await ask("adapt", { support, labels }, isStale);
    if (isStale()) return;
    if (adapted) {
      state.taught = { classes, ...adapted };
      outcome = `${classes.length} classes, ${support.length} examples; ` +
        `${percent(adapted.support_accuracy)} of the examples are classified correctly.`;
    }
  } catch (error) {
    if (isStale()) throw error;
    state.lack = `The model refused these examples: ${error.message}`;
    failed(error);
  }
  report();
  tell("taught");
  const found = isAble("embed") && await ask("embed", { support, labels }, isStale);
  if (isStale()) return;
  latents = found ? { classes, ...found } : null;
  plot();
}

function missing(count) {
  const { way } = state.model;
  if (way && count !== way) return `This model needs exactly ${way} classes with an example each; ${count} have one.`;
  return count < 2 ? "Two classes with an example each are needed to ask." : "";
}

function report() {
  const mistake = nameMistake();
  $("taught").textContent = mistake || state.lack || outcome;
  $("save").disabled = Boolean(mistake) || !state.taught;
}

function plot() {
  $("inside").hidden = !latents?.latents_before[0]?.length;
  if ($("inside").hidden) return;
  const { latents_before: before, latents_after: after, classes } = latents;
  $("latents-say").textContent = plotLatents($("latents"), before, after, classes);
}
