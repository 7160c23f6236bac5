// The arithmetic of the page: what Python does in `diffae`, in the same numbers. Nothing here knows of the page or of networks.
// Images are Float32Array (c, h, w) in [-1, 1], as the networks see them.

/** A packed file as it was: gzip, unless the server has unpacked it already. */
export async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Two planes, all upper bytes of bfloat16 numbers and then all lower ones, as the bytes of float32 numbers. */
export function widened(planes) {
  const n = planes.length / 2, words = new Uint32Array(n);
  for (let i = 0; i < n; i++) words[i] = (planes[i] << 24) | (planes[n + i] << 16);
  return new Uint8Array(words.buffer);
}

/** Standard normal numbers of a sample: Philox4x32-10 and Box-Muller, as `diffae.runtime.philox`. `key` is a BigInt of 64 bits. */
export function normal(number, key, count) {
  const WORD = 0xffffffffn, out = new Float32Array(count);
  const times = (a, m) => {  // The upper and lower word of a product of two words.
    const low = (a & 0xffff) * m, high = (a >>> 16) * m + Math.floor(low / 65536);
    return [Math.floor(high / 65536) >>> 0, Math.imul(a, m) >>> 0];
  };
  for (let block = 0; 4 * block < count; block++) {
    let a = block, b = 0, c = number >>> 0, d = Math.floor(number / 2 ** 32) >>> 0;
    let k = Number(key & WORD), l = Number((key >> 32n) & WORD);
    for (let round = 0; round < 10; round++) {
      const [lowUpper, lowLower] = times(a, 0xd2511f53), [highUpper, highLower] = times(c, 0xcd9e8d57);
      [a, b, c, d] = [(highUpper ^ b ^ k) >>> 0, highLower, (lowUpper ^ d ^ l) >>> 0, lowLower];
      k = (k + 0x9e3779b9) >>> 0;
      l = (l + 0xbb67ae85) >>> 0;
    }
    for (const [i, word, turn] of [[0, a, b], [2, c, d]]) {
      const radius = Math.sqrt(-2 * Math.log(((word >>> 8) + 0.5) * 2 ** -24)), angle = (turn >>> 8) * 2 * Math.PI * 2 ** -24;
      if (4 * block + i < count) out[4 * block + i] = radius * Math.cos(angle);
      if (4 * block + i + 1 < count) out[4 * block + i + 1] = radius * Math.sin(angle);
    }
  }
  return out;
}

/** The x_0 that the network's output stands for, at a step of a solver's table. */
export function predicted(way, i, x, output) {
  const x_0 = new Float32Array(x.length);
  for (let j = 0; j < x.length; j++) {
    const value = way.of_x[i] * x[j] + way.of_output[i] * output[j];
    x_0[j] = way.clamp ? Math.min(1, Math.max(-1, value)) : value;
  }
  return x_0;
}

/** The next state, of the one before, of x_0 and of the x_0 one step earlier. */
export function next(way, i, x, x_0, before) {
  const out = new Float32Array(x.length);
  for (let j = 0; j < x.length; j++) out[j] = way.from_x[i] * x[j] + way.from_x_0[i] * x_0[j] + way.from_before[i] * before[j];
  return out;
}

export function lerp(a, b, weight) {
  return a.map((value, i) => value + weight * (b[i] - value));
}

/** Directions along a great circle, norms along a straight line, as `diffae.diffusion.interpolation.slerp`. */
export function slerp(a, b, weight) {
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  const normA = Math.sqrt(dot(a, a)), normB = Math.sqrt(dot(b, b));
  const theta = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / (normA * normB))));
  if (Math.sin(theta) < 1e-6) return lerp(a, b, weight);
  const norm = (normA + weight * (normB - normA)) / Math.sin(theta);
  const ofA = (norm * Math.sin((1 - weight) * theta)) / normA, ofB = (norm * Math.sin(weight * theta)) / normB;
  return a.map((value, i) => ofA * value + ofB * b[i]);
}

