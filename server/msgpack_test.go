package server

import (
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/wire"
)

// TestMessagePack checks that a body and an answer may be MessagePack, on every route alike.
func TestMessagePack(t *testing.T) {
	h := start(t, model.New(), Options{})
	if err := h.srv.engine.CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	send := func(method, path, body string, want int) string {
		t.Helper()
		packed, err := wire.AppendMsgpack(nil, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		status, answer, header := h.send(method, path, strings.NewReader(string(packed)), "Content-Type", "application/msgpack; x=y", "Accept", "text/html, application/vnd.msgpack")
		if status != want || header.Get("Content-Type") != "application/vnd.msgpack" {
			t.Fatalf("%s %s: %d %v %q", method, path, status, header, answer)
		}
		return answer
	}
	contains := func(answer, part string) {
		t.Helper()
		packed, err := wire.AppendMsgpack(nil, []byte(part))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(answer, string(packed)) {
			t.Errorf("%q lacks %s", answer, part)
		}
	}
	send("PUT", "/collections/c/points", `{"points":[{"id":1,"vector":[1.5,2],"payload":{"a":["b",null,-3]}}]}`, 200)
	got := send("POST", "/collections/c/points/query", `{"query":[1,1],"with_payload":true,"with_vector":true}`, 200)
	contains(got, `{"id":1,"version":1,"score":3.5,"payload":{"a":["b",null,-3]},"vector":[1.5,2]}`)
	contains(send("POST", "/collections/absent/points/query", `{}`, 404), `{"error":"Not found: Collection `+"`absent`"+` doesn't exist!"}`)
	status, answer, _ := h.send("POST", "/collections/c/points/query", strings.NewReader("\xc1"), "Content-Type", "application/msgpack")
	if status != 400 || !strings.Contains(answer, "Format error in JSON body") {
		t.Errorf("no MessagePack: %d %s", status, answer)
	}
}
