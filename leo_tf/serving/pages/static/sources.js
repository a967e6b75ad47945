// Where pictures come from: files that are chosen or dropped, and the camera.

import { $, element } from "./dom.js";
import { Refusal } from "./model.js";
import { drawn } from "./pictures.js";
import { failed } from "./work.js";

let isCameraOn = false;

// A button for files, and one for the camera where there is one: take(list of files and canvases).
export function sources(take, verb) {
  const input = element("input", { type: "file", accept: "image/*", multiple: true, className: "unseen" });
  input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  const made = [element("label", { className: "button" }, `${verb} files`, input)];
  if (navigator.mediaDevices?.getUserMedia) {
    const camera = element("button", { type: "button" }, "Camera");
    camera.addEventListener("click", () => fromCamera($("camera"), take).catch(failed));
    made.push(camera);
  }
  return made;
}

export function dropTarget(place, take) {
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    place.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
}

// Until the dialog is closed.
async function fromCamera(dialog, take) {
  if (isCameraOn) return;
  isCameraOn = true;
  const video = dialog.querySelector("video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = stream;
    dialog.onclick = ({ target, detail }) => {
      if (target.value === "close") dialog.close();
      if (target.value !== "take" || !video.videoWidth || detail > 1) return;
      take([drawn(video, video.videoWidth, video.videoHeight)]);
    };
    dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new Refusal("The camera cannot be used: there is none, or it is not allowed.");
  } finally {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    isCameraOn = false;
  }
}
