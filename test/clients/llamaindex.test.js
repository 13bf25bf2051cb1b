// @llamaindex/qdrant against a real server.

import assert from 'node:assert/strict';
import {after, before, describe, test} from 'node:test';
import {BaseEmbedding} from '@llamaindex/core/embeddings';
import {NodeRelationship, TextNode} from '@llamaindex/core/schema';
import {QdrantVectorStore} from '@llamaindex/qdrant';
import {QdrantClient} from '@qdrant/js-client-rest';
import {assertHits, nearest, startServer} from './server.js';
import {embed} from './words.js';

class Words extends BaseEmbedding {
    async getTextEmbedding(text) {
        return embed(text);
    }
}

const sayings = [
    ['A stitch in time saves nine.', 'sewing', {number: 9, words: ['stitch', 'time'], kind: 'proverb', old: true}],
    ['Measure twice, cut once.', 'wood', {number: 2, words: ['measure', 'cut'], kind: 'rule'}],
    ['Many hands make light work.', 'work', {number: 0, words: [], kind: 'proverb', old: false}],
    ['Too many cooks spoil the broth.', 'kitchen', {number: 7, kind: 'proverb'}],
    ['A watched pot never boils.', 'kitchen', {number: 1, words: ['pot'], kind: 'proverb', old: true}],
    ['Salt the water before it boils.', 'kitchen', {number: 10, words: null, kind: 'rule'}],
    ['Cut along the grain.', 'wood', {number: 4.5, words: ['cut', 'grain'], kind: 'rule', old: true}],
];

