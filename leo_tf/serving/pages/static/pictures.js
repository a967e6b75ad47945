// Pictures from canvases, files and the camera: their bytes and thumbnails.

export const THUMB_SIDE = 48;
const PNG = [0x89, 0x50, 0x4e, 0x47];
const JPEG = [0xff, 0xd8, 0xff];

// {bytes, thumb} of a canvas.
export async function ofCanvas(canvas) {
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return { bytes: new Uint8Array(await blob.arrayBuffer()), thumb: thumbOf(canvas) };
}

// {bytes, thumb} of a file. Formats that the model does not read (WebP, GIF, AVIF) become PNG.
export async function ofFile(file, mostBytes) {
  if (file.size > mostBytes) {
    const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MB`;
    throw new Error(`${file.name} has ${megabytes(file.size)}; the limit is ${megabytes(mostBytes)}.`);
  }
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} cannot be read as a picture.`);
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const begins = (magic) => magic.every((byte, i) => bytes[i] === byte);
  if (begins(PNG) || begins(JPEG)) return { bytes, thumb: thumbOf(image) };
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return ofCanvas(canvas);
}

// Pixels [48 * 48 * 3] of the central square.
function thumbOf(image) {
  const side = Math.min(image.width, image.height);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = THUMB_SIDE;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, THUMB_SIDE, THUMB_SIDE);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, THUMB_SIDE, THUMB_SIDE);
  return context.getImageData(0, 0, THUMB_SIDE, THUMB_SIDE).data.filter((_, i) => i % 4 < 3);
}

// A canvas that shows a thumbnail, empty if there is none.
export function shown(thumb) {
  const canvas = document.createElement("canvas");
  canvas.className = "thumb";
  canvas.width = canvas.height = THUMB_SIDE;
  if (thumb) {
    const pixels = new ImageData(THUMB_SIDE, THUMB_SIDE);
    for (let i = 0; i < THUMB_SIDE ** 2; i += 1) pixels.data.set([...thumb.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }
  return canvas;
}

// Calls take(canvas) with each picture of the camera until the dialog is closed.
export async function fromCamera(dialog, take) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  const video = dialog.querySelector("video");
  video.srcObject = stream;
  const act = (event) => {
    if (event.target.value === "close") dialog.close();
    if (event.target.value !== "take" || !video.videoWidth) return;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    take(canvas);
  };
  dialog.addEventListener("click", act);
  dialog.addEventListener("close", () => {
    dialog.removeEventListener("click", act);
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }, { once: true });
  dialog.showModal();
}