/** `z + sum of strength x shift`, with shifts (k, d) in one array. */
export function moved(z, shifts, strengths) {
  const out = Float64Array.from(z);
  strengths.forEach((strength, row) => {
    if (strength) for (let i = 0; i < z.length; i++) out[i] += strength * shifts[row * z.length + i];
  });
  return Float32Array.from(out);
}

/** Pixels for a canvas, opaque, rounded as `diffae.pictures.to_pil` does: half to even. */
export function toPixels(x, height, width) {
  const n = height * width, out = new Uint8ClampedArray(4 * n).fill(255);  // Such an array rounds half to even by itself.
  for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) out[4 * i + c] = Math.fround(Math.fround(x[c * n + i] + 1) * 127.5);
  return out;
}

/** An opaque picture as the model takes it: cropped at its centre and resized by Lanczos's filter, to the byte as Pillow does it.
 *  `pixels` are RGBA. What a picture is too small for is null. */
export function prepared(pixels, height, width, size) {
  const [h, w] = size;
  if (4 * height < h || 4 * width < w) return null;
  const least = Math.min(height / h, width / w);
  const whole = (n) => (Math.abs(n - Math.round(n)) < 1e-4 ? Math.round(n) : n);
  const lengths = [Math.min(height, whole(least * h)), Math.min(width, whole(least * w))];
  let edges = [height, width].map((n, i) => [(n - lengths[i]) / 2, (n + lengths[i]) / 2]);
  let origin = [0, 0], sides = [height, width];
  if (edges.flat().every(Number.isInteger)) {  // Cut out first: the filter would look at pixels beyond the box's edge.
    origin = [edges[0][0], edges[1][0]];
    sides = lengths;
    edges = lengths.map((n) => [0, n]);
  }
  const columns = filters(sides[1], edges[1], w), rows = filters(sides[0], edges[0], h);
  // Across, of those rows that are needed; then down. Each pass rounds to bytes.
  const across = new Uint8ClampedArray(sides[0] * w * 3);
  const first = rows[0].start, last = Math.max(...rows.map((row) => row.start + row.weights.length));
  for (let y = first; y < last; y++) {
    for (let x = 0; x < w; x++) {
      const { start, weights } = columns[x];
      for (let c = 0; c < 3; c++) {
        let sum = 2 ** 21, at = 4 * ((origin[0] + y) * width + origin[1] + start) + c;
        for (let k = 0; k < weights.length; k++, at += 4) sum += weights[k] * pixels[at];
        across[(y * w + x) * 3 + c] = Math.floor(sum / 2 ** 22);
      }
    }
  }
  const out = new Float32Array(3 * h * w);
  for (let y = 0; y < h; y++) {
    const { start, weights } = rows[y];
    for (let x = 0; x < w; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 2 ** 21;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * across[((start + k) * w + x) * 3 + c];
        out[(c * h + y) * w + x] = Math.min(255, Math.max(0, Math.floor(sum / 2 ** 22))) / 127.5 - 1;
      }
    }
  }
  return out;
}

/** For each pixel of a side that is resized, where its filter starts and the filter's weights, of which 2^22 is one. */
function filters(length, [low, high], out) {
  if (low === 0 && high === length && out === length) return Array.from({ length: out }, (_, i) => ({ start: i, weights: [2 ** 22] }));
  const scale = (high - low) / out, coarse = Math.max(scale, 1), reach = 3 * coarse;
  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  return Array.from({ length: out }, (_, i) => {
    const centre = low + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5)), end = Math.min(length, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({ length: end - start }, (_, k) => {
      const x = (start + k - centre + 0.5) / coarse;
      return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
    });
    const sum = raw.reduce((a, b) => a + b, 0);
    return { start, weights: raw.map((weight) => Math.trunc((weight / sum) * 2 ** 22 + (weight < 0 ? -0.5 : 0.5))) };
  });
}
