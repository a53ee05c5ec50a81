"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const percent = (share) => Number.isFinite(share) ? (100 * share).toFixed(1) + "%" : "–";
const COLOURS = { hit: [217, 217, 217], alarm: [230, 159, 0], miss: [0, 114, 178], rest: [20, 20, 20] };
let pixels = { probability: new Uint8Array(), truth: new Uint8Array() };

// The grey values of a picture that is inside the page.
async function grey(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = data.width;
  canvas.height = data.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, data.width, data.height).data;
  return Uint8Array.from({ length: data.width * data.height }, (_, pixel) => rgba[4 * pixel]);
}

function score(threshold) {
  const counts = { hit: 0, alarm: 0, miss: 0 }, limit = 255 * threshold;
  for (let pixel = 0; pixel < pixels.truth.length; pixel += 1) {
    const found = pixels.probability[pixel] >= limit, is = pixels.truth[pixel] > 127;
    if (found && is) counts.hit += 1;
    else if (found) counts.alarm += 1;
    else if (is) counts.miss += 1;
  }
  return { ...counts, dice: 2 * counts.hit / (2 * counts.hit + counts.alarm + counts.miss) };
}

function show() {
  const threshold = Number(at("threshold").value), limit = 255 * threshold, counts = score(threshold);
  const context = at("errors").getContext("2d"), drawn = context.createImageData(data.width, data.height);
  for (let pixel = 0; pixel < pixels.truth.length; pixel += 1) {
    const found = pixels.probability[pixel] >= limit, is = pixels.truth[pixel] > 127;
    drawn.data.set(COLOURS[found ? (is ? "hit" : "alarm") : (is ? "miss" : "rest")], 4 * pixel);
    drawn.data[4 * pixel + 3] = 255;
  }
  context.putImageData(drawn, 0, 0);
  at("threshold-shown").value = threshold.toFixed(3);
  at("dice").textContent = Number.isFinite(counts.dice) ? counts.dice.toFixed(3) : "–";
  at("sensitivity").textContent = percent(counts.hit / (counts.hit + counts.miss));
  at("precision").textContent = percent(counts.hit / (counts.hit + counts.alarm));
  at("share").textContent = percent((counts.hit + counts.alarm) / pixels.truth.length);
}

async function open() {
  const film = data.films[Number(at("film").value)];
  const [probability, truth] = await Promise.all([grey(film.probability), grey(film.truth)]);
  pixels = { probability, truth };
  at("picture").hidden = !film.picture;
  at("picture").src = film.picture;
  show();
}

at("threshold").value = data.threshold;
at("threshold").addEventListener("input", show);
at("film").addEventListener("change", open);
at("reset").addEventListener("click", () => { at("threshold").value = data.threshold; show(); });
at("best").addEventListener("click", () => {
  const steps = Array.from({ length: 199 }, (_, step) => (step + 1) / 200);
  at("threshold").value = steps.reduce((best, step) => score(step).dice > score(best).dice ? step : best, 0.5);
  show();
});
open();
