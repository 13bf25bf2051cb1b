// @qdrant/js-client-rest against a real server. What is found is compared with what a look at every point finds.

import assert from 'node:assert/strict';
import {createHash, createHmac} from 'node:crypto';
import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {QdrantClient} from '@qdrant/js-client-rest';
import {assertHits, nearest, randomNumbers, randomVector, refused, startServer} from './server.js';

const size = 16;
const colours = ['red', 'green', 'blue'];

/** Returns points with ids 1 … count and a payload to filter by. */
function somePoints(seed, count) {
    const random = randomNumbers(seed);
    return Array.from({length: count}, (_, i) => ({
        id: i + 1,
        vector: randomVector(random, size),
        payload: {
            colour: colours[i % colours.length],
            number: i,
            price: i / 4,
            tags: i % 2 ? ['odd', 'all'] : ['even', 'all'],
            nested: {flag: i % 5 === 0},
            ...(i % 10 === 0 ? {rare: null} : {}),
        },
    }));
}

/** Returns records as the points that were sent: numbers of vectors come back with as few digits as float32 needs. */
function asSent(records) {
    return records.map(({id, vector, payload}) => ({id, vector: vector.map(Math.fround), payload}));
}

describe('@qdrant/js-client-rest', () => {
    let server;
    let client;
    let names = 0;

    before(async () => {
        server = await startServer();
        client = new QdrantClient({url: server.url});
    });
    after(() => server?.stop());

    /** Creates a collection with the points in it and returns its name. */
    async function collection(points = [], distance = 'Dot') {
        const name = `test-${++names}`;
        await client.createCollection(name, {vectors: {size, distance}});
        if (points.length > 0) {
            await client.upsert(name, {points});
        }
        return name;
    }

    /** Returns the ids of all points that match the filter, in order. */
    async function ids(name, filter) {
        const {points} = await client.scroll(name, {filter, limit: 1000, with_payload: false});
        return points.map((point) => point.id);
    }

    async function payloads(name, ...wanted) {
        const records = await client.retrieve(name, {ids: wanted});
        return Object.fromEntries(records.map((record) => [record.id, record.payload]));
    }

    test('the server is one that the client knows how to speak to', async (t) => {
        const warnings = t.mock.method(console, 'warn', () => {});
        const fresh = new QdrantClient({url: server.url});
        const info = await fresh.versionInfo();
        assert.match(info.version, /^1\.\d+\.\d+/);
        assert.ok(info.title);
        await fresh.getCollections(); // the check at construction has been answered by now, or is by the next turn
        await new Promise((resolve) => setImmediate(resolve));
        assert.deepEqual(warnings.mock.calls.map((call) => call.arguments), []);
    });

    test('create, exists, info, list and delete a collection', async () => {
        const name = 'shelf of words';
        assert.deepEqual(await client.collectionExists(name), {exists: false});
        assert.equal(await client.createCollection(name, {vectors: {size, distance: 'Cosine'}}), true);
        assert.deepEqual(await client.collectionExists(name), {exists: true});

        await client.upsert(name, {points: somePoints(1, 20)});
        const info = await client.getCollection(name);
        assert.equal(info.points_count, 20);
        assert.equal(info.config.params.vectors.size, size);
        assert.equal(info.config.params.vectors.distance, 'Cosine');
        assert.equal(info.config.hnsw_config.m, 16);
        assert.ok(['green', 'yellow'].includes(info.status));
        assert.equal(info.optimizer_status, 'ok');

        const {collections} = await client.getCollections();
        assert.ok(collections.some((c) => c.name === name));

        assert.equal(await client.deleteCollection(name), true);
        assert.deepEqual(await client.collectionExists(name), {exists: false});
        assert.equal(await client.deleteCollection(name), false);
    });

    test('update a collection', async () => {
        const name = await collection();
        assert.equal(await client.updateCollection(name, {optimizers_config: {indexing_threshold: 12345}}), true);
        const info = await client.getCollection(name);
        assert.equal(info.config.optimizer_config.indexing_threshold, 12345);
    });

    test('what exists already and what does not exist', async () => {
        const name = await collection();
        await refused(client.createCollection(name, {vectors: {size, distance: 'Dot'}}), 409, /already exists/);
        await refused(client.getCollection('nowhere'), 404, /nowhere.*doesn't exist/);
        await refused(client.upsert('nowhere', {points: somePoints(1, 1)}), 404, /nowhere.*doesn't exist/);
        await refused(client.query('nowhere', {query: Array(size).fill(0.5)}), 404, /nowhere.*doesn't exist/);
        await refused(client.setPayload(name, {payload: {a: 1}, points: [404]}), 404, /404/);
        await refused(client.query(name, {query: 404}), 404, /404/);
    });

    test('a refused write changes nothing', async () => {
        const points = somePoints(2, 3);
        const name = await collection(points);
        const short = {id: 9, vector: [1, 2, 3]};
        await refused(client.upsert(name, {points: [{...points[0], vector: randomVector(Math.random, size)}, short]}), 400, /expected dim: 16, got 3/);
        await refused(client.upsert(name, {points: [{id: 'not an id', vector: points[0].vector}]}), 400, /not an id/);
        await refused(client.query(name, {query: [1, 2]}), 400, /expected dim: 16, got 2/);
        await refused(client.query(name, {query: points[0].vector, limit: 0}), 422, /limit/);
        const {points: left} = await client.scroll(name, {with_vector: true});
        assert.deepEqual(asSent(left), points);
    });

    for (const distance of ['Cosine', 'Dot', 'Euclid', 'Manhattan']) {
        test(`query by vector and by id, ${distance}`, async () => {
            const points = somePoints(3, 300);
            const name = await collection(points, distance);
            const random = randomNumbers(4);
            for (let i = 0; i < 5; i++) {
                const vector = randomVector(random, size);
                for (const exact of [true, false]) {
                    const found = await client.query(name, {query: vector, limit: 10, params: {exact}});
                    assertHits(found.points, nearest(points, distance, vector, 10));
                }
                const page = await client.query(name, {query: vector, limit: 5, offset: 7});
                assertHits(page.points, nearest(points, distance, vector, 12).slice(7));
            }
            const example = points[41];
            const similar = await client.query(name, {query: example.id, limit: 10});
            assertHits(similar.points, nearest(points.filter((p) => p !== example), distance, example.vector, 10));
        });
    }

    test('query with a filter and a score threshold', async () => {
        const points = somePoints(5, 300);
        const name = await collection(points);
        const vector = randomVector(randomNumbers(6), size);
        const cases = [
            [{must: [{key: 'colour', match: {value: 'red'}}]}, (p) => p.colour === 'red'],
            [{must: [{key: 'number', range: {gte: 10, lt: 20}}]}, (p) => p.number >= 10 && p.number < 20],
            [{must_not: [{key: 'colour', match: {any: ['red', 'blue']}}]}, (p) => p.colour === 'green'],
            [{must: [{key: 'number', match: {except: [1, 2, 3]}}]}, (p) => ![1, 2, 3].includes(p.number)],
            [{should: [{key: 'number', match: {value: 3}}, {key: 'tags', match: {value: 'even'}}]}, (p) => p.number === 3 || p.tags[0] === 'even'],
            [{must: [{key: 'nested.flag', match: {value: true}}]}, (p) => p.nested.flag],
            [{must: [{is_null: {key: 'rare'}}]}, (p) => p.rare === null],
            [{must_not: [{is_empty: {key: 'colour'}}], must: [{key: 'price', range: {gt: 70.5}}]}, (p) => p.price > 70.5],
            [{must: [{key: 'colour', match: {value: 'red'}}, {must_not: [{key: 'tags', match: {value: 'odd'}}]}]}, (p) => p.colour === 'red' && p.tags[0] !== 'odd'],
        ];
        for (const [filter, holds] of cases) {
            const matching = points.filter((p) => holds(p.payload));
            const found = await client.query(name, {query: vector, filter, limit: 20, with_payload: true});
            assertHits(found.points, nearest(matching, 'Dot', vector, 20));
            assert.ok(found.points.every((p) => holds(p.payload)));
            assert.deepEqual(await ids(name, filter), matching.map((p) => p.id));
            assert.deepEqual(await client.count(name, {filter}), {count: matching.length});
        }
        const chosen = [5, 50, 150];
        const found = await client.query(name, {query: vector, filter: {must: [{has_id: chosen}]}, limit: 20});
        assertHits(found.points, nearest(points.filter((p) => chosen.includes(p.id)), 'Dot', vector, 20));

        const all = nearest(points, 'Dot', vector, points.length);
        const threshold = (all[4].score + all[5].score) / 2;
        const above = await client.query(name, {query: vector, score_threshold: threshold, limit: 20});
        assertHits(above.points, all.slice(0, 5));
    });

    test('several queries in one request', async () => {
        const points = somePoints(7, 100);
        const name = await collection(points);
        const random = randomNumbers(8);
        const vectors = [randomVector(random, size), randomVector(random, size)];
        const answers = await client.queryBatch(name, {searches: vectors.map((query) => ({query, limit: 5}))});
        assert.equal(answers.length, 2);
        answers.forEach((answer, i) => assertHits(answer.points, nearest(points, 'Dot', vectors[i], 5)));
    });

    test('what an answer carries', async () => {
        const points = somePoints(9, 10);
        const name = await collection(points);
        const query = points[0].vector;
        const one = async (options) => (await client.query(name, {query, limit: 1, params: {exact: true}, ...options})).points[0];
        const best = points.find((p) => p.id === nearest(points, 'Dot', query, 1)[0].id);
        assert.equal((await one({})).payload ?? null, null);
        assert.equal((await one({})).vector ?? null, null);
        assert.deepEqual((await one({with_payload: true})).payload, best.payload);
        assert.deepEqual((await one({with_payload: ['colour', 'nested.flag']})).payload, {colour: best.payload.colour, nested: best.payload.nested});
        const {colour, ...others} = best.payload;
        assert.deepEqual((await one({with_payload: {exclude: ['colour']}})).payload, others);
        assert.deepEqual((await one({with_vector: true})).vector.map(Math.fround), best.vector);
        const [record] = await client.retrieve(name, {ids: [3], with_payload: false, with_vector: true});
        assert.deepEqual(record.vector.map(Math.fround), points[2].vector);
        assert.equal(record.payload ?? null, null);
    });

    test('null is the same as nothing', async () => {
        const points = somePoints(40, 5);
        const name = await collection();
        await client.upsert(name, {batch: {ids: [1, 2], vectors: points.slice(0, 2).map((p) => p.vector), payloads: [null, points[1].payload]}});
        await client.upsert(name, {points: points.slice(2).map((p) => ({...p, payload: null}))});
        assert.deepEqual(await payloads(name, 1, 2, 3), {1: {}, 2: points[1].payload, 3: {}});
        const nothing = {filter: null, params: null, offset: null, score_threshold: null, with_payload: null, with_vector: null, using: null, prefetch: null, lookup_from: null};
        const query = points[0].vector;
        assertHits((await client.query(name, {query, limit: 5, ...nothing})).points, nearest(points, 'Dot', query, 5));
        assert.equal((await client.scroll(name, {filter: null, offset: null, order_by: null})).points.length, 5);
        assert.deepEqual(await client.count(name, {filter: null}), {count: 5});
        await client.createCollection('of nulls', {vectors: {size: 2, distance: 'Dot', hnsw_config: null}, sparse_vectors: null, hnsw_config: null, quantization_config: null});
        assert.equal((await client.getCollection('of nulls')).config.params.vectors.size, 2);
    });

    test('upsert by list and by batch, and overwrite', async () => {
        const points = somePoints(10, 6);
        const name = await collection();
        const result = await client.upsert(name, {points: points.slice(0, 3)});
        assert.equal(result.status, 'completed');
        await client.upsert(name, {
            batch: {
                ids: points.slice(3).map((p) => p.id),
                vectors: points.slice(3).map((p) => p.vector),
                payloads: points.slice(3).map((p) => p.payload),
            },
        });
        const {points: stored} = await client.scroll(name, {with_vector: true});
        assert.deepEqual(asSent(stored), points);

        await client.upsert(name, {points: [{id: 1, vector: points[5].vector, payload: {now: 'else'}}]});
        const [first] = await client.retrieve(name, {ids: [1], with_vector: true});
        assert.deepEqual(asSent([first]), [{id: 1, vector: points[5].vector, payload: {now: 'else'}}]);
        assert.deepEqual(await client.count(name), {count: 6});
    });

    test('replace vectors of points and leave their payload', async () => {
        const points = somePoints(11, 2);
        const name = await collection(points);
        await client.updateVectors(name, {points: [{id: 1, vector: points[1].vector}]});
        const [first] = await client.retrieve(name, {ids: [1], with_vector: true});
        assert.deepEqual(asSent([first]), [{...points[0], vector: points[1].vector}]);
    });

    test('scroll page by page', async () => {
        const points = somePoints(12, 95);
        const name = await collection(points);
        const seen = [];
        let offset;
        let pages = 0;
        do {
            const page = await client.scroll(name, {limit: 10, offset});
            seen.push(...page.points);
            offset = page.next_page_offset ?? undefined;
            assert.ok(++pages <= 10);
        } while (offset !== undefined);
        assert.deepEqual(seen.map((p) => p.id), points.map((p) => p.id));
        assert.deepEqual(seen.map((p) => p.payload), points.map((p) => p.payload));
    });

    test('set, overwrite, remove and clear payload', async () => {
        const name = await collection(somePoints(13, 4).map((p) => ({...p, payload: {a: 1, b: {c: 2}}})));
        await client.setPayload(name, {payload: {d: [1, 2]}, points: [1]});
        await client.setPayload(name, {payload: {e: 3}, key: 'b', points: [1]});
        await client.overwritePayload(name, {payload: {only: true}, points: [2]});
        await client.deletePayload(name, {keys: ['b.c', 'a'], points: [3]});
        await client.clearPayload(name, {points: [4]});
        assert.deepEqual(await payloads(name, 1, 2, 3, 4), {
            1: {a: 1, b: {c: 2, e: 3}, d: [1, 2]},
            2: {only: true},
            3: {b: {}},
            4: {},
        });
        await client.setPayload(name, {payload: {marked: true}, filter: {must: [{key: 'only', match: {value: true}}]}});
        assert.deepEqual(await ids(name, {must: [{key: 'marked', match: {value: true}}]}), [2]);
    });

    test('delete by ids and by filter', async () => {
        const points = somePoints(14, 30);
        const name = await collection(points);
        await client.delete(name, {wait: true, points: [1, 2, 999]});
        await client.delete(name, {wait: true, filter: {must: [{key: 'colour', match: {value: 'red'}}]}});
        const left = points.filter((p) => p.id > 2 && p.payload.colour !== 'red');
        assert.deepEqual(await ids(name), left.map((p) => p.id));
        const found = await client.query(name, {query: points[0].vector, limit: 30});
        assertHits(found.points, nearest(left, 'Dot', points[0].vector, 30));
        await client.delete(name, {points: [left[0].id]}); // not waited for, and gone all the same
        assert.deepEqual(await client.count(name), {count: left.length - 1});
    });

    test('several operations in one request', async () => {
        const points = somePoints(15, 3);
        const name = await collection();
        const results = await client.batchUpdate(name, {
            operations: [
                {upsert: {points}},
                {set_payload: {payload: {seen: true}, points: [1]}},
                {overwrite_payload: {payload: {new: 1}, points: [2]}},
                {delete_payload: {keys: ['colour'], points: [1]}},
                {delete: {points: [3]}},
            ],
        });
        assert.deepEqual(results.map((r) => r.status), Array(5).fill('completed'));
        const {colour, ...others} = points[0].payload;
        assert.deepEqual(await payloads(name, 1, 2, 3), {1: {...others, seen: true}, 2: {new: 1}});
    });

    test('aliases: create, use, list, rename, switch, delete', async () => {
        const [one, two] = [await collection(somePoints(16, 1)), await collection(somePoints(17, 2))];
        const create = (collection_name, alias_name) => ({create_alias: {collection_name, alias_name}});
        assert.equal(await client.updateCollectionAliases({actions: [create(one, 'current')]}), true);
        assert.deepEqual(await client.count('current'), {count: 1});
        assert.deepEqual(await client.getCollectionAliases(one), {aliases: [{alias_name: 'current', collection_name: one}]});

        await client.updateCollectionAliases({actions: [{rename_alias: {old_alias_name: 'current', new_alias_name: 'live'}}]});
        await refused(client.count('current'), 404, /current/);
        await client.updateCollectionAliases({actions: [{delete_alias: {alias_name: 'live'}}, create(two, 'live')]});
        assert.deepEqual(await client.count('live'), {count: 2});
        await client.upsert('live', {points: somePoints(18, 3)});
        assert.deepEqual(await client.count(two), {count: 3});
        assert.deepEqual((await client.getAliases()).aliases, [{alias_name: 'live', collection_name: two}]);

        await refused(client.updateCollectionAliases({actions: [create(one, two)]}), 409, /exists/);
        await refused(client.updateCollectionAliases({actions: [create('nowhere', 'x')]}), 404, /nowhere/);
        await client.updateCollectionAliases({actions: [{delete_alias: {alias_name: 'live'}}]});
        await refused(client.count('live'), 404, /live/);
        assert.deepEqual(await client.getAliases(), {aliases: []});
    });

    test('ids: 64-bit numbers and UUIDs, exactly', async () => {
        const [a, b, c] = somePoints(19, 3);
        const name = await collection();
        const huge = 2n ** 64n - 1n;
        const odd = 2n ** 53n + 1n;
        const uuid = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d';
        await client.upsert(name, {points: [{...a, id: huge}, {...b, id: odd}, {...c, id: uuid}]});
        const {points} = await client.scroll(name, {});
        assert.deepEqual(points.map((p) => p.id), [odd, huge, uuid]); // numbers before UUIDs
        const [record] = await client.retrieve(name, {ids: [huge]});
        assert.equal(record.id, huge);
        assert.deepEqual(record.payload, a.payload);
        await client.delete(name, {wait: true, points: [huge]});
        assert.deepEqual(await ids(name), [odd, uuid]);
        await client.upsert(name, {points: [{...a, id: uuid.toUpperCase().replaceAll('-', '')}]});
        assert.deepEqual(await client.count(name), {count: 2}); // the same UUID, spelled otherwise
    });

    test('payload comes back as it went in', async () => {
        const payload = {
            text: 'naïve “quotes” \u{1F600} \u0000 \\ /',
            numbers: [0, -1, 1.5, 1e-9, 123456789012],
            big: 9007199254740993n,
            deep: {a: [{b: {c: [[], {}, null, true, '']}}]},
            'key with . dots': 1,
        };
        const name = await collection([{...somePoints(20, 1)[0], payload}]);
        const [record] = await client.retrieve(name, {ids: [1]});
        assert.deepEqual(record.payload, payload);
    });

    test('snapshots: create, list, download, recover, upload, delete', async () => {
        const points = somePoints(31, 50);
        const name = await collection(points);
        const made = await client.createSnapshot(name);
        assert.ok(made.size > 0);
        assert.match(made.checksum, /^[0-9a-f]{64}$/);
        assert.ok(Math.abs(Date.parse(`${made.creation_time}Z`) - Date.now()) < 60_000);
        assert.deepEqual(await client.listSnapshots(name), [made]);

        const response = await fetch(`${server.url}/collections/${name}/snapshots/${made.name}`);
        assert.equal(response.status, 200);
        const content = new Uint8Array(await response.arrayBuffer());
        assert.equal(content.length, made.size);
        assert.equal(createHash('sha256').update(content).digest('hex'), made.checksum);
        const file = join(server.directory, 'snapshots', name, made.name);
        assert.deepEqual(new Uint8Array(await readFile(file)), content);

        const everything = async (name) => asSent((await client.scroll(name, {limit: 1000, with_vector: true})).points);
        await client.delete(name, {points: [1, 2, 3], wait: true});
        await client.upsert(name, {points: somePoints(32, 10)});
        const changed = await everything(name);
        const location = `file://${file}`;
        await refused(client.recoverSnapshot(name, {location, checksum: '0'.repeat(64)}), 400, /checksum/);
        await refused(client.recoverSnapshot(name, {location: 'file:///etc/passwd'}), 400, /directory of snapshots/);
        await refused(client.recoverSnapshot(name, {location: 'https://example.com/x.snapshot'}), 400, /fetches no URLs/);
        assert.deepEqual(await everything(name), changed);
        assert.equal(await client.recoverSnapshot(name, {location, checksum: made.checksum, priority: 'snapshot'}), true);
        assert.deepEqual(await everything(name), points);
        const query = points[7].vector;
        assertHits((await client.query(name, {query, limit: 5})).points, nearest(points, 'Dot', query, 5));

        const form = new FormData();
        form.append('snapshot', new Blob([content]), 'some.snapshot');
        const uploaded = await fetch(`${server.url}/collections/uploaded/snapshots/upload?priority=snapshot&checksum=${made.checksum}`, {
            method: 'POST',
            body: form,
        });
        assert.deepEqual([uploaded.status, (await uploaded.json()).result], [200, true]);
        assert.deepEqual(await everything('uploaded'), points);

        assert.equal(await client.deleteSnapshot(name, made.name), true);
        assert.deepEqual(await client.listSnapshots(name), []);
        await assert.rejects(readFile(file), {code: 'ENOENT'});
        await refused(client.deleteSnapshot(name, made.name), 404, /doesn't exist/);
        await refused(client.createSnapshot('nowhere'), 404, /nowhere.*doesn't exist/);
        assert.equal((await fetch(`${server.url}/collections/${name}/snapshots?wait=false`, {method: 'POST'})).status, 202);
    });

    test('snapshots of the whole node', async () => {
        const points = somePoints(33, 20);
        const name = await collection(points);
        const made = await client.createFullSnapshot();
        assert.deepEqual(await client.listFullSnapshots(), [made]);
        await client.deleteCollection(name);
        const location = `file://${join(server.directory, 'snapshots', made.name)}`;
        assert.equal(await client.recoverSnapshot(name, {location}), true); // one collection of it
        assert.deepEqual(await client.count(name), {count: 20});
        assert.equal(await client.deleteFullSnapshot(made.name), true);
        assert.deepEqual(await client.listFullSnapshots(), []);
    });

    test('many clients at once', async () => {
        const name = await collection();
        const points = somePoints(21, 400);
        const slices = Array.from({length: 8}, (_, i) => points.slice(i * 50, i * 50 + 50));
        await Promise.all(slices.map((slice) => client.upsert(name, {points: slice})));
        const vectors = points.slice(0, 40).map((p) => p.vector);
        const answers = await Promise.all(vectors.map((query) => client.query(name, {query, limit: 5, params: {exact: true}})));
        answers.forEach((answer, i) => assertHits(answer.points, nearest(points, 'Dot', vectors[i], 5)));
    });

    /** Groups hits, which are in order, by what valuesOf says of their points. */
    function grouped(hits, points, valuesOf, limit, size) {
        const groups = new Map();
        for (const hit of hits) {
            for (const value of new Set(valuesOf(points[hit.id - 1].payload))) {
                if (!groups.has(value)) {
                    if (groups.size === limit) {
                        continue;
                    }
                    groups.set(value, []);
                }
                if (groups.get(value).length < size) {
                    groups.get(value).push(hit);
                }
            }
        }
        return [...groups];
    }

    function assertGroups(groups, expected) {
        assert.deepEqual(groups.map((group) => group.id), expected.map(([value]) => value));
        groups.forEach((group, i) => assertHits(group.hits, expected[i][1]));
    }

    test('groups of hits', async () => {
        const points = somePoints(31, 200);
        const name = await collection(points);
        const query = randomVector(randomNumbers(32), size);
        const all = nearest(points, 'Dot', query, points.length);
        const ask = (body) => client.queryGroups(name, {query, params: {exact: true}, ...body});

        assertGroups((await ask({group_by: 'colour', group_size: 4})).groups, grouped(all, points, (p) => [p.colour], 10, 4));
        assertGroups((await ask({group_by: 'tags', group_size: 3, limit: 2})).groups, grouped(all, points, (p) => p.tags, 2, 3));
        assertGroups((await ask({group_by: 'number', limit: 25})).groups, grouped(all, points, (p) => [p.number], 25, 3));
        // Fractions and flags make no groups, numbers without a fraction do.
        assertGroups((await ask({group_by: 'price', limit: 100, group_size: 2})).groups,
            grouped(all, points, (p) => (Number.isInteger(p.price) ? [p.price] : []), 100, 2));
        assert.deepEqual(await ask({group_by: 'nested.flag'}), {groups: []});
        const few = all.filter((hit) => points[hit.id - 1].payload.number < 5);
        const filter = {must: [{key: 'number', range: {lt: 5}}]};
        assertGroups((await ask({group_by: 'colour', filter})).groups, grouped(few, points, (p) => [p.colour], 10, 3));

        const fused = await client.query(name, {prefetch: [{query, limit: 50}], query: {fusion: 'rrf'}, limit: 50});
        assertGroups((await client.queryGroups(name, {prefetch: [{query, limit: 50}], query: {fusion: 'rrf'}, group_by: 'colour', group_size: 7})).groups,
            grouped(fused.points, points, (p) => [p.colour], 10, 7));
        await refused(ask({group_by: 'colour', group_size: 0}), 422, /group_size/);
    });

    test('groups with points of another collection', async () => {
        const points = somePoints(33, 60);
        const name = await collection(points);
        const others = await collection(somePoints(34, 3));
        const ask = (with_lookup) => client.queryGroups(name, {query: points[0].vector, group_by: 'number', limit: 60, group_size: 1, with_lookup});
        for (const group of (await ask(others)).groups) {
            assert.deepEqual(group.lookup, group.id >= 1 && group.id <= 3 ? {id: group.id, payload: somePoints(34, 3)[group.id - 1].payload} : undefined);
        }
        const {groups} = await ask({collection: others, with_payload: ['number'], with_vectors: true});
        const {lookup} = groups.find((group) => group.id === 2);
        assert.deepEqual(lookup.payload, {number: 1});
        assert.deepEqual(asSent([lookup])[0].vector, somePoints(34, 3)[1].vector);
        await refused(ask('nowhere'), 404, /nowhere/);
    });

    /** Returns [value, count] of the points, those with the most points first and then by value. */
    function counted(points, valuesOf) {
        const counts = new Map();
        for (const point of points) {
            for (const value of new Set(valuesOf(point.payload))) {
                counts.set(value, (counts.get(value) ?? 0) + 1);
            }
        }
        return [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)).map(([value, count]) => ({value, count}));
    }

    test('facets', async () => {
        const points = somePoints(35, 100);
        const name = await collection(points);
        for (const [field_name, field_schema] of Object.entries({colour: 'keyword', tags: 'keyword', number: 'integer', 'nested.flag': 'bool'})) {
            await client.createPayloadIndex(name, {field_name, field_schema, wait: true});
        }
        const hits = async (body) => (await client.facet(name, body)).hits;
        assert.deepEqual(await hits({key: 'colour'}), counted(points, (p) => [p.colour]));
        assert.deepEqual(await hits({key: 'tags', exact: true}), counted(points, (p) => p.tags));
        assert.deepEqual(await hits({key: 'nested.flag'}), counted(points, (p) => [p.nested.flag]));
        assert.deepEqual(await hits({key: 'number', limit: 7}), counted(points, (p) => [p.number]).slice(0, 7));
        const filter = {must: [{key: 'number', range: {gte: 50}}, {key: 'price', range: {lt: 20}}]};
        const some = points.filter(({payload}) => payload.number >= 50 && payload.price < 20);
        assert.deepEqual(await hits({key: 'colour', filter}), counted(some, (p) => [p.colour]));
        await client.delete(name, {points: [1, 2, 3, 4], wait: true});
        assert.deepEqual(await hits({key: 'colour'}), counted(points.slice(4), (p) => [p.colour]));
        await refused(client.facet(name, {key: 'price'}), 400, /No appropriate index for faceting: `price`/);
    });

    test('distance matrices', async () => {
        const points = somePoints(36, 40);
        const name = await collection(points, 'Cosine');
        const among = points.slice(10, 22);
        const filter = {must: [{has_id: among.map((p) => p.id)}]};
        const rows = among.map((point) => nearest(among.filter((p) => p !== point), 'Cosine', point.vector, 4));

        const {pairs} = await client.searchMatrixPairs(name, {filter, sample: 20, limit: 4});
        assert.equal(pairs.length, among.length * 4);
        const {ids: order, offsets_row, offsets_col, scores} = await client.searchMatrixOffsets(name, {filter, sample: 12, limit: 4});
        assert.deepEqual(order, among.map((p) => p.id));
        rows.forEach((row, i) => {
            const here = pairs.filter(({a}) => a === among[i].id);
            assertHits(here.map(({b, score}) => ({id: b, score})), row);
            const places = offsets_row.flatMap((at, j) => (at === i ? [j] : []));
            assertHits(places.map((j) => ({id: order[offsets_col[j]], score: scores[j]})), row);
        });

        const sample = await client.searchMatrixOffsets(name, {sample: 15, limit: 3});
        assert.equal(new Set(sample.ids).size, 15);
        const drawn = points.filter((p) => sample.ids.includes(p.id));
        drawn.forEach((point, i) => {
            const places = sample.offsets_row.flatMap((at, j) => (at === i ? [j] : []));
            assertHits(places.map((j) => ({id: sample.ids[sample.offsets_col[j]], score: sample.scores[j]})),
                nearest(drawn.filter((p) => p !== point), 'Cosine', point.vector, 3));
        });
        await refused(client.searchMatrixPairs(name, {sample: 1}), 422, /sample/);
    });

    test('order by a payload value', async () => {
        const days = (n) => new Date(Date.UTC(2026, 0, 1 + n)).toISOString();
        const points = somePoints(37, 90).map((point, i) => ({...point, payload: {...point.payload, at: days(i % 13), several: [i, 200 - i]}}));
        const name = await collection(points);
        for (const [field_name, field_schema] of Object.entries({number: 'integer', price: 'float', at: 'datetime', several: 'integer'})) {
            await client.createPayloadIndex(name, {field_name, field_schema, wait: true});
        }
        const micros = (text) => Date.parse(text) * 1000;
        const valueOf = {number: (p) => p.number, price: (p) => p.price, at: (p) => micros(p.at)};
        for (const [key, value] of Object.entries(valueOf)) {
            for (const direction of ['asc', 'desc']) {
                const sign = direction === 'asc' ? 1 : -1;
                const expected = points.map((p) => [p.id, value(p.payload)]).sort((a, b) => sign * (a[1] - b[1]) || a[0] - b[0]);
                // Pages as clients make them: from the last value on, without the points of it that were there.
                const found = [];
                for (let start_from, seen = []; ; ) {
                    const page = await client.scroll(name, {limit: 20, order_by: {key, direction, start_from}, filter: {must_not: [{has_id: seen}]}});
                    assert.equal(page.next_page_offset, null);
                    found.push(...page.points.map((p) => [p.id, p.order_value]));
                    if (page.points.length < 20) {
                        break;
                    }
                    const last = found.at(-1)[1];
                    start_from = key === 'at' ? points[found.at(-1)[0] - 1].payload.at : last;
                    seen = found.filter(([, value]) => value === last).map(([id]) => id);
                }
                assert.deepEqual(found, expected);
                const {points: hits} = await client.query(name, {query: {order_by: {key, direction}}, limit: 10, offset: 5});
                assert.deepEqual(hits.map((p) => [p.id, p.order_value]), expected.slice(5, 15));
            }
        }
        const twice = await client.scroll(name, {order_by: 'several', limit: 500});
        assert.deepEqual(twice.points.map((p) => p.order_value), points.flatMap((p) => p.payload.several).sort((a, b) => a - b));
        const query = points[3].vector;
        const ordered = await client.query(name, {prefetch: {query, limit: 6, params: {exact: true}}, query: {order_by: 'number'}});
        assert.deepEqual(ordered.points.map((p) => p.id), nearest(points, 'Dot', query, 6).map((p) => p.id).sort((a, b) => a - b));
        await refused(client.scroll(name, {order_by: 'colour'}), 400, /No range index for `order_by` key: `colour`/);
        await refused(client.scroll(name, {order_by: 'number', offset: 3}), 400, /offset/);
    });
});

describe('@qdrant/js-client-rest with keys', () => {
    let server;
    const open = (apiKey) => new QdrantClient({url: server.url, apiKey, checkCompatibility: false});

    before(async () => {
        server = await startServer('--api-key', 'all-of-it', '--read-only-api-key', 'only-reading');
    });
    after(() => server?.stop());

    test('a key opens what it is for', async (t) => {
        t.mock.method(console, 'warn', () => {}); // of a key on a connection without TLS, which is this test's own
        const points = somePoints(22, 10);
        const writer = open('all-of-it');
        await writer.createCollection('kept', {vectors: {size, distance: 'Dot'}});
        await writer.upsert('kept', {points});

        const reader = open('only-reading');
        const query = points[3].vector;
        assertHits((await reader.query('kept', {query, limit: 3})).points, nearest(points, 'Dot', query, 3));
        assert.deepEqual(await reader.count('kept'), {count: 10});
        assert.equal((await reader.scroll('kept', {limit: 3})).points.length, 3);
        const writes = [
            () => reader.upsert('kept', {points}),
            () => reader.delete('kept', {points: [1]}),
            () => reader.setPayload('kept', {payload: {a: 1}, points: [1]}),
            () => reader.createCollection('other', {vectors: {size, distance: 'Dot'}}),
            () => reader.deleteCollection('kept'),
            () => reader.updateCollectionAliases({actions: [{create_alias: {collection_name: 'kept', alias_name: 'a'}}]}),
        ];
        for (const write of writes) {
            await refused(write(), 403, /./);
        }
        for (const key of [undefined, '', 'all-of-i', 'all-of-it2', 'ALL-OF-IT']) {
            await refused(open(key).count('kept'), 401, /./);
        }
        assert.deepEqual(await writer.count('kept'), {count: 10});
        assert.deepEqual((await writer.getCollections()).collections, [{name: 'kept'}]);
        assert.equal((await fetch(`${server.url}/readyz`)).status, 200);
    });
});

describe('@qdrant/js-client-rest with tokens', () => {
    const key = 'all-of-it, and long enough to sign';
    let server;
    const open = (apiKey) => new QdrantClient({url: server.url, apiKey, checkCompatibility: false});

    /** Returns a token that says these claims. */
    const token = (claims) => {
        const text = [{alg: 'HS256', typ: 'JWT'}, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
        return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`;
    };

    before(async () => {
        server = await startServer('--api-key', key, '--jwt-rbac');
    });
    after(() => server?.stop());

    test('a token opens the collections that it names', async (t) => {
        t.mock.method(console, 'warn', () => {}); // of a key on a connection without TLS, which is this test's own
        const points = somePoints(23, 10);
        const everything = open(token({}));
        for (const name of ['mine', 'theirs']) {
            await everything.createCollection(name, {vectors: {size, distance: 'Dot'}});
            await everything.upsert(name, {points, wait: true});
        }
        await everything.updateCollectionAliases({actions: [{create_alias: {collection_name: 'mine', alias_name: 'also-mine'}}]});

        const exp = Math.floor(Date.now() / 1000) + 3600;
        const writer = open(token({exp, access: [{collection: 'mine', access: 'prw'}]}));
        const query = points[3].vector;
        assert.deepEqual((await writer.getCollections()).collections, [{name: 'mine'}]);
        assertHits((await writer.query('also-mine', {query, limit: 3})).points, nearest(points, 'Dot', query, 3));
        await writer.delete('mine', {points: [1], wait: true});
        assert.deepEqual(await writer.count('mine'), {count: 9});
        await refused(writer.count('theirs'), 403, /does not permit to read collection `theirs`/);
        await refused(writer.deleteCollection('mine'), 403, /does not permit to manage/);

        const reader = open(token({access: 'r'}));
        assert.deepEqual(await reader.count('theirs'), {count: 10});
        await refused(reader.delete('theirs', {points: [1]}), 403, /does not permit to write/);

        await refused(open(token({exp: exp - 7200})).count('mine'), 403, /expired/);
        await refused(open(`${token({})}x`).count('mine'), 403, /signed/);
    });

    test('a token is valid while a point exists', async (t) => {
        t.mock.method(console, 'warn', () => {});
        const client = open(key);
        await client.createCollection('users', {vectors: {size: 1, distance: 'Dot'}});
        await client.upsert('users', {points: [{id: 1, vector: [1], payload: {name: 'bob'}}], wait: true});
        const depending = (name) => open(token({value_exists: {collection: 'users', matches: [{key: 'name', value: name}]}}));
        assert.ok((await depending('bob').getCollections()).collections.length > 0);
        await refused(depending('ann').getCollections(), 403, /not valid any more/);
    });
});
