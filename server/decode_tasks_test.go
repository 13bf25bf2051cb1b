package server

import (
	"testing"

	"github.com/vectord/vectord"
)

// checked is what a decoder returns that has a Check of its own.
type checked interface{ Check() error }

// fuzzChecked checks a decoder, and that what it accepts passes the Check of its type.
func fuzzChecked[T any, P interface {
	*T
	checked
}](f *testing.F, decode func([]byte) (T, error), seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, ok := checkDecoder(t, decode, body); ok {
			if err := P(&got).Check(); err != nil {
				t.Fatalf("%q: %v", body, err)
			}
		}
	})
}

// aboutTask makes a decoder of a call one of its body alone.
func aboutTask[T any](decode func(vectord.TaskID, []byte) (T, error)) func([]byte) (T, error) {
	return func(body []byte) (T, error) { return decode(vectord.TaskID{1}, body) }
}

func FuzzDecodeSubmission(f *testing.F) {
	f.Add([]byte(`{"payload":{"a":1},"type":"t","vector":[1,0.5],"tags":["x"],"agent_id":"a","priority":"high","fairness_key":"k","fairness_weight":2,
		"run_at":"2026-01-31T12:00:00Z","deadline":1800000000000,"timeout_seconds":5,"max_attempts":2,"idempotency_key":"i",
		"depends_on":["01900000-0000-7000-8000-00000000000b"],"on_dependency_failure":"run","state_refs":["s/1"],"metadata":{"m":1},"traceparent":"00-1"}`))
	f.Add([]byte(`{"tasks":[{"delay_ms":5,"priority":3,"text":"a"},{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, ok := checkDecoder(t, decodeSubmission, body); ok {
			if !got.many && len(got.tasks) != 1 {
				t.Fatalf("%q is %d tasks", body, len(got.tasks))
			}
			for i := range got.tasks {
				if err := got.tasks[i].Check(); err != nil {
					t.Fatalf("%q: %v", body, err)
				}
			}
		}
	})
}

func FuzzDecodeLease(f *testing.F) {
	fuzzChecked(f, decodeLease, `{"agent_id":"a","queue":"q","max_tasks":5,"wait_ms":100,"lease_seconds":9}`)
}

func FuzzDecodeHeartbeats(f *testing.F) {
	f.Add([]byte(`{"tasks":[{"task_id":"01900000-0000-7000-8000-00000000000b","lease_id":"000000000000001f","extend_seconds":3,"progress":0.5}]}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeHeartbeats, body) })
}

func FuzzDecodeHeartbeat(f *testing.F) {
	fuzzChecked(f, aboutTask(decodeHeartbeat), `{"lease_id":"000000000000001f","extend_seconds":3,"progress":{"done":1}}`)
}

func FuzzDecodeComplete(f *testing.F) {
	fuzzChecked(f, aboutTask(decodeComplete), `{"lease_id":"000000000000001f","result":[1],"points":{"c":[{"id":1,"vector":[1]}]},"tasks":{"q":[{"payload":1}]}}`)
}

func FuzzDecodeFail(f *testing.F) {
	fuzzChecked(f, aboutTask(decodeFail), `{"lease_id":"000000000000001f","error":{"code":"a","message":"b"},"retryable":false,"retry_after_ms":5}`)
}

func FuzzDecodeRelease(f *testing.F) {
	fuzzChecked(f, aboutTask(decodeRelease), `{"lease_id":"000000000000001f"}`)
}

func FuzzDecodeInput(f *testing.F) {
	f.Add([]byte(`{"lease_id":"000000000000001f","request":"a"}`))
	f.Add([]byte(`{"response":{"a":1}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, ok := checkDecoder(t, aboutTask(decodeInput), body); ok && (got.response == nil) == (got.call.Request == nil) {
			t.Fatalf("%q is %+v", body, got)
		}
	})
}

func FuzzDecodeTaskScroll(f *testing.F) {
	fuzzChecked(f, decodeTaskScroll, `{"queue":"q","agent_id":"a","status":["running"],"type":"t","tags":["x"],"after":"01900000-0000-7000-8000-00000000000b","limit":7}`,
		`{"status":"failed"}`)
}

func FuzzDecodeRedrive(f *testing.F) {
	f.Add([]byte(`{"task_ids":["01900000-0000-7000-8000-00000000000b"]}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeRedrive, body) })
}

func FuzzDecodeQueueConfig(f *testing.F) {
	fuzzChecked(f, func(body []byte) (vectord.QueueConfig, error) {
		return decodeQueueConfig(vectord.DefaultQueueConfig(), body)
	},
		`{"max_depth":7,"drop_policy":"evict_lowest","backoff":{"factor":3,"jitter":null},"routing":{"policy":"weighted","fallback":"agent:a"},
		"rate_limit":{"per_second":0.5,"burst":2},"fairness":{"rate_limit_per_key":null},"durability":"memory"}`)
}

func FuzzDecodeAgent(f *testing.F) {
	fuzzChecked(f, decodeAgent, `{"queues":["q"],"vectors":[[1,0]],"texts":["a"],"capabilities":["gpu"],"capacity":2,"transport":"exec","labels":{"zone":"x"}}`)
}

func FuzzDecodeAgentHeartbeat(f *testing.F) {
	f.Add([]byte(`{"latency_ms":1.5}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeAgentHeartbeat, body) })
}

func FuzzDecodeRoute(f *testing.F) {
	fuzzChecked(f, decodeRoute, `{"queue":"q","vector":[1,0],"tags":["x"],"agent_id":"a","limit":5}`)
}

func TestParseETag(t *testing.T) {
	f := func(text string, want uint64) {
		t.Helper()
		if got, ok := parseETag(text); ok != (want > 0) || ok && got != want {
			t.Errorf("%s is %d, %v", text, got, ok)
		}
	}
	f(`"1"`, 1)
	f(`W/"18446744073709551615"`, 18446744073709551615)
	for _, bad := range []string{``, `"`, `""`, `1`, `"0"`, `"a"`, `"1", "2"`, `*`, `"-1"`, `"18446744073709551616"`} {
		f(bad, 0)
	}
}
