// The page: classes and their examples on the left, questions and answers on the right.
// All state is here. The server keeps nothing, and each change adapts the model anew to all examples.

import { COLOURS, bestOf, element, isUnknown, percent, plotLatents, showAnswer } from "./answers.js";
import { Refusal, Silence, alive, ask, describe, embed } from "./model.js";
import { nearestCentroid } from "./numbers.js";
import { readNpz, writeNpz } from "./npz.js";
import { Pad } from "./pad.js";
import { THUMB_SIDE, fromCamera, ofCanvas, ofFile, shown } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const FILES_AT_ONCE = 100;

let model; // content of /page/model.json
let classes = []; // [{name, colour, examples: [{features, thumb}], card, input, place}]
let taught = null; // {classes, classifier, health} of the adapted model; null while questions cannot be asked
let question = null; // {features, thumb} of the last question
let change = 0; // number of the last change; answers to earlier ones are ignored
let asking = 0;
let pads;
let work = Promise.resolve(); // sends pictures to the server one after the other

main();

async function main() {
  $("origin").textContent = location.origin;
  await retried(async () => { model = await describe(); });
  const { signatures, pictures, tested } = model;
  $("model").textContent = `${model.title}, version ${model.version}${tested ? `, ${tested}` : ""}.`;
  const takes = pictures && ["embed_images", "adapt", "predict"].every((name) => signatures.includes(name));
  $(takes ? "page" : "features-only").hidden = false;
  if (!takes) return;
  pads = { teach: new Pad($("teach-pad"), "Drawing of an example", () => {}),
    ask: new Pad($("ask-pad"), "Drawing to ask about", askDrawing) };
  for (const name of ["A", "B"]) addClass(name);
  $("add-class").addEventListener("click", () => addClass()?.input.select());
  $("save").addEventListener("click", save);
  $("load").addEventListener("change", (event) => load(event.target));
  const add = { files: askFiles, canvas: (canvas) => askPicture(ofCanvas(canvas)) };
  $("ask-files").append(...sources(add, "Ask about"));
  dropTarget(document.querySelector("section[aria-labelledby=ask]"), askFiles);
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
  refresh();
}

