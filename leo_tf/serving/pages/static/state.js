// What the page knows. Whoever changes it tells the others, who listen.

export const state = {
  model: null, // what /page/model.json says
  classes: [], // [{name, colour, examples: [{features, thumb}]}] and their elements, see classes.js
  taught: null, // {classes, classifier, support_loss, support_accuracy, model}: always of the present examples
  lack: "", // why there is no classifier, and none on its way
};

const told = new EventTarget();

// what: "model"; "examples", of classes too; "names"; "taught", also when there is no classifier any more.
export function on(what, act) {
  told.addEventListener(what, act);
}

export function tell(what) {
  told.dispatchEvent(new Event(what));
}
