// @mastra/qdrant against a real server.

import assert from 'node:assert/strict';
import {randomUUID} from 'node:crypto';
import {after, before, describe, test} from 'node:test';
import {QdrantVector} from '@mastra/qdrant';
import {assertHits, nearest, randomNumbers, randomVector, startServer} from './server.js';

const dimension = 8;
const distances = {cosine: 'Cosine', euclidean: 'Euclid', dotproduct: 'Dot'};

/** Returns points with UUIDs as ids and metadata to filter by. */
function somePoints(seed, count) {
    const random = randomNumbers(seed);
    return Array.from({length: count}, (_, i) => ({
        id: randomUUID(),
        vector: randomVector(random, dimension),
        metadata: {
            number: i,
            price: i / 4,
            kind: ['pot', 'pan', 'kettle'][i % 3],
            tags: ['iron', 'copper', 'tin', 'steel'].slice(0, i % 4),
            made: new Date(Date.UTC(2020, 0, 1 + 30 * i)).toISOString(),
            place: {lat: 40 + i / 2, lon: -10 + i / 2},
            lid: i % 2 === 0,
            text: i % 5 === 0 ? `a Heavy thing, number ${i}` : 'a light thing',
            parts: [
                {name: 'handle', count: i % 3},
                {name: 'lid', count: 5},
            ],
            maker: {name: i % 2 ? 'Ann' : 'Bob', address: {city: i % 3 ? 'Ulm' : 'Bonn'}},
            ...(i % 10 === 0 ? {rare: null} : i % 10 === 1 ? {rare: 'yes'} : {}),
        },
    }));
}

