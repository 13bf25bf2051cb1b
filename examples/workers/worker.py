#!/usr/bin/env python3
"""A vectord worker: counts the words of its tasks' texts, {"text": "..."} -> {"words": n}."""
import json
import sys


def run(task):
    return {"words": len(task["payload"]["text"].split())}


for line in sys.stdin:
    message = json.loads(line)
    method, answer = message.get("method"), {"jsonrpc": "2.0", "id": message.get("id")}
    if "id" not in message:
        continue  # a notification: this worker does one task at a time, and has finished when it reads task/cancel
    try:
        if method == "task/run":
            answer["result"] = run(message["params"]["task"])
        else:
            answer["result"] = {"name": "words.py"} if method == "initialize" else {}
    except Exception as e:
        answer["error"] = {"code": 1, "message": repr(e), "data": {"code": "bad_task", "final": True}}
    print(json.dumps(answer), flush=True)
