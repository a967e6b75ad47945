// The classes and their examples: a card each.

import { COLOURS } from "./answers.js";
import { $, element } from "./dom.js";
import { Pad } from "./pad.js";
import { shown } from "./pictures.js";
import { dropTarget, sources } from "./sources.js";
import { on, state, tell } from "./state.js";
import { FILES_AT_ONCE, queued, readAll, say } from "./work.js";

let pad;

export function beginClasses() {
  pad = new Pad($("teach-pad"), "Drawing of an example", () => {});
  $("add-class").addEventListener("click", () => addClass()?.input.select());
  on("names", showNames);
  on("examples", showNames);
  for (let i = 0; i < (state.model.way ?? 2); i += 1) addClass();
}

export function mostClasses() {
  return state.model.way ?? state.model.max_classes;
}

// Loaded ones in place of those there are: [{name, examples}].
export function replaceClasses(loaded) {
  for (const { card } of state.classes) card.remove();
  state.classes = [];
  for (const { name, examples } of loaded) keep(newClass(name), examples);
  tell("examples");
}

function addClass() {
  if (state.classes.length >= mostClasses()) {
    say(`There are ${state.classes.length} classes: this model takes no more.`);
    return null;
  }
  const made = newClass(freeName());
  tell("examples");
  return made;
}

function freeName() {
  const letter = (i) => (i < 26 ? String.fromCharCode(65 + i) : `Class ${i + 1}`);
  const taken = new Set(state.classes.map(({ name }) => name));
  let free = state.classes.length;
  while (taken.has(letter(free))) free += 1;
  return letter(free);
}

function newClass(name) {
  const uses = COLOURS.map((colour) => state.classes.filter((each) => each.colour === colour).length);
  const made = { name, colour: COLOURS[uses.indexOf(Math.min(...uses))], examples: [] };
  state.classes.push(made);
  $("classes").append(card(made));
  return made;
}

// What has data-says is called so, and by the name of the class.
function card(of) {
  of.input = element("input", { value: of.name, maxLength: 80 });
  of.input.addEventListener("input", () => { of.name = of.input.value.trim(); tell("names"); });
  const remove = element("button", { type: "button" }, "Remove");
  onceClicked(remove, () => removeClass(of));
  of.draw = element("button", { type: "button", className: "first" }, "Add drawing");
  onceClicked(of.draw, () => addDrawing(of));
  of.place = element("span", { className: "thumbs" });
  const take = (pictures) => addExamples(of, pictures);
  const [files, camera] = sources(take, "Add");
  const says = [[of.input, "Name of class"], [remove, "Remove"], [of.draw, "Add drawing to"],
    [files.querySelector("input"), "Add files to"], [camera, "Camera for"]];
  for (const [each, words] of says) if (each) each.dataset.says = words;
  of.card = element("li", {}, element("div", { className: "name" }, of.input, remove),
    element("div", { className: "examples" }, of.place,
      element("p", { className: "buttons" }, of.draw, files, ...(camera ? [camera] : []))));
  of.card.style.setProperty("--colour", of.colour);
  dropTarget(of.card, take);
  return of.card;
}

// The second click of a double one finds another element under the pointer, and is not meant for that.
function onceClicked(button, act) {
  button.addEventListener("click", ({ detail }) => { if (detail < 2) act(); });
}

function removeClass(of) {
  state.classes = state.classes.filter((each) => each !== of);
  of.card.remove();
  $("add-class").focus();
  tell("examples");
}

function addDrawing(of) {
  if (pad.isEmpty) {
    say("Draw something first, on the white square.");
    return;
  }
  const drawing = pad.drawing();
  pad.clear(); // at once: a second click finds nothing to add
  addExamples(of, [drawing]);
}

function addExamples(of, pictures) {
  const { max_support: most } = state.model;
  const more = Math.min(pictures.length, FILES_AT_ONCE);
  const count = state.classes.reduce((sum, { examples }) => sum + examples.length, more);
  if (count > most) {
    say(`These would be ${count} examples: this model takes ${most}.`);
    return;
  }
  const read = [];
  queued(async () => {
    await readAll(pictures, () => !state.classes.includes(of), (picture) => {
      read.push(picture);
      if (more > 1) $("taught").textContent = `${read.length} of ${more} pictures are read …`;
    });
    if (!read.length || !state.classes.includes(of)) return;
    keep(of, read);
    tell("examples");
  });
}

function keep(of, examples) {
  of.examples = [...of.examples, ...examples];
  for (const each of examples) {
    each.button = element("button", { type: "button" }, shown(each.thumb));
    onceClicked(each.button, () => removeExample(of, each));
    of.place.append(each.button);
  }
}

function removeExample(of, example) {
  const { button } = example;
  (button.nextElementSibling ?? button.previousElementSibling ?? of.draw).focus();
  button.remove();
  of.examples = of.examples.filter((other) => other !== example);
  tell("examples");
}

function showNames() {
  const names = state.classes.map(({ name }) => name);
  for (const { name, card: shown, input, examples } of state.classes) {
    examples.forEach(({ button }, i) => { button.dataset.says = `Remove example ${i + 1} of`; });
    for (const each of shown.querySelectorAll("[data-says]")) each.setAttribute("aria-label", `${each.dataset.says} ${name}`);
    const isRight = name && names.indexOf(name) === names.lastIndexOf(name);
    if (isRight) input.removeAttribute("aria-invalid");
    else input.setAttribute("aria-invalid", "true");
  }
}

export function nameMistake() {
  const names = state.classes.map(({ name }) => name);
  if (names.includes("")) return "A class has no name.";
  const double = names.find((name, i) => names.indexOf(name) !== i);
  return double ? `Two classes are called ${double}.` : "";
}
