#!/usr/bin/env node
// A vectord worker: counts the words of its tasks' texts, {"text": "..."} -> {"words": n}. It does several tasks at a time if
// the pool's capacity_per_process lets it, and stops at task/cancel.
import { createInterface } from "node:readline";

const cancelled = new Set();
const send = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");

async function run(task) {
  await new Promise((resolve) => setTimeout(resolve, task.payload.delay_ms ?? 0));
  if (cancelled.delete(task.task_id)) throw new Error("cancelled");
  return { words: task.payload.text.split(/\s+/).filter(Boolean).length };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (method === "task/cancel") cancelled.add(params.task_id);
  else if (method === "initialize") send({ id, result: { name: "words.mjs", capacity: 16 } });
  else if (method === "ping") send({ id, result: {} });
  else if (method === "task/run")
    run(params.task).then((result) => send({ id, result }), (e) => send({ id, error: { code: 1, message: String(e) } }));
}
