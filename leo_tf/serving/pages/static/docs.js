// Adds a button to every entry of the API page, which sends the request and shows the answer.

const MOST_NUMBERS = 6;
const MOST_CHARACTERS = 4000;

try {
  const description = await (await fetch("/openapi.json")).json();
  const { examples } = description.components.requestBodies.Predict.content["application/json"];
  for (const entry of document.querySelectorAll("article")) {
    const shown = [...entry.querySelectorAll("pre[data-example]")];
    if (!shown.length) entry.append(...trial(entry, "Try it"));
    for (const each of shown) each.after(...trial(entry, "Try it", examples[each.dataset.example].value));
  }
} catch (error) {
  const said = document.createElement("p");
  said.id = "message";
  said.textContent = "Nothing can be tried here now: the server did not describe itself. Reload the page to try again.";
  document.querySelector("h1").after(said);
  console.error(error);
}

function trial({ dataset: { method, path } }, name, example) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  const place = document.createElement("pre");
  place.hidden = true;
  button.addEventListener("click", async () => {
    place.hidden = false;
    place.textContent = "…";
    const start = performance.now();
    try {
      const body = example && JSON.stringify(example);
      const answer = await fetch(path, { method, body });
      const text = await answer.text();
      const took = Math.round(performance.now() - start);
      place.textContent = `${answer.status}, ${took} ms\n${readable(text)}`;
    } catch {
      place.textContent = "The server does not answer.";
    }
  });
  return [button, place];
}

function readable(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return cut(text);
  }
  const short = (each) => {
    if (Array.isArray(each)) {
      return each.length > MOST_NUMBERS && each.every((x) => typeof x === "number") ? `[${each.length} numbers]` : each.map(short);
    }
    return each && typeof each === "object" ? Object.fromEntries(Object.entries(each).map(([key, x]) => [key, short(x)])) : each;
  };
  return cut(JSON.stringify(short(value), null, 1).replace(/"(\[\d+ numbers\])"/g, "$1"));
}

function cut(text) {
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}\n… ${text.length} characters in all` : text;
}
