// The arithmetic of this page: nearest centroid, nearest examples, two axes of a plot.

// Features, or a list of examples -> what was computed of it.
const known = new WeakMap();

function once(of, compute) {
  if (!known.has(of)) known.set(of, compute(of));
  return known.get(of);
}

export function unit(row) {
  const length = Math.sqrt(dot(row, row)) || 1;
  return Float64Array.from(row, (x) => x / length);
}

export function dot(a, b) {
  return a.reduce((sum, x, i) => sum + x * b[i], 0);
}

function mean(rows) {
  return rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
}

export function softmax(logits) {
  const most = Math.max(...logits);
  const shares = logits.map((x) => Math.exp(x - most));
  const total = shares.reduce((a, b) => a + b, 0);
  return shares.map((x) => x / total);
}

function centroid(examples) {
  return unit(mean(examples.map(({ features }) => once(features, unit))));
}

// [N] probabilities by the cosine to each class's mean, equal to those of Classifier("centroid").
export function nearestCentroid(query, classes) {
  return softmax(classes.map(({ examples }) => 10 * dot(once(query, unit), once(examples, centroid))));
}

// The examples most similar to a query: [{example, of, cosine}], best first.
export function nearest(query, classes, count) {
  const all = classes.flatMap((of) =>
    of.examples.map((example) => ({ example, of, cosine: dot(once(query, unit), once(example.features, unit)) })));
  return all.sort((a, b) => b.cosine - a.cosine).slice(0, count);
}

// [n, 2] coordinates of rows on their first two principal components, by power iteration.
export function project(rows) {
  const centre = mean(rows);
  const apart = rows.map((row) => row.map((x, i) => x - centre[i]));
  const gram = apart.map((a) => apart.map((b) => dot(a, b)));
  const axes = [0, 1].map((k) => {
    let axis = unit(apart.map((_, i) => Math.sin(i + 1 + k)));
    for (let step = 0; step < 100; step += 1) axis = unit(gram.map((row) => dot(row, axis)));
    const value = dot(axis, gram.map((row) => dot(row, axis)));
    gram.forEach((row, i) => row.forEach((_, j) => { row[j] -= value * axis[i] * axis[j]; }));
    return Array.from(axis, (x) => x * Math.sqrt(Math.max(value, 0)));
  });
  return rows.map((_, i) => [axes[0][i], axes[1][i]]);
}
