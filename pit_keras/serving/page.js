"use strict";

const part = (id) => document.getElementById(id);
const address = `/v1/models/${document.body.dataset.model}`;

let facts = null; // the model's metadata
let turn = 0; // number of the picture or stage; answers for an earlier one come too late
let instances = null; // the picture, as requests have it
let attention = null; // of the picture, in the stage that is shown

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

async function learnFacts() {
  if (facts) return;
  facts = await ask("/metadata");
  const { classes, image_size: [height, width], attention: stages } = facts.model;
  part("image").style.imageOrientation = facts.model.apply_orientation ? "from-image" : "none";
  part("about").textContent = `${classes} classes, images of ${width} × ${height} pixels`;
  const options = stages.map(
    ({ stage, grid: [rows, columns] }) => new Option(`stage ${stage}, ${columns} × ${rows}`, stage),
  );
  part("stage").replaceChildren(...options);
  part("stage").selectedIndex = stages.length - 1;
  part("attention").hidden = !stages.length;
  part("no-attention").hidden = stages.length > 0;
}

async function explain() {
  const stage = Number(part("stage").value) || undefined; // without attention there is none
  return (await ask(":explain", { instances, stage })).explanations[0];
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
  say("Looking …");
  try {
    if (!file.size) throw new Error("The file is empty.");
    await learnFacts();
    const { max_request_bytes: most } = facts.limits;
    if ((file.size * 4) / 3 + 100 > most) {
      const megabytes = Number(((most * 3) / 4e6).toPrecision(2));
      throw new Error(`The file is too large: the server takes ${megabytes} MB at most.`);
    }
    const b64 = await encoded(file);
    if (mine !== turn) return;
    instances = [{ b64 }];
    const [answer, explanation] = await Promise.all([ask(":predict", { instances }), explain()]);
    if (mine !== turn) return;
    showPredictions(answer.predictions[0]);
    await showPicture(file, explanation);
    if (mine !== turn) return;
    listHeads(explanation);
    part("output").hidden = part("figure").hidden = false;
    say("");
  } catch (error) {
    if (mine !== turn) return;
    clear();
    say(error.message, true);
  }
}

async function changeStage() {
  const mine = ++turn;
  try {
    const explanation = await explain();
    if (mine !== turn) return;
    listHeads(explanation);
    say("");
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

function clear() {
  instances = attention = null;
  part("output").hidden = part("figure").hidden = true;
  URL.revokeObjectURL(part("image").src);
}

function say(words, wrong = false) {
  part("status").textContent = words;
  part("status").classList.toggle("wrong", wrong);
}

function showPredictions({ top_classes: names, top_probabilities: shares }) {
  const items = names.map((name, index) => {
    const item = document.createElement("li");
    const bar = Object.assign(document.createElement("progress"), { value: shares[index] });
    item.append(name, " ", percent(shares[index]), bar);
    return item;
  });
  part("predictions").replaceChildren(...items);
}

async function showPicture(file, { image: { width, height }, crop }) {
  part("image").src = URL.createObjectURL(file);
  await part("image").decode();
  const picture = part("picture").style;
  picture.aspectRatio = `${width} / ${height}`;
  picture.width = `min(100%, ${(70 * width) / height}vh)`;
  for (const [side, value] of Object.entries(crop)) {
    const whole = side === "left" || side === "width" ? width : height;
    part("crop").style[side] = percent(value / whole, 4);
  }
  const size = `${Math.round(crop.width)} × ${Math.round(crop.height)}`;
  part("caption").textContent =
    `The model saw what lies in the frame: ${size} of the picture's ${width} × ${height} pixels.`;
}

// The attention.

function listHeads(explanation) {
  attention = explanation.attention;
  const heads = (attention?.heads ?? []).map((_, head) => new Option(`${head + 1}`, head));
  part("head").replaceChildren(new Option(`mean of ${heads.length}`, ""), ...heads);
  showAttention();
}

function showAttention() {
  const canvas = part("map");
  canvas.hidden = attention === null || !part("shown").checked;
  if (attention === null) return;
  const rows = attention.heads[part("head").value] ?? attention.mean;
  const values = rows.flat();
  const least = Math.min(...values);
  const most = Math.max(...values);
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const brush = canvas.getContext("2d");
  values.forEach((value, index) => {
    const share = most > least ? (value - least) / (most - least) : 0;
    brush.fillStyle = `hsl(${280 + 140 * share} 90% ${5 + 85 * share}%)`;
    brush.fillRect(index % canvas.width, Math.floor(index / canvas.width), 1, 1);
  });
  canvas.ariaLabel = `Attention map of ${canvas.width} × ${canvas.height} cells over the frame`;
  part("least").textContent = percent(least, 2);
  part("most").textContent = percent(most, 2);
  const sum = values.reduce((total, value) => total + value, 0);
  part("share").textContent =
    `Each cell's share of the attention in ${attention.block}; together ${percent(sum)}, ` +
    "the rest goes to class tokens.";
}

function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)}%`;
}

// What the visitor does.

function lookAt(transfer, otherwise) {
  const [file] = transfer?.files ?? [];
  if (file) look(file);
  else say(otherwise, true);
}

part("file").addEventListener("change", ({ target }) => {
  if (target.files.length) look(target.files[0]);
  target.value = ""; // so that the same file can be chosen once more
});
document.addEventListener("paste", ({ clipboardData }) => {
  lookAt(clipboardData, "There is no picture in what was pasted.");
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  lookAt(event.dataTransfer, "That was no file; drop a picture from a folder.");
});
part("stage").addEventListener("change", changeStage);
for (const id of ["head", "shown"]) part(id).addEventListener("change", showAttention);

learnFacts().catch((error) => say(error.message, true));
