// Drives vectord by MCP with the official TypeScript clients: @modelcontextprotocol/sdk, which has sessions (to 2025-11-25), and
// @modelcontextprotocol/client, which has none (2026-07-28). Each speaks to a server of its own over stdin and stdout, to a
// running one by the bridge, and to a running one over HTTP.

import assert from 'node:assert/strict';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';

import * as sessionless from '@modelcontextprotocol/client';
import {StdioClientTransport as SessionlessStdio} from '@modelcontextprotocol/client/stdio';
import {Client as SessionsClient} from '@modelcontextprotocol/sdk/client/index.js';
import {StdioClientTransport as SessionsStdio} from '@modelcontextprotocol/sdk/client/stdio.js';
import {StreamableHTTPClientTransport as SessionsHTTP} from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import {startServer} from '../clients/server.js';

const binary = process.env.SERVER_BINARY ?? join(import.meta.dirname, '../../bin/vectord');
const key = 'the key of these tests';
const info = {name: 'vectord-tests', version: '1.0.0'};

const clients = {
    'the client with sessions': {
        create: () => new SessionsClient(info),
        stdio: (args) => new SessionsStdio({command: args[0], args: args.slice(1), stderr: 'inherit'}),
        http: (url, headers) => new SessionsHTTP(new URL(url), {requestInit: {headers}}),
    },
    'the client without sessions': {
        create: () => new sessionless.Client(info, {versionNegotiation: {mode: {pin: '2026-07-28'}}}),
        stdio: (args) => new SessionlessStdio({command: args[0], args: args.slice(1), stderr: 'inherit'}),
        http: (url, headers) => new sessionless.StreamableHTTPClientTransport(new URL(url), {requestInit: {headers}}),
    },
};

/** Calls a tool and returns its structured content, or throws its error. */
async function call(client, name, args = {}) {
    const result = await client.callTool({name, arguments: args});
    assert.ok(result.structuredContent, `${name} has structured content`);
    assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
    if (result.isError) {
        throw Object.assign(new Error(result.structuredContent.error.message), {code: result.structuredContent.error.code});
    }
    return result.structuredContent;
}

/** What every client can do with collections, by whatever way it came. */
async function useCollections(client, collection) {
    const {tools} = await client.listTools();
    for (const name of ['create_collection', 'list_collections', 'search_points', 'upsert_points']) {
        assert.ok(tools.find((tool) => tool.name === name)?.outputSchema, `${name} has an output schema`);
    }
    await call(client, 'create_collection', {collection, size: 2, distance: 'Dot'});
    await assert.rejects(call(client, 'create_collection', {collection, size: 2}), {code: 'already_exists'});
    const {ids} = await call(client, 'upsert_points', {
        collection,
        points: [
            {id: 1, vector: [1, 0], payload: {city: 'Berlin'}},
            {vector: [0, 1], payload: {city: 'Rome'}},
        ],
    });
    assert.equal(ids[0], 1);
    const {points} = await call(client, 'search_points', {collection, vector: [1, 2], limit: 1});
    assert.deepEqual(points, [{id: ids[1], score: 2, payload: {city: 'Rome'}}]);
    const filter = {must: [{key: 'city', match: {value: 'Berlin'}}]};
    const found = await call(client, 'search_points', {collection, vector: [1, 2], filter});
    assert.deepEqual(found.points.map((point) => point.id), [1]);
    const {collections} = await call(client, 'list_collections');
    assert.ok(collections.some((c) => c.name === collection && c.points === 2));
    const {contents} = await client.readResource({uri: `vectord://collections/${collection}`});
    assert.equal(JSON.parse(contents[0].text).points, 2);
    await assert.rejects(client.readResource({uri: 'vectord://collections/no'}));
    await assert.rejects(call(client, 'search_points', {collection: 'no', vector: [1]}), {code: 'collection_not_found'});
}

