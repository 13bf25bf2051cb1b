// Measures usearch (npm: usearch). See README.md.
//
// The line that it prints is counted as `vectord bench ann` counts it (bench/ann.go).
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import nativeModule from "node-gyp-build";

// The library below the package's own wrapper, which would turn vectors of bytes into floats.
const { CompiledIndex } = nativeModule(fileURLToPath(new URL("node_modules/usearch", import.meta.url)));

// The least time that each ef is measured for; the queries are repeated until then.
const measureSeconds = 1;

const metrics = { cosine: "cos", euclid: "l2sq", dot: "ip" };
const codecs = { float32: "f32", int8: "i8" };

const { values: flags } = parseArgs({
  options: {
    base: { type: "string" },
    query: { type: "string" },
    truth: { type: "string" },
    metric: { type: "string", default: "cosine" },
    codec: { type: "string", default: "float32" },
    k: { type: "string", default: "10" },
    m: { type: "string", default: "16" },
    "ef-construction": { type: "string", default: "200" },
    ef: { type: "string", default: "10,20,40,80,160,320" },
    threads: { type: "string", default: "1" },
  },
});

function fail(message) {
  console.error(`usearch.mjs: ${message}`);
  process.exit(2);
}

function number(name, text) {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) fail(`--${name}: ${text} invalid, must be a positive integer`);
  return n;
}

for (const name of ["base", "query", "truth"]) if (!flags[name]) fail(`--${name}: not given`);
if (!metrics[flags.metric]) fail(`--metric: ${flags.metric} invalid, must be cosine, euclid or dot`);
if (!codecs[flags.codec]) fail(`--codec: ${flags.codec} invalid, must be float32 or int8`);
const k = number("k", flags.k);
const threads = number("threads", flags.threads);
const efs = flags.ef.split(",").map((ef) => number("ef", ef));
for (const ef of efs) if (ef < k) fail(`--ef: ${ef} is less than k = ${k}`);

// Reads a vecs file, rows of a little-endian int32 length and so many 4-byte values, into one typed array. It reads by
// parts and leaves no garbage, for that would be freed while the memory of the index is measured.
function load(path, Values) {
  const file = openSync(path);
  try {
    const head = Buffer.alloc(4);
    readSync(file, head, 0, 4, 0);
    const dim = head.readInt32LE(0);
    const rowBytes = 4 + 4 * dim;
    const { size } = fstatSync(file);
    if (dim < 1 || size % rowBytes !== 0) throw new Error(`${path}: its rows are not all of ${dim} values`);
    const n = size / rowBytes;
    const data = new Values(n * dim);
    const bytes = new Uint8Array(data.buffer);
    const part = Buffer.alloc(rowBytes * 256);
    for (let i = 0; i < n; ) {
      const rows = Math.min(256, n - i);
      if (readSync(file, part, 0, rows * rowBytes, i * rowBytes) !== rows * rowBytes) throw new Error(`${path}: ends early`);
      for (let r = 0; r < rows; r++, i++) {
        const at = r * rowBytes;
        if (part.readInt32LE(at) !== dim) throw new Error(`${path}: row ${i} has other than ${dim} values`);
        bytes.set(part.subarray(at + 4, at + rowBytes), i * 4 * dim);
      }
    }
    return { n, dim, data, at: (i) => data.subarray(i * dim, (i + 1) * dim) };
  } finally {
    closeSync(file);
  }
}

// Scales each vector to length 1.
function normalize(vectors) {
  for (let i = 0; i < vectors.n; i++) {
    const v = vectors.at(i);
    let sum = 0;
    for (const x of v) sum += x * x;
    if (sum > 0) for (let j = 0, scale = 1 / Math.sqrt(sum); j < v.length; j++) v[j] *= scale;
  }
}

// The distance that recall is decided by; it is no part of what is timed.
function distance(a, b) {
  let sum = 0;
  if (flags.metric === "euclid") {
    for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
  }
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return -sum;
}

