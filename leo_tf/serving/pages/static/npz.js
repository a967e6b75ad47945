// Files of arrays in NumPy's .npz format: an uncompressed zip of .npy files.
// It reads files of Classifier.save, and writes files for Classifier.load.

import { Refusal } from "./model.js";

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const KINDS = {
  f4: Float32Array, f8: Float64Array, b1: Uint8Array,
  i1: Int8Array, i2: Int16Array, i4: Int32Array, i8: BigInt64Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array,
};

// arrays: name -> {shape, data, type}; type "f4", "f8", "i8", "u1", or "U" for a list of texts.
export function writeNpz(arrays) {
  const files = Object.entries(arrays).map(([name, array]) =>
    ({ name: new TextEncoder().encode(`${name}.npy`), content: npy(array) }));
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, content } of files) {
    const about = [20, 0, 0, 0, 0x21, ...words(crc32(content)), ...words(content.length), ...words(content.length),
      name.length, 0];
    const local = u16([0x4b50, 0x0403, ...about]);
    directory.push(u16([0x4b50, 0x0201, 20, ...about, 0, 0, 0, 0, 0, ...words(offset)]), name);
    parts.push(local, name, content);
    offset += local.length + name.length + content.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = u16([0x4b50, 0x0605, 0, 0, files.length, files.length, ...words(size), ...words(offset), 0]);
  return new Blob([...parts, ...directory, end], { type: "application/octet-stream" });
}

// name -> {type, shape, data}, with data a typed array or a list of texts or booleans. Fails for any other file.
export function readNpz(buffer, names) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) throw new Error("no zip");
  let at = view.getUint32(end + 16, true);
  const found = {};
  for (let left = view.getUint16(end + 10, true); left; left -= 1) {
    if (view.getUint32(at, true) !== 0x02014b50) throw new Error("no zip");
    if (view.getUint16(at + 10, true)) throw new Refusal("compressed; only what numpy.savez writes can be read.");
    const [size, name, extra, comment] = [view.getUint32(at + 24, true), ...[28, 30, 32].map((i) => view.getUint16(at + i, true))];
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const key = new TextDecoder().decode(new Uint8Array(buffer, at + 46, name)).replace(/\.npy$/, "");
    if (names.includes(key)) found[key] = array(buffer.slice(start, start + size), key);
    at += 46 + name + extra + comment;
  }
  return found;
}

function npy({ shape, data, type }) {
  let [descr, content] = [type, null];
  if (type === "U") {
    const texts = data.map((text) => Array.from(text, (letter) => letter.codePointAt(0)));
    const most = Math.max(1, ...texts.map((text) => text.length));
    const codes = new Uint32Array(texts.length * most);
    texts.forEach((text, i) => codes.set(text, i * most));
    [descr, content] = [`U${most}`, codes];
  } else {
    content = KINDS[type].from(data);
  }
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const order = type === "u1" ? "|" : "<";
  let header = `{'descr': '${order}${descr}', 'fortran_order': False, 'shape': (${sizes}), }`;
  header = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11) + "\n";
  const bytes = new Uint8Array(10 + header.length + content.byteLength);
  bytes.set([...MAGIC, 1, 0, header.length & 255, header.length >> 8]);
  bytes.set(new TextEncoder().encode(header), 10);
  bytes.set(new Uint8Array(content.buffer), 10 + header.length);
  return bytes;
}

function array(buffer, name) {
  const bytes = new Uint8Array(buffer);
  if (MAGIC.some((byte, i) => bytes[i] !== byte) || bytes[6] !== 1) throw new Error("no array");
  const start = 10 + bytes[8] + 256 * bytes[9];
  const header = new TextDecoder().decode(bytes.subarray(10, start));
  const [, type, byColumns, sizes] = /'descr': '[<|]?([^']*)', 'fortran_order': (\w+), 'shape': \(([\d, ]*)\)/.exec(header) ?? [];
  const isText = /^[US]\d+$/.test(type);
  if (!isText && !KINDS[type]) throw new Refusal(`its ${name} are of a kind that this page cannot read (${type ?? header.trim()}).`);
  const shape = sizes.split(",").filter((x) => x.trim()).map(Number);
  const content = buffer.slice(start);
  let data = isText ? texts(content, type, shape[0]) : new KINDS[type](content);
  if (data.length !== shape.reduce((a, b) => a * b, 1)) throw new Error("cut short");
  if (byColumns === "True") data = data.map((_, i) => data[(i % shape[1]) * shape[0] + Math.floor(i / shape[1])]);
  if (type === "b1") data = Array.from(data, (x) => (x ? "True" : "False"));
  return { type, shape, data };
}

// Texts of code points (U), or of bytes (S), filled up by zeros.
function texts(content, type, count) {
  const [codes, most] = [new (type[0] === "U" ? Uint32Array : Uint8Array)(content), Number(type.slice(1))];
  if (codes.length !== count * most) throw new Error("cut short");
  const text = (part) => (type[0] === "U" ? String.fromCodePoint(...part) : new TextDecoder().decode(part));
  return Array.from({ length: count }, (_, i) => text(codes.subarray(i * most, (i + 1) * most).filter((code) => code)));
}

function words(number) {
  return [number & 0xffff, number >>> 16];
}

function u16(numbers) {
  return new Uint8Array(Uint16Array.from(numbers).buffer);
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}