/** Memories of texts, of which the server's own model makes vectors. */
async function useMemories(client, collection) {
    await call(client, 'create_collection', {collection, size: 256});
    const scope = {user_id: 'alice'};
    const first = await call(client, 'store_memory', {collection, text: 'Alice drinks tea in the morning', scope});
    assert.equal(first.status, 'created');
    const again = await call(client, 'store_memory', {collection, text: 'Alice drinks tea in the morning', scope});
    assert.deepEqual([again.status, again.id], ['skipped', first.id]);
    await call(client, 'store_memory', {collection, text: 'The server room is on the second floor', scope});
    const {memories} = await call(client, 'search_memories', {collection, text: 'what does she like to drink?', scope, limit: 1});
    assert.deepEqual([memories[0].id, memories[0].memory.text], [first.id, 'Alice drinks tea in the morning']);
    const others = await call(client, 'search_memories', {collection, text: 'tea', scope: {user_id: 'bob'}});
    assert.deepEqual(others.memories, []);
}

/** A task from its submission to its end. */
async function useTasks(client, queue) {
    await call(client, 'register_agent', {agent_id: queue, queues: [queue], capabilities: ['js']});
    const submitted = await call(client, 'submit_task', {queue, type: 'add', payload: [1, 2], tags: ['js']});
    assert.equal(submitted.status, 'queued');
    const {tasks} = await call(client, 'lease_tasks', {agent_id: queue, wait_ms: 1000});
    assert.deepEqual(tasks.map((task) => [task.task_id, task.payload, task.agent_id]), [[submitted.task_id, [1, 2], queue]]);
    const {task_id, lease_id} = tasks[0];
    await assert.rejects(call(client, 'complete_task', {task_id, lease_id: 'ffffffffffffffff'}), {code: 'lease_lost'});
    await call(client, 'complete_task', {task_id, lease_id, result: {sum: 3}});
    const {task} = await call(client, 'get_task', {task_id, wait_ms: 1000});
    assert.deepEqual([task.status, task.result], ['completed', {sum: 3}]);
    await assert.rejects(call(client, 'cancel_task', {task_id}), {code: 'task_terminal'});
    const {decisions} = await call(client, 'explain_route', {task_id});
    assert.equal(decisions.at(-1).agent_id, queue);
    const {agents} = await call(client, 'list_agents');
    assert.ok(agents.some((agent) => agent.agent_id === queue));
    const waited = await call(client, 'submit_task', {queue, wait: true, wait_ms: 10});
    assert.equal(waited.task.status, 'queued');
}

for (const [name, {create, stdio, http}] of Object.entries(clients)) {
    describe(name, () => {
        let server;
        before(async () => (server = await startServer('--api-key', key)));
        after(() => server.stop());

        const connected = (transport, use) => async () => {
            const client = create();
            await client.connect(transport());
            try {
                assert.equal(client.getServerVersion().name, 'vectord');
                await use(client);
            } finally {
                await client.close();
            }
        };

        test('HTTP', (t) => connected(() => http(`${server.url}/mcp`, {'api-key': key}), (client) => useCollections(client, 'http'))(t));
        test('the bridge', (t) => connected(() => stdio([binary, 'mcp', '--url', server.url, '--api-key', key]), (client) => useCollections(client, 'bridge'))(t));
        test('a server of its own', async (t) => {
            const directory = await mkdtemp(join(tmpdir(), 'vectord-mcp-'));
            try {
                await connected(() => stdio([binary, 'mcp', '--data-dir', directory]), async (client) => {
                    await useCollections(client, 'own');
                    await useTasks(client, 'own');
                })(t);
            } finally {
                await rm(directory, {recursive: true, force: true});
            }
        });
        test('no key', async () => {
            await assert.rejects(create().connect(http(`${server.url}/mcp`, {})));
        });
        test('memories', (t) => connected(() => http(`${server.url}/mcp`, {'api-key': key}), (client) => useMemories(client, 'memories'))(t));
        test('tasks', (t) => connected(() => http(`${server.url}/mcp`, {'api-key': key}), (client) => useTasks(client, 'http'))(t));
        test('tasks by the bridge', (t) => connected(() => stdio([binary, 'mcp', '--url', server.url, '--api-key', key]), (client) => useTasks(client, 'bridge'))(t));
    });
}

test('a page of another site is refused', async () => {
    const server = await startServer();
    try {
        for (const [origin, status] of [['https://evil.example.com', 403], [server.url, 200]]) {
            const response = await fetch(`${server.url}/mcp`, {
                method: 'POST',
                headers: {origin, 'content-type': 'application/json', accept: 'application/json, text/event-stream'},
                body: JSON.stringify({jsonrpc: '2.0', id: 1, method: 'ping'}),
            });
            assert.equal(response.status, status, origin);
        }
    } finally {
        await server.stop();
    }
});