const base = load(flags.base, Float32Array);
const queries = load(flags.query, Float32Array);
const truth = load(flags.truth, Int32Array);
if (base.dim !== queries.dim) throw new Error("base and queries differ in dimension");
if (truth.n < queries.n || truth.dim < k) throw new Error("the truth has too few rows, or fewer than k neighbors");
if (flags.metric === "cosine") {
  normalize(base);
  normalize(queries);
}
const query = Array.from({ length: queries.n }, (_, i) => queries.at(i));
const bounds = query.map((q, i) => distance(q, base.at(truth.at(i)[k - 1])));

// What usearch is given. Floats it turns into bytes itself, after scaling each vector to length 1, by which euclidean
// distances are lost: for these the bytes are made here, on one scale for all. Values of 256 steps lose nothing.
function given(vectors) {
  if (flags.codec !== "int8" || flags.metric !== "euclid") return vectors.data;
  let least = Infinity;
  let most = -Infinity;
  for (const x of base.data) {
    least = Math.min(least, x);
    most = Math.max(most, x);
  }
  const scale = 255 / (most - least || 1);
  const bytes = new Int8Array(vectors.data.length);
  for (let i = 0; i < bytes.length; i++)
    bytes[i] = Math.max(-128, Math.min(127, Math.round((vectors.data[i] - least) * scale) - 128));
  return bytes;
}

const givenBase = given(base);
const givenQueries = given(queries);
const givenQuery = query.map((_, i) => givenQueries.subarray(i * queries.dim, (i + 1) * queries.dim));

function newIndex(ef) {
  const m = number("m", flags.m);
  const efConstruction = number("ef-construction", flags["ef-construction"]);
  return new CompiledIndex(base.dim, metrics[flags.metric], codecs[flags.codec], m, efConstruction, ef, false);
}

const seconds = (from) => Number(process.hrtime.bigint() - from) / 1e9;

const keys = BigUint64Array.from({ length: base.n }, (_, i) => BigInt(i));
globalThis.gc?.();
const residentBefore = process.memoryUsage().rss;
const buildBegin = process.hrtime.bigint();
let index = newIndex(efs[0]);
index.add(keys, givenBase, threads);
const buildSeconds = seconds(buildBegin);
const memory = process.memoryUsage().rss - residentBefore;

function measure(ef) {
  let right = 0; // found points that are no further than the k-th true neighbor
  for (let i = 0; i < query.length; i++) {
    const [found, , counts] = index.search(givenQuery[i], k, 1);
    for (const key of found.subarray(0, Number(counts[0])))
      if (distance(query[i], base.at(Number(key))) <= bounds[i]) right++;
  }

  // One query a call, for the latencies.
  const took = [];
  let begin = process.hrtime.bigint();
  for (let i = 0; i < query.length || seconds(begin) <= measureSeconds; i++) {
    const start = process.hrtime.bigint();
    index.search(givenQuery[i % query.length], k, 1);
    took.push(seconds(start) * 1e6);
  }

  // All queries in one call on all threads, for the rate: it spares usearch what JavaScript costs.
  let calls = 0;
  begin = process.hrtime.bigint();
  do {
    index.search(givenQueries, k, threads);
    calls++;
  } while (seconds(begin) <= measureSeconds);
  const qps = (calls * query.length) / seconds(begin);

  took.sort((a, b) => a - b);
  const at = (share) => took[Math.max(0, Math.ceil(share * took.length - 1e-6) - 1)];
  return {
    ef,
    recall: right / (k * query.length),
    qps,
    mean_us: took.reduce((a, b) => a + b, 0) / took.length,
    p50_us: at(0.5),
    p95_us: at(0.95),
    p99_us: at(0.99),
  };
}

// An index has its ef from its making on, so that it is loaded anew for each from the file of the one that was built.
const folder = mkdtempSync(join(tmpdir(), "usearch-"));
const rows = [];
try {
  index.save(join(folder, "index"));
  for (const ef of efs) {
    index = newIndex(ef);
    globalThis.gc?.(); // frees the one before
    index.load(join(folder, "index"));
    rows.push(measure(ef));
  }
} finally {
  rmSync(folder, { recursive: true });
}

console.log(
  JSON.stringify({
    engine: "usearch",
    n: base.n,
    dim: base.dim,
    metric: flags.metric[0].toUpperCase() + flags.metric.slice(1), // as vectord writes it
    codec: flags.codec,
    build_seconds: buildSeconds,
    bytes_in_memory: memory,
    rows,
  }),
);
