// Shows answers: bars, nearest examples, and the plot of latent codes.

import { element } from "./dom.js";
import { project } from "./numbers.js";
import { shown } from "./pictures.js";

// Distinguishable with any colour vision (after Okabe and Ito), on white and on black.
export const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#3d8fc4", "#8a6d3b", "#9078cf"];
// Share of queries of known classes that are called unknown.
const FALSE_ALARMS = 0.05;
const MOST_BARS = 12;
const SVG = "http://www.w3.org/2000/svg";

export function percent(share) {
  return `${(100 * share).toFixed(share > 0.995 || share < 0.0995 ? 1 : 0)} %`;
}

export function isUnknown(answer) {
  return answer.known !== undefined && answer.known < FALSE_ALARMS;
}

export function bestOf({ shares, classes }) {
  return classes[shares.indexOf(Math.max(...shares))].name;
}

// answer: {classes, shares, known, centroid, near}. The headline is read aloud, so it changes only if it differs.
export function showAnswer(headline, details, answer, method) {
  const { classes } = answer;
  const said = [element("p", { className: "best" }, `${bestOf(answer)}, ${percent(Math.max(...answer.shares))}`)];
  if (isUnknown(answer)) {
    const share = percent(answer.known);
    said.push(element("p", { className: "unknown" },
      `Perhaps none of these: only ${share} of pictures of known classes have a lower score.`));
  }
  if (headline.textContent !== said.map((each) => each.textContent).join("")) headline.replaceChildren(...said);
  const bars = element("div", { className: "bars" });
  const order = classes.map((_, i) => i).sort((a, b) => answer.shares[b] - answer.shares[a]);
  for (const i of order.slice(0, MOST_BARS)) {
    const pair = element("div", {}, bar(method, answer.shares[i], "bar"), bar("centroid", answer.centroid[i], "bar centroid"));
    bars.append(element("span", { className: "class", title: classes[i].name }, classes[i].name), pair);
  }
  if (order.length > MOST_BARS) bars.append(element("span", { className: "small" }, `${order.length - MOST_BARS} more`));
  const legend = element("p", { className: "legend small" },
    element("span", {}, element("i"), method),
    element("span", {}, element("i", { className: "centroid" }), "nearest centroid"));
  const near = element("ul", { className: "near" });
  for (const { example, of, cosine } of answer.near) {
    near.append(element("li", {}, shown(example.thumb), `${of.name}, ${cosine.toFixed(2)}`));
  }
  details.replaceChildren(bars, legend, element("p", { className: "small" }, "Nearest examples, by cosine:"), near);
}

function bar(method, share, className) {
  const ink = element("i");
  ink.style.width = `${100 * share}%`;
  const made = element("div", { className }, ink, percent(share));
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", `${method} ${percent(share)}`);
  return made;
}

// before, after: [N, Z] latent codes.
export function plotLatents(svg, before, after, classes) {
  const points = project([...before, ...after]);
  const [width, height, margin] = [320, 240, 34];
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const span = Math.max(Math.max(...xs) - Math.min(...xs), (Math.max(...ys) - Math.min(...ys)) * 4 / 3, 1e-9);
  const zoom = (width - 2 * margin) / span;
  const middle = [xs, ys].map((values) => (Math.max(...values) + Math.min(...values)) / 2);
  const placed = points.map(([x, y]) => [width / 2 + zoom * (x - middle[0]), height / 2 - zoom * (y - middle[1])]);
  const drawn = classes.flatMap(({ name, colour }, i) => {
    const [[x1, y1], [x2, y2]] = [placed[i], placed[i + classes.length]];
    const isRight = x2 > width * 0.7; // a name there would be cut
    const text = shape("text", { x: isRight ? x2 - 8 : x2 + 8, y: y2 - 7, "text-anchor": isRight ? "end" : "start" });
    text.textContent = name.length > 10 ? `${name.slice(0, 9)}…` : name;
    return [
      shape("line", { x1, y1, x2, y2, stroke: colour }),
      shape("circle", { cx: x1, cy: y1, r: 5, fill: "none", stroke: colour, "stroke-width": 2 }),
      shape("circle", { cx: x2, cy: y2, r: 4.5, fill: colour }),
      text,
    ];
  });
  svg.replaceChildren(...drawn);
  return inWords(before, after);
}

function inWords(before, after) {
  const distance = (a, b) => Math.hypot(...a.map((x, i) => x - b[i]));
  const moved = before.reduce((sum, row, i) => sum + distance(row, after[i]), 0) / before.length;
  const pairs = before.flatMap((a, i) => before.slice(i + 1).map((b) => distance(a, b)));
  const apart = pairs.reduce((sum, x) => sum + x, 0) / pairs.length;
  if (apart === 0) return `Here they have ${before[0].length} numbers; those of all classes were equal at first.`;
  const share = moved / apart;
  const said = share < 0.001 ? "they hardly moved, because the first classifier was already right about the examples"
    : `they moved by ${percent(share)} of their mean distance`;
  return `Here they have ${before[0].length} numbers, shown on their two main axes; ${said}.`;
}

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
