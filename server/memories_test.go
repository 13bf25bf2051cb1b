package server

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/token"
)

const memoriesOfC = "/collections/c/memories"

func withMemories(t *testing.T, o Options) *harness {
	m := model.New()
	m.Clock = func() int64 { return 1_767_225_600_000 } // 2026-01-01
	h := start(t, m, o)
	h.key = o.APIKey
	h.ok("PUT", "/collections/c", `{"vectors":{"size":2,"distance":"Cosine"}}`, "true")
	h.ok("PUT", memoriesOfC, `{"memories":[
		{"id":1,"text":"likes tea","vector":[1,0],"scope":{"user_id":"u","agent_id":"a"},"importance":0.25,"metadata":{"n":1.0}},
		{"id":2,"text":"was in Oslo","vector":[0,1],"scope":{"user_id":"u"},"kind":"episodic","created_at":"2025-12-31T00:00:00Z","ttl_seconds":60,
		 "source_task_id":"t","valid_from":"1960-01-01","valid_to":1000}]}`,
		`{"memories":[{"id":1,"status":"created"},{"id":2,"status":"created"}]}`)
	return h
}

func TestMemories(t *testing.T) {
	h := withMemories(t, Options{})
	h.ok("POST", memoriesOfC+"/search", `{"vector":[1,0],"scope":{"agent_id":"a"},"with_payload":["text"]}`,
		`{"memories":[{"id":1,"version":1,"score":1,"parts":{"similarity":1,"recency":1,"importance":0.25},"payload":{"text":"likes tea"}}]}`)
	h.ok("POST", memoriesOfC+"/search", `{"vector":[0,2],"kind":"episodic","weights":{"similarity":0.5,"recency":1},"recency":{"half_life_seconds":86400},"with_payload":false}`,
		`{"memories":[{"id":2,"version":1,"score":1,"parts":{"similarity":1,"recency":0.5,"importance":0.5},"expires_at":"2026-01-01T00:01:00Z"}]}`)
	h.ok("POST", memoriesOfC+"/search", `{"vector":[1,0],"as_of":"1965-06-01","with_payload":false}`,
		`{"memories":[{"id":1,"version":1,"score":1,"parts":{"similarity":1,"recency":1,"importance":0.25}},`+
			`{"id":2,"version":1,"score":0,"parts":{"similarity":0,"recency":0.9057237,"importance":0.5},"expires_at":"2026-01-01T00:01:00Z"}]}`)
	h.ok("POST", memoriesOfC+"/search", `{"vector":[1,0],"min_score":0.5,"limit":1,"as_of":"1970-01-01T00:00:01Z","filter":{"must":{"has_id":[2]}}}`, `{"memories":[]}`)
	h.ok("POST", memoriesOfC+"/touch", `{"ids":[1,7]}`, `{"touched":1}`)
	h.ok("PUT", memoriesOfC, `{"id":3,"text":"likes green tea","vector":[2,0],"scope":{"user_id":"u","agent_id":"a"},"dedup":{"threshold":0.9,"action":"supersede"}}`,
		`{"memories":[{"id":3,"status":"superseded","superseded":1,"similarity":1}]}`)
	h.ok("PUT", memoriesOfC, `{"text":"likes tea a lot","vector":[2,0],"scope":{"user_id":"u","agent_id":"a"},"dedup":{}}`, `{"memories":[{"id":3,"status":"skipped","similarity":1}]}`)
	h.ok("POST", memoriesOfC+"/search", `{"vector":[1,0],"scope":{"agent_id":"a"},"with_payload":["text"],"touch":true}`, "")
	h.ok("POST", "/collections/c/points", `{"ids":[3],"with_payload":["uses","last_used_at","valid_from"]}`,
		`[{"id":3,"payload":{"last_used_at":"2026-01-01T00:00:00Z","uses":1,"valid_from":"2026-01-01T00:00:00Z"}}]`)
	h.ok("POST", memoriesOfC+"/search", `{"vector":[1,0],"include_superseded":true,"kind":"semantic","with_payload":["superseded_by"]}`, "")

	h.refused(400, "PUT", memoriesOfC, `{"dedup":{}}`, "Format error in JSON body: missing field `text`")
	h.refused(400, "PUT", memoriesOfC, `{"memories":[{}]}`, "Format error in JSON body: missing field `memories[0].text`")
	h.refused(422, "PUT", memoriesOfC, `{"text":"x","memories":[]}`, "Validation error in JSON body: [text: cannot be given together with memories]")
	h.refused(422, "PUT", memoriesOfC, `{"text":"x","vector":[1,2],"ttl_seconds":0}`, "Validation error in JSON body: [ttl_seconds: value 0 invalid, must be from 1 to 6307200000]")
	h.refused(422, "PUT", memoriesOfC, `{"text":"x","vector":[1,2],"dedup":{"threshold":0}}`, "Validation error in JSON body: [dedup.threshold: value 0 invalid, must be larger than 0]")
	h.refused(422, "PUT", memoriesOfC, `{"text":"x","vector":[1,2],"dedup":{"action":"merge"}}`, "Validation error in JSON body: [dedup.action: expected skip, refresh or supersede, got merge]")
	h.refused(400, "PUT", memoriesOfC, `{"text":"x","vector":[1,2],"valid_from":"yesterday"}`,
		`Format error in JSON body: valid_from: expected milliseconds since 1970 or a time like 2026-01-31T12:00:00Z, got "yesterday"`)
	h.refused(422, "POST", memoriesOfC+"/search", `{}`, "Validation error in JSON body: [text: either text or vector must be given]")
	h.refused(422, "POST", memoriesOfC+"/search", `{"vector":[1,0],"weights":{"similarity":0}}`, "Validation error in JSON body: [weights: one of them must be larger than 0]")
	h.refused(422, "POST", memoriesOfC+"/search", `{"vector":[1,0],"limit":1001}`, "Validation error in JSON body: [limit: value 1001 invalid, must be from 1 to 1000]")
	h.refused(400, "POST", memoriesOfC+"/touch", `{}`, "Format error in JSON body: missing field `ids`")
	h.refused(422, "POST", memoriesOfC+"/delete", `{"filter":{}}`, "Validation error in JSON body: [ids: at least one of ids, scope, kind and filter must be given]")
	for _, route := range []string{"", "/search", "/touch", "/delete"} {
		method, body := "POST", `{"text":"x","vector":[1],"ids":[1]}`
		if route == "" {
			method = "PUT"
		}
		h.refused(404, method, "/collections/d/memories"+route, body, "Not found: Collection `d` doesn't exist!")
	}
}

