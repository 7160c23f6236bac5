// The networks, in a thread of their own, so that the page stays quick. The page asks `{ask, ...}`, and is told `{tell, ...}`.
//
// Work is done call by call: after each call of a network the most urgent job goes on, so that a preview is never behind what
// takes long, and a job that a newer one replaces stops at its next call.

import { lerp, moved, next, normal, predicted, prepared, slerp, toPixels, unpacked, widened } from "./numbers.js";

const NOW = 0, SOON = 1, LATER = 2;
const codes = {};  // Of each place: x, z_sem, of the first what previews start from, and x_T once it is inferred.
let model, space, networks, ort, backend;

// Loading ---------------------------------------------------------------------------------------------------------------------

async function load() {
  model = await (await fetch("model.json")).json();
  const build = await suited();
  const runtime = { wasm: ["ort.wasm.min.mjs", ""], jspi: ["ort.jspi.min.mjs", ".jspi"], asyncify: ["ort.webgpu.min.mjs", ".asyncify"] };
  const [module, kind] = runtime[build], stem = `ort-wasm-simd-threaded${kind}`;
  const [binary, numbers, ...parts] = await fetched([`runtime/${stem}.bin`, "space.bin", ...["encode", "network"].flatMap(filesOf)]);
  tell("loading", { text: "Preparing the model" });
  ort = await import(`./runtime/${module}`);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = binary.buffer;
  ort.env.wasm.wasmPaths = { mjs: new URL(`./runtime/${stem}.mjs`, import.meta.url).href };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  space = spaceOf(new Float32Array(numbers.buffer));
  const both = async (provider) => {
    networks = { encode: await opened("encode", parts.slice(0, 2), provider), network: await opened("network", parts.slice(2), provider) };
  };
  backend = build === "wasm" ? "wasm" : "webgpu";
  if (backend === "webgpu" && !(await both("webgpu").then(agrees).catch(() => false))) backend = "wasm";
  if (backend === "wasm") await both("wasm");
  tell("ready", { model, backend, threads: ort.env.wasm.numThreads });
}

const filesOf = (name) => [`${name}.graph.bin`, `${name}.weights.bin`];

const opened = (name, [graph, weights], provider) =>
  ort.InferenceSession.create(graph, {
    externalData: [{ path: `${name}.weights`, data: weights }],
    executionProviders: [provider],
    freeDimensionOverrides: { n: 1 },
    logSeverityLevel: 3,
  });

/** Which build of the runtime suits this browser; the address may ask for `?on=wasm`, or for `?on=webgpu` where that is no card but
 *  the processor in its place, which is slower. */
async function suited() {
  if (onWhat() === "wasm" || !navigator.gpu) return "wasm";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  if (!adapter || (adapter.info?.isFallbackAdapter && onWhat() !== "webgpu")) return "wasm";
  return "Suspending" in WebAssembly ? "jspi" : "asyncify";
}

const onWhat = () => new URLSearchParams(self.location.search).get("on");

