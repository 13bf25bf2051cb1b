// Runs the real server for the tests, and holds what the tests of the clients share.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {mkdtemp, rm} from 'node:fs/promises';
import {createServer} from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';

// SERVER_BINARY tests another build than the one of `make build`, say one with the race detector.
const binary = process.env.SERVER_BINARY ?? join(import.meta.dirname, '../../bin/vectord');
const startLimitMillis = 60_000;
const stopLimitMillis = 10_000;

/**
 * Starts a server on a free port with its data in a new directory. Stop it with stop(), which fails unless the server
 * ends cleanly and in time, and removes the data.
 */
export async function startServer(...options) {
    const directory = await mkdtemp(join(tmpdir(), 'vectord-clients-'));
    const port = await freePort();
    const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('VECTORD_')));
    const child = spawn(
        binary,
        ['serve', '--data-dir', directory, '--http', `127.0.0.1:${port}`, '--grpc', '', '--tcp', '', '--log-format', 'json', ...options],
        {env: environment, stdio: ['ignore', 'pipe', 'pipe']},
    );
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (chunk) => (output = (output + chunk).slice(-65_536)));
    }
    const exited = new Promise((resolve, reject) => {
        child.on('error', reject);
        child.on('exit', (code, signal) => resolve({code, signal}));
    });
    exited.catch(() => {}); // reported by whoever awaits it first

    const url = `http://127.0.0.1:${port}`;
    const limit = Date.now() + startLimitMillis;
    for (;;) {
        const ready = await fetch(`${url}/readyz`).then(
            async (response) => (await response.text(), response.ok),
            () => false,
        );
        if (ready) {
            break;
        }
        const ended = await Promise.race([exited, delay(20)]);
        if (ended || Date.now() > limit) {
            child.kill('SIGKILL');
            throw new Error(`the server is not ready: ${JSON.stringify(ended ?? 'still starting')}\n${output}`);
        }
    }
    return {
        url,
        directory,
        async stop() {
            child.kill('SIGTERM');
            const ended = await Promise.race([exited, delay(stopLimitMillis, undefined, {ref: false})]);
            child.kill('SIGKILL');
            await rm(directory, {recursive: true, force: true});
            assert.deepEqual(ended, {code: 0, signal: null}, `after SIGTERM; the server said:\n${output}`);
        },
    };
}

async function freePort() {
    const listener = createServer();
    await new Promise((resolve, reject) => listener.on('error', reject).listen(0, '127.0.0.1', resolve));
    const {port} = listener.address();
    await new Promise((resolve) => listener.close(resolve));
    return port;
}

/** Returns a generator of numbers in [0, 1) that is the same for the same seed. */
export function randomNumbers(seed) {
    let state = seed >>> 0;
    return () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 32;
    };
}

/** Returns a vector of float32 numbers in [-1, 1). */
export function randomVector(random, size) {
    return Array.from({length: size}, () => Math.fround(2 * random() - 1));
}

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

/** The score of two vectors under each distance, computed in float64. */
export const score = {
    Cosine: (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)),
    Dot: dot,
    Euclid: (a, b) => Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0)),
    Manhattan: (a, b) => a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0),
};

/** Returns the k points nearest to the vector as {id, score}, by looking at every one of them. */
export function nearest(points, distance, vector, k) {
    const sign = distance === 'Cosine' || distance === 'Dot' ? -1 : 1;
    return points
        .map((point) => ({id: point.id, score: score[distance](vector, point.vector)}))
        .sort((a, b) => sign * (a.score - b.score))
        .slice(0, k);
}

/** Fails unless the hits are the expected ones, in their order, with scores equal up to the rounding of float32. */
export function assertHits(hits, expected) {
    assert.deepEqual(
        hits.map((hit) => hit.id),
        expected.map((hit) => hit.id),
    );
    hits.forEach((hit, i) => {
        const error = Math.abs(hit.score - expected[i].score);
        assert.ok(error <= 1e-5 * Math.max(1, Math.abs(expected[i].score)), `score of ${hit.id}: ${hit.score}, expected ${expected[i].score}`);
    });
}

/**
 * Returns the ids of k points, each chosen as the one with the most (1 − diversity) · similarity to the vector −
 * diversity · similarity to the nearest that is chosen already, among the candidates nearest to the vector; the first is
 * the nearest of all. Carbonell and Goldstein (1998).
 */
export function chosenByMMR(points, distance, vector, {k, diversity, candidates}) {
    const sign = distance === 'Cosine' || distance === 'Dot' ? 1 : -1;
    const similarity = (a, b) => sign * score[distance](a, b);
    const byId = new Map(points.map((point) => [point.id, point.vector]));
    const left = nearest(points, distance, vector, candidates).map(({id}) => id);
    const chosen = left.splice(0, 1);
    const worth = (id) =>
        (1 - diversity) * similarity(byId.get(id), vector) - diversity * Math.max(...chosen.map((other) => similarity(byId.get(id), byId.get(other))));
    while (chosen.length < k && left.length > 0) {
        const best = left.reduce((a, b) => (worth(b) > worth(a) ? b : a));
        left.splice(left.indexOf(best), 1);
        chosen.push(best);
    }
    return chosen;
}

/**
 * Fails unless the hits are k of the points with the best scores (or all, if there are less) in their order, each with the
 * score that it has in the map. Which of several points with equal scores are there does not matter.
 */
export function assertScored(hits, scores, k, best = 'greatest') {
    const wanted = [...scores.values()].sort((a, b) => (best === 'greatest' ? b - a : a - b)).slice(0, k);
    assert.equal(hits.length, wanted.length);
    assert.equal(new Set(hits.map((hit) => hit.id)).size, hits.length);
    hits.forEach((hit, i) => {
        for (const expected of [wanted[i], scores.get(hit.id)]) {
            const error = Math.abs(hit.score - expected);
            assert.ok(error <= 1e-5 * Math.max(1, Math.abs(expected)), `score of ${hit.id} at ${i}: ${hit.score}, expected ${expected}`);
        }
    });
}

/** Fails unless the promise is rejected with the status, and with a text that the pattern matches. */
export async function refused(promise, status, pattern) {
    await assert.rejects(promise, (error) => {
        assert.equal(error.status, status, `${error}`);
        const text = typeof error.data === 'string' ? error.data : error.data?.status?.error;
        assert.match(text ?? '', pattern);
        return true;
    });
}
