"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const percent = (share) => Number.isFinite(share) ? (100 * share).toFixed(1) + "%" : "–";
const SHOWN = 24;
let positive = data.positive;

// How the present scores split at a threshold; a picture is called positive from the threshold on.
function split(threshold) {
  const counts = { hits: 0, misses: 0, alarms: 0, rejections: 0 };
  data.scores[positive].forEach((score, row) => {
    const is = data.labels[row] === positive, called = score >= threshold;
    counts[is ? (called ? "hits" : "misses") : (called ? "alarms" : "rejections")] += 1;
  });
  const sensitivity = counts.hits / (counts.hits + counts.misses);
  const specificity = counts.rejections / (counts.rejections + counts.alarms);
  return { ...counts, sensitivity, specificity };
}

// Expected numbers and costs of 1,000 cases at another prevalence (Bayes' rule).
function consequences({ sensitivity, specificity }, prevalence, missCost, alarmCost) {
  const hits = 1000 * prevalence * sensitivity, misses = 1000 * prevalence - hits;
  const rejections = 1000 * (1 - prevalence) * specificity, alarms = 1000 * (1 - prevalence) - rejections;
  return { hits, misses, alarms, rejections, ppv: hits / (hits + alarms), npv: rejections / (rejections + misses),
           cost: misses * missCost + alarms * alarmCost };
}

const settings = () => ["prevalence", "miss", "alarm"].map((id) => Number(at(id).value));

function cheapest() {
  let best = { cost: Infinity, threshold: 0 };
  for (let step = 0; step <= 200; step += 1) {
    const cost = consequences(split(step / 200), ...settings()).cost;
    if (cost < best.cost) best = { cost, threshold: step / 200 };
  }
  return best;
}

function drawHistogram(threshold) {
  const bins = 25, counts = [new Array(bins).fill(0), new Array(bins).fill(0)];
  data.scores[positive].forEach((score, row) => {
    counts[data.labels[row] === positive ? 1 : 0][Math.min(bins - 1, Math.floor(score * bins))] += 1;
  });
  const highest = Math.max(...counts.flat(), 1), width = 400 / bins;
  // Square roots: near the ends stand most pictures, in the middle those that a threshold decides on.
  const bar = (kind, bin, side) => {
    const height = 120 * Math.sqrt(counts[kind][bin] / highest);
    return `<rect class="bar-${kind ? "positive" : "negative"}" x="${bin * width + side}" y="${125 - height}" width="${width / 2 - 1}" height="${height}"/>`;
  };
  let drawn = "";
  for (let bin = 0; bin < bins; bin += 1) drawn += bar(0, bin, 0.5) + bar(1, bin, width / 2);
  drawn += `<line class="axis" x1="0" x2="400" y1="125" y2="125"/>`;
  drawn += `<line x1="${400 * threshold}" x2="${400 * threshold}" y1="0" y2="130" stroke="currentColor" stroke-width="2"/>`;
  at("histogram").innerHTML = drawn;
}

function drawPictures(threshold) {
  const start = data.threshold, low = Math.min(start, threshold), high = Math.max(start, threshold);
  const scores = data.scores[positive];
  const moved = scores.map((score, row) => row).filter((row) => scores[row] >= low && scores[row] < high);
  const better = moved.filter((row) => (data.labels[row] === positive) === (threshold < start)).length;
  at("moved").textContent = moved.length
    ? `Against ${start.toFixed(3)}, ${moved.length} are ${threshold < start ? "now" : "no longer"} called positive: ` +
      `${better} rightly, ${moved.length - better} wrongly.`
    : `Move the threshold away from ${start.toFixed(3)}, where it started.`;
  const shown = moved.filter((row) => data.pictures[row]).sort((a, b) => scores[b] - scores[a]);
  const count = Math.min(shown.length, SHOWN);
  at("pictures").replaceChildren();
  for (let place = 0; place < count; place += 1) {
    const row = shown[Math.floor(place * shown.length / count)], is = data.labels[row] === positive;
    const right = is === (scores[row] >= threshold);
    const figure = document.createElement("figure"), image = new Image(), caption = document.createElement("figcaption");
    image.src = data.pictures[row];
    image.alt = `${data.classes[data.labels[row]]}, score ${scores[row].toFixed(3)}`;
    caption.textContent = `${right ? "right" : "wrong"}: ${image.alt}`;
    figure.className = right ? "right" : "wrong";
    figure.append(image, caption);
    at("pictures").append(figure);
  }
}

function show() {
  const threshold = Number(at("threshold").value), [prevalence, miss, alarm] = settings();
  const counts = split(threshold), result = consequences(counts, prevalence, miss, alarm), best = cheapest();
  at("threshold-shown").value = threshold.toFixed(3);
  at("prevalence-shown").value = percent(prevalence);
  at("miss-shown").value = miss;
  at("alarm-shown").value = alarm;
  for (const name of ["hits", "misses", "alarms", "rejections"]) at(name).textContent = Math.round(result[name]);
  at("sensitivity").textContent = percent(counts.sensitivity);
  at("specificity").textContent = percent(counts.specificity);
  at("ppv").textContent = percent(result.ppv);
  at("npv").textContent = percent(result.npv);
  at("cost").textContent = Math.round(result.cost).toLocaleString("en");
  at("least").textContent = `${Math.round(best.cost).toLocaleString("en")} (at ${best.threshold.toFixed(3)})`;
  drawHistogram(threshold);
  drawPictures(threshold);
}

function reset() {
  const share = data.labels.filter((label) => label === positive).length / data.labels.length;
  at("threshold").value = data.threshold;
  at("prevalence").value = share;
  document.querySelectorAll(".positive-name").forEach((name) => { name.textContent = data.classes[positive]; });
  at("count").textContent = data.labels.length.toLocaleString("en");
  show();
}

document.querySelectorAll("input").forEach((input) => input.addEventListener("input", show));
at("cheapest").addEventListener("click", () => { at("threshold").value = cheapest().threshold; show(); });
at("reset").addEventListener("click", reset);
if (at("positive")) at("positive").addEventListener("change", (event) => { positive = Number(event.target.value); reset(); });
reset();
