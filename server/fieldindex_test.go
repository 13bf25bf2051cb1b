package server

import (
	"context"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

// buildsSlowly is an engine whose payload indexes are never ready in time.
type buildsSlowly struct{ *model.Model }

func (b buildsSlowly) CreateFieldIndex(ctx context.Context, collection, field string, schema vectord.FieldSchema, wait bool) (vectord.UpdateResult, error) {
	r, err := b.Model.CreateFieldIndex(ctx, collection, field, schema, wait)
	r.Pending = true
	return r, err
}

func TestFieldIndexes(t *testing.T) {
	h := start(t, model.New(), Options{})
	h.ok("PUT", "/collections/c", `{"vectors":{"size":2,"distance":"Dot"}}`, "true")
	h.ok("PUT", "/collections/c/points?wait=true", `{"points":[{"id":1,"vector":[1,2],"payload":{"city":"Berlin","a":[{"b":"x"}]}},{"id":2,"vector":[1,2]}]}`,
		`{"operation_id":1,"status":"completed"}`)
	h.ok("PUT", "/collections/c/index", `{"field_name":"city","field_schema":"keyword"}`, `{"operation_id":2,"status":"acknowledged"}`)
	h.ok("PUT", "/collections/c/index?wait=true", `{"field_name":"a[].b","field_schema":{"type":"text","tokenizer":"prefix","lowercase":null,"min_token_len":2}}`,
		`{"operation_id":3,"status":"completed"}`)
	schema := func(want string) {
		t.Helper()
		_, answer, _ := h.send("GET", "/collections/c", nil)
		if !strings.Contains(answer, `"payload_schema":`+want+`}`) {
			t.Errorf("got %s, want the schema %s", answer, want)
		}
	}
	schema(`{"a[].b":{"data_type":"text","params":{"min_token_len":2,"tokenizer":"prefix","type":"text"},"points":1},"city":{"data_type":"keyword","points":1}}`)
	h.ok("DELETE", "/collections/c/index/a%5B%5D.b?wait=true", "", `{"operation_id":4,"status":"completed"}`)
	h.ok("DELETE", "/collections/c/index/none", "", `{"operation_id":5,"status":"acknowledged"}`)
	schema(`{"city":{"data_type":"keyword","points":1}}`)

	refused := func(status int, method, path, body, want string) {
		t.Helper()
		got, answer, _ := h.send(method, path, strings.NewReader(body))
		if got != status || !strings.Contains(answer, want) {
			t.Errorf("%s %s %s: %d %s, want %d %s", method, path, body, got, answer, status, want)
		}
	}
	refused(400, "PUT", "/collections/c/index", `{"field_schema":"keyword"}`, "field_name")
	refused(400, "PUT", "/collections/c/index", `{"field_name":"x","field_schema":null}`, "field_schema")
	refused(400, "PUT", "/collections/c/index", `{"field_name":"x","field_schema":"color"}`, "unknown type")
	refused(400, "PUT", "/collections/c/index", `{"field_name":"x","field_schema":{"type":"bool","tokenizer":"word"}}`, "no parameter")
	refused(400, "PUT", "/collections/c/index", `{"field_name":"x[","field_schema":"bool"}`, "payload path")
	refused(422, "PUT", "/collections/c/index", `{"field_name":"","field_schema":"bool"}`, "field_name")
	refused(404, "PUT", "/collections/none/index", `{"field_name":"x","field_schema":"bool"}`, "doesn't exist")
	refused(404, "DELETE", "/collections/none/index/x", "", "doesn't exist")
	refused(422, "DELETE", "/collections/c/index/"+strings.Repeat("x", vectord.MaxFieldNameBytes+1), "", "field_name")

	slow := start(t, buildsSlowly{model.New()}, Options{})
	slow.ok("PUT", "/collections/c", `{"vectors":{"size":2,"distance":"Dot"}}`, "true")
	slow.ok("PUT", "/collections/c/index?wait=true", `{"field_name":"x","field_schema":"bool"}`, `{"operation_id":1,"status":"acknowledged"}`)
}
