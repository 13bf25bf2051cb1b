// @qdrant/js-client-rest against a real server: named, sparse and multi-vectors and every form of query, each compared
// with a computation over all points.

import assert from 'node:assert/strict';
import {after, before, describe, test} from 'node:test';
import {QdrantClient} from '@qdrant/js-client-rest';
import {assertScored, chosenByMMR, randomNumbers, randomVector, refused, score, startServer} from './server.js';

const size = 8;
const count = 120;
const colours = ['red', 'green', 'blue', 'black'];

const dot = score.Dot;
const unit = (v) => v.map((x) => x / Math.sqrt(dot(v, v)));
const plus = (...vectors) => vectors[0].map((_, i) => vectors.reduce((sum, v) => sum + v[i], 0));
const times = (factor, v) => v.map((x) => factor * x);
const mean = (vectors) => times(1 / vectors.length, plus(...vectors));
const sparseDot = (a, b) => {
    const shared = a.indices.flatMap((index, i) => (b.indices.includes(index) ? [[i, b.indices.indexOf(index)]] : []));
    return shared.length > 0 ? shared.reduce((sum, [i, j]) => sum + a.values[i] * b.values[j], 0) : undefined;
};
const maxSim = (query, rows) => query.reduce((sum, q) => sum + Math.max(...rows.map((row) => score.Cosine(q, row))), 0);

function randomSparse(random) {
    const indices = Array.from({length: 12}, (_, i) => i * 7).filter(() => random() < 0.4);
    return {indices, values: indices.map(() => Math.fround(random() + 0.1))};
}

/** Returns points with vectors of four kinds: text (Cosine), image (Euclid), words (sparse), lines (several rows). */
function somePoints(seed) {
    const random = randomNumbers(seed);
    return Array.from({length: count}, (_, i) => ({
        id: i + 1,
        vector: {
            text: randomVector(random, size),
            image: randomVector(random, 4),
            words: randomSparse(random),
            lines: Array.from({length: 1 + (i % 3)}, () => randomVector(random, 4)),
        },
        payload: {
            number: i,
            price: ((i * 37) % 101) / 4,
            colour: colours[i % colours.length],
            tags: ['a', 'b', 'c'].slice(0, i % 4),
            made: new Date(Date.UTC(2024, 0, 1 + i)).toISOString(),
            place: {lat: 50 + i / 100, lon: 10 - i / 50},
            text: i % 2 ? `the quick brown fox number ${i}` : `a slow brown bear number ${i}`,
            parts: [
                {name: 'x', size: i % 5},
                {name: 'y', size: i % 7},
            ],
        },
    }));
}

