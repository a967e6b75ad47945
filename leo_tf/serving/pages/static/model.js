// The model on this server: its facts and signatures, through TensorFlow Serving's protocol.

const PREDICT = "/v1/models/leo:predict";
const SECONDS_BETWEEN_TRIES = 1;

// The server refused the request, with a reason. Repeating it would not help.
export class Refusal extends Error {}
// The server did not answer, or was busy.
export class Silence extends Error {}

export async function describe() {
  return (await answerOf("/page/model.json")).json();
}

export async function ask(signature_name, inputs) {
  const body = JSON.stringify({ signature_name, inputs });
  const answer = await answerOf(PREDICT, { method: "POST", body });
  return (await answer.json()).outputs;
}

// [D] features of a picture, given the bytes of a PNG or JPEG file.
export async function embed(bytes) {
  const [features] = await ask("embed_images", [{ b64: base64(bytes) }]);
  return Float32Array.from(features);
}

// Resolves when the server answers.
export async function alive() {
  for (;;) {
    await new Promise((done) => setTimeout(done, 1000 * SECONDS_BETWEEN_TRIES));
    try {
      await answerOf("/healthz");
      return;
    } catch (error) {
      if (!(error instanceof Silence)) throw error;
    }
  }
}

async function answerOf(path, options) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Silence("The server does not answer.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().then((body) => body.error, () => answer.statusText);
  if (answer.status >= 500) throw new Silence(`The server cannot answer now: ${said}`);
  throw new Refusal(said);
}

function base64(bytes) {
  const parts = [];
  for (let i = 0; i < bytes.length; i += 0x8000) {
    parts.push(String.fromCharCode(...bytes.subarray(i, i + 0x8000)));
  }
  return btoa(parts.join(""));
}
