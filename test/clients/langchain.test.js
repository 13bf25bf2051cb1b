// @langchain/qdrant against a real server, with an embedding that needs no model: counts of the letter triples of words,
// hashed. Texts that share words, or parts of words, are near one another under it.

import assert from 'node:assert/strict';
import {after, before, describe, test} from 'node:test';
import {Document} from '@langchain/core/documents';
import {Embeddings} from '@langchain/core/embeddings';
import {QdrantVectorStore} from '@langchain/qdrant';
import {score, startServer} from './server.js';

const size = 128;

class LetterTriples extends Embeddings {
    constructor() {
        super({});
    }

    async embedQuery(text) {
        const vector = Array(size).fill(0);
        for (const word of text.toLowerCase().match(/\p{Letter}+/gu) ?? []) {
            const marked = `^${word}$`;
            for (let i = 0; i + 3 <= marked.length; i++) {
                let hash = 2166136261;
                for (const letter of marked.slice(i, i + 3)) {
                    hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
                }
                vector[(hash >>> 8) % size] += 1;
            }
        }
        return vector;
    }

    async embedDocuments(texts) {
        return Promise.all(texts.map((text) => this.embedQuery(text)));
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
    async function expected(query, k, passes = () => true) {
        const asked = await embeddings.embedQuery(query);
        const scored = notes
            .filter(([, metadata]) => passes(metadata))
            .map(async ([text]) => [text, score.Cosine(asked, await embeddings.embedQuery(text))]);
        return (await Promise.all(scored)).sort((a, b) => b[1] - a[1]).slice(0, k);
    }

    function assertFound(found, wanted) {
        assert.deepEqual(found.map(([document]) => document.pageContent), wanted.map(([text]) => text));
        found.forEach(([document, got], i) => {
            assert.ok(Math.abs(got - wanted[i][1]) < 1e-5, `score of ${document.pageContent}: ${got}, expected ${wanted[i][1]}`);
        });
    }

    test('add documents and search with score', async () => {
        const store = await filledStore();
        for (const query of ['boiling water', 'sharpening a knife', 'a book on the shelf']) {
            const found = await store.similaritySearchWithScore(query, 3);
            assertFound(found, await expected(query, 3));
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
        assertFound(found, await expected('sharp', 8, (metadata) => metadata.room === 'workshop'));
        const early = await store.similaritySearch('sharp', 8, {must: [{key: 'metadata.page', range: {lt: 3}}]});
        assert.deepEqual(early.map((document) => document.metadata.page).sort(), [1, 2]);
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
        await store.addDocuments([new Document({pageContent: 'A rake leans on the fence.', metadata: {room: 'garden'}})], {ids: [id]});
        await store.addDocuments([new Document({pageContent: 'A spade leans on the fence.', metadata: {room: 'garden'}})], {ids: [id]});
        const garden = await store.similaritySearch('fence', 10, {must: [{key: 'metadata.room', match: {value: 'garden'}}]});
        assert.deepEqual(garden.map(({id, pageContent}) => ({id, pageContent})), [{id, pageContent: 'A spade leans on the fence.'}]);
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
});