describe('@llamaindex/qdrant', () => {
    let server;
    let names = 0;
    let nodes = 0;

    before(async () => {
        server = await startServer();
    });
    after(() => server?.stop());

    const open = (options = {}) =>
        new QdrantVectorStore({url: server.url, collectionName: `sayings-${++names}`, embeddingModel: new Words(), ...options});

    /** Returns an id that is greater than those before it: of points that are equally near, the one with the least comes first. */
    const newId = () => `00000000-0000-4000-8000-${String(++nodes).padStart(12, '0')}`;

    const nodeOf = ([text, document, metadata]) =>
        new TextNode({
            id_: newId(),
            text,
            metadata: {...metadata},
            embedding: embed(text),
            relationships: {[NodeRelationship.SOURCE]: {nodeId: document, metadata: {}}},
        });

    async function filled() {
        const store = open();
        const nodes = sayings.map(nodeOf);
        const ids = await store.add(nodes);
        assert.deepEqual(
            ids,
            nodes.map((node) => node.id_),
        );
        const points = nodes.map((node, i) => ({
            id: node.id_,
            vector: embed(sayings[i][0]),
            document: sayings[i][1],
            metadata: sayings[i][2],
        }));
        return {store, points};
    }

    async function assertFound(store, text, k, query, points, options) {
        const found = await store.query({queryEmbedding: embed(text), similarityTopK: k, mode: 'default', ...query}, options);
        assertHits(
            found.ids.map((id, i) => ({id, score: found.similarities[i]})),
            nearest(points, 'Cosine', embed(text), k),
        );
        return found;
    }

    test('add nodes and query them', async () => {
        const {store, points} = await filled();
        for (const text of ['boiling the salted water', 'cutting wood along the grain', 'too many hands in time']) {
            const found = await assertFound(store, text, 3, {}, points);
            found.nodes.forEach((node, i) => {
                const at = points.findIndex((point) => point.id === found.ids[i]);
                assert.ok(node instanceof TextNode);
                assert.equal(node.id_, found.ids[i]);
                assert.equal(node.getText(), sayings[at][0]);
                assert.equal(node.sourceNode.nodeId, sayings[at][1]);
                for (const [key, value] of Object.entries(sayings[at][2])) {
                    assert.deepEqual(node.metadata[key], value);
                }
            });
        }
        await assertFound(store, 'boiling the salted water', 3, {customParams: {exact: true}}, points);
        await assertFound(store, 'boiling the salted water', 3, {}, points, {qdrant_search_params: {hnsw_ef: 64}});
    });

    test('filters', async () => {
        const {store, points} = await filled();
        const text = 'a hand that cuts a stitch in time and boils the water';
        const one = (key, operator, value) => ({filters: [{key, operator, value}]});
        const cases = [
            [one('kind', '==', 'rule'), (m) => m.kind === 'rule'],
            [one('number', '==', 4.5), (m) => m.number === 4.5],
            [one('old', '==', true), (m) => m.old === true],
            [one('kind', '!=', 'rule'), (m) => m.kind !== 'rule'],
            [one('number', '<', 4.5), (m) => m.number < 4.5],
            [one('number', '<=', 4.5), (m) => m.number <= 4.5],
            [one('number', '>', 4.5), (m) => m.number > 4.5],
            [one('number', '>=', 4.5), (m) => m.number >= 4.5],
            [one('words', 'in', ['cut', 'pot']), (m) => ['cut', 'pot'].some((word) => m.words?.includes(word))],
            [one('kind', 'in', 'rule,advice'), (m) => m.kind === 'rule'],
            [one('kind', 'nin', ['rule', 'advice']), (m) => m.kind === 'proverb'],
            [one('kind', 'text_match', 'prov'), (m) => m.kind === 'proverb'],
            [one('words', 'is_empty'), (m) => !m.words?.length],
            [
                {filters: [...one('kind', '==', 'rule').filters, ...one('number', '>', 4).filters], condition: 'and'},
                (m) => m.kind === 'rule' && m.number > 4,
            ],
            [
                {filters: [...one('kind', '==', 'rule').filters, ...one('number', '==', 0).filters], condition: 'or'},
                (m) => m.kind === 'rule' || m.number === 0,
            ],
            [{filters: []}, () => true],
        ];
        for (const [filters, holds] of cases) {
            const passing = points.filter((point) => holds(point.metadata));
            assert.ok(passing.length > 0, JSON.stringify(filters));
            await assertFound(store, text, 10, {filters}, passing);
        }
        const kitchen = points.filter((point) => point.document === 'kitchen');
        await assertFound(store, text, 10, {docIds: ['kitchen', 'garden']}, kitchen);
        await assertFound(
            store,
            text,
            10,
            {docIds: ['kitchen'], filters: one('number', '>', 5)},
            kitchen.filter((point) => point.metadata.number > 5),
        );
        await assertFound(store, text, 10, {queryStr: 'cut'}, points);
        await assertFound(store, text, 10, {}, kitchen, {
            qdrant_filters: {must: [{key: 'ref_doc_id', match: {value: 'kitchen'}}]},
        });
    });

    test('delete the nodes of a document', async () => {
        const {store, points} = await filled();
        await store.delete('kitchen'); // not waited for, and gone all the same
        await assertFound(
            store,
            'boiling water',
            10,
            {},
            points.filter((point) => point.document !== 'kitchen'),
        );
        await store.delete('garden');
        assert.deepEqual(await store.client().count(store.collectionName), {count: 4});
    });

    test('a node that is added again replaces itself', async () => {
        const store = open();
        const node = nodeOf(sayings[0]);
        await store.add([node]);
        node.setContent('Another saying.');
        node.embedding = embed('Another saying.');
        await store.add([node]);
        const found = await assertFound(store, 'another', 10, {}, [{id: node.id_, vector: embed('Another saying.')}]);
        assert.equal(found.nodes[0].getText(), 'Another saying.');
    });

    test('a collection that is there, and one that is missing', async () => {
        const client = new QdrantClient({url: server.url});
        const {store, points} = await filled();
        const again = open({client, url: undefined, collectionName: store.collectionName});
        assert.equal(await again.collectionExists(store.collectionName), true);
        assert.equal(await again.collectionExists('nowhere'), false);
        await assertFound(again, 'cut', 3, {}, points);
        await again.initializeCollection(128); // finds it, and leaves it as it is
        await assertFound(again, 'cut', 3, {}, points);
        await assert.rejects(again.createCollection(store.collectionName, 128), {status: 409});
        const {config} = await client.getCollection(store.collectionName);
        assert.deepEqual([config.params.vectors.size, config.params.vectors.distance], [128, 'Cosine']);
        await assert.rejects(open().query({queryEmbedding: embed('x'), similarityTopK: 1}), {status: 404});
        await assert.rejects(again.add([new TextNode({id_: 'no id', text: 'x', embedding: embed('x')})]), {status: 400});
        await assert.rejects(again.add([new TextNode({id_: newId(), text: 'x', embedding: [1]})]), {status: 400});
        assert.deepEqual(await client.count(store.collectionName), {count: points.length});
    });

    test('more nodes than a batch has', async () => {
        // The client leaves out a node after each full batch, and says so: what it says is what must be there.
        const nodes = Array.from({length: 250}, (_, i) => nodeOf([`Saying number ${i}.`, 'numbers', {number: i}]));
        const store = open();
        const ids = await store.add(nodes);
        assert.deepEqual(
            ids,
            nodes.filter((_, i) => i !== 100 && i !== 201).map((node) => node.id_),
        );
        const {points} = await store.client().scroll(store.collectionName, {limit: 1000});
        assert.deepEqual(points.map((point) => point.id).sort(), ids.toSorted());
    });
});