/** Files, unpacked, and widened where they hold weights; told is how far they have come, until the page is ready. */
async function fetched(names) {
  let done = 0;
  const sizes = await Promise.all(names.map(async (name) => {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name} is not there (${response.status}): build the page again.`);
    return [response, Number(response.headers.get("content-length")) || 0];
  }));
  const total = sizes.reduce((sum, [, size]) => sum + size, 0);
  return Promise.all(sizes.map(async ([response], i) => {
    const parts = [], reader = response.body.getReader();
    for (let part; !(part = await reader.read()).done; ) {
      parts.push(part.value);
      done += part.value.length;
      if (!networks) tell("loading", { text: "Fetching the model", done, total: Math.max(done, total) });
    }
    const bytes = await unpacked(new Uint8Array(await new Blob(parts).arrayBuffer()));
    return names[i].endsWith(".weights.bin") ? widened(bytes) : bytes;
  }));
}

/** What `space.bin` holds, in the order of docs/demo/build.py. */
function spaceOf(numbers) {
  const d = model.z_dim, all = model.attributes.length, k = model.ceilings.length;
  let at = 0;
  const take = (count) => numbers.subarray(at, (at += count));
  return { mean: take(d), std: take(d), shifts: take(all * d), weights: take(k * d), bias: take(k), says: take(area() * 3) };
}

/** Whether the network says what it said when the page was built, and quickly: a card that errs or is slow is not worked with. */
async function agrees() {
  const asked = () => outputOf(model.ways.mean, 0, normal(0, BigInt(model.keys.x_T), 3 * area()), space.mean);
  const said = await asked();  // The first call makes the card's programs.
  const begun = performance.now();
  await asked();
  const quick = performance.now() - begun < 1000 || onWhat() === "webgpu";
  return quick && said.every((value, i) => Math.abs(value - space.says[i]) < 0.02);
}

// Networks --------------------------------------------------------------------------------------------------------------------

const area = () => model.shape[1] * model.shape[2];
const image = (x) => new ort.Tensor("float32", x, [1, ...model.shape]);
const row = (values) => new ort.Tensor("float32", Float32Array.from(values), [1, values.length]);
const scalar = (value) => new ort.Tensor("float32", Float32Array.of(value), [1]);

const encoded = async (x) => first(await networks.encode.run({ x: image(x) }));

/** What the network says at a step of a way; one that was distilled is also told where the step leads. */
async function outputOf(way, i, x, z_sem) {
  const inputs = { x_t: image(x), t: scalar(way.t[i]), z_sem: row(z_sem) };
  if (model.ways.few) inputs.to = scalar(way.to[i]);
  return first(await networks.network.run(inputs));
}

const imageOf = async (way, i, x, z_sem) => predicted(way, i, x, await outputOf(way, i, x, z_sem));

const first = (outputs) => Float32Array.from(Object.values(outputs)[0].data);

/** Along a way of the solver, yielding after each call; returns the last state. `shown` is given each predicted x_0. */
async function* solved(way, x, z_sem, told = () => {}) {
  let before = x;
  const begun = performance.now(), steps = way.t.length;
  for (let i = 0; i < steps; i++) {
    const x_0 = await imageOf(way, i, x, z_sem);
    x = next(way, i, x, x_0, before);
    before = x_0;
    told(i + 1, steps, ((performance.now() - begun) / (i + 1)) * (steps - i - 1), x_0);
    yield;
  }
  return x;
}

/** The mean of all images with this z_sem, by one call. */
const meanOf = (z_sem) => imageOf(model.ways.mean, 0, normal(0, BigInt(model.keys.x_T), 3 * area()), z_sem);

/** One jump of a network that was distilled. */
async function jumped(way, i, x, z_sem) {
  const x_0 = await imageOf(way, i, x, z_sem);
  return next(way, i, x, x_0, x_0);
}

/** The code of a picture in few jumps, `anchored`: the states on the way to x_T, and where a jump back from each leads. */
async function* anchored(x, z_sem) {
  const { few_back: there, few: back } = model.ways, seen = [x], own = [];
  for (let i = 0; i < there.t.length; i++, yield) seen.unshift(await jumped(there, i, seen[0], z_sem));
  for (let i = 0; i < back.t.length; i++, yield) own.push(await jumped(back, i, seen[i], z_sem));
  return { seen, own };
}

/** The picture of an `anchored` code with another z_sem: what each jump misses is added, so that an unmoved one is exact. Whole, as
 *  a newer preview would else take the place of each before it is seen. */
async function rendered({ seen, own }, z_sem) {
  let x = seen[0];
  for (let i = 0; i < own.length; i++) {
    const after = await jumped(model.ways.few, i, x, z_sem);
    x = seen[i + 1].map((value, j) => value + (after[j] - own[i][j]));
  }
  return x;
}

/** What the classifiers say: probabilities, or values of what is measured. */
function said(z_sem) {
  return model.ceilings.map((ceiling, i) => {
    let logit = space.bias[i];
    for (let j = 0; j < z_sem.length; j++) logit += space.weights[i * z_sem.length + j] * z_sem[j];
    return model.attributes[i].kind === "binary" ? Math.min(1, 1 / (1 + Math.exp(-logit)) / ceiling) : logit;
  });
}

// Jobs ------------------------------------------------------------------------------------------------------------------------

let jobs = [], working = false;

/** Adds a job, in the place of those of the same kind. */
function add(kind, urgency, steps, ready = () => true) {
  jobs = [...jobs.filter((job) => job.kind !== kind), { kind, urgency, steps, ready }];
  work();
}

async function work() {
  if (working) return;
  working = true;
  for (;;) {
    const job = jobs.filter((each) => each.ready()).sort((a, b) => a.urgency - b.urgency)[0];
    if (!job) break;
    let done = true;
    try {
      ({ done } = await job.steps.next());
    } catch (error) {
      tell("error", { kind: job.kind, text: textOf(error) });
    }
    if (done) jobs = jobs.filter((each) => each !== job);
    await new Promise((go) => setTimeout(go));  // What the page has asked meanwhile comes in here.
  }
  working = false;
}

const replaced = (...kinds) => (jobs = jobs.filter((job) => !kinds.includes(job.kind)));

/** Takes in a picture, and infers its codes. The one before stays until then, for the page shows it until it is told `opened`. */
async function* open(place, turn, x) {
  const z_sem = await encoded(x);
  const code = { turn, x, z_sem };
  if (turn !== taken[place]) return;  // Another picture has been taken in meanwhile.
  delete codes[place];
  replaced(...(place === "a" ? ["preview", "edit"] : []), "morph", `invert ${place}`);
  tell("opened", { place, turn, picture: shown(x), said: said(z_sem) });
  yield;
  if (place === "a") {  // The second picture is not edited.
    if (model.ways.few) code.few = yield* anchored(x, z_sem);
    else code.mean = await meanOf(z_sem);
  }
  if (turn !== taken[place]) return;
  codes[place] = code;
  if (place === "a") tell("editable", { turn });
  add(`invert ${place}`, LATER, invert(place, code));
}

async function* invert(place, code) {
  const { turn } = code;
  const x_T = yield* solved(model.ways.invert, code.x, code.z_sem, (done, total, left) =>
    tell("inverting", { place, turn, done, total, left }));
  if (codes[place] !== code) return;  // Another picture has been opened.
  code.x_T = x_T;
  tell("inverted", { place, turn });
}

/** At once: the picture in few jumps; of a network that does not jump, the picture and by how much the mean has changed. */
async function* preview(number, strengths) {
  const { x, z_sem, mean, few } = codes.a, edited = moved(z_sem, space.shifts, strengths);
  let after;
  if (few) after = await rendered(few, edited);
  else {
    const changed = await meanOf(edited);
    after = x.map((value, i) => value + changed[i] - mean[i]);
  }
  tell("preview", { number, picture: shown(after), said: said(edited) });
}

async function* edit(number, strengths) {
  const { x_T, z_sem } = codes.a, edited = moved(z_sem, space.shifts, strengths);
  const x = yield* solved(model.ways.decode, x_T, edited, (done, total, left, x_0) =>
    tell("editing", { number, done, total, left, picture: done < total && done > total / 2 ? shown(x_0) : null }));
  tell("edited", { number, picture: shown(x), said: said(edited) });
}

/** The frames between both pictures: the middle one first, then those between. */
async function* morph(frames) {
  const { a, b } = codes, order = [];
  for (let step = frames - 1; step >= 1; step /= 2) for (let i = step; i < frames - 1; i += step) if (!order.includes(i)) order.push(i);
  let calls = 0;
  const total = order.length * model.ways.decode.t.length, begun = performance.now();
  for (const frame of order) {
    const weight = frame / (frames - 1), z_sem = lerp(a.z_sem, b.z_sem, weight);
    const x = yield* solved(model.ways.decode, slerp(a.x_T, b.x_T, weight), z_sem, () => {
      calls++;
      tell("morphing", { done: calls, total, left: ((performance.now() - begun) / calls) * (total - calls) });
    });
    if (codes.a !== a || codes.b !== b) return;
    tell("frame", { frame, picture: shown(x) });
  }
  tell("morphed", {});
}

/** New faces: z_sem of the latent DDIM, x_T of noise; number i is that of `ae.sample(seed=0)`. */
async function* sample(numbers) {
  const way = model.ways.prior;
  // Fetched when it is asked for; too small for a card.
  networks.prior ??= await opened("prior", await fetched(filesOf("prior")), "wasm");
  for (const [place, number] of numbers.entries()) {
    let z = normal(number, BigInt(model.keys.z_T), model.z_dim), before = z;
    for (let i = 0; i < way.t.length; i++) {
      const inputs = { z_t: row(z), t: scalar(way.t[i]), alpha: row([way.alpha[i]]), sigma: row([way.sigma[i]]) };
      const z_0 = predicted(way, i, z, first(await networks.prior.run(inputs)));
      z = next(way, i, z, z_0, before);
      before = z_0;
    }
    const z_sem = z.map((value, i) => value * space.std[i] + space.mean[i]);
    yield;
    const x_T = normal(number, BigInt(model.keys.x_T), 3 * area());
    const x = yield* solved(model.ways.sample, x_T, z_sem, (done, total, left, x_0) =>
      tell("sampling", { place, done, total, picture: shown(x_0) }));
    tell("sampled", { place, number: number, picture: shown(x) });
  }
}

// The page --------------------------------------------------------------------------------------------------------------------

const shown = (x) => toPixels(x, model.shape[1], model.shape[2]);
const tell = (what, values) => self.postMessage({ tell: what, ...values });
const textOf = (error) => String(error.message || error);

/** A picture's pixels on the model's background. */
async function pixelsOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${model.background.join(" ")})`;
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  if (!data[3]) throw new Error("The canvas is too large.");  // Some browsers draw nothing then, and say nothing.
  return data;
}

const latest = {}, taken = {};  // Of each place: the turn that was asked for last, and that of the last picture that was none to refuse.

const asked = {
  async open({ place, turn, file }) {
    latest[place] = turn;
    const refuse = (text) => turn === latest[place] && tell("refused", { place, turn, text });
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => null);
    if (!bitmap) return refuse("This is no picture that the browser can read. Take a PNG or a JPEG.");
    const { width, height } = bitmap;
    const pixels = await pixelsOf(bitmap).catch(() => null);
    if (!pixels) return refuse(`This picture of ${width} x ${height} pixels is too large for the browser. Take a smaller one.`);
    const x = prepared(pixels, height, width, model.shape.slice(1));
    if (!x) return refuse(`This picture is only ${width} x ${height} pixels, which is too small.`);
    if (turn !== latest[place]) return;  // A later one has been quicker.
    taken[place] = turn;
    add(`open ${place}`, NOW, open(place, turn, x));
  },
  preview: ({ number, strengths }) => add("preview", NOW, preview(number, strengths), () => codes.a),
  edit: ({ number, strengths }) => add("edit", SOON, edit(number, strengths), () => codes.a?.x_T),
  morph: ({ frames }) => add("morph", LATER, morph(frames), () => codes.a?.x_T && codes.b?.x_T),
  sample: ({ numbers }) => add("sample", SOON, sample(numbers)),
};

self.onmessage = async ({ data }) => {
  try {
    await asked[data.ask](data);
  } catch (error) {
    tell("error", { kind: data.place ? `${data.ask} ${data.place}` : data.ask, text: textOf(error) });
  }
};
load().catch((error) => tell("failed", { text: textOf(error) }));
