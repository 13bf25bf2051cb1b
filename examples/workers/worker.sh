#!/usr/bin/env bash
# A vectord worker: counts the words of its tasks' texts, {"text": "..."} -> {"words": n}. The server writes a request's id and
# method first and puts a task's payload last, so that sed finds them; texts with escaped quotes want a language with JSON.
while IFS= read -r line; do
  id=$(sed -nE 's/^\{"jsonrpc":"2\.0","id":([0-9]+).*/\1/p' <<<"$line")
  method=$(sed -nE 's/^\{"jsonrpc":"2\.0",("id":[0-9]+,)?"method":"([^"]*)".*/\2/p' <<<"$line")
  case $method in
    initialize) result='{"name":"words.sh"}' ;;
    ping) result='{}' ;;
    task/run)
      text=$(sed -nE 's/.*"payload":\{.*"text":"([^"\\]*)".*/\1/p' <<<"$line")
      result="{\"words\":$(wc -w <<<"$text")}"
      ;;
    *) continue ;; # a notification
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
