// The file of what was taught, as Classifier.save writes it, and pictures and backbone on top.

import { mostClasses, replaceClasses } from "./classes.js";
import { $, element } from "./dom.js";
import { Refusal } from "./model.js";
import { readNpz, writeNpz } from "./npz.js";
import { THUMB_SIDE } from "./pictures.js";
import { state } from "./state.js";
import { failed, say } from "./work.js";

const THUMB_BYTES = 3 * THUMB_SIDE ** 2;

export function beginSaving() {
  $("save").addEventListener("click", save);
  $("load").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) load(file).catch(failed);
  });
}

function save() {
  const { taught, model } = state;
  // Classifier has the classes sorted.
  const of = [...taught.classes].sort((a, b) => byLetters(a.name, b.name));
  const rows = of.map((each) => taught.classifier[taught.classes.indexOf(each)]);
  const examples = of.flatMap((each) => each.examples.map((example) => ({ ...example, name: each.name })));
  const empty = new Uint8Array(THUMB_BYTES).fill(255);
  const { weights } = model.pictures;
  const blob = writeNpz({
    classifier: { type: "f4", shape: [of.length, rows[0].length], data: rows.flat() },
    classes: { type: "U", shape: [of.length], data: of.map(({ name }) => name) },
    support: { type: "f4", shape: [examples.length, model.embedding_size], data: examples.flatMap((e) => [...e.features]) },
    support_labels: { type: "U", shape: [examples.length], data: examples.map(({ name }) => name) },
    support_health: { type: "f8", shape: [2], data: [taught.support_loss, taught.support_accuracy] },
    ...(taught.model !== undefined && { model: { type: "i8", shape: [2], data: [BigInt(taught.model), 1n] } }),
    thumbnails: { type: "u1", shape: [examples.length, THUMB_SIDE, THUMB_SIDE, 3],
      data: examples.flatMap(({ thumb }) => [...(thumb ?? empty)]) },
    ...(weights && { backbone: { type: "U", shape: [1], data: [weights] } }),
  });
  const link = element("a", { href: URL.createObjectURL(blob), download: "classifier.npz" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// As NumPy sorts: by code points, where JavaScript's own order is by halves of them.
function byLetters(a, b) {
  const [x, y] = [a, b].map((text) => Array.from(text, (letter) => letter.codePointAt(0)));
  const i = x.findIndex((code, at) => code !== y[at]);
  if (i < 0) return x.length - y.length;
  return i < y.length ? x[i] - y[i] : 1;
}

async function load(file) {
  let loaded;
  try {
    loaded = classesOf(readNpz(await file.arrayBuffer(), ["support", "support_labels", "thumbnails", "backbone"]));
  } catch (error) {
    // Other errors are of bytes that are no such file.
    const said = error instanceof Refusal ? error.message : "no file that this page or Classifier.save wrote.";
    throw new Refusal(`${file.name}: ${said}`);
  }
  replaceClasses(loaded);
  say("");
}

// [{name, examples}] of the arrays of a file, or a Refusal.
function classesOf({ support, support_labels: labels, thumbnails, backbone }) {
  const { embedding_size: size, max_support: most, pictures } = state.model;
  const [count, columns] = support.shape;
  if (support.type !== "f4" || support.shape.length !== 2 || labels.data.length !== count || !count) throw new Error("shapes");
  if (columns !== size) throw new Refusal(`of a model with ${columns} features per picture; this one has ${size}.`);
  if (backbone && pictures.weights && backbone.data[0] !== pictures.weights) {
    throw new Refusal("of another backbone, whose features mean nothing to this model.");
  }
  if (!support.data.every(Number.isFinite)) throw new Refusal("it has features that are NaN or infinity.");
  const names = Array.from(labels.data, String);
  const known = [...new Set(names)];
  if (known.length > mostClasses()) throw new Refusal(`${known.length} classes; this model takes ${mostClasses()}.`);
  if (count > most) throw new Refusal(`${count} examples; this model takes ${most}.`);
  const hasThumbs = thumbnails?.type === "u1" && thumbnails.data.length === count * THUMB_BYTES;
  const examples = names.map((name, i) => ({
    name,
    features: support.data.slice(i * size, (i + 1) * size),
    thumb: hasThumbs ? thumbnails.data.slice(i * THUMB_BYTES, (i + 1) * THUMB_BYTES) : null,
  }));
  return known.map((name) => ({ name, examples: examples.filter((each) => each.name === name) }));
}
