// Requests to the server: pictures one after the other, repeated until answered, with errors reported.

import { $ } from "./dom.js";
import { Outdated, Refusal, Silence, alive, describe, request } from "./model.js";
import { read } from "./pictures.js";
import { state, tell } from "./state.js";

const SECONDS_UNTIL_SAID = 5;
const WAITING = "Still waiting for the server …";
export const FILES_AT_ONCE = 100;
const MOST_SAID = 5;

let work = Promise.resolve();

export function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

export function failed(error) {
  if (error instanceof Refusal) {
    say(error.message);
    return;
  }
  console.error(error);
  say(`There is an error in this page: ${error.message}`);
}

// Does a job after those before it.
export function queued(job) {
  work = work.then(job).catch(failed);
  return work;
}

// The outputs of a signature; undefined if they are stale by then.
export function ask(signature, inputs, isStale) {
  return retried(() => request(state.model.version, signature, inputs), isStale);
}

// Runs until the server answers, and says meanwhile that it does not.
export async function retried(job, isStale = () => false) {
  while (!isStale()) {
    const { version } = state.model ?? {};
    try {
      const found = await watched(job);
      return isStale() ? undefined : found;
    } catch (error) {
      if (error instanceof Outdated) await renew(version, error);
      else if (error instanceof Silence) await awaken(error);
      else if (!(error instanceof Refusal && isStale())) throw error;
    }
  }
  return undefined;
}

async function watched(job) {
  const slow = setTimeout(say, 1000 * SECONDS_UNTIL_SAID, WAITING);
  try {
    return await job();
  } finally {
    clearTimeout(slow);
    if ($("message").textContent === WAITING) say("");
  }
}

async function awaken({ message }) {
  say(`${message} Trying again until it does …`);
  await alive();
  say("");
}

// The server has gone on to another version: so does this page, if its features are the same.
async function renew(version, { message }) {
  const now = await retried(describe);
  if (now.version === version) throw new Refusal(message);
  const kind = ({ embedding_size, pictures }) => `${embedding_size} ${pictures?.weights}`;
  if (kind(now) !== kind(state.model)) {
    throw new Refusal("The server now has a model with other features. Reload this page to use it.");
  }
  if (now.version === state.model.version) return;
  state.model = now;
  tell("model");
  tell("examples");
}

// Gives take({name, features, thumb}) of each file or canvas, and says at the end which were refused.
export async function readAll(pictures, isStale, take) {
  const refused = [];
  const chosen = pictures.slice(0, FILES_AT_ONCE);
  for (const picture of chosen) {
    try {
      if (isStale()) return;
      const { b64, thumb } = await read(picture, state.model.pictures.max_picture_bytes);
      const outputs = await ask("embed_images", [{ b64 }], isStale);
      if (!outputs) return;
      await take({ name: picture.name, features: Float32Array.from(outputs[0]), thumb });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      refused.push(picture.name ? `${picture.name}: ${error.message}` : error.message);
    }
  }
  const said = refused.slice(0, MOST_SAID);
  if (pictures.length > 1 && refused.length) said.unshift(`${chosen.length - refused.length} of ${pictures.length} taken.`);
  if (refused.length > MOST_SAID) said.push(`And ${refused.length - MOST_SAID} more.`);
  if (chosen.length < pictures.length) said.push(`The first ${FILES_AT_ONCE} of ${pictures.length} files are read at once.`);
  say(said.join(" "));
}
