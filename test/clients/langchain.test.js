// @langchain/qdrant against a real server.

import assert from 'node:assert/strict';
import {after, before, describe, test} from 'node:test';
import {Document} from '@langchain/core/documents';
import {Embeddings} from '@langchain/core/embeddings';
import {QdrantVectorStore} from '@langchain/qdrant';
import {chosenByMMR, score, startServer} from './server.js';
import {embed, wordsSize} from './words.js';

class LetterTriples extends Embeddings {
    constructor() {
        super({});
    }

    async embedQuery(text) {
        return embed(text);
    }

    async embedDocuments(texts) {
        return texts.map(embed);
    }
}

const notes = [
    ['The kettle whistles when the water boils.', {room: 'kitchen', page: 1}],
    ['A sharp knife is safer than a blunt one.', {room: 'kitchen', page: 2}],
    ['Boiling water softens the dried mushrooms.', {room: 'kitchen', page: 3}],
    ['The saw hangs beside the hammer.', {room: 'workshop', page: 4}],
    ['Oil the hinges of the workshop door each spring.', {room: 'workshop', page: 5}],
    ['Sharpen the chisel before you sharpen the plane.', {room: 'workshop', page: 6}],
    ['The lamp over the desk flickers.', {room: 'study', page: 7}],
    ['Books about gardens stand on the lower shelf.', {room: 'study', page: 8}],
];

