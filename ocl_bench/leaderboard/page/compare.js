// The difference of two means over independent seeds, as ocl_bench.score.comparisons tests it: Welch's t-test.
"use strict";

// The integral of sin(angle) ** (freedom - 1) from 0: what lies beyond a t of cot(angle) * sqrt(freedom), but for a factor.
// By Simpson's rule in the fourth root of the angle, where the integrand is smooth for every number of degrees of freedom.
function tail(angle, freedom) {
  const steps = 600, step = angle ** 0.25 / steps;
  const height = (root) => Math.sin(root ** 4) ** (freedom - 1) * 4 * root ** 3;
  let sum = height(steps * step);  // nothing at 0
  for (let place = 1; place < steps; place++) sum += (place % 2 ? 4 : 2) * height(place * step);
  return sum * step / 3;
}

// The chance that Student's t is at least as far from 0 as this.
function twoSided(t, freedom) {
  return tail(Math.atan2(Math.sqrt(freedom), Math.abs(t)), freedom) / tail(Math.PI / 2, freedom);
}

// The t that is exceeded, on either side, with this chance.
function quantile(chance, freedom) {
  const wanted = chance * tail(Math.PI / 2, freedom);
  let [low, high] = [0, Math.PI / 2];
  while (high - low > 1e-13) {
    const middle = (low + high) / 2;
    if (tail(middle, freedom) < wanted) low = middle;
    else high = middle;
  }
  return Math.sqrt(freedom) / Math.tan(low);
}

// Of two results with mean, sd and seeds: the difference, its 95 % interval, and p.
function welch(one, other) {
  const [first, second] = [one, other].map(({ sd, seeds }) => sd ** 2 / seeds);
  const [mean, error] = [one.mean - other.mean, Math.sqrt(first + second)];
  if (error === 0) return { mean, low: mean, high: mean, p: mean === 0 ? 1 : 0 };
  const freedom = (first + second) ** 2 / (first ** 2 / (one.seeds - 1) + second ** 2 / (other.seeds - 1));
  const reach = quantile(0.05, freedom) * error;
  return { mean, low: mean - reach, high: mean + reach, p: twoSided(mean / error, freedom) };
}