// TestForgettingIsLogged checks the line of the log, and who may forget and touch.
func TestForgettingIsLogged(t *testing.T) {
	var log bytes.Buffer
	o := everyKey
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	h := withMemories(t, o)
	h.key = opening(t, "c", token.Read)
	h.ok("POST", memoriesOfC+"/search", `{"vector":[1,0]}`, "")
	h.refused(403, "POST", memoriesOfC+"/search", `{"vector":[1,0],"touch":true}`, "Forbidden: the token does not permit to write collection `c`")
	h.refused(403, "POST", memoriesOfC+"/delete", `{"ids":[1]}`, "Forbidden: the token does not permit to write collection `c`")
	h.key = signed(t, "secret", token.Claims{Access: token.Manage, Subject: "alice"})
	h.ok("POST", memoriesOfC+"/delete", `{"scope":{"user_id":"u","agent_id":"a"}}`, `{"deleted":1}`)
	h.ok("POST", memoriesOfC+"/delete", `{"ids":[1,2]}`, `{"deleted":1}`)
	for _, want := range []string{`msg="memories forgotten" collection=c credential=token subject=alice user=u agent=a session="" run="" kind="" ids=0 filtered=false pinned_too=false deleted=1`,
		`ids=2 filtered=false pinned_too=false deleted=1`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, log.String())
		}
	}
}

func FuzzDecodeMemories(f *testing.F) {
	f.Add([]byte(`{"memories":[{"id":1,"text":"x","vector":{"text":"y","model":"m"},"scope":{"user_id":"u"},"kind":"episodic","importance":0.5,"ttl_seconds":3,
		"metadata":{"a":[1]}},{"text":"z","expires_at":"2026-01-01T00:00:00Z","valid_from":5,"superseded_by":7}],"dedup":{"threshold":0.9,"action":"refresh"}}`))
	f.Add([]byte(`{"text":"x","model":"m","using":"v","pinned":true,"uses":3,"last_used_at":"2026-01-01"}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeMemories, body) })
}

func FuzzDecodeSearchMemories(f *testing.F) {
	f.Add([]byte(`{"vector":[1,2],"scope":{"run_id":"r"},"kind":"semantic","filter":{"must":{"has_id":[1]}},"limit":3,"weights":{"similarity":0.5,"recency":1,"importance":2},
		"recency":{"half_life_seconds":5,"of":"last_used"},"as_of":"1965-01-01","min_score":-1,"touch":true,"include_superseded":false,"with_payload":["a"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeSearchMemories, body); ok && (q.Limit < 1 || q.Limit > vectord.MaxMemories) {
			t.Fatalf("%+v was accepted", q)
		}
	})
}

func FuzzDecodeTouchMemories(f *testing.F) {
	f.Add([]byte(`{"ids":[1,"550e8400e29b41d4a716446655440000"]}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeTouchMemories, body) })
}

func FuzzDecodeForgetMemories(f *testing.F) {
	f.Add([]byte(`{"ids":[1],"scope":{"session_id":"s"},"kind":"procedural","filter":{"must":{"has_id":[1]}},"include_pinned":true}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeForgetMemories, body) })
}