describe('@qdrant/js-client-rest, every query', () => {
    const points = somePoints(1);
    const byId = new Map(points.map((point) => [point.id, point]));
    const name = 'things';
    let server;
    let client;

    const createThings = (name) =>
        client.createCollection(name, {
            vectors: {
                text: {size, distance: 'Cosine'},
                image: {size: 4, distance: 'Euclid'},
                lines: {size: 4, distance: 'Cosine', multivector_config: {comparator: 'max_sim'}},
            },
            sparse_vectors: {words: {}, terms: {modifier: 'idf'}},
        });

    before(async () => {
        server = await startServer();
        client = new QdrantClient({url: server.url});
        await createThings(name);
        await client.upsert(name, {points});
    });
    after(() => server?.stop());

    /** Returns id → what fn says of each point, leaving out undefined. */
    const scores = (fn, among = points) =>
        new Map(among.map((point) => [point.id, fn(point)]).filter(([, value]) => value !== undefined));
    const cosine = (vector) => (point) => score.Cosine(vector, point.vector.text);
    const best = (map, k) => [...map].sort((a, b) => b[1] - a[1]).slice(0, k);
    const keep = (map, ids) => new Map([...map].filter(([id]) => ids.includes(id)));
    const without = (...ids) => points.filter((point) => !ids.includes(point.id));
    const ask = async (query) => (await client.query(name, {limit: 20, ...query})).points;
    const random = randomNumbers(2);

    test('each kind of vector by its name', async () => {
        for (let i = 0; i < 3; i++) {
            const text = randomVector(random, size);
            assertScored(await ask({query: text, using: 'text'}), scores(cosine(text)), 20);
            const image = randomVector(random, 4);
            assertScored(
                await ask({query: image, using: 'image'}),
                scores((p) => score.Euclid(image, p.vector.image)),
                20,
                'least',
            );
            const words = randomSparse(random);
            assertScored(
                await ask({query: words, using: 'words'}),
                scores((p) => sparseDot(words, p.vector.words)),
                20,
            );
            const lines = [randomVector(random, 4), randomVector(random, 4)];
            assertScored(
                await ask({query: lines, using: 'lines'}),
                scores((p) => maxSim(lines, p.vector.lines)),
                20,
            );
        }
        const example = byId.get(7);
        assertScored(await ask({query: 7, using: 'text'}), scores(cosine(example.vector.text), without(7)), 20);
        assertScored(
            await ask({query: 7, using: 'words'}),
            scores((p) => sparseDot(example.vector.words, p.vector.words), without(7)),
            20,
        );
        assertScored(
            await ask({query: 7, using: 'lines'}),
            scores((p) => maxSim(example.vector.lines, p.vector.lines), without(7)),
            20,
        );
        await refused(ask({query: randomVector(random, size), using: 'sound'}), 400, /Not existing vector name error: sound/);
        await refused(ask({query: randomVector(random, size)}), 400, /vector name/);
        await refused(ask({query: {indices: [1, 1], values: [1, 1]}, using: 'words'}), 422, /unique/);
    });

    test('what an answer carries of vectors', async () => {
        const {vector} = points[4];
        const [all] = await client.retrieve(name, {ids: [5], with_vector: true});
        assert.deepEqual({...all.vector.words, values: all.vector.words.values.map(Math.fround)}, vector.words);
        assert.deepEqual(all.vector.image.map(Math.fround), vector.image);
        assert.deepEqual(Object.keys(all.vector).sort(), ['image', 'lines', 'text', 'words']);
        unit(vector.text).forEach((x, i) => assert.ok(Math.abs(x - all.vector.text[i]) < 1e-6)); // Cosine keeps directions
        assert.equal(all.vector.lines.length, vector.lines.length);
        const [some] = await client.retrieve(name, {ids: [5], with_vector: ['words', 'image']});
        assert.deepEqual(Object.keys(some.vector).sort(), ['image', 'words']);
        const info = await client.getCollection(name);
        assert.deepEqual(Object.keys(info.config.params.vectors).sort(), ['image', 'lines', 'text']);
        assert.deepEqual(info.config.params.vectors.lines.multivector_config, {comparator: 'max_sim'});
        assert.equal(info.config.params.sparse_vectors.terms.modifier, 'idf');
        assert.equal(info.points_count, count);
    });

    test('replace and delete single vectors', async () => {
        await createThings('partly');
        await client.upsert('partly', {points: points.slice(0, 3)});
        await client.upsert('partly', {
            points: [
                {id: 9, vector: {image: [1, 2, 3, 4]}},
                {id: 10, vector: {}},
            ],
        });
        await client.updateVectors('partly', {
            points: [{id: 1, vector: {image: [0, 0, 0, 1], words: {indices: [3, 1], values: [2, 1]}}}],
        });
        await client.deleteVectors('partly', {vector: ['text', 'lines'], points: [2]});
        await client.deleteVectors('partly', {vector: ['words'], filter: {must: [{key: 'number', match: {value: 2}}]}});
        const {points: left} = await client.scroll('partly', {with_vector: true});
        assert.deepEqual(
            left.map(({id, vector}) => [id, Object.keys(vector).sort()]),
            [
                [1, ['image', 'lines', 'text', 'words']],
                [2, ['image', 'words']],
                [3, ['image', 'lines', 'text']],
                [9, ['image']],
                [10, []],
            ],
        );
        assert.deepEqual(left[0].vector.image, [0, 0, 0, 1]);
        assert.deepEqual(left[0].vector.words, {indices: [1, 3], values: [1, 2]}); // in order
        const having = async (has_vector) =>
            (await client.scroll('partly', {filter: {must: [{has_vector}]}})).points.map((p) => p.id);
        assert.deepEqual(
            [await having('text'), await having('words'), await having('image')],
            [
                [1, 3],
                [1, 2],
                [1, 2, 3, 9],
            ],
        );
        await refused(client.deleteVectors('partly', {vector: ['sound'], points: [1]}), 400, /sound/);
        await refused(client.updateVectors('partly', {points: [{id: 77, vector: {image: [1, 2, 3, 4]}}]}), 404, /77/);
    });

    test('sparse vectors weighted by how rare they are', async () => {
        const terms = points.map((point) => ({id: point.id, vector: {terms: point.vector.words}}));
        await createThings('weighted');
        await client.upsert('weighted', {points: terms});
        const query = {indices: [0, 7, 14, 70], values: [1, 2, 0.5, 1]};
        const df = (index) => terms.filter((p) => p.vector.terms.indices.includes(index)).length;
        const idf = (index) => Math.log((count - df(index) + 0.5) / (df(index) + 0.5) + 1);
        const weighted = {indices: query.indices, values: query.values.map((value, i) => value * idf(query.indices[i]))};
        const found = await client.query('weighted', {query, using: 'terms', limit: 20});
        assertScored(
            found.points,
            new Map(terms.map((p) => [p.id, sparseDot(weighted, p.vector.terms)]).filter(([, s]) => s !== undefined)),
            20,
        );
    });

    test('texts that the server makes BM25 vectors of', async () => {
        await client.createCollection('texts', {vectors: {}, sparse_vectors: {terms: {modifier: 'idf'}}});
        const document = (text) => ({text, model: 'Qdrant/bm25'});
        await client.upsert('texts', {
            points: [
                {id: 1, vector: {terms: document('pot lamp pot')}},
                {id: 2, vector: {terms: document('The lamp of a desk')}},
            ],
        });
        const found = await client.query('texts', {query: document('the lamps and pots'), using: 'terms'});
        const weight = (tf, length) => (2.2 * tf) / (tf + 1.2 * (0.25 + (0.75 * length) / 256));
        const [once, twice] = [Math.log(1.5 / 1.5 + 1), Math.log(0.5 / 2.5 + 1)]; // the idf of a word of one of two texts, and of both
        assertScored(
            found.points,
            new Map([
                [1, once * weight(2, 3) + twice * weight(1, 3)],
                [2, twice * weight(1, 2)],
            ]),
            10,
        );
        await refused(
            client.query('texts', {query: {text: 'pot', model: 'some/transformer'}, using: 'terms'}),
            400,
            /some\/transformer/,
        );
    });

    test('no query, and an order', async () => {
        assert.deepEqual(
            (await ask({})).map((p) => p.id),
            points.slice(0, 20).map((p) => p.id),
        );
        const order = (direction) => (a, b) => direction * (a.payload.price - b.payload.price);
        await client.createPayloadIndex(name, {field_name: 'price', field_schema: 'float', wait: true});
        await client.createPayloadIndex(name, {field_name: 'made', field_schema: 'datetime', wait: true});
        const prices = (hits) => hits.map((hit) => byId.get(hit.id).payload.price);
        assert.deepEqual(prices(await ask({query: {order_by: 'price'}})), prices(points.toSorted(order(1)).slice(0, 20)));
        const scrolled = await client.scroll(name, {order_by: {key: 'price', direction: 'desc', start_from: 20}, limit: 15});
        assert.deepEqual(
            prices(scrolled.points),
            prices(
                points
                    .filter((p) => p.payload.price <= 20)
                    .sort(order(-1))
                    .slice(0, 15),
            ),
        );
        assert.deepEqual(
            scrolled.points.map((p) => p.order_value),
            prices(scrolled.points),
        );
        assert.equal(scrolled.next_page_offset ?? null, null);
        const since = await client.scroll(name, {order_by: {key: 'made', start_from: '2024-02-01T00:00:00Z'}, limit: 3});
        assert.deepEqual(
            since.points.map((p) => p.id),
            [32, 33, 34],
        );
        await refused(ask({query: {order_by: 'colour'}}), 400, /colour/);
    });

    test('a random sample', async () => {
        const filter = {must: [{key: 'colour', match: {value: 'red'}}]};
        const drawn = (await ask({query: {sample: 'random'}, filter, limit: 30})).map((p) => p.id).sort((a, b) => a - b);
        assert.deepEqual(
            drawn,
            points.filter((p) => p.payload.colour === 'red').map((p) => p.id),
        ); // all there are
        const some = (await ask({query: {sample: 'random'}, limit: 50})).map((p) => p.id);
        assert.equal(new Set(some).size, 50);
        assert.notDeepEqual(
            some.toSorted((a, b) => a - b),
            points.slice(0, 50).map((p) => p.id),
        );
    });

    test('a threshold, a page, and a filter', async () => {
        const query = randomVector(random, size);
        const all = best(scores(cosine(query)), count);
        const threshold = (all[9][1] + all[10][1]) / 2;
        assertScored(await ask({query, using: 'text', score_threshold: threshold}), new Map(all.slice(0, 10)), 10);
        assertScored(await ask({query, using: 'text', offset: 4, limit: 5}), new Map(all.slice(4)), 5);
        const image = randomVector(random, 4);
        const near = scores((p) => score.Euclid(image, p.vector.image));
        assertScored(
            await ask({query: image, using: 'image', score_threshold: 0.9}),
            new Map([...near].filter(([, s]) => s < 0.9)),
            20,
            'least',
        );
        const blue = points.filter((p) => p.payload.colour === 'blue');
        assertScored(
            await ask({query, using: 'text', filter: {must: {key: 'colour', match: {value: 'blue'}}}}),
            scores(cosine(query), blue),
            20,
        );
    });

    test('recommend', async () => {
        const [a, b, c, d] = [3, 8, 40, 77];
        const v = (id) => unit(byId.get(id).vector.text);
        const others = without(a, b, c, d);
        const recommend = (options) => ask({query: {recommend: {positive: [a, b], negative: [c, d], ...options}}, using: 'text'});
        const average = plus(times(2, mean([v(a), v(b)])), times(-1, mean([v(c), v(d)])));
        assertScored(await recommend({}), scores(cosine(average), others), 20);
        const onlyPositive = await ask({query: {recommend: {positive: [a, b]}}, using: 'text'});
        assertScored(onlyPositive, scores(cosine(mean([v(a), v(b)])), without(a, b)), 20);

        const squash = (x) => 0.5 * (x / (1 + Math.abs(x)) + 1);
        const bestScore = (p) => {
            const similarity = (id) => score.Cosine(v(id), p.vector.text);
            const [positive, negative] = [Math.max(similarity(a), similarity(b)), Math.max(similarity(c), similarity(d))];
            return positive > negative ? squash(positive) : -squash(negative);
        };
        assertScored(await recommend({strategy: 'best_score'}), scores(bestScore, others), 20);
        const sum = (p) => [a, b, c, d].reduce((sum, id, i) => sum + (i < 2 ? 1 : -1) * score.Cosine(v(id), p.vector.text), 0);
        assertScored(await recommend({strategy: 'sum_scores'}), scores(sum, others), 20);

        const given = randomVector(random, size);
        const mixed = await ask({query: {recommend: {positive: [given, a]}}, using: 'text'});
        assertScored(mixed, scores(cosine(mean([given, v(a)])), without(a)), 20);
        await refused(ask({query: {recommend: {positive: [4040]}}, using: 'text'}), 404, /4040/);
    });

    test('discover and context', async () => {
        const pairs = [
            [3, 8],
            [40, 77],
            [12, 90],
        ];
        const similar = (id, p) => score.Cosine(byId.get(id).vector.text, p.vector.text);
        const context = pairs.map(([positive, negative]) => ({positive, negative}));
        const others = without(...pairs.flat());
        const loss = (p) =>
            pairs.reduce((sum, [positive, negative]) => {
                const below = Math.min(similar(positive, p) - similar(negative, p) - 2 ** -23, 0);
                return sum + below / (1 + Math.abs(below));
            }, 0);
        assertScored(await ask({query: {context}, using: 'text', limit: 60}), scores(loss, others), 60);

        const target = randomVector(random, size);
        const rank = (p) =>
            pairs.reduce((sum, [positive, negative]) => sum + Math.sign(similar(positive, p) - similar(negative, p)), 0);
        const closeness = (p) => {
            const x = score.Cosine(target, p.vector.text);
            return 0.5 * (x / (1 + Math.abs(x)) + 1);
        };
        assertScored(
            await ask({query: {discover: {target, context}}, using: 'text', limit: 60}),
            scores((p) => rank(p) + closeness(p), others),
            60,
        );
    });

    test('near the query and unlike one another', async () => {
        const query = randomVector(random, size);
        const flat = points.map((p) => ({id: p.id, vector: p.vector.text}));
        for (const [mmr, diversity, candidates] of [
            [{}, 0.5, 10],
            [{diversity: null, candidates_limit: 40}, 0.5, 40],
            [{diversity: 0.9, candidates_limit: 40}, 0.9, 40],
            [{diversity: 0}, 0, 10],
        ]) {
            const found = await ask({query: {nearest: query, mmr}, using: 'text', limit: 10});
            assert.deepEqual(
                found.map((hit) => hit.id),
                chosenByMMR(flat, 'Cosine', query, {k: 10, diversity, candidates}),
            );
        }
        await refused(ask({query: {nearest: query, mmr: {diversity: 1.5}}, using: 'text'}), 422, /diversity/);
    });

    describe('prefetch', () => {
        const text = randomVector(randomNumbers(3), size);
        const image = randomVector(randomNumbers(4), 4);
        const textScores = scores(cosine(text));
        const nearText = best(textScores, 15).map(([id]) => id);
        const imageScores = scores((p) => -score.Euclid(image, p.vector.image));
        const nearImage = best(imageScores, 12).map(([id]) => id);
        const both = [
            {query: text, using: 'text', limit: 15},
            {query: image, using: 'image', limit: 12},
        ];

        test('candidates of one vector in the order of another', async () => {
            const found = await ask({prefetch: both[0], query: image, using: 'image'});
            assertScored(
                found,
                keep(
                    scores((p) => score.Euclid(image, p.vector.image)),
                    nearText,
                ),
                15,
                'least',
            );
            assert.equal(found.length, 15);
            assertScored(
                await ask({prefetch: both, query: text, using: 'text', limit: 50}),
                keep(textScores, [...nearText, ...nearImage]),
                50,
            );
            const inner = best(keep(imageScores, nearText), 6).map(([id]) => id);
            const nested = {prefetch: [both[0]], query: image, using: 'image', limit: 6};
            assertScored(await ask({prefetch: nested, query: text, using: 'text'}), keep(textScores, inner), 20);
            const red = points.filter((p) => p.payload.colour === 'red');
            const filtered = {...both[0], filter: {must: [{key: 'colour', match: {value: 'red'}}]}};
            const nearRed = best(scores(cosine(text), red), 15).map(([id]) => id);
            assertScored(
                await ask({prefetch: filtered, query: image, using: 'image'}),
                keep(
                    scores((p) => score.Euclid(image, p.vector.image)),
                    nearRed,
                ),
                15,
                'least',
            );
        });

        const fused = (lists, share) => {
            const sum = new Map();
            lists.forEach((list, n) => list.forEach((id, i) => sum.set(id, (sum.get(id) ?? 0) + share(n, i, list))));
            return sum;
        };

        test('fusion by ranks', async () => {
            const lists = [nearText, nearImage];
            assertScored(
                await ask({prefetch: both, query: {fusion: 'rrf'}, limit: 50}),
                fused(lists, (_, i) => 1 / (i + 2)),
                50,
            );
            assertScored(
                await ask({prefetch: both, query: {rrf: {k: 60}}, limit: 50}),
                fused(lists, (_, i) => 1 / (i + 60)),
                50,
            );
            const weights = [3, 0.5];
            assertScored(
                await ask({prefetch: both, query: {rrf: {k: 4, weights}}, limit: 50}),
                fused(lists, (n, i) => 1 / ((i + 1) / weights[n] + 3)),
                50,
            );
            await refused(ask({prefetch: both, query: {rrf: {weights: [1]}}}), 400, /weights/);
            await refused(ask({query: {fusion: 'rrf'}}), 400, /prefetch/);
        });

        test('fusion by distributions of scores', async () => {
            const words = randomSparse(randomNumbers(5));
            const wordScores = best(
                scores((p) => sparseDot(words, p.vector.words)),
                12,
            );
            const expected = new Map();
            for (const list of [best(textScores, 15), wordScores]) {
                const values = list.map(([, value]) => value);
                const middle = values.reduce((a, b) => a + b) / values.length;
                const deviation = Math.sqrt(values.reduce((a, b) => a + (b - middle) ** 2, 0) / (values.length - 1));
                list.forEach(([id, value]) =>
                    expected.set(id, (expected.get(id) ?? 0) + (value - (middle - 3 * deviation)) / (6 * deviation)),
                );
            }
            const found = await ask({
                prefetch: [both[0], {query: words, using: 'words', limit: 12}],
                query: {fusion: 'dbsf'},
                limit: 50,
            });
            assertScored(found, expected, 50);
        });

        test('formula', async () => {
            const asked = async (formula, defaults) =>
                ask({prefetch: {...both[0], limit: 60}, query: {formula, ...(defaults ? {defaults} : {})}, limit: 60});
            const among = best(textScores, 60).map(([id]) => byId.get(id));
            const check = async (formula, value, defaults) =>
                assertScored(
                    await asked(formula, defaults),
                    scores((p) => value(p.payload, textScores.get(p.id)), among),
                    60,
                );
            await check('$score', (_, s) => s);
            await check(
                {sum: ['$score', {mult: [0.5, 'price']}, {key: 'colour', match: {value: 'red'}}]},
                (p, s) => s + 0.5 * p.price + (p.colour === 'red' ? 1 : 0),
            );
            await check({neg: {abs: {sum: ['price', -12]}}}, (p) => -Math.abs(p.price - 12));
            await check({div: {left: 'price', right: {sum: [1, 'number']}}}, (p) => p.price / (1 + p.number));
            await check(
                {sum: [{sqrt: 'price'}, {pow: {base: '$score', exponent: 2}}, {exp: '$score'}]},
                (p, s) => Math.sqrt(p.price) + s ** 2 + Math.exp(s),
            );
            await check(
                {sum: [{log10: {sum: [1, 'price']}}, {ln: {sum: [1, 'number']}}]},
                (p) => Math.log10(1 + p.price) + Math.log(1 + p.number),
            );
            await check({mult: ['$score', 'rating']}, (_, s) => 4 * s, {rating: 4});
            const decay = (kind) => ({[kind]: {x: 'price', target: 10, scale: 5, midpoint: 0.25}});
            await check(decay('lin_decay'), (p) => Math.max(0, 1 - (0.75 / 5) * Math.abs(p.price - 10)));
            await check(decay('exp_decay'), (p) => Math.exp((Math.log(0.25) / 5) * Math.abs(p.price - 10)));
            await check(decay('gauss_decay'), (p) => Math.exp((Math.log(0.25) / 25) * (p.price - 10) ** 2));
            const day = 86_400;
            await check(
                {lin_decay: {x: {datetime_key: 'made'}, target: {datetime: '2024-02-01T00:00:00Z'}, scale: 30 * day}},
                (p) => Math.max(0, 1 - ((0.5 / (30 * day)) * Math.abs(Date.parse(p.made) - Date.UTC(2024, 1, 1))) / 1000),
            );
            const metres = ({lat, lon}) => {
                const radians = Math.PI / 180;
                const half = (a, b) => Math.sin(((a - b) * radians) / 2) ** 2;
                return (
                    2 *
                    6371008.8 *
                    Math.asin(Math.sqrt(half(lat, 50.5) + Math.cos(lat * radians) * Math.cos(50.5 * radians) * half(lon, 9)))
                );
            };
            await check(
                {mult: [-0.001, {geo_distance: {origin: {lat: 50.5, lon: 9}, to: 'place'}}]},
                (p) => -metres(p.place) / 1000,
            );
            await refused(asked({div: {left: 1, right: 'number'}}), 400, /./); // of which one is 0
            await refused(asked({log: 'price'}), 400, /./);
        });
    });

    test('several queries of different kinds in one request', async () => {
        const text = randomVector(random, size);
        const words = randomSparse(random);
        const [first, second, third] = await client.queryBatch(name, {
            searches: [
                {query: text, using: 'text', limit: 5},
                {query: words, using: 'words', limit: 7, with_payload: ['number']},
                {limit: 2},
            ],
        });
        assertScored(first.points, scores(cosine(text)), 5);
        assertScored(
            second.points,
            scores((p) => sparseDot(words, p.vector.words)),
            7,
        );
        assert.deepEqual(Object.keys(second.points[0].payload), ['number']);
        assert.deepEqual(
            third.points.map((p) => p.id),
            [1, 2],
        );
    });

    test('groups', async () => {
        const query = randomVector(random, size);
        await client.createCollection('colours', {vectors: {size: 1, distance: 'Dot'}});
        await client.upsert('colours', {
            points: [
                {id: 1, vector: [1], payload: {says: 'one'}},
                {id: 2, vector: [1], payload: {says: 'two'}},
            ],
        });
        const grouped = (keysOf, k, perGroup) => {
            const groups = new Map();
            for (const [id] of best(scores(cosine(query)), count)) {
                for (const key of keysOf(byId.get(id).payload)) {
                    groups.set(key, [...(groups.get(key) ?? []), id].slice(0, perGroup));
                }
            }
            return [...groups].slice(0, k);
        };
        const asked = async (options) => (await client.queryGroups(name, {query, using: 'text', ...options})).groups;
        const shape = (groups) => groups.map(({id, hits}) => [id, hits.map((hit) => hit.id)]);
        assert.deepEqual(
            shape(await asked({group_by: 'colour', limit: 3, group_size: 4})),
            grouped((p) => [p.colour], 3, 4),
        );
        assert.deepEqual(
            shape(await asked({group_by: 'tags'})),
            grouped((p) => p.tags, 10, 3),
        );
        const withLookup = await asked({
            group_by: 'parts[].size',
            limit: 7,
            group_size: 2,
            with_lookup: {collection: 'colours', with_payload: true},
        });
        assert.deepEqual(
            shape(withLookup),
            grouped((p) => [...new Set(p.parts.map((part) => part.size))], 7, 2),
        );
        for (const {id, lookup} of withLookup) {
            assert.deepEqual(lookup?.payload, id === 1 ? {says: 'one'} : id === 2 ? {says: 'two'} : undefined);
        }
        const {hits} = (await asked({group_by: 'colour', with_payload: ['number']}))[0];
        assertScored(
            hits,
            keep(
                scores(cosine(query)),
                hits.map((hit) => hit.id),
            ),
            3,
        );
        assert.deepEqual(
            hits.map((hit) => hit.payload),
            hits.map((hit) => ({number: byId.get(hit.id).payload.number})),
        );
    });

    test('distances between points', async () => {
        const among = points.filter((p) => p.payload.number < 12);
        const filter = {must: [{key: 'number', range: {lt: 12}}]};
        const {pairs} = await client.searchMatrixPairs(name, {sample: 12, limit: 3, using: 'text', filter});
        assert.equal(pairs.length, 36);
        for (const p of among) {
            const nearby = scores(
                cosine(p.vector.text),
                among.filter((other) => other !== p),
            );
            assertScored(
                pairs.filter((pair) => pair.a === p.id).map(({b, score}) => ({id: b, score})),
                nearby,
                3,
            );
        }
        const {
            offsets_row: rows,
            offsets_col: columns,
            scores: values,
            ids,
        } = await client.searchMatrixOffsets(name, {sample: 12, limit: 3, using: 'text', filter});
        assert.deepEqual(
            ids.toSorted((a, b) => a - b),
            among.map((p) => p.id),
        );
        const triples = rows.map((row, i) => [ids[row], ids[columns[i]], values[i]]).sort();
        assert.deepEqual(triples, pairs.map(({a, b, score}) => [a, b, score]).sort());
    });

    test('vectors of another collection', async () => {
        await client.createCollection('examples', {vectors: {other: {size, distance: 'Dot'}}});
        const vector = randomVector(random, size);
        await client.upsert('examples', {points: [{id: 5, vector: {other: vector}}]});
        const lookup_from = {collection: 'examples', vector: 'other'};
        assertScored(await ask({query: 5, using: 'text', lookup_from}), scores(cosine(vector)), 20); // whose ids exclude nothing here
        await refused(ask({query: 6, using: 'text', lookup_from}), 404, /6/);
        await refused(ask({query: 5, using: 'text', lookup_from: {collection: 'nowhere'}}), 404, /nowhere/);
    });

    const filters = [
        [
            {
                min_should: {
                    conditions: [
                        {key: 'colour', match: {value: 'red'}},
                        {key: 'number', range: {lt: 60}},
                        {key: 'tags', match: {value: 'c'}},
                    ],
                    min_count: 2,
                },
            },
            (p) => (p.colour === 'red') + (p.number < 60) + p.tags.includes('c') >= 2,
        ],
        [
            {
                must: [
                    {
                        nested: {
                            key: 'parts',
                            filter: {
                                must: [
                                    {key: 'name', match: {value: 'y'}},
                                    {key: 'size', range: {gte: 5}},
                                ],
                            },
                        },
                    },
                ],
            },
            (p) => p.parts[1].size >= 5,
        ],
        [{must: [{key: 'parts[].size', match: {value: 6}}]}, (p) => p.parts.some((part) => part.size === 6)],
        [{must: [{key: 'tags', values_count: {gte: 2}}]}, (p) => p.tags.length >= 2],
        [{must: [{is_empty: {key: 'tags'}}]}, (p) => p.tags.length === 0],
        [
            {must: [{key: 'made', range: {gte: '2024-02-01T00:00:00+01:00', lt: '2024-03-01'}}]},
            (p) => p.made >= '2024-01-31T23' && p.made < '2024-03-01',
        ],
        [
            {
                must: [
                    {
                        key: 'place',
                        geo_bounding_box: {top_left: {lat: 50.605, lon: 8.795}, bottom_right: {lat: 50.205, lon: 9.505}},
                    },
                ],
            },
            ({place: {lat, lon}}) => lat <= 50.605 && lat >= 50.205 && lon >= 8.795 && lon <= 9.505,
        ],
        [{must: [{key: 'text', match: {text: 'quick'}}]}, (p) => p.text.includes('quick')],
        [{must: [{key: 'text', match: {text_any: 'bear 119'}}]}, (p) => p.text.includes('bear') || p.number === 119],
        [{must: [{key: 'text', match: {phrase: 'brown bear'}}]}, (p) => p.text.includes('brown bear')],
        [{must: [{has_vector: 'text'}, {has_id: [3, 5, 999]}]}, (p) => p.number === 2 || p.number === 4],
        [
            {
                must_not: [
                    {
                        should: [
                            {key: 'colour', match: {any: ['red', 'blue']}},
                            {key: 'number', range: {gt: 50}},
                        ],
                    },
                ],
            },
            (p) => !['red', 'blue'].includes(p.colour) && p.number <= 50,
        ],
        [{must: [{key: 'colour', match: {except: ['red']}}], should: null}, (p) => p.colour !== 'red'],
    ];

    test('filters, before and after there are payload indexes', async () => {
        await createThings('filtered');
        await client.upsert('filtered', {points});
        const query = randomVector(random, size);
        const check = async () => {
            for (const [filter, holds] of filters) {
                const passing = points.filter((p) => holds(p.payload));
                assert.ok(passing.length > 0 && passing.length < count, JSON.stringify(filter));
                const found = await client.query('filtered', {query, using: 'text', filter, limit: count});
                assert.deepEqual(
                    found.points.map((p) => p.id).sort((a, b) => a - b),
                    passing.map((p) => p.id),
                    JSON.stringify(filter),
                );
                assertScored(found.points, scores(cosine(query), passing), count);
                assert.deepEqual(await client.count('filtered', {filter}), {count: passing.length});
            }
        };
        await check();
        const fields = {
            colour: {type: 'keyword', is_tenant: true},
            number: {type: 'integer', lookup: true, range: true},
            'parts[].size': 'integer',
            tags: 'keyword',
            made: 'datetime',
            place: 'geo',
            price: {type: 'float', on_disk: true},
            text: {type: 'text', tokenizer: 'word', lowercase: true, phrase_matching: true},
        };
        for (const [field_name, field_schema] of Object.entries(fields)) {
            const answer = await client.createPayloadIndex('filtered', {field_name, field_schema, wait: true});
            assert.equal(answer.status, 'completed');
        }
        const {payload_schema: schema} = await client.getCollection('filtered');
        assert.deepEqual(
            Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, value.data_type])),
            Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, value.type ?? value])),
        );
        assert.equal(schema.text.params.phrase_matching, true);
        assert.equal(schema.number.points, count);
        await check();
        await client.deletePayloadIndex('filtered', 'colour', {wait: true});
        assert.equal((await client.getCollection('filtered')).payload_schema.colour, undefined);
        await check();
        await refused(client.createPayloadIndex('filtered', {field_name: 'x', field_schema: 'json'}), 400, /json/);
    });
});
