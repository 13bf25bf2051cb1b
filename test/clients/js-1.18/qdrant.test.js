// @qdrant/js-client-rest 1.18 against a real server: the methods that 1.19 no longer has, and a few that it has too.

import assert from 'node:assert/strict';
import {after, before, describe, test} from 'node:test';
import {QdrantClient} from '@qdrant/js-client-rest';
import {assertHits, assertScored, nearest, randomNumbers, randomVector, refused, score, startServer} from '../server.js';

const size = 8;
const count = 100;

describe('@qdrant/js-client-rest 1.18', () => {
    const random = randomNumbers(1);
    const points = Array.from({length: count}, (_, i) => ({
        id: i + 1,
        vector: randomVector(random, size),
        payload: {number: i, kind: ['a', 'b', 'c', 'd'][i % 4]},
    }));
    const byId = new Map(points.map((point) => [point.id, point]));
    const name = 'points';
    let server;
    let client;

    before(async () => {
        server = await startServer();
        client = new QdrantClient({url: server.url});
        await client.createCollection(name, {vectors: {size, distance: 'Cosine'}});
        await client.upsert(name, {points});
        await client.createCollection('named', {
            vectors: {one: {size, distance: 'Dot'}, two: {size, distance: 'Euclid'}},
            sparse_vectors: {words: {}},
        });
        await client.upsert('named', {
            points: points.map(({id, vector}) => ({
                id,
                vector: {one: vector, two: vector, words: {indices: [id % 10, 10 + (id % 7)], values: [id, 1]}},
            })),
        });
    });
    after(() => server?.stop());

    const cosine = (vector) => (point) => score.Cosine(vector, point.vector);
    const scores = (fn, among = points) => new Map(among.map((point) => [point.id, fn(point)]));
    const without = (...ids) => points.filter((point) => !ids.includes(point.id));
    const mean = (vectors) => vectors[0].map((_, i) => vectors.reduce((sum, v) => sum + v[i], 0) / vectors.length);
    const unit = (id) => {
        const {vector} = byId.get(id);
        return vector.map((x) => x / Math.sqrt(score.Dot(vector, vector)));
    };

    test('the server is one that the client knows how to speak to', async (t) => {
        const warnings = t.mock.method(console, 'warn', () => {});
        await new QdrantClient({url: server.url}).versionInfo();
        await new Promise((resolve) => setImmediate(resolve));
        assert.deepEqual(
            warnings.mock.calls.map((call) => call.arguments),
            [],
        );
    });

    test('search', async () => {
        const vector = randomVector(random, size);
        const all = nearest(points, 'Cosine', vector, count);
        const found = await client.search(name, {vector, limit: 5});
        assertHits(found, all.slice(0, 5));
        assert.deepEqual(
            found.map((hit) => hit.payload),
            found.map((hit) => byId.get(hit.id).payload),
        ); // which the client asks for
        assertHits(await client.search(name, {vector, limit: 5, offset: 3, params: {exact: true}}), all.slice(3, 8));
        const filter = {must: [{key: 'kind', match: {value: 'b'}}]};
        assertHits(
            await client.search(name, {vector, limit: 50, filter}),
            nearest(
                points.filter((p) => p.payload.kind === 'b'),
                'Cosine',
                vector,
                50,
            ),
        );
        assertHits(
            await client.search(name, {vector, limit: 50, score_threshold: (all[3].score + all[4].score) / 2}),
            all.slice(0, 4),
        );
        const [hit] = await client.search(name, {vector, limit: 1, with_payload: ['kind'], with_vector: true});
        assert.deepEqual(Object.keys(hit.payload), ['kind']);
        assert.ok(Math.abs(score.Dot(hit.vector, unit(hit.id)) - 1) < 1e-6);
        await refused(client.search(name, {vector: [1, 2], limit: 1}), 400, /expected dim: 8, got 2/);
        await refused(client.search('nowhere', {vector, limit: 1}), 404, /nowhere.*doesn't exist/);
    });

    test('search by the name of a vector', async () => {
        const vector = randomVector(random, size);
        assertHits(await client.search('named', {vector: {name: 'one', vector}, limit: 5}), nearest(points, 'Dot', vector, 5));
        assertHits(await client.search('named', {vector: {name: 'two', vector}, limit: 5}), nearest(points, 'Euclid', vector, 5));
        const words = {indices: [3, 12], values: [1, 5]};
        const expected = scores((p) => (p.id % 10 === 3 ? p.id : 0) + (p.id % 7 === 2 ? 5 : 0));
        assertScored(await client.search('named', {vector: {name: 'words', vector: words}, limit: 10}), expected, 10);
    });

    test('several searches in one request', async () => {
        const vectors = [randomVector(random, size), randomVector(random, size)];
        const found = await client.searchBatch(name, {searches: vectors.map((vector, i) => ({vector, limit: 3 + i}))});
        assert.equal(found.length, 2);
        found.forEach((hits, i) => assertHits(hits, nearest(points, 'Cosine', vectors[i], 3 + i)));
    });

    const grouped = (hits, k, perGroup) => {
        const groups = new Map();
        for (const {id} of hits) {
            const key = byId.get(id).payload.kind;
            groups.set(key, [...(groups.get(key) ?? []), id].slice(0, perGroup));
        }
        return [...groups].slice(0, k);
    };
    const shape = ({groups}) => groups.map(({id, hits}) => [id, hits.map((hit) => hit.id)]);

    test('search in groups', async () => {
        const vector = randomVector(random, size);
        const all = nearest(points, 'Cosine', vector, count);
        assert.deepEqual(
            shape(await client.searchPointGroups(name, {vector, group_by: 'kind', group_size: 3, limit: 2})),
            grouped(all, 2, 3),
        );
    });

    test('recommend', async () => {
        const [a, b, c] = [5, 17, 60];
        const others = without(a, b, c);
        const average = mean([unit(a), unit(b)]).map((x, i) => 2 * x - unit(c)[i]);
        const request = {positive: [a, b], negative: [c], limit: 10};
        assertScored(await client.recommend(name, request), scores(cosine(average), others), 10);
        const sum = (p) => score.Cosine(unit(a), p.vector) + score.Cosine(unit(b), p.vector) - score.Cosine(unit(c), p.vector);
        assertScored(await client.recommend(name, {...request, strategy: 'sum_scores'}), scores(sum, others), 10);
        const squash = (x) => 0.5 * (x / (1 + Math.abs(x)) + 1);
        const best = (p) => {
            const [positive, negative] = [
                Math.max(score.Cosine(unit(a), p.vector), score.Cosine(unit(b), p.vector)),
                score.Cosine(unit(c), p.vector),
            ];
            return positive > negative ? squash(positive) : -squash(negative);
        };
        assertScored(await client.recommend(name, {...request, strategy: 'best_score'}), scores(best, others), 10);
        const batch = await client.recommendBatch(name, {searches: [request, {positive: [a], limit: 4}]});
        assertScored(batch[0], scores(cosine(average), others), 10);
        assertScored(batch[1], scores(cosine(unit(a)), without(a)), 4);
        const page = await client.recommend(name, {...request, positive: [a, byId.get(b).vector], offset: 2, limit: 4});
        const given = mean([unit(a), byId.get(b).vector]).map((x, i) => 2 * x - unit(c)[i]); // a vector counts as it was given
        assertScored(page, new Map([...scores(cosine(given), without(a, c))].sort((x, y) => y[1] - x[1]).slice(2)), 4);
        const fromElsewhere = await client.recommend(name, {
            positive: [a],
            limit: 5,
            lookup_from: {collection: 'named', vector: 'one'},
        });
        assertScored(fromElsewhere, scores(cosine(byId.get(a).vector)), 5);
        await refused(client.recommend(name, {positive: [404], limit: 1}), 404, /404/);
    });

    test('recommend in groups', async () => {
        const all = nearest(without(5), 'Cosine', unit(5), count);
        const found = await client.recommendPointGroups(name, {positive: [5], group_by: 'kind', group_size: 2, limit: 3});
        assert.deepEqual(shape(found), grouped(all, 3, 2));
    });

    test('discover', async () => {
        const target = randomVector(random, size);
        const [positive, negative] = [5, 17];
        const value = (p) => {
            const x = score.Cosine(target, p.vector);
            return (
                Math.sign(score.Cosine(unit(positive), p.vector) - score.Cosine(unit(negative), p.vector)) +
                0.5 * (x / (1 + Math.abs(x)) + 1)
            );
        };
        const request = {target, context: [{positive, negative}], limit: 80};
        const expected = scores(value, without(positive, negative));
        assertScored(await client.discoverPoints(name, request), expected, 80);
        const [first, second] = await client.discoverBatchPoints(name, {searches: [request, {...request, limit: 3}]});
        assertScored(first, expected, 80);
        assertScored(second, expected, 3);
    });

    test('write, count, scroll and query', async () => {
        await client.createCollection('written', {vectors: {size, distance: 'Dot'}});
        await client.upsert('written', {points: points.slice(0, 10)});
        await client.setPayload('written', {payload: {seen: true}, points: [1, 2]});
        await client.delete('written', {points: [3]});
        assert.deepEqual(await client.count('written'), {count: 9});
        const {points: left} = await client.scroll('written', {filter: {must: [{key: 'seen', match: {value: true}}]}});
        assert.deepEqual(
            left.map((p) => p.id),
            [1, 2],
        );
        const query = randomVector(random, size);
        assertHits(
            (await client.query('written', {query, limit: 4})).points,
            nearest(
                points.slice(0, 10).filter((p) => p.id !== 3),
                'Dot',
                query,
                4,
            ),
        );
    });
});