describe('@langchain/qdrant', () => {
    const embeddings = new LetterTriples();
    let server;
    let names = 0;

    before(async () => {
        server = await startServer();
    });
    after(() => server?.stop());

    async function filledStore() {
        const store = new QdrantVectorStore(embeddings, {url: server.url, collectionName: `notes-${++names}`});
        await store.addDocuments(notes.map(([pageContent, metadata]) => new Document({pageContent, metadata})));
        return store;
    }

    /** Returns the texts nearest to the query with their scores, by looking at every note that passes. */
    function expected(query, k, passes = () => true) {
        const asked = embed(query);
        return notes
            .filter(([, metadata]) => passes(metadata))
            .map(([text]) => [text, score.Cosine(asked, embed(text))])
            .sort((a, b) => b[1] - a[1])
            .slice(0, k);
    }

    function assertFound(found, wanted) {
        assert.deepEqual(
            found.map(([document]) => document.pageContent),
            wanted.map(([text]) => text),
        );
        found.forEach(([document, got], i) => {
            assert.ok(Math.abs(got - wanted[i][1]) < 1e-5, `score of ${document.pageContent}: ${got}, expected ${wanted[i][1]}`);
        });
    }

    test('add documents and search with score', async () => {
        const store = await filledStore();
        for (const query of ['boiling water', 'sharpening a knife', 'a book on the shelf']) {
            const found = await store.similaritySearchWithScore(query, 3);
            assertFound(found, expected(query, 3));
            for (const [document] of found) {
                assert.deepEqual(document.metadata, notes.find(([text]) => text === document.pageContent)[1]);
                assert.match(document.id, /^[0-9a-f-]{36}$/);
            }
        }
    });

    test('search with a filter', async () => {
        const store = await filledStore();
        const filter = {must: [{key: 'metadata.room', match: {value: 'workshop'}}]};
        const found = await store.similaritySearchWithScore('sharp', 8, filter);
        assertFound(
            found,
            expected('sharp', 8, (metadata) => metadata.room === 'workshop'),
        );
        const early = await store.similaritySearch('sharp', 8, {must: [{key: 'metadata.page', range: {lt: 3}}]});
        assert.deepEqual(early.map((document) => document.metadata.page).sort(), [1, 2]);
    });

    test('documents that are near the query and unlike one another', async () => {
        const store = await filledStore();
        const query = 'boiling water in the kitchen';
        const points = notes.map(([text, metadata]) => ({id: text, vector: embed(text), metadata}));
        const expectedTexts = (k, options = {}) =>
            chosenByMMR(points.filter(options.passes ?? (() => true)), 'Cosine', embed(query), {
                k,
                diversity: options.diversity ?? 0.5,
                candidates: options.candidates ?? 20,
            });
        const texts = async (options) =>
            (await store.maxMarginalRelevanceSearch(query, options)).map((document) => document.pageContent);

        assert.deepEqual(await texts({k: 4}), expectedTexts(4)); // diversity is null on the wire, which means 0.5
        for (const diversity of [0, 0.3, 0.8, 1]) {
            assert.deepEqual(await texts({k: 4, lambda: diversity}), expectedTexts(4, {diversity}));
        }
        assert.deepEqual(await texts({k: 3, fetchK: 3}), expectedTexts(3, {candidates: 3}));
        const filter = {must: [{key: 'metadata.page', range: {gte: 3}}]};
        assert.deepEqual(await texts({k: 3, filter}), expectedTexts(3, {passes: (point) => point.metadata.page >= 3}));
        assert.deepEqual(await store.maxMarginalRelevanceSearch('', {k: 3}), []);
    });

    test('search as a retriever, by similarity and by MMR', async () => {
        const store = await filledStore();
        const found = await store.asRetriever({k: 2}).invoke('boiling water');
        assert.deepEqual(
            found.map((document) => document.pageContent),
            expected('boiling water', 2).map(([text]) => text),
        );
        const diverse = await store
            .asRetriever({k: 2, searchType: 'mmr', searchKwargs: {fetchK: 8, lambda: 0}})
            .invoke('boiling water');
        assert.deepEqual(
            diverse.map((document) => document.pageContent),
            expected('boiling water', 2).map(([text]) => text),
        );
    });

    test('delete by ids and by filter', async () => {
        const store = await filledStore();
        const [best] = await store.similaritySearch('the kettle whistles', 1);
        await store.delete({ids: [best.id]});
        const after = await store.similaritySearch('the kettle whistles', notes.length);
        assert.equal(after.length, notes.length - 1);
        assert.ok(after.every((document) => document.id !== best.id));
        await store.delete({filter: {must: [{key: 'metadata.room', match: {value: 'study'}}]}});
        const left = await store.similaritySearch('the kettle whistles', notes.length);
        assert.deepEqual(left.map((document) => document.metadata.page).sort(), [2, 3, 4, 5, 6]);
    });

    test('use a collection that is there, and write a document again under its id', async () => {
        const {collectionName} = await filledStore();
        const store = await QdrantVectorStore.fromExistingCollection(embeddings, {url: server.url, collectionName});
        const id = '6f1c9d1e-0b7a-4c56-9d8e-2f3a4b5c6d7e';
        await store.addDocuments([new Document({pageContent: 'A rake leans on the fence.', metadata: {room: 'garden'}})], {
            ids: [id],
        });
        await store.addDocuments([new Document({pageContent: 'A spade leans on the fence.', metadata: {room: 'garden'}})], {
            ids: [id],
        });
        const garden = await store.similaritySearch('fence', 10, {must: [{key: 'metadata.room', match: {value: 'garden'}}]});
        assert.deepEqual(
            garden.map(({id, pageContent}) => ({id, pageContent})),
            [{id, pageContent: 'A spade leans on the fence.'}],
        );
    });

    test('make a store from texts', async () => {
        const store = await QdrantVectorStore.fromTexts(['one apple', 'two pears'], [{n: 1}, {n: 2}], embeddings, {
            url: server.url,
            collectionName: 'fruit',
            customPayload: [{origin: 'here'}, {origin: 'there'}],
        });
        const [[document]] = await store.similaritySearchWithScore('pears', 1);
        assert.deepEqual([document.pageContent, document.metadata], ['two pears', {n: 2}]);
    });

    test("keys of the payload and settings of the collection that are one's own", async () => {
        const store = await QdrantVectorStore.fromDocuments(
            [new Document({pageContent: 'one apple', metadata: {n: 1}})],
            embeddings,
            {
                url: server.url,
                collectionName: 'own keys',
                contentPayloadKey: 'text',
                metadataPayloadKey: 'about',
                collectionConfig: {vectors: {size: wordsSize, distance: 'Dot'}, hnsw_config: {m: 8}},
            },
        );
        const {points} = await store.client.scroll('own keys', {});
        assert.deepEqual(
            points.map((point) => point.payload),
            [{text: 'one apple', about: {n: 1}}],
        );
        const [[document, found]] = await store.similaritySearchWithScore('apple', 1);
        assert.deepEqual(
            [document.pageContent, document.metadata, found],
            ['one apple', {n: 1}, score.Dot(embed('apple'), embed('one apple'))],
        );
        assert.equal((await store.client.getCollection('own keys')).config.hnsw_config.m, 8);
    });

    test('what the server refuses', async () => {
        const store = await filledStore();
        await assert.rejects(
            store.addVectors([[1, 2, 3]], [new Document({pageContent: 'short', metadata: {}})]),
            /^Error: 400 Bad Request: Wrong input: .*expected dim: 128, got 3/,
        );
        await assert.rejects(
            store.addDocuments([new Document({pageContent: 'x', metadata: {}, id: 'no id'})]),
            /400 Bad Request: .*no id/,
        );
        await assert.rejects(store.delete({ids: ['no id']}), {status: 400});
        await assert.rejects(store.delete({}), /ids or filter/);
        await assert.rejects(store.similaritySearch('x', 1, {must: [{key: 'a', matches: 1}]}), {status: 400});
    });
});
