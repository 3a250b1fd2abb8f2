"use strict";

const RAMP = ["0c0824", "57106e", "bc3754", "f98e09", "fcffa4"].map((colour) =>
  [0, 2, 4].map((at) => parseInt(colour.slice(at, at + 2), 16)),
);

const part = (id) => document.getElementById(id);
const address = `/v1/models/${document.body.dataset.model}`;

let facts = null; // what the server tells about its model
let learning = null; // the promise of them
let turn = 0; // number of the picture; what an earlier one waits for comes too late
let instances = null; // the picture, as requests have it
let explanations = new Map(); // of the picture, by stage

// The server.

async function ask(path, content) {
  const post = { method: "POST", body: JSON.stringify(content) };
  let response;
  try {
    response = await fetch(address + path, content && post);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const sentence = answer.error ?? `The server answered with status ${response.status}.`;
    throw new Error(sentence.replace(/^Image 0 /, "This file "));
  }
  return answer;
}

function learnFacts() {
  learning ??= learn().catch((error) => {
    learning = null; // once more with the next picture
    throw error;
  });
  return learning;
}

async function learn() {
  facts = await ask("/metadata");
  const { classes, image_size: [height, width], attention } = facts.model;
  part("about").textContent = `${classes} classes, images of ${width} × ${height} pixels`;
  for (const { stage, grid: [rows, columns] } of attention) {
    part("stage").add(new Option(`stage ${stage}, ${columns} × ${rows}`, stage));
  }
  part("stage").selectedIndex = attention.length - 1;
  part("attention").hidden = !attention.length;
  part("no-attention").hidden = attention.length > 0;
}

async function explain() {
  const stage = facts.model.attention.length ? Number(part("stage").value) : null;
  if (!explanations.has(stage)) {
    const waiting = explanations;
    const answer = await ask(":explain", stage === null ? { instances } : { instances, stage });
    waiting.set(stage, answer.explanations[0]);
  }
  return explanations.get(stage);
}

function encoded(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(file);
  });
}

// A picture, from its file to the page.

async function look(file) {
  const mine = ++turn;
  clear();
  document.body.classList.add("looking");
  say("Looking …");
  try {
    if (!file.size) throw new Error("The file is empty.");
    await learnFacts();
    const { max_request_bytes: most } = facts.limits;
    if ((file.size * 4) / 3 + 100 > most) {
      throw new Error(`The file is too large: the server takes ${megabytes((most * 3) / 4)}.`);
    }
    const b64 = await encoded(file);
    if (mine !== turn) return;
    instances = [{ b64 }];
    const [answer, explanation] = await Promise.all([ask(":predict", { instances }), explain()]);
    if (mine !== turn) return;
    showPredictions(answer.predictions[0]);
    await showPicture(file, explanation);
    if (mine !== turn) return;
    listHeads();
    showAttention(explanation);
    part("output").hidden = part("figure").hidden = false;
    say("");
  } catch (error) {
    if (mine !== turn) return;
    clear();
    say(error.message, true);
  }
}

async function changeStage() {
  const mine = turn;
  const chosen = part("stage").value;
  try {
    const explanation = await explain();
    if (mine !== turn || chosen !== part("stage").value) return;
    listHeads();
    showAttention(explanation);
    say("");
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

function clear() {
  instances = null;
  explanations = new Map();
  part("output").hidden = part("figure").hidden = true;
  URL.revokeObjectURL(part("image").src);
}

function say(words, wrong = false) {
  part("status").textContent = words;
  part("status").classList.toggle("wrong", wrong);
}

function showPredictions({ top_classes: names, top_probabilities: shares }) {
  part("predictions").replaceChildren(
    ...names.map((name, index) => {
      const track = element("div", "track");
      const bar = element("div", "bar");
      bar.style.width = percent(shares[index]);
      track.append(bar);
      const item = document.createElement("li");
      item.append(
        element("span", "name", name), element("span", "percent", percent(shares[index])), track,
      );
      return item;
    }),
  );
}

async function showPicture(file, { image: { width, height }, crop }) {
  part("image").src = URL.createObjectURL(file);
  await part("image").decode();
  const picture = part("picture").style;
  picture.aspectRatio = `${width} / ${height}`;
  picture.width = `min(100%, ${(70 * width) / height}vh)`;
  const frame = part("crop").style;
  frame.left = percentage(crop.left / width);
  frame.width = percentage(crop.width / width);
  frame.top = percentage(crop.top / height);
  frame.height = percentage(crop.height / height);
  const size = `${Math.round(crop.width)} × ${Math.round(crop.height)}`;
  part("caption").textContent =
    `The model saw what lies in the frame: ${size} of the picture's ${width} × ${height} pixels.`;
}

// The attention.

function listHeads() {
  const known = facts.model.attention.find(({ stage }) => stage === Number(part("stage").value));
  if (!known) return;
  const heads = Array.from({ length: known.heads }, (_, head) => new Option(`${head + 1}`, head));
  part("head").replaceChildren(new Option(`mean of ${known.heads}`, ""), ...heads);
}

function showAttention({ attention }) {
  const canvas = part("map");
  canvas.hidden = attention === null || !part("shown").checked;
  if (attention === null) return;
  const head = part("head").value;
  const rows = head === "" ? attention.mean : attention.heads[Number(head)];
  const values = rows.flat();
  const least = Math.min(...values);
  const most = Math.max(...values);
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const pixels = new ImageData(canvas.width, canvas.height);
  values.forEach((value, index) => {
    const colour = colourOf(most > least ? (value - least) / (most - least) : 0);
    pixels.data.set([...colour, 255], 4 * index);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.ariaLabel = `Attention map of ${canvas.width} × ${canvas.height} cells over the frame`;
  part("least").textContent = percent(least, 2);
  part("most").textContent = percent(most, 2);
  const sum = values.reduce((total, value) => total + value, 0);
  part("share").textContent =
    `Each cell's share of the attention in ${attention.block}; together ${percent(sum)}, ` +
    "the rest goes to class tokens.";
}

function colourOf(share) {
  const place = share * (RAMP.length - 1);
  const below = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[below].map((level, index) =>
    Math.round(level + (place - below) * (RAMP[below + 1][index] - level)),
  );
}

// Words and parts.

function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)}%`;
}

function percentage(share) {
  return `${100 * share}%`;
}

function megabytes(bytes) {
  return `${Number((bytes / 1e6).toPrecision(2))} MB at most`;
}

function element(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

// What the visitor does.

function given(transfer) {
  const [file] = transfer?.files ?? [];
  if (file) look(file);
  return Boolean(file);
}

async function changeShown() {
  await explain().then(showAttention, (error) => say(error.message, true));
}

part("file").addEventListener("change", (event) => {
  given(event.target);
  event.target.value = ""; // so that the same file can be chosen once more
});
document.addEventListener("paste", (event) => {
  if (!given(event.clipboardData)) say("There is no picture in what was pasted.", true);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (!given(event.dataTransfer)) say("That was no file; drop a picture from a folder.", true);
});
part("stage").addEventListener("change", changeStage);
for (const id of ["head", "shown"]) part(id).addEventListener("change", changeShown);

learnFacts().catch((error) => say(error.message, true));