// Repeats a job until the server answers, and shows meanwhile that it does not.
async function retried(job) {
  for (;;) {
    try {
      return await job();
    } catch (error) {
      if (!(error instanceof Silence)) throw error;
      say(`${error.message} Trying again until it does …`);
      await alive();
      say("");
    }
  }
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// Runs jobs with pictures in order, and shows their errors.
function queued(job) {
  work = work.then(() => retried(job)).catch((error) => {
    const known = error instanceof Refusal || error.constructor === Error;
    say(known ? error.message : `There is an error in this page: ${error.message}`);
    if (!known) console.error(error);
  });
  return work;
}

// ---- Classes and examples

function addClass(name) {
  if (classes.length >= model.max_classes) {
    say(`There are ${classes.length} classes: this model takes no more.`);
    return null;
  }
  const letter = (i) => (i < 26 ? String.fromCharCode(65 + i) : `Class ${i + 1}`);
  const taken = new Set(classes.map((each) => each.name));
  let free = classes.length;
  while (taken.has(letter(free))) free += 1;
  const used = classes.map((each) => COLOURS.indexOf(each.colour));
  const uses = COLOURS.map((_, i) => used.filter((u) => u === i).length);
  const made = { name: name ?? letter(free), colour: COLOURS[uses.indexOf(Math.min(...uses))], examples: [] };
  classes.push(made);
  $("classes").append(card(made));
  refresh();
  return made;
}

function card(of) {
  of.input = element("input", { value: of.name, maxLength: 80, ariaLabel: "Name of the class" });
  of.input.addEventListener("input", () => { of.name = of.input.value.trim(); refresh(); });
  const remove = element("button", { type: "button", title: "Remove the class" }, "Remove");
  remove.addEventListener("click", () => {
    classes = classes.filter((each) => each !== of);
    of.card.remove();
    refresh();
    $("add-class").focus();
  });
  const draw = element("button", { type: "button", className: "first" }, "Add drawing");
  draw.addEventListener("click", () => {
    if (pads.teach.isEmpty) {
      say("Draw something first, on the white square.");
      return;
    }
    const canvas = pads.teach.drawing();
    pads.teach.clear(); // at once, so that a second click adds nothing
    addExamples(of, [ofCanvas(canvas)]);
  });
  of.place = element("span", { className: "thumbs" });
  const add = { files: (files) => addFiles(of, files), canvas: (canvas) => addExamples(of, [ofCanvas(canvas)]) };
  const buttons = element("p", { className: "buttons" }, draw, ...sources(add, "Add"));
  of.card = element("li", {}, element("div", { className: "name" }, of.input, remove),
    element("div", { className: "examples" }, of.place, buttons));
  of.card.style.setProperty("--colour", of.colour);
  dropTarget(of.card, (files) => addFiles(of, files));
  return of.card;
}

// A button for files, and one for the camera if there is one.
function sources({ files, canvas }, verb) {
  const input = element("input", { type: "file", accept: "image/*", multiple: true, className: "unseen" });
  input.addEventListener("change", () => { files([...input.files]); input.value = ""; });
  const made = [element("label", { className: "button" }, `${verb} files`, input)];
  if (navigator.mediaDevices?.getUserMedia) {
    const button = element("button", { type: "button" }, "Camera");
    button.addEventListener("click", () =>
      fromCamera($("camera"), canvas).catch(() => say("The camera cannot be used: it is missing or not allowed.")));
    made.push(button);
  }
  return made;
}

function dropTarget(place, take) {
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    place.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
}

function addFiles(of, files) {
  if (files.length > FILES_AT_ONCE) say(`Only the first ${FILES_AT_ONCE} of ${files.length} files are added.`);
  addExamples(of, files.slice(0, FILES_AT_ONCE), true);
}

// pictures: files, or promises of {bytes, thumb}.
function addExamples(of, pictures, areFiles = false) {
  for (const [i, each] of pictures.entries()) {
    queued(async () => {
      if (!classes.includes(of)) return;
      if (classes.reduce((sum, { examples }) => sum + examples.length, 0) >= model.max_support) {
        throw new Error(`There are ${model.max_support} examples: this model takes no more.`);
      }
      if (pictures.length > 1) $("taught").textContent = `Reading picture ${i + 1} of ${pictures.length} …`;
      const { bytes, thumb } = await (areFiles ? ofFile(each, model.pictures.max_picture_bytes) : each);
      const features = await named(embed(bytes), areFiles && each.name);
      of.examples.push({ features, thumb });
      if (i === pictures.length - 1 || !areFiles) say("");
      refresh();
    });
  }
  queued(async () => refresh());
}

// Adds the name of the file to a refusal.
async function named(answer, name) {
  try {
    return await answer;
  } catch (error) {
    throw error instanceof Refusal && name ? new Refusal(`${name}: ${error.message}`) : error;
  }
}

function showExamples() {
  for (const each of classes) {
    each.place.replaceChildren(...each.examples.map((example, i) => {
      const label = `Remove example ${i + 1} of ${each.name}`;
      const button = element("button", { type: "button", title: label, ariaLabel: label }, shown(example.thumb));
      button.addEventListener("click", () => {
        each.examples = each.examples.filter((other) => other !== example);
        refresh();
        each.input.focus();
      });
      return button;
    }));
  }
}

// ---- Teaching

// After every change: shows the examples, and adapts the model to all of them.
async function refresh() {
  change += 1;
  const mine = change;
  showExamples();
  const complaint = nameMistake();
  const filled = classes.filter(({ examples }) => examples.length).sort((a, b) => byLetters(a.name, b.name));
  if (complaint || filled.length < 2) {
    taught = null;
    $("save").disabled = true;
    $("inside").hidden = true;
    $("taught").textContent = complaint || "Two classes with an example each are needed to ask.";
    $("answer").replaceChildren();
    return;
  }
  const support = filled.flatMap(({ examples }) => examples.map(({ features }) => Array.from(features)));
  const labels = filled.flatMap(({ examples }, i) => examples.map(() => i));
  const snapshot = filled.map(({ name, colour, examples }) => ({ name, colour, examples: [...examples] }));
  try {
    await retried(async () => {
      const adapted = await ask("adapt", { support, labels });
      const latents = model.signatures.includes("embed") ? await ask("embed", { support, labels }) : null;
      if (mine !== change) return;
      taught = { classes: snapshot, ...adapted };
      $("save").disabled = false;
      $("taught").textContent = `${filled.length} classes, ${support.length} examples; ` +
        `${percent(adapted.support_accuracy)} of the examples are classified correctly.`;
      $("inside").hidden = !latents?.latents_before[0]?.length;
      if (!$("inside").hidden) {
        $("latents-say").textContent = plotLatents($("latents"), latents.latents_before, latents.latents_after, snapshot);
      }
      if (question) await answer(question);
    });
  } catch (error) {
    say(error.message);
  }
}

function nameMistake() {
  const names = classes.map(({ name }) => name);
  let said = "";
  for (const { name, input } of classes) {
    const isDouble = names.filter((other) => other === name).length > 1;
    if (!name || isDouble) {
      input.setAttribute("aria-invalid", "true");
      said = name ? `Two classes are called ${name}.` : "A class has no name.";
    } else {
      input.removeAttribute("aria-invalid");
    }
  }
  return said;
}

// Sorts by code points, like NumPy. JavaScript's own order is by 16-bit units.
function byLetters(a, b) {
  const [x, y] = [a, b].map((text) => Array.from(text, (letter) => letter.codePointAt(0)));
  const i = x.findIndex((code, at) => code !== y[at]);
  if (i < 0) return x.length - y.length;
  return i < y.length ? x[i] - y[i] : 1;
}

// ---- Asking

function askDrawing() {
  if (pads.ask.isEmpty) {
    asking += 1; // ignores an answer that is on its way
    question = null;
    $("answer").replaceChildren();
    return;
  }
  askPicture(ofCanvas(pads.ask.drawing()));
}

function askPicture(picture, name) {
  asking += 1;
  const mine = asking;
  return queued(async () => {
    if (mine !== asking) return; // a stroke was added
    const { bytes, thumb } = await picture;
    const features = await named(embed(bytes), name);
    if (mine !== asking) return;
    say("");
    question = { features, thumb };
    if (taught) await answer(question);
    else $("answer").textContent = "Teach two classes first.";
  });
}

function askFiles(files) {
  $("earlier").replaceChildren();
  $("earlier").hidden = files.length < 2;
  for (const file of files.slice(0, FILES_AT_ONCE)) {
    queued(async () => {
      const { bytes, thumb } = await ofFile(file, model.pictures.max_picture_bytes);
      const features = await named(embed(bytes), file.name);
      if (!taught) {
        $("answer").textContent = "Teach two classes first.";
        return;
      }
      question = { features, thumb };
      const { classes: of } = taught;
      const found = await answer(question);
      const none = isUnknown(found) ? " (perhaps none of these)" : "";
      const said = `${file.name}: ${bestOf(found, of)}, ${percent(Math.max(...found.shares))}${none}`;
      $("earlier").append(element("li", {}, shown(thumb), said));
    });
  }
}

// Shows the model's answer, unless another question was asked meanwhile, or it was cleared.
async function answer(asked) {
  const { classes: of, classifier } = taught;
  const outputs = await ask("predict", { classifier, queries: [Array.from(asked.features)] });
  const found = { ...asked, shares: outputs.probabilities[0], known: outputs.known?.[0],
    centroid: nearestCentroid(asked.features, of) };
  if (question === asked) showAnswer($("answer"), found, of, model.title);
  return found;
}

// ---- Saving and loading

function save() {
  const { classes: of, classifier, support_loss, support_accuracy } = taught;
  const examples = of.flatMap((each) => each.examples.map((example) => ({ ...example, name: each.name })));
  const empty = new Uint8Array(3 * THUMB_SIDE ** 2).fill(255);
  const blob = writeNpz({
    classifier: { type: "f4", shape: [of.length, classifier[0].length], data: classifier.flat() },
    classes: { type: "U", shape: [of.length], data: of.map(({ name }) => name) },
    support: { type: "f4", shape: [examples.length, model.embedding_size], data: examples.flatMap((e) => [...e.features]) },
    support_labels: { type: "U", shape: [examples.length], data: examples.map(({ name }) => name) },
    support_health: { type: "f8", shape: [2], data: [support_loss, support_accuracy] },
    thumbnails: { type: "u1", shape: [examples.length, THUMB_SIDE, THUMB_SIDE, 3],
      data: examples.flatMap(({ thumb }) => [...(thumb ?? empty)]) },
  });
  const link = element("a", { href: URL.createObjectURL(blob), download: "classifier.npz" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function load(input) {
  const [file] = input.files;
  input.value = "";
  if (!file) return;
  let found;
  try {
    found = readNpz(await file.arrayBuffer());
    const { support, support_labels: labels, thumbnails } = found;
    const size = support.shape[1];
    if (size !== model.embedding_size) {
      say(`${file.name} is for a model with ${size} features; this one has ${model.embedding_size}.`);
      return;
    }
    const names = Array.from(labels.data, String);
    const known = [...new Set(names)];
    if (known.length > model.max_classes || names.length > model.max_support) throw new Error("too large");
    classes.forEach((each) => each.card.remove());
    classes = [];
    for (const name of known) addClass(name);
    names.forEach((name, i) => {
      const features = Float32Array.from(support.data.subarray(i * size, (i + 1) * size));
      const bytes = 3 * THUMB_SIDE ** 2;
      const thumb = thumbnails?.shape[1] === THUMB_SIDE ? thumbnails.data.slice(i * bytes, (i + 1) * bytes) : null;
      classes[known.indexOf(name)].examples.push({ features, thumb });
    });
    say("");
    refresh();
  } catch {
    say(`${file.name} was not written by this page or Classifier.save.`);
  }
}
