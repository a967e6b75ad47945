// Pictures from files and canvases: their bytes and thumbnails.

import { element } from "./dom.js";
import { Refusal } from "./model.js";

export const THUMB_SIDE = 48;
const MOST_SIDE = 1024; // of pictures converted here: more than any backbone needs
const PNG = [0x89, 0x50, 0x4e, 0x47];
const JPEG = [0xff, 0xd8, 0xff];

// {b64, thumb} of a file or a canvas, b64 the bytes of a PNG or JPEG file. Formats that the model does not read (WebP, GIF, AVIF) become PNG.
export async function read(picture, mostBytes) {
  if (picture instanceof HTMLCanvasElement) return asPng(picture, mostBytes);
  checkSize(picture.size, mostBytes);
  let bytes;
  let image;
  try {
    bytes = new Uint8Array(await picture.arrayBuffer());
    image = await createImageBitmap(picture);
  } catch {
    throw new Refusal("cannot be read as a picture.");
  }
  try {
    const begins = (magic) => magic.every((byte, i) => bytes[i] === byte);
    if (begins(PNG) || begins(JPEG)) return { b64: base64(bytes), thumb: thumbOf(image) };
    return asPng(drawn(image, image.width, image.height), mostBytes);
  } finally {
    image.close();
  }
}

function checkSize(bytes, mostBytes) {
  const megabytes = (size) => `${(size / 2 ** 20).toFixed(1)} MB`;
  if (bytes > mostBytes) throw new Refusal(`${megabytes(bytes)}; the limit is ${megabytes(mostBytes)}.`);
}

// At once, where toBlob waits until a browser is idle: a second, in Chromium.
function asPng(canvas, mostBytes) {
  const [, b64] = canvas.toDataURL("image/png").split(",");
  if (!b64) throw new Refusal("this browser cannot convert it to PNG.");
  checkSize(b64.length * 3 / 4, mostBytes);
  return { b64, thumb: thumbOf(canvas) };
}

function base64(bytes) {
  const parts = [];
  for (let i = 0; i < bytes.length; i += 0x8000) parts.push(String.fromCharCode(...bytes.subarray(i, i + 0x8000)));
  return btoa(parts.join(""));
}

// A canvas of a picture or a video, made smaller if it is large.
export function drawn(source, width, height) {
  const zoom = Math.min(1, MOST_SIDE / Math.max(width, height));
  const [w, h] = [width, height].map((side) => Math.max(1, Math.round(zoom * side)));
  const canvas = element("canvas", { width: w, height: h });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, w, h);
  return canvas;
}

// Pixels [48 * 48 * 3] of the central square.
function thumbOf(image) {
  const side = Math.min(image.width, image.height);
  const context = element("canvas", { width: THUMB_SIDE, height: THUMB_SIDE }).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, THUMB_SIDE, THUMB_SIDE);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, THUMB_SIDE, THUMB_SIDE);
  return context.getImageData(0, 0, THUMB_SIDE, THUMB_SIDE).data.filter((_, i) => i % 4 < 3);
}

// A canvas that shows a thumbnail, empty if there is none.
export function shown(thumb) {
  const canvas = element("canvas", { className: "thumb", width: THUMB_SIDE, height: THUMB_SIDE });
  if (thumb) {
    const pixels = new ImageData(THUMB_SIDE, THUMB_SIDE);
    for (let i = 0; i < THUMB_SIDE ** 2; i += 1) pixels.data.set([...thumb.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }
  return canvas;
}
