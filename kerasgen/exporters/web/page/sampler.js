// Chooses a token from logits: the arithmetic of kerasgen.samplers, one text at a time, in float64.

/** The place of the highest value; of equals, the first. */
function highest(values) {
  let best = 0;
  for (let n = 1; n < values.length; n++) if (values[n] > values[best]) best = n;
  return best;
}

/** The places of the count highest values; of equals at the edge, the lower places. */
function highestPlaces(values, count) {
  const sorted = Float64Array.from(values).sort();
  const edge = sorted[sorted.length - count];
  const places = [];
  let above = 0;
  for (const value of values) if (value > edge) above++;
  let room = count - above;
  for (let n = 0; n < values.length; n++) {
    if (values[n] > edge || (values[n] === edge && room-- > 0)) places.push(n);
  }
  return places;
}

function keepOnly(values, places) {
  const kept = new Float64Array(values.length).fill(-Infinity);
  for (const place of places) kept[place] = values[place];
  return kept;
}

function powers(values) {
  const most = values[highest(values)];
  return values.map((value) => Math.exp(value - most));
}

function draw(values, uniform) {
  const weights = powers(values);
  let total = 0;
  for (const weight of weights) total += weight;
  const goal = uniform * total;
  let sum = 0;
  let last = 0;
  for (let n = 0; n < weights.length; n++) {
    if (weights[n] === 0) continue;
    sum += weights[n];
    last = n;
    if (sum > goal) return n;
  }
  return last;
}

/** Of each sampler, which logits stay. */
const KEPT = {
  random: (values) => values,
  top_k: (values, { k }) => (k >= values.length ? values : keepOnly(values, highestPlaces(values, k))),
  top_p: (values, { p }) => {
    if (p >= 1) return values;
    const weights = powers(values);
    let total = 0;
    for (const weight of weights) total += weight;
    const likely = Float64Array.from(weights).sort().reverse();
    let sum = 0;
    let count = 0;
    while (count < likely.length && sum / total < p) sum += likely[count++];
    return keepOnly(values, highestPlaces(values, Math.max(count, 1)));
  },
  min_p: (values, { p }) => {
    if (p <= 0) return values;
    const ratios = powers(values);
    return values.map((value, n) => (ratios[n] < p ? -Infinity : value));
  },
};

/** Refuse settings that can't be meant: returns what is wrong with one for a person, or null. */
export function faultOf(settings, forms) {
  const { sampler, k, p, temperature = 1, repetition_penalty: penalty = 1, max_new_tokens: most = 1 } = settings;
  const names = ["greedy", ...Object.keys(KEPT)];
  const whole = (value) => Number.isInteger(value) && value > 0;
  const positive = (value) => Number.isFinite(value) && value > 0;
  const kinds = [
    ["sampler", names.includes(sampler), `one of ${names.join(", ")}`],
    ["k", sampler !== "top_k" || whole(k), "a whole number of at least 1"],
    ["p", !["top_p", "min_p"].includes(sampler) || (p >= 0 && p <= 1), "between 0 and 1"],
    ["temperature", positive(temperature), "a number above 0"],
    ["repetition_penalty", positive(penalty), "a number above 0"],
    ["max_new_tokens", whole(most), "a whole number of at least 1"],
    ["seed", /^\d+$/.test(String(settings.seed ?? 0)), "a whole number of at least 0"],
    ["form", !settings.form || forms.includes(String(settings.form)), `one of ${forms.join(", ") || "none: the page has no forms"}`],
    ["stop", Array.isArray(settings.stop ?? []), "a list of texts"],
  ];
  const fault = kinds.find(([, holds]) => !holds);
  return fault === undefined ? null : `${fault[0]} must be ${fault[2]}. Received: ${settings[fault[0]]}.`;
}

/**
 * The chosen id.
 * @param logits of the next token.
 * @param settings sampler, temperature, repetition_penalty, k, p.
 * @param allowed says of each id whether it may come, or null for all.
 * @param text the ids of the text so far without start and end tokens.
 * @param uniform a number in [0, 1).
 * @param endId taken where nothing is allowed.
 */
export function choose(logits, settings, allowed, text, uniform, endId) {
  let values = Float64Array.from(logits);
  const penalty = settings.repetition_penalty ?? 1;
  if (penalty !== 1) {
    for (const id of new Set(text)) values[id] = values[id] > 0 ? values[id] / penalty : values[id] * penalty;
  }
  if (allowed !== null) {
    let some = false;
    for (let id = 0; id < values.length; id++) {
      if (!allowed[id]) values[id] = -Infinity;
      else if (values[id] > -Infinity) some = true;
    }
    if (!some) return endId;
  }
  const temperature = settings.temperature ?? 1;
  if (temperature !== 1) values = values.map((value) => value / temperature);
  if (settings.sampler === "greedy") return highest(values);
  return draw(KEPT[settings.sampler](values, settings), uniform);
}
