// The page: what is clicked, moved and dropped goes to the worker, and what the worker tells is shown.

const FEW = 10, FRAMES = 9, SAMPLES = 4;
const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js" + location.search, { type: "module" });
const ask = (what, values, transfer = []) => worker.postMessage({ ask: what, ...values }, transfer);

let model, size;
const early = {};
let last = 0;  // Number of the last edit that was asked for: what is told of earlier ones is not shown.
let frames = [], strengths = [];
const opened = {}, turns = { a: 0, b: 0 };  // Of each place: the picture that is shown, and how many have been asked for.
const chosen = { a: {}, b: {} };  // Which button asked, by turn.
const begun = performance.now();

/** For whoever measures the page: milliseconds at which things happened. */
window.times = {};
const happened = (what) => (window.times[what] = performance.now() - begun);

// What is shown ---------------------------------------------------------------------------------------------------------------

function draw(canvas, pixels) {
  canvas.width = size[1];
  canvas.height = size[0];
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(pixels, size[1], size[0]), 0, 0);
}

function state(text, share = 1) {
  $("status").textContent = text;
  $("progress").value = share;
}

const left = (milliseconds) => (milliseconds < 950 ? "almost there" : `${Math.round(milliseconds / 1000)} s left`);

function wrong(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

const worded = (name) => (/^pc\d+$/.test(name) ? `Direction ${name.slice(2)}` : name.replaceAll("_", " "));

function showSaid(said) {
  said.forEach((value, i) => {
    const { kind } = model.attributes[i];
    $(`said-${i}`).textContent = kind === "binary" ? `${Math.round(100 * value)} %` : value.toFixed(1);
  });
}

// Sliders ---------------------------------------------------------------------------------------------------------------------

function buildSliders() {
  model.attributes.forEach(({ name, kind }, i) => {
    const slider = document.createElement("div");
    slider.className = "slider";
    slider.innerHTML = `<div><label for="slider-${i}"></label><output id="said-${i}" for="slider-${i}"></output></div>
      <input type="range" id="slider-${i}" min="-0.6" max="0.6" step="0.02" value="0" disabled>`;
    slider.querySelector("label").textContent = worded(name);
    const input = slider.querySelector("input");
    input.addEventListener("input", () => changed(i, input, false));
    input.addEventListener("change", () => changed(i, input, true));
    input.addEventListener("dblclick", () => { input.value = 0; changed(i, input, true); });
    slider.title = kind === "component" ? "Found without labels" : "";
    $("sliders").append(slider);
  });
  $("more").textContent = `Show all ${model.attributes.length}`;
  $("more").hidden = model.attributes.length <= FEW;
  filter();
}

function filter() {
  const wanted = $("find").value.trim().toLowerCase(), all = $("more").getAttribute("aria-expanded") === "true";
  [...$("sliders").children].forEach((slider, i) => {
    const name = worded(model.attributes[i].name).toLowerCase();
    slider.hidden = wanted ? !name.includes(wanted) : !all && i >= FEW && !strengths[i];
  });
}

function changed(i, input, released) {
  wrong("");
  strengths[i] = Number(input.value);
  input.closest(".slider").classList.toggle("changed", strengths[i] !== 0);
  $("reset").disabled = !strengths.some(Boolean);
  last++;
  if (released) ask("edit", { number: last, strengths });
  else ask("preview", { number: last, strengths });
}

function zero() {
  strengths = model.attributes.map(() => 0);
  for (const input of $("sliders").querySelectorAll("input")) input.value = 0;
  for (const slider of $("sliders").children) slider.classList.remove("changed");
  $("reset").disabled = true;
  filter();
}

// Pictures --------------------------------------------------------------------------------------------------------------------

/** Asks for a picture; the page stays with the one before until the worker has `opened` it. */
function open(place, blob, button = null) {
  if (!model) {  // Opened in place of the example as soon as there is one.
    early[place] = blob;
    return;
  }
  wrong("");
  if (place === "a") state("Looking at the picture", 0);
  else $("way-text").textContent = "Looking at the picture";
  happened(`asked ${place}`);
  const turn = ++turns[place];
  chosen[place][turn] = button;
  ask("open", { place, turn, file: blob });
}

/** What the page says when a picture could not be opened. */
function unopened(place) {
  if (place === "a") state(opened.a ? "Ready" : "No picture", opened.a ? 1 : 0);
  else $("way-text").textContent = opened.b ? "The second face is the one before." : "No picture";
}

async function exampleFaces() {
  const faces = await Promise.all(model.examples.map(async (file) => (await fetch(file)).blob()));
  for (const place of ["a", "b"]) {
    faces.forEach((blob, i) => {
      const button = document.createElement("button"), picture = document.createElement("img");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      picture.src = model.examples[i];
      picture.alt = place === "a" ? `Face ${i + 1}` : `To face ${i + 1}`;
      button.append(picture);
      button.addEventListener("click", () => open(place, blob, button));
      $(`examples-${place}`).append(button);
    });
  }
  for (const [place, blob] of Object.entries(early)) open(place, blob);
  if (!turns.a) open("a", faces[0], $("examples-a").firstChild);
}

const blobOf = (canvas) => new Promise((done) => canvas.toBlob(done, "image/png"));

function showFrame() {
  const at = Number($("way").value);
  // While it is made, the nearest that there is.
  const known = Object.keys(frames).map(Number);
  const nearest = known.sort((i, j) => Math.abs(i - at) - Math.abs(j - at))[0];
  if (nearest !== undefined) draw($("morphed"), frames[nearest]);
}

function buildSamples() {
  for (let i = 0; i < SAMPLES; i++) {
    const one = document.createElement("div");
    one.innerHTML = `<canvas role="img" aria-label="New face ${i + 1}" width="64" height="64"></canvas>
      <button type="button" disabled aria-label="Edit new face ${i + 1}">Edit</button>
      <button type="button" disabled aria-label="Morph to new face ${i + 1}">Morph to</button>`;
    const [canvas, edit, to] = one.children;
    edit.addEventListener("click", async () => { open("a", await blobOf(canvas)); $("stage").scrollIntoView({ block: "nearest" }); });
    to.addEventListener("click", async () => open("b", await blobOf(canvas)));
    $("samples").append(one);
  }
}

// What the worker tells -------------------------------------------------------------------------------------------------------

const told = {
  loading({ text, done, total }) {
    state(done ? `${text}: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB` : text, done ? done / total : 1);
  },
  ready({ model: described, backend, threads }) {
    model = described;
    size = model.shape.slice(1);
    strengths = model.attributes.map(() => 0);
    happened("ready");
    document.documentElement.dataset.backend = backend;
    const where = backend === "webgpu" ? "on the graphics card (WebGPU)" : `on the processor (WebAssembly, ${threads} thread${threads > 1 ? "s" : ""})`;
    $("about").textContent = `Computed ${where} by onnxruntime-web (MIT).`;
    if (model.about.data) $("learnt").textContent = `The model learnt from this and nothing else: ${model.about.data}.`;
    buildSliders();
    $("new").hidden = !model.ways.prior;
    buildSamples();
    $("sample").disabled = false;
    state("Ready");
    exampleFaces().catch(() => wrong("The faces to begin with could not be fetched. Choose a picture instead."));
  },
  failed({ text }) {
    state("This page does not work here", 0);
    wrong(text);
  },
  error({ kind, text }) {
    wrong(`Something went wrong: ${text}`);
    if (kind === "sample") {
      $("sample").disabled = false;
      $("sample-text").textContent = "They could not be drawn. Try again.";
    } else if (kind.startsWith("open ")) unopened(kind.slice(5));
    else if (kind === "morph" || kind === "invert b") $("way-text").textContent = "They could not be drawn. Choose a face again.";
    else if (kind === "invert a") state("The picture could not be taken apart. Choose it again.", 0);
    else state("The edited picture could not be drawn. Move a slider to try again.", 0);
  },
  refused({ place, turn, text }) {
    if (turn !== turns[place]) return;
    wrong(text);
    unopened(place);
  },
  opened({ place, turn, picture, said }) {
    opened[place] = { turn, picture, said };
    for (const button of $(`examples-${place}`).children) button.setAttribute("aria-pressed", String(button === chosen[place][turn]));
    frames = [];
    $("way").disabled = true;
    $("way").value = 0;
    if (place === "a") {
      last++;
      zero();
      for (const input of $("sliders").querySelectorAll("input")) input.disabled = true;
      $("after-text").textContent = "After";
      draw($("before"), picture);
      draw($("after"), picture);
      showSaid(said);
      $("save").disabled = false;
      draw($("morphed"), picture);
    }
  },
  editable({ turn }) {
    if (turn !== opened.a?.turn) return;
    if (turn === turns.a) happened("editable");
    for (const input of $("sliders").querySelectorAll("input")) input.disabled = false;
  },
  inverting({ place, turn, done, total, left: time }) {
    if (turn !== opened[place]?.turn) return;
    const text = `Inferring what the meaning leaves open: ${left(time)}`;
    if (place === "a") state(text, done / total);
    else $("way-text").textContent = text;
  },
  inverted({ place, turn }) {
    if (turn !== opened[place]?.turn) return;
    if (turn === turns[place]) happened(`inverted ${place}`);
    if (place === "a") state("Ready: move a slider");
    if (opened.a && opened.b) ask("morph", { frames: FRAMES });
  },
  preview({ number, picture, said }) {
    if (number !== last) return;
    draw($("after"), picture);
    showSaid(said);
    $("after-text").textContent = "After (preview)";
    happened("preview");
  },
  editing({ number, done, total, left: time, picture }) {
    if (number !== last) return;
    if (picture) draw($("after"), picture);
    state(`Drawing the edited picture: ${left(time)}`, done / total);
  },
  edited({ number, picture, said }) {
    if (number !== last) return;
    draw($("after"), picture);
    showSaid(said);
    $("after-text").textContent = "After";
    state("Ready");
    happened("edited");
    document.documentElement.dataset.edited = number;
  },
  morphing({ done, total, left: time }) {
    $("way-text").textContent = `Drawing ${FRAMES - 2} faces on the way: ${left(time)} (${done} of ${total})`;
  },
  frame({ frame, picture }) {
    if (!opened.a || !opened.b) return;
    frames[frame] = picture;
    [frames[0], frames[FRAMES - 1]] = [opened.a.picture, opened.b.picture];
    $("way").disabled = false;
    if (frame === (FRAMES - 1) / 2 && $("way").value === "0") $("way").value = String(frame);
    showFrame();
  },
  morphed() {
    happened("morphed");
    $("way-text").textContent = "All faces on the way are drawn.";
    document.documentElement.dataset.morphed = "all";
  },
  sampling({ place, done, total, picture }) {
    const one = $("samples").children[place];
    draw(one.firstElementChild, picture);
    // It is no face yet.
    for (const button of one.querySelectorAll("button")) button.disabled = true;
    $("sample-text").textContent = `Drawing face ${place + 1} of ${SAMPLES}: step ${done} of ${total}`;
  },
  sampled({ place, number, picture }) {
    const one = $("samples").children[place];
    draw(one.firstElementChild, picture);
    one.dataset.number = number;
    for (const button of one.querySelectorAll("button")) button.disabled = false;
    if (place === SAMPLES - 1) {
      happened("sampled");
      $("sample-text").textContent = "Nobody has seen them before.";
      $("sample").disabled = false;
    }
  },
};

worker.onmessage = ({ data }) => told[data.tell](data);
worker.onerror = () => told.failed({ text: "This browser lacks what the page needs: modules in workers, WebAssembly with SIMD. A newer one has them." });

// What visitors do ------------------------------------------------------------------------------------------------------------

for (const place of ["a", "b"]) {
  $(`file-${place}`).addEventListener("change", ({ target }) => {
    if (target.files[0]) open(place, target.files[0]);
    target.value = "";  // So that the same file can be chosen again.
  });
}
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) open("a", event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", ({ clipboardData }) => clipboardData?.files[0] && open("a", clipboardData.files[0]));
$("find").addEventListener("input", filter);
$("more").addEventListener("click", () => {
  const all = $("more").getAttribute("aria-expanded") !== "true";
  $("more").setAttribute("aria-expanded", String(all));
  $("more").textContent = all ? "Show few" : `Show all ${model.attributes.length}`;
  filter();
});
$("reset").addEventListener("click", () => {
  zero();
  last++;
  draw($("after"), opened.a.picture);
  showSaid(opened.a.said);
  $("after-text").textContent = "After";
  state("Ready");
});
$("save").addEventListener("click", async () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await blobOf($("after")));
  link.download = "face.png";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
$("way").addEventListener("input", showFrame);
$("sample").addEventListener("click", () => {
  wrong("");
  $("sample").disabled = true;
  // A visitor's first number is drawn by lot, so that no two see the same faces; `?number=` says which.
  const asked = Number(new URLSearchParams(location.search).get("number") ?? NaN);
  const first = Number.isSafeInteger(asked) && asked >= 0 ? asked : Math.floor(Math.random() * 2 ** 31);
  $("sample-text").textContent = "Drawing their meaning";
  ask("sample", { numbers: Array.from({ length: SAMPLES }, (_, i) => first + i) });
});

let stream;
const closeCamera = () => {
  stream?.getTracks().forEach((track) => track.stop());
  $("camera-dialog").close();
};
$("camera").addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch {
    return wrong("There is no camera that this page may use. Choose a picture instead.");
  }
  $("video").srcObject = stream;
  $("camera-dialog").showModal();
});
$("shoot").addEventListener("click", async () => {
  const canvas = document.createElement("canvas");
  canvas.width = $("video").videoWidth;
  canvas.height = $("video").videoHeight;
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  closeCamera();
  open("a", await blobOf(canvas));
});
$("camera-close").addEventListener("click", closeCamera);
$("camera-dialog").addEventListener("cancel", closeCamera);