describe('@mastra/qdrant', () => {
    let server;
    let store;
    let names = 0;

    before(async () => {
        server = await startServer();
        store = new QdrantVector({id: 'test', url: server.url});
        store.logger.error = () => {}; // errors are asserted below, and need not be printed
    });
    after(() => server?.stop());

    async function index(points = [], metric = 'cosine') {
        const indexName = `index-${++names}`;
        await store.createIndex({indexName, dimension, metric});
        if (points.length > 0) {
            const ids = await store.upsert({
                indexName,
                vectors: points.map((p) => p.vector),
                metadata: points.map((p) => p.metadata),
                ids: points.map((p) => p.id),
            });
            assert.deepEqual(
                ids,
                points.map((p) => p.id),
            );
        }
        return indexName;
    }

    /** Returns every point of the index by its id, with its metadata and vector. */
    async function stored(indexName) {
        const {points} = await store.client.scroll(indexName, {limit: 1000, with_vector: true});
        return Object.fromEntries(
            points.map((p) => [p.id, {metadata: p.payload, vector: p.vector.map?.(Math.fround) ?? p.vector}]),
        );
    }

    const refused = (promise, id) =>
        assert.rejects(promise, (error) => (assert.equal(error.id, `MASTRA_VECTOR_QDRANT_${id}`, `${error}`), true));

    for (const [metric, distance] of Object.entries(distances)) {
        test(`create, describe, fill and query an index, ${metric}`, async () => {
            const points = somePoints(1, 300); // more than a batch has
            const indexName = await index(points, metric);
            assert.deepEqual(await store.describeIndex({indexName}), {dimension, count: 300, metric});
            assert.ok((await store.listIndexes()).includes(indexName));
            const random = randomNumbers(2);
            for (let i = 0; i < 5; i++) {
                const queryVector = randomVector(random, dimension);
                const found = await store.query({indexName, queryVector, topK: 7});
                assertHits(found, nearest(points, distance, queryVector, 7));
                for (const {id, metadata} of found) {
                    assert.deepEqual(metadata, points.find((p) => p.id === id).metadata);
                }
                assert.equal((await store.query({indexName, queryVector})).length, 10);
            }
            if (metric !== 'cosine') {
                const [{id, vector}] = await store.query({
                    indexName,
                    queryVector: points[0].vector,
                    topK: 1,
                    includeVector: true,
                });
                assert.deepEqual(vector.map(Math.fround), points.find((p) => p.id === id).vector);
            }
        });
    }

    test('create an index that is there', async () => {
        const points = somePoints(3, 5);
        const indexName = await index(points);
        await store.createIndex({indexName, dimension, metric: 'cosine'}); // the same: nothing happens
        assert.equal((await store.describeIndex({indexName})).count, 5);
        await assert.rejects(store.createIndex({indexName, dimension: dimension + 1}), /dimension/);
        await store.createIndex({indexName, namedVectors: {a: {size: 3, distance: 'cosine'}}}); // not checked by the client
        assert.equal((await store.describeIndex({indexName})).count, 5);
    });

    test('delete an index', async () => {
        const indexName = await index(somePoints(4, 5));
        await store.deleteIndex({indexName});
        assert.ok(!(await store.listIndexes()).includes(indexName));
        await store.deleteIndex({indexName}); // gone already
        await refused(store.describeIndex({indexName}), 'DESCRIBE_INDEX_FAILED');
        await refused(store.query({indexName, queryVector: Array(dimension).fill(1)}), 'QUERY_FAILED');
        await refused(store.upsert({indexName, vectors: [Array(dimension).fill(1)]}), 'UPSERT_FAILED');
    });

    const near = (place, {lat, lon}, metres) => {
        const radians = Math.PI / 180;
        const half = (a, b) => Math.sin(((a - b) * radians) / 2) ** 2;
        const h = half(place.lat, lat) + Math.cos(place.lat * radians) * Math.cos(lat * radians) * half(place.lon, lon);
        return 2 * 6371008.8 * Math.asin(Math.sqrt(h)) <= metres;
    };
    const filters = [
        [{}, () => true],
        [undefined, () => true],
        [{kind: 'pot'}, (m) => m.kind === 'pot'],
        [{kind: {$eq: 'pot'}, number: {$gt: 10, $lte: 30}}, (m) => m.kind === 'pot' && m.number > 10 && m.number <= 30],
        [{kind: {$ne: 'pot'}}, (m) => m.kind !== 'pot'],
        [{price: {$gte: 2.25}}, (m) => m.price >= 2.25],
        [{price: {$lt: 2.25}}, (m) => m.price < 2.25],
        [{kind: {$in: ['pot', 'pan']}}, (m) => m.kind !== 'kettle'],
        [{kind: ['pot', 'pan']}, (m) => m.kind !== 'kettle'],
        [{kind: {$nin: ['pot', 'pan']}}, (m) => m.kind === 'kettle'],
        [{kind: {$in: []}}, () => false],
        [{tags: 'copper'}, (m) => m.tags.includes('copper')],
        [{tags: {$all: ['iron', 'tin']}}, (m) => m.tags.includes('tin')],
        [{tags: {$count: {$gte: 2}}}, (m) => m.tags.length >= 2],
        [{tags: {$empty: true}}, (m) => m.tags.length === 0],
        [{lid: true}, (m) => m.lid],
        [{text: {$regex: 'Heavy'}}, (m) => m.text.includes('Heavy')],
        [{rare: null}, (m) => m.rare === null],
        [{rare: {$null: true}}, (m) => m.rare === null],
        [{rare: {$exists: true}}, (m) => m.rare === 'yes'],
        [{rare: {$exists: false}}, (m) => m.rare !== 'yes'],
        [{rare: {$ne: null}}, (m) => m.rare !== null],
        [
            {made: {$datetime: {range: {gt: new Date('2021-01-01T00:00:00Z'), lt: '2022-01-01T00:00:00Z'}}}},
            (m) => m.made > '2021-01-01' && m.made < '2022-01-01T00:00:00.000Z',
        ],
        [
            {place: {$geo: {type: 'radius', center: {lat: 45, lon: -5}, radius: 300_000}}},
            (m) => near(m.place, {lat: 45, lon: -5}, 300_000),
        ],
        [
            {place: {$geo: {type: 'box', top_left: {lat: 45.1, lon: -9.1}, bottom_right: {lat: 41.1, lon: -6.1}}}},
            ({place: {lat, lon}}) => lat <= 45.1 && lat >= 41.1 && lon >= -9.1 && lon <= -6.1,
        ],
        [
            {
                place: {
                    $geo: {
                        type: 'polygon',
                        exterior: {
                            points: [
                                [-9.1, 41.1],
                                [-6.1, 41.1],
                                [-6.1, 45.1],
                                [-9.1, 45.1],
                                [-9.1, 41.1],
                            ].map(([lon, lat]) => ({lon, lat})),
                        },
                    },
                },
            },
            ({place: {lat, lon}}) => lat <= 45.1 && lat >= 41.1 && lon >= -9.1 && lon <= -6.1,
        ],
        [{parts: {$nested: {name: 'handle', count: 2}}}, (m) => m.parts[0].count === 2],
        [{parts: {$nested: {name: {$eq: 'lid'}, count: {$lt: 5}}}}, () => false],
        [{'maker.address.city': 'Bonn'}, (m) => m.maker.address.city === 'Bonn'],
        [{maker: {name: 'Ann', address: {city: 'Bonn'}}}, (m) => m.maker.name === 'Ann' && m.maker.address.city === 'Bonn'],
        [{$and: [{kind: 'pot'}, {price: {$gt: 3}}]}, (m) => m.kind === 'pot' && m.price > 3],
        [{$or: [{kind: 'pot'}, {price: {$lt: 3}}]}, (m) => m.kind === 'pot' || m.price < 3],
        [{$not: {kind: 'pot'}}, (m) => m.kind !== 'pot'],
        [{price: {$not: {$gt: 3}}}, (m) => !(m.price > 3)],
        [
            {$and: [{$or: [{kind: 'pot'}, {kind: 'pan'}]}, {$not: {lid: true}}, {number: {$ne: 7}}]},
            (m) => m.kind !== 'kettle' && !m.lid && m.number !== 7,
        ],
    ];

    test('filters, before and after there are payload indexes', async () => {
        const points = somePoints(5, 60);
        const indexName = await index(points);
        const queryVector = randomVector(randomNumbers(6), dimension);
        const check = async () => {
            for (const [filter, holds] of filters) {
                const found = await store.query({indexName, queryVector, topK: 100, filter});
                const wanted = nearest(
                    points.filter((p) => holds(p.metadata)),
                    'Cosine',
                    queryVector,
                    100,
                );
                assert.deepEqual(
                    found.map((hit) => hit.id),
                    wanted.map((hit) => hit.id),
                    JSON.stringify(filter),
                );
                assertHits(found, wanted);
            }
            const ids = [points[3].id, points[30].id];
            const found = await store.query({indexName, queryVector, filter: {$hasId: ids}});
            assertHits(found, nearest([points[3], points[30]], 'Cosine', queryVector, 10));
            assert.equal((await store.query({indexName, queryVector, topK: 100, filter: {$hasVector: ''}})).length, 60);
        };
        await check();
        const schemas = {
            kind: 'keyword',
            number: 'integer',
            price: 'float',
            place: 'geo',
            lid: 'bool',
            made: 'datetime',
            tags: 'keyword',
            'maker.name': 'keyword',
        };
        for (const [fieldName, fieldSchema] of Object.entries(schemas)) {
            await store.createPayloadIndex({indexName, fieldName, fieldSchema});
        }
        const {payload_schema: schema} = await store.client.getCollection(indexName);
        assert.deepEqual(Object.fromEntries(Object.entries(schema).map(([field, {data_type}]) => [field, data_type])), schemas);
        assert.equal(schema.number.points, 60);
        await check();
    });

    test('create and delete payload indexes', async () => {
        const indexName = await index(somePoints(7, 5));
        for (const fieldSchema of ['keyword', 'integer', 'float', 'geo', 'text', 'bool', 'datetime', 'uuid']) {
            await store.createPayloadIndex({indexName, fieldName: `field_${fieldSchema}`, fieldSchema});
            await store.createPayloadIndex({indexName, fieldName: `field_${fieldSchema}`, fieldSchema}); // again
        }
        const fields = async () => Object.keys((await store.client.getCollection(indexName)).payload_schema).length;
        assert.equal(await fields(), 8);
        await store.deletePayloadIndex({indexName, fieldName: 'field_text'});
        await store.deletePayloadIndex({indexName, fieldName: 'field_text'}); // gone already
        await store.deletePayloadIndex({indexName, fieldName: 'never there'});
        assert.equal(await fields(), 7);
        await refused(
            store.createPayloadIndex({indexName, fieldName: 'x', fieldSchema: 'json'}),
            'CREATE_PAYLOAD_INDEX_INVALID_ARGS',
        );
        await refused(
            store.createPayloadIndex({indexName: 'nowhere', fieldName: 'x', fieldSchema: 'bool'}),
            'CREATE_PAYLOAD_INDEX_FAILED',
        );
        await store.deletePayloadIndex({indexName: 'nowhere', fieldName: 'x'}); // 404 is as good as deleted
    });

    test('named vectors', async () => {
        const indexName = `index-${++names}`;
        await store.createIndex({
            indexName,
            namedVectors: {text: {size: dimension, distance: 'cosine'}, image: {size: dimension, distance: 'euclidean'}},
        });
        const points = somePoints(8, 20);
        const vectors = points.map((p) => p.vector);
        const metadata = points.map((p) => p.metadata);
        const ids = points.map((p) => p.id);
        await store.upsert({indexName, vectors, metadata, ids, vectorName: 'image'});
        const queryVector = randomVector(randomNumbers(9), dimension);
        const found = await store.query({indexName, queryVector, topK: 5, using: 'image', includeVector: true});
        assertHits(found, nearest(points, 'Euclid', queryVector, 5));
        assert.deepEqual(found[0].vector.map(Math.fround), points.find((p) => p.id === found[0].id).vector);
        assert.deepEqual(await store.query({indexName, queryVector, using: 'text'}), []);
        assert.equal(
            (await store.query({indexName, queryVector, using: 'image', topK: 50, filter: {$hasVector: 'image'}})).length,
            20,
        );
        assert.equal(
            (await store.query({indexName, queryVector, using: 'image', topK: 50, filter: {$hasVector: 'text'}})).length,
            0,
        );
        await refused(store.upsert({indexName, vectors, ids, vectorName: 'sound'}), 'UPSERT_INVALID_VECTOR_NAME');
        await refused(store.query({indexName, queryVector, using: 'sound'}), 'QUERY_FAILED');
    });

    test('update by id and by filter', async () => {
        const points = somePoints(10, 6);
        const indexName = await index(points, 'dotproduct');
        const vector = randomVector(randomNumbers(11), dimension);
        const [a, b, c] = points;
        await store.updateVector({indexName, id: a.id, update: {metadata: {kind: 'jug'}}});
        await store.updateVector({indexName, id: b.id, update: {vector}});
        await store.updateVector({indexName, id: c.id, update: {vector, metadata: {kind: 'jar'}}});
        const expected = Object.fromEntries(points.map(({id, vector, metadata}) => [id, {vector, metadata}]));
        expected[a.id] = {vector: a.vector, metadata: {...a.metadata, kind: 'jug'}};
        expected[b.id] = {vector, metadata: b.metadata};
        expected[c.id] = {vector, metadata: {kind: 'jar'}};
        assert.deepEqual(await stored(indexName), expected);

        await store.updateVector({indexName, filter: {number: {$gte: 4}}, update: {metadata: {lid: 'lost'}}});
        for (const p of points.slice(4)) {
            expected[p.id] = {vector: p.vector, metadata: {...p.metadata, lid: 'lost'}};
        }
        assert.deepEqual(await stored(indexName), expected);
        await store.updateVector({indexName, filter: {lid: 'lost'}, update: {vector, metadata: {found: true}}});
        for (const p of points.slice(4)) {
            expected[p.id] = {vector, metadata: {found: true}};
        }
        assert.deepEqual(await stored(indexName), expected);
        await store.updateVector({indexName, filter: {lid: 'nothing'}, update: {vector}});
        assert.deepEqual(await stored(indexName), expected);
        await refused(store.updateVector({indexName, id: randomUUID(), update: {vector}}), 'UPDATE_VECTOR_FAILED');
        await refused(store.updateVector({indexName, id: a.id, update: {vector: [1]}}), 'UPDATE_VECTOR_FAILED');
        assert.deepEqual(await stored(indexName), expected);
    });

    test('update by filter page by page', async () => {
        const points = somePoints(12, 250);
        const indexName = await index(points);
        await store.updateVector({indexName, filter: {kind: 'pot'}, update: {metadata: {kind: 'jug'}}});
        const found = await store.client.count(indexName, {filter: {must: [{key: 'kind', match: {value: 'jug'}}]}});
        assert.deepEqual(found, {count: points.filter((p) => p.metadata.kind === 'pot').length});
    });

    test('delete by id, ids and filter', async () => {
        const points = somePoints(13, 12);
        const indexName = await index(points);
        const left = async () =>
            Object.values(await stored(indexName))
                .map((p) => p.metadata.number)
                .sort((a, b) => a - b);
        await store.deleteVector({indexName, id: points[0].id}); // not waited for, and gone all the same
        assert.deepEqual(await left(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        await store.deleteVectors({indexName, ids: [points[1].id, points[2].id, randomUUID()]});
        assert.deepEqual(await left(), [3, 4, 5, 6, 7, 8, 9, 10, 11]);
        await store.deleteVectors({indexName, filter: {$or: [{kind: 'pot'}, {number: 4}]}});
        assert.deepEqual(await left(), [5, 7, 8, 10, 11]);
        await store.deleteVectors({indexName, ids: ['no id']}); // "Bad Request" in the reason phrase means nothing to delete
        await refused(store.deleteVector({indexName, id: 'no id'}), 'DELETE_VECTOR_FAILED');
        await refused(store.deleteVectors({indexName, filter: {}}), 'DELETE_VECTORS_EMPTY_FILTER');
        assert.deepEqual(await left(), [5, 7, 8, 10, 11]);
    });

    test('ids that look like numbers', async () => {
        const points = somePoints(14, 3).map((p, i) => ({...p, id: i + 1}));
        const indexName = await index(points, 'dotproduct');
        await store.updateVector({indexName, id: '2', update: {metadata: {kind: 'jug'}}});
        await store.deleteVector({indexName, id: '1'});
        await store.deleteVectors({indexName, ids: ['3']});
        assert.deepEqual(await stored(indexName), {
            2: {vector: points[1].vector, metadata: {...points[1].metadata, kind: 'jug'}},
        });
    });
});
