// mem0ai against a real server: its vector store by itself, and its memory, which asks a stand-in for a language model.

import assert from 'node:assert/strict';
import {randomUUID} from 'node:crypto';
import {createServer} from 'node:http';
import {after, afterEach, before, describe, test} from 'node:test';
import {assertHits, nearest, score, startServer} from '../server.js';
import {embed, wordsSize} from '../words.js';

process.env.MEM0_TELEMETRY = 'false'; // which is read when the module is loaded
const {Memory, Qdrant} = await import('mem0ai/oss');

/** Starts a server that speaks OpenAI's API: its embeddings are those of embed, its answers what say() was last given. */
async function startModel() {
    let answer = {};
    const server = createServer(async (request, response) => {
        const body = JSON.parse(Buffer.concat(await request.toArray()));
        const result =
            request.url === '/v1/embeddings'
                ? {data: [body.input].flat().map((text, index) => ({index, embedding: embed(text)}))}
                : {choices: [{message: {role: 'assistant', content: JSON.stringify(answer)}}]};
        response.writeHead(200, {'content-type': 'application/json'}).end(JSON.stringify(result));
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    return {
        url: `http://127.0.0.1:${server.address().port}/v1`,
        say: (value) => (answer = value),
        stop: () => (server.closeAllConnections(), server.close()),
    };
}

/**
 * Returns the BM25 score of each text for the query, with k 1.2, b 0.75 and 256 as the length of a document of average
 * length. The words of the texts must be their own stems.
 */
function bm25(texts, query) {
    const counts = texts.map((text) => Map.groupBy(text.split(' '), (word) => word));
    return texts.map((text, i) => {
        let sum = 0;
        for (const word of new Set(query.split(' '))) {
            const tf = counts[i].get(word)?.length ?? 0;
            const df = counts.filter((count) => count.has(word)).length;
            const idf = Math.log((texts.length - df + 0.5) / (df + 0.5) + 1);
            sum += (idf * tf * 2.2) / (tf + 1.2 * (0.25 + (0.75 * text.split(' ').length) / 256));
        }
        return sum;
    });
}

// Words that are no stop words and their own stems, so that the server takes them as they are.
const notes = [
    'pot lamp desk',
    'lamp lamp milk',
    'bread milk cat',
    'cat cat cat desk pot',
    'wolf bird',
    'bird lamp wolf wolf bread',
];

describe('mem0ai', () => {
    let server;
    let model;
    let names = 0;
    let ids = 0;
    const complaints = []; // what the client printed: it hides errors of the server behind warnings and goes on without

    before(async () => {
        [server, model] = await Promise.all([startServer(), startModel()]);
        process.env.MEM0_DIR = server.directory; // where it keeps a file of its own
        for (const level of ['debug', 'warn', 'error']) {
            console[level] = (...words) => complaints.push(words.join(' '));
        }
    });
    after(() => {
        model?.stop();
        return server?.stop();
    });
    afterEach(() => assert.deepEqual(complaints.splice(0), []));

    describe('the vector store', () => {
        const open = (options = {}) =>
            new Qdrant({collectionName: `store-${++names}`, dimension: wordsSize, url: server.url, ...options});

        /** Returns an id that is greater than those before it: of points with equal scores, the one with the least comes first. */
        const newId = () => `00000000-0000-4000-8000-${String(++ids).padStart(12, '0')}`;

        /** Returns a store with a point for each of the payloads, and the points. */
        async function filled(payloads) {
            const store = open();
            const points = payloads.map((payload) => ({
                id: newId(),
                vector: embed(payload.textLemmatized ?? payload.data),
                payload,
            }));
            await store.insert(
                points.map((p) => p.vector),
                points.map((p) => p.id),
                points.map((p) => p.payload),
            );
            return {store, points};
        }

        test('what it creates', async () => {
            const store = open();
            await store.initialize();
            const {config, payload_schema: schema} = await store.client.getCollection(store.collectionName);
            assert.deepEqual([config.params.vectors.size, config.params.vectors.distance], [wordsSize, 'Cosine']);
            assert.equal(config.params.sparse_vectors.bm25.modifier, 'idf');
            assert.deepEqual(Object.keys(schema).sort(), ['actor_id', 'agent_id', 'run_id', 'user_id']);
            assert.ok(Object.values(schema).every((field) => field.data_type === 'keyword'));
            assert.equal((await store.client.getCollection('memory_migrations')).config.params.vectors.size, 1);
        });

        test('a collection that is there is used', async () => {
            const {store, points} = await filled(notes.map((data) => ({data})));
            const again = open({collectionName: store.collectionName}); // the server says 409
            assertHits(await again.search(embed('lamp milk'), 3), nearest(points, 'Cosine', embed('lamp milk'), 3));
            assert.equal((await again.keywordSearch('wolf')).length, 2);

            const wrong = open({collectionName: store.collectionName, dimension: 3});
            await assert.rejects(wrong.initialize(), /wrong vector size\. Expected: 3, got: 128/);
            assert.match(complaints.splice(0).join(), /wrong vector size/);
        });

        test('a collection without a place for BM25 is used without', async () => {
            const {client} = (await filled([{data: 'pot'}])).store;
            await client.createCollection('before hybrid search', {vectors: {size: wordsSize, distance: 'Cosine'}});
            const old = open({collectionName: 'before hybrid search'});
            const id = randomUUID();
            await old.insert([embed('pot')], [id], [{data: 'pot'}]);
            assert.deepEqual(await old.get(id), {id, payload: {data: 'pot'}});
            assert.equal(await old.keywordSearch('pot'), null);
            assert.match(complaints.splice(0).join(), /predates hybrid search/);
        });

        test('insert, get, update, delete', async () => {
            const {store, points} = await filled(notes.map((data) => ({data, user_id: 'ann'})));
            const [first, second] = points;
            assert.deepEqual(await store.get(first.id), {id: first.id, payload: first.payload});
            assert.equal(await store.get(randomUUID()), null);
            await store.update(first.id, embed('wolf'), {data: 'wolf', user_id: 'bob'});
            assert.deepEqual((await store.get(first.id)).payload, {data: 'wolf', user_id: 'bob'});
            const [best] = await store.search(embed('wolf'), 1);
            assert.deepEqual([best.id, best.payload], [first.id, {data: 'wolf', user_id: 'bob'}]);
            assert.ok(Math.abs(best.score - 1) < 1e-6);
            assert.equal((await store.keywordSearch('desk')).length, 1); // its words of before are gone
            await store.delete(second.id); // not waited for, and gone all the same
            assert.equal(await store.get(second.id), null);
            assert.equal((await store.list())[1], notes.length - 1);
            await store.deleteCol();
            assert.deepEqual(await store.client.collectionExists(store.collectionName), {exists: false});
        });

        test('filters', async () => {
            const payloads = Array.from({length: 40}, (_, i) => ({
                data: notes[i % notes.length],
                textLemmatized: `${notes[i % notes.length]} number${i}`,
                user_id: ['ann', 'bob', 'cid'][i % 3],
                number: i,
                tags: ['red', 'green', 'blue'].slice(0, i % 4),
                ...(i % 5 ? {kind: i % 2 ? 'note' : 'list'} : {}),
            }));
            const {store, points} = await filled(payloads);
            const cases = [
                [undefined, () => true],
                [{}, () => true],
                [{user_id: 'ann'}, (p) => p.user_id === 'ann'],
                [{user_id: 'ann', kind: 'note'}, (p) => p.user_id === 'ann' && p.kind === 'note'],
                [{user_id: '*', number: 7}, (p) => p.number === 7],
                [{number: {gte: 5, lt: 9}}, (p) => p.number >= 5 && p.number < 9],
                [{number: {gt: 5, lte: 9}}, (p) => p.number > 5 && p.number <= 9],
                [{tags: ['green', 'blue']}, (p) => p.tags.includes('green')],
                [{kind: {eq: 'note'}}, (p) => p.kind === 'note'],
                [{kind: {ne: 'note'}}, (p) => p.kind === 'list'],
                [{number: {in: [1, 2, 99]}}, (p) => p.number === 1 || p.number === 2],
                [{number: {nin: [1, 2, 99]}}, (p) => p.number !== 1 && p.number !== 2],
                [{data: {contains: 'lamp'}}, (p) => p.data.includes('lamp')],
                [{AND: [{user_id: 'ann'}, {number: {lt: 20}}]}, (p) => p.user_id === 'ann' && p.number < 20],
                [{$or: [{user_id: 'ann'}, {number: {lt: 20}}]}, (p) => p.user_id === 'ann' || p.number < 20],
                [{NOT: [{user_id: 'ann'}, {number: {lt: 20}}]}, (p) => p.user_id !== 'ann' && p.number >= 20],
                [
                    {user_id: 'ann', OR: [{kind: 'list'}, {AND: [{number: {gt: 30}}, {$not: [{tags: 'red'}]}]}]},
                    (p) => p.user_id === 'ann' && (p.kind === 'list' || (p.number > 30 && !p.tags.includes('red'))),
                ],
            ];
            const query = embed('bird and bread in number seven');
            for (const [filters, holds] of cases) {
                const passing = points.filter((p) => holds(p.payload));
                assert.ok(passing.length > 0, JSON.stringify(filters));
                assertHits(byId(await store.search(query, 100, filters)), byId(nearest(passing, 'Cosine', query, 100)));
                const [listed, count] = await store.list(filters, 10_000);
                assert.deepEqual(byId(listed), byId(passing.map(({id, payload}) => ({id, payload}))));
                assert.equal(count, passing.length);
                const found = await store.keywordSearch('lamp', 100, filters);
                assert.deepEqual(
                    byId(found).map((hit) => hit.id),
                    byId(passing.filter((p) => p.payload.data.includes('lamp'))).map((p) => p.id),
                );
            }
        });

        const byId = (hits) => hits.toSorted((a, b) => (a.id < b.id ? -1 : 1));

        test('search, and search by keywords', async () => {
            const {store, points} = await filled(notes.map((data) => ({data})));
            for (const query of ['lamp', 'cat desk', 'wolf bird milk milk', 'nothing of it']) {
                assertHits(await store.search(embed(query), 4), nearest(points, 'Cosine', embed(query), 4));
                const expected = bm25(notes, query)
                    .map((score, i) => ({id: points[i].id, score}))
                    .filter((hit) => hit.score > 0)
                    .sort((a, b) => b.score - a.score);
                assertHits(await store.keywordSearch(query, 10), expected);
                assertHits(await store.keywordSearch(query, 1), expected.slice(0, 1));
            }
            const [hit] = await store.keywordSearch('milk cat', 1);
            assert.deepEqual(hit.payload, {data: notes[2]});
        });

        test('a list of ten thousand', async () => {
            const store = open({dimension: 2});
            await store.initialize();
            const payload = {user_id: 'ann'};
            for (let i = 0; i < 10_100; i += 2020) {
                const ids = Array.from({length: 2020}, () => randomUUID());
                await store.insert(
                    ids.map(() => [1, 0]),
                    ids,
                    ids.map(() => payload),
                );
            }
            const [listed, count] = await store.list({user_id: 'ann'}, 10_000);
            assert.equal(count, 10_000);
            assert.equal(new Set(listed.map((point) => point.id)).size, 10_000);
            assert.equal((await store.list())[1], 100);
        });

        test('the id of the user, kept beside the vector [0]', async () => {
            const store = open();
            const first = await store.getUserId();
            assert.equal(await store.getUserId(), first);
            await store.setUserId('ann');
            assert.equal(await open().getUserId(), 'ann');
            const {points} = await store.client.scroll('memory_migrations', {with_vector: true});
            assert.deepEqual(
                points.map((p) => [p.vector, p.payload]),
                [[[0], {user_id: 'ann'}]],
            );
            const [{score}] = await store.client.search('memory_migrations', {vector: [1], limit: 1});
            assert.equal(score, 0);
        });
    });

    describe('the memory', () => {
        const open = (collectionName = `memory-${++names}`) =>
            new Memory({
                embedder: {provider: 'openai', config: {apiKey: 'none', baseURL: model.url, model: 'any'}},
                llm: {provider: 'openai', config: {apiKey: 'none', baseURL: model.url, model: 'any'}},
                vectorStore: {provider: 'qdrant', config: {collectionName, url: server.url}},
                disableHistory: true,
            });

        /** Adds the texts as they are and returns their ids. */
        async function remember(memory, texts, options) {
            const {results} = await memory.add(
                texts.map((content) => ({role: 'user', content})),
                {infer: false, ...options},
            );
            assert.deepEqual(
                results.map((result) => result.memory),
                texts,
            );
            return results.map((result) => result.id);
        }

        test('add, get, list, update, delete', async () => {
            const memory = open();
            const ids = await remember(memory, notes, {userId: 'ann', metadata: {room: 'kitchen'}});
            await remember(memory, ['bird'], {agentId: 'cook', runId: 'one'});
            const first = await memory.get(ids[0]);
            assert.deepEqual([first.memory, first.user_id, first.metadata], [notes[0], 'ann', {room: 'kitchen'}]);
            const all = async (filters) =>
                (await memory.getAll({filters, topK: 100})).results.map((result) => result.memory).sort();
            assert.deepEqual(await all({user_id: 'ann'}), notes.toSorted());
            assert.deepEqual(await all({agent_id: 'cook', run_id: 'one'}), ['bird']);
            assert.deepEqual(await all({agent_id: 'cook', run_id: 'two'}), []);

            await memory.update(ids[0], {text: 'wolf milk', metadata: {room: 'study'}});
            const updated = await memory.get(ids[0]);
            assert.deepEqual([updated.memory, updated.metadata], ['wolf milk', {room: 'study'}]);
            await memory.delete(ids[1]);
            assert.equal(await memory.get(ids[1]), null);
            await assert.rejects(memory.delete(ids[1]), /not found/);
            assert.deepEqual(await all({user_id: 'ann'}), ['wolf milk', ...notes.slice(2)].sort());
        });

        test('search by vectors and by keywords at once', async () => {
            const memory = open();
            const ids = await remember(memory, notes, {userId: 'ann'});
            await remember(memory, ['lamp bread'], {userId: 'bob'});
            for (const query of ['lamp milk', 'wolf bird']) {
                const {results} = await memory.search(query, {filters: {user_id: 'ann'}, topK: 10, threshold: 0, explain: true});
                const keywords = bm25([...notes, 'lamp bread'], query);
                const expected = notes.map((text, i) => {
                    const raw = keywords[i] > 0 ? 1 / (1 + Math.exp(-0.7 * (keywords[i] - 5))) : 0; // as the client makes shares of them
                    return {id: ids[i], semantic: score.Cosine(embed(query), embed(text)), keyword: raw};
                });
                assert.equal(results.length, notes.length);
                for (const {id, score_details: details} of results) {
                    const {semantic, keyword} = expected.find((one) => one.id === id);
                    assert.ok(
                        Math.abs(details.semanticScore - semantic) < 1e-5,
                        `${details.semanticScore}, expected ${semantic}`,
                    );
                    assert.ok(Math.abs(details.bm25Score - keyword) < 1e-5, `${details.bm25Score}, expected ${keyword}`);
                }
            }
            const found = async (filters) =>
                (await memory.search('lamp', {filters, topK: 10, threshold: 0})).results.map((result) => result.memory);
            assert.deepEqual(await found({user_id: 'bob'}), ['lamp bread']);
            assert.deepEqual(await found({user_id: 'eve'}), []);
        });

        test('search with conditions on metadata', async () => {
            const memory = open();
            for (const [i, text] of notes.entries()) {
                await remember(memory, [text], {userId: 'ann', metadata: {number: i, kind: i % 2 ? 'odd' : 'even'}});
            }
            const found = async (filters) => {
                const {results} = await memory.search('lamp', {filters: {user_id: 'ann', ...filters}, topK: 10, threshold: 0});
                return results.map((result) => result.metadata.number).sort();
            };
            assert.deepEqual(await found({kind: 'odd'}), [1, 3, 5]);
            assert.deepEqual(await found({number: {gte: 1, lt: 3}}), [1, 2]);
            assert.deepEqual(await found({number: {in: [0, 5]}}), [0, 5]);
            assert.deepEqual(await found({OR: [{number: {lt: 1}}, {kind: {eq: 'odd'}}]}), [0, 1, 3, 5]);
            assert.deepEqual(await found({NOT: [{kind: 'odd'}, {number: {gt: 3}}]}), [0, 2]);
        });

        test('what the model makes of a conversation, and the entities of it', async () => {
            const memory = open();
            const texts = ['Maria Lopez lives in Lisbon', 'Maria Lopez plays the violin'];
            model.say({memory: texts.map((text, i) => ({id: String(i), text, attributed_to: 'user'}))});
            const {results} = await memory.add('I am Maria Lopez …', {userId: 'maria'});
            assert.deepEqual(
                results.map((result) => result.memory),
                texts,
            );
            const {results: again} = await memory.add('I am Maria Lopez …', {userId: 'maria'});
            assert.deepEqual(again, []); // it finds that it knows them

            const entities = async () => {
                const {points} = await memory.vectorStore.client.scroll(`${memory.collectionName}_entities`, {limit: 100});
                return points.map((point) => point.payload);
            };
            const maria = (await entities()).find((entity) => entity.data === 'Lopez');
            assert.deepEqual(maria.linkedMemoryIds, results.map((result) => result.id).sort());
            assert.equal(maria.user_id, 'maria');
            const found = await memory.search('Where does Maria Lopez live?', {filters: {user_id: 'maria'}, explain: true});
            assert.equal(found.results[0].memory, texts[0]);
            const boost = (0.5 * score.Cosine(embed('Maria Lopez'), embed('Lopez'))) / 1.001; // as the client weighs an entity of two memories
            assert.ok(Math.abs(found.results[0].score_details.entityBoost - boost) < 1e-5);

            await memory.delete(results[0].id);
            assert.deepEqual((await entities()).find((entity) => entity.data === 'Lopez').linkedMemoryIds, [results[1].id]);
            await memory.delete(results[1].id);
            assert.deepEqual(
                (await entities()).filter((entity) => entity.data === 'Lopez'),
                [],
            );
        });

        test('delete all of one user, in more than one round', async () => {
            const memory = open();
            await remember(memory, notes, {userId: 'bob'});
            const ids = Array.from({length: 1050}, () => randomUUID()); // a round deletes 1,000
            await memory.vectorStore.insert(
                ids.map(() => embed('pot')),
                ids,
                ids.map(() => ({data: 'pot', user_id: 'ann'})),
            );
            await memory.deleteAll({userId: 'ann'});
            const count = async (userId) => (await memory.getAll({filters: {user_id: userId}, topK: 2000})).results.length;
            assert.deepEqual([await count('ann'), await count('bob')], [0, notes.length]);
        });

        test('reset, and a second memory of the same collection', async () => {
            const memory = open('shared');
            await remember(memory, notes, {userId: 'ann'});
            const other = open('shared');
            assert.equal((await other.getAll({filters: {user_id: 'ann'}})).results.length, notes.length);
            await memory.reset();
            assert.deepEqual((await memory.getAll({filters: {user_id: 'ann'}})).results, []);
            await remember(memory, ['pot'], {userId: 'ann'});
            assert.equal((await memory.getAll({filters: {user_id: 'ann'}})).results.length, 1);
        });
    });
});
