// Questions and their answers, which follow what is taught.

import { bestOf, isUnknown, percent, showAnswer } from "./answers.js";
import { $, element } from "./dom.js";
import { nearest, nearestCentroid } from "./numbers.js";
import { Pad } from "./pad.js";
import { shown } from "./pictures.js";
import { dropTarget, sources } from "./sources.js";
import { on, state } from "./state.js";
import { ask, failed, queued, readAll } from "./work.js";

const NEAREST = 3;

let pad;
let question = null; // the one that is answered at length: {name, features, thumb, answer}
let listed = []; // those of the files chosen last
let drawings = 0; // a number for each: earlier ones come too late

export function beginAsking() {
  pad = new Pad($("ask-pad"), "Drawing to ask about", askDrawing);
  $("ask-files").append(...sources(askPictures, "Ask about"));
  dropTarget(document.querySelector("section[aria-labelledby=ask]"), askPictures);
  on("names", show);
  on("taught", () => answer([...new Set([...listed, question])].filter(Boolean)).catch(failed));
}

function askDrawing() {
  drawings += 1;
  const mine = drawings;
  if (pad.isEmpty) {
    question = null;
    show();
    return;
  }
  const drawing = pad.drawing();
  queued(() => readAll([drawing], () => mine !== drawings, pose));
}

function askPictures(pictures) {
  if (!pictures.length) return;
  const mine = [];
  listed = mine;
  show();
  queued(() => readAll(pictures, () => mine !== listed, (asked) => {
    mine.push(asked);
    return pose(asked);
  }));
}

function pose(asked) {
  question = asked;
  return answer([asked]);
}

// Answers by the classifier there is, unless there is another meanwhile.
async function answer(questions) {
  const { taught } = state;
  const isStale = () => taught !== state.taught || !questions.some((each) => each === question || listed.includes(each));
  if (!taught && state.lack) for (const each of questions) each.answer = null;
  if (taught && questions.length) {
    const queries = questions.map(({ features }) => Array.from(features));
    const outputs = await ask("predict", { classifier: taught.classifier, queries }, isStale);
    if (!outputs) return;
    const { classes } = taught;
    for (const [i, each] of questions.entries()) {
      each.answer = { classes, shares: outputs.probabilities[i], known: outputs.known?.[i],
        centroid: nearestCentroid(each.features, classes), near: nearest(each.features, classes, NEAREST) };
    }
  }
  show();
}

// An answer stands until there is another, or none.
function show() {
  if (question?.answer) {
    showAnswer($("headline"), $("details"), question.answer, state.model.title);
  } else if (!question || state.lack) {
    $("headline").replaceChildren(question ? state.lack : "");
    $("details").replaceChildren();
  }
  $("earlier").hidden = listed.length < 2;
  $("earlier").replaceChildren(...listed.map(line));
}

function line(asked) {
  asked.canvas ??= shown(asked.thumb);
  const { name, answer: found, canvas } = asked;
  const none = found && isUnknown(found) ? " (perhaps none of these)" : "";
  const said = found ? `${bestOf(found)}, ${percent(Math.max(...found.shares))}${none}` : "…";
  return element("li", {}, canvas, `${name}: ${said}`);
}
