// The model on this server: its facts and signatures, through TensorFlow Serving's protocol.

const SECONDS_BETWEEN_TRIES = 1;
const SECONDS_TO_ANSWER = 60;
const BUSY = [502, 503, 504];

// The server refused the request, with a reason. Repeating it would not help.
export class Refusal extends Error {}
// The server did not answer, or was busy.
export class Silence extends Error {}
// The server has no such version of the model (any more).
export class Outdated extends Error {}

export function describe() {
  return answerOf("/page/model.json");
}

// The outputs of a signature.
export async function request(version, signature_name, inputs) {
  const body = JSON.stringify({ signature_name, inputs });
  const path = `/v1/models/leo/versions/${version}:predict`;
  return (await answerOf(path, { method: "POST", body }, Outdated)).outputs;
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

async function answerOf(path, options, Missing = Refusal) {
  const signal = AbortSignal.timeout(1000 * SECONDS_TO_ANSWER);
  let answer;
  let text;
  try {
    answer = await fetch(path, { cache: "no-store", signal, ...options });
    text = await answer.text();
  } catch {
    if (signal.aborted) throw new Refusal(`The server did not answer within ${SECONDS_TO_ANSWER} seconds.`);
    throw new Silence("The server does not answer.");
  }
  const body = parsed(text);
  if (answer.ok && body) return body;
  const said = body?.error ?? `${path}: status ${answer.status} without JSON`;
  if (BUSY.includes(answer.status)) throw new Silence(`The server cannot answer now: ${said}.`);
  throw answer.status === 404 ? new Missing(said) : new Refusal(said);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
