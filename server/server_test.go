package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/openapi"
	"github.com/vectord/vectord/internal/token"
)

var _ Engine = (*model.Model)(nil)

// harness is a server on a real socket with an engine behind it.
type harness struct {
	t    *testing.T
	addr string
	srv  *Server
	http *http.Client
	key  string // sent with each request that brings none, if not empty
}

func start(t *testing.T, e Engine, o Options) *harness {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{t: t, addr: ln.Addr().String(), srv: New(e, o),
		http: &http.Client{Transport: &http.Transport{DisableCompression: true}}}
	served := make(chan error, 1)
	go func() { served <- h.srv.Serve(ln) }()
	t.Cleanup(func() {
		h.http.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return h
}

// send makes one request, and checks it and its answer against the descriptions of the API; header holds names and values in turn.
func (h *harness) send(method, path string, body io.Reader, header ...string) (status int, answer string, got http.Header) {
	h.t.Helper()
	req, err := http.NewRequest(method, "http://"+h.addr+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.key != "" {
		req.Header.Set("api-key", h.key)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	sent := bodyOf(body)
	resp, err := h.http.Do(req)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	x := openapi.Exchange{Method: method, Path: req.URL.EscapedPath(), RequestType: req.Header.Get("Content-Type"), Status: resp.StatusCode,
		AnswerType: resp.Header.Get("Content-Type")}
	if req.Header.Get("Content-Encoding") == "" {
		x.Request = sent
	}
	if resp.Header.Get("Content-Encoding") == "" {
		x.Answer = b
	}
	if !isMsgpack([]byte(req.Header.Get("Content-Type"))) { // the descriptions are of JSON
		checkExchange(h.t, x)
	}
	return resp.StatusCode, string(b), resp.Header
}

// result strips the envelope off an answer: what is left is the result, or the error's text.
func result(t *testing.T, answer string) string {
	t.Helper()
	var e struct {
		Result json.RawMessage
		Status json.RawMessage
		Time   *float64
	}
	if err := json.Unmarshal([]byte(answer), &e); err != nil {
		t.Fatalf("answer %q: %v", answer, err)
	}
	if e.Time == nil || *e.Time < 0 {
		t.Errorf("answer %q has no time", answer)
	}
	if string(e.Status) == `"ok"` {
		return string(e.Result)
	}
	var failed struct{ Error string }
	if err := json.Unmarshal(e.Status, &failed); err != nil || e.Result != nil {
		t.Fatalf("answer %q is neither a result nor an error", answer)
	}
	return failed.Error
}

// ok makes a request that must succeed with this result, if want is not empty.
func (h *harness) ok(method, path, body, want string) {
	h.t.Helper()
	status, answer, header := h.send(method, path, strings.NewReader(body))
	if status != 200 || header.Get("Content-Type") != "application/json" {
		h.t.Errorf("%s %s %s: status %d, content type %q: %s", method, path, body, status, header.Get("Content-Type"), answer)
		return
	}
	if got := result(h.t, answer); want != "" && got != want {
		h.t.Errorf("%s %s %s:\n got %s\nwant %s", method, path, body, got, want)
	}
}

// refused makes a request that must fail with this status and text.
func (h *harness) refused(status int, method, path, body, want string) {
	h.t.Helper()
	got, answer, header := h.send(method, path, strings.NewReader(body))
	if got != status || header.Get("Content-Type") != "application/json" {
		h.t.Errorf("%s %s %.200s: status %d, want %d: %s", method, path, body, got, status, answer)
		return
	}
	if text := result(h.t, answer); text != want {
		h.t.Errorf("%s %s %.200s:\n got %s\nwant %s", method, path, body, text, want)
	}
}

func withPoints(t *testing.T, o Options) *harness {
	h := start(t, model.New(), o)
	h.ok("PUT", "/collections/c", `{"vectors":{"size":2,"distance":"Dot"}}`, "true")
	h.ok("PUT", "/collections/c/points?wait=true", `{"points":[
		{"id":1,"vector":[1,0],"payload":{"city":"Berlin","n":1,"big":12345678901234567890}},
		{"id":18446744073709551615,"vector":[0.05,1e-7],"payload":{"city":"Paris","tags":["a","b"],"at":{"x":1.0,"y":2}}},
		{"id":"550E8400-e29b-41d4-a716-446655440000","vector":{"":[0,-1]},"payload":null}]}`,
		`{"operation_id":1,"status":"completed"}`)
	return h
}

func TestRoutesOfCollections(t *testing.T) {
	h := start(t, model.New(), Options{Commit: "abc"})
	status, answer, _ := h.send("GET", "/", nil)
	if want := `{"title":"vectord","version":"1.19.0","vectord":"` + vectord.Version + `","commit":"abc"}`; status != 200 || answer != want {
		t.Errorf("GET /: %d %s, want %s", status, answer, want)
	}
	for path, want := range map[string]string{"/healthz": "healthz check passed", "/livez": "healthz check passed", "/readyz": "all shards are ready"} {
		status, answer, header := h.send("GET", path, nil)
		if status != 200 || answer != want || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
			t.Errorf("GET %s: %d %s", path, status, answer)
		}
	}
	h.ok("GET", "/collections", "", `{"collections":[]}`)
	h.ok("GET", "/collections/b/exists", "", `{"exists":false}`)
	h.ok("PUT", "/collections/b", `{"vectors":{"":{"size":4,"distance":"Cosine","on_disk":true,"datatype":"float32"}},
		"hnsw_config":{"m":8,"ef_search":77,"recall_target":0.9,"max_layers":3,"payload_m":null},"optimizers_config":{"indexing_threshold":5,
		"max_segment_size":9,"max_optimization_threads":2},"quantization_config":{"scalar":{"type":"int8","quantile":0.99}},
		"on_disk_payload":false,"metadata":{"owner":"me"},"sparse_vectors":{},"strict_mode_config":{"enabled":false},
		"wal_config":{"wal_capacity_mb":64},"unknown":1}`, "true")
	h.ok("PUT", "/collections/a%20%C3%A9/?timeout=5", `{"vectors":{"size":4,"distance":"Euclid"}}`, "true")
	h.ok("GET", "/collections/", "", `{"collections":[{"name":"a é"},{"name":"b"}]}`)
	h.ok("GET", "/collections/b/exists", "", `{"exists":true}`)
	h.ok("GET", "/collections/b", "", `{"status":"green","optimizer_status":"ok","points_count":0,"indexed_vectors_count":0,`+
		`"segments_count":1,"config":{"params":{"vectors":{"size":4,"distance":"Cosine","on_disk":true,"datatype":"float32"},"shard_number":1,`+
		`"replication_factor":1,"write_consistency_factor":1,"on_disk_payload":false},"hnsw_config":{"m":8,"ef_construct":200,`+
		`"ef_search":77,"recall_target":0.9,"max_layers":3,"full_scan_threshold":10000,"max_indexing_threads":0,"on_disk":false},`+
		`"optimizer_config":{"deleted_threshold":0.2,"vacuum_min_vector_number":1000,"default_segment_number":0,`+
		`"max_segment_size":9,"memmap_threshold":null,"indexing_threshold":5,"flush_interval_sec":5,"max_optimization_threads":2},`+
		`"wal_config":{"wal_capacity_mb":64,"wal_segments_ahead":0},"quantization_config":{"scalar":{"type":"int8","quantile":0.99}},`+
		`"strict_mode_config":{"enabled":false},"metadata":{"owner":"me"}},"payload_schema":{},`+
		`"warnings":[{"message":"on_disk_payload: false has no effect: payloads are on disk, and blocks of them in the cache of storage"}]}`)
	h.ok("PATCH", "/collections/b", `{"vectors":{"":{"hnsw_config":{"m":32}}},"hnsw_config":{"ef_construct":99,"recall_target":0.75},
		"optimizers_config":{"indexing_threshold":7,"max_optimization_threads":"auto"},"strict_mode_config":{"enabled":true,"max_query_limit":5},
		"params":{"on_disk_payload":true},"quantization_config":"Disabled","metadata":{"owner":null,"x":1}}`, "true")
	info, err := h.srv.engine.CollectionInfo("b")
	if err != nil {
		t.Fatal(err)
	}
	if own, err := info.Config.HNSWOf(""); err != nil || own.M != 32 || own.EfConstruct != 99 || own.EfSearch != 77 {
		t.Errorf("after PATCH the vectors have %+v (%v)", own, err)
	}
	if c := info.Config; *c.StrictMode.MaxQueryLimit != 5 || c.HNSW.EfConstruct != 99 || c.HNSW.EfSearch != 77 || c.HNSW.RecallTarget != 0.75 || c.Optimizer.IndexingThreshold != 7 || !c.Params.OnDiskPayload ||
		string(c.Quantization) != `"Disabled"` || string(c.Metadata) != `{"x":1}` {
		t.Errorf("after PATCH: %+v", c)
	}
	for path, want := range map[string]string{"b": `"quantization_config":null`, "a%20%C3%A9": `"quantization_config":{"scalar":{"type":"int8"}}`} {
		if _, answer, _ := h.send("GET", "/collections/"+path, nil); !strings.Contains(answer, want) {
			t.Errorf("GET of %s: %s, want %s", path, answer, want)
		}
	}
	for _, name := range []struct{ path, body, want string }{
		{"dense%20one", `{"dense":{"size":3,"distance":"Dot","datatype":"float16"}}`, `"dense one":{"size":3,"distance":"Dot","datatype":"float16"}`},
		{"sparse", `{"sparse":{"modifier":"idf"}}`, `"sparse_vectors":{"sparse":{"modifier":"idf"}}`},
	} {
		path := "/collections/b/vectors/" + name.path
		if status, answer, _ := h.send("PUT", path+"?wait=true", strings.NewReader(name.body)); status != 200 || !strings.Contains(answer, `"status":"completed"`) {
			t.Errorf("PUT %s: %d %s", path, status, answer)
		}
		if _, answer, _ := h.send("GET", "/collections/b", nil); !strings.Contains(answer, name.want) {
			t.Errorf("after PUT %s: %s, want %s", path, answer, name.want)
		}
	}
	for _, refused := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "sparse", `{"dense":{"size":3,"distance":"Dot"}}`, 409}, {"PUT", "x", `{}`, 400}, {"PUT", "x", `{"dense":{"size":0,"distance":"Dot"}}`, 422},
		{"PUT", "x", `{"sparse":{"datatype":"uint8"}}`, 400}, {"PUT", "a%3Ab", `{"sparse":{}}`, 422}, {"DELETE", "missing", ``, 400},
	} {
		if status, answer, _ := h.send(refused.method, "/collections/b/vectors/"+refused.path, strings.NewReader(refused.body)); status != refused.status {
			t.Errorf("%s of vectors %s %s: %d %s, want %d", refused.method, refused.path, refused.body, status, answer, refused.status)
		}
	}
	if status, answer, _ := h.send("DELETE", "/collections/b/vectors/dense%20one", nil); status != 200 {
		t.Errorf("DELETE: %d %s", status, answer)
	}
	if _, answer, _ := h.send("GET", "/collections/b", nil); strings.Contains(answer, "dense one") {
		t.Errorf("after DELETE: %s", answer)
	}
	h.ok("PUT", "/collections/f", `{"vectors":{"size":4,"distance":"Dot","quantization_config":"Disabled"}}`, "true")
	h.ok("PATCH", "/collections/f", `{"quantization_config":{"binary":{"always_ram":true}}}`, "true")
	if info, err := h.srv.engine.CollectionInfo("f"); err != nil || string(info.Config.Quantization) != `{"binary":{"always_ram":true}}` {
		t.Errorf("after PATCH: %s (%v)", info.Config.Quantization, err)
	}
	h.ok("DELETE", "/collections/f", "", "true")

	h.ok("POST", "/collections/aliases", `{"actions":[{"create_alias":{"collection_name":"b","alias_name":"one"}},
		{"create_alias":{"collection_name":"b","alias_name":"two"}},{"rename_alias":{"old_alias_name":"two","new_alias_name":"three"}},
		{"delete_alias":{"alias_name":"one"}}]}`, "true")
	h.ok("GET", "/aliases", "", `{"aliases":[{"alias_name":"three","collection_name":"b"}]}`)
	h.ok("GET", "/collections/b/aliases", "", `{"aliases":[{"alias_name":"three","collection_name":"b"}]}`)
	h.ok("GET", "/collections/a%20é/aliases", "", `{"aliases":[]}`)
	h.ok("POST", "/collections/three/points/count", `{}`, `{"count":0}`)

	h.ok("DELETE", "/collections/b?timeout=10", "", "true")
	h.ok("DELETE", "/collections/b", "", "false")
	h.ok("GET", "/aliases", "", `{"aliases":[]}`)
}

func TestRoutesOfPoints(t *testing.T) {
	h := withPoints(t, Options{})
	const c = "/collections/c/points"
	// Reading.
	h.ok("GET", c+"/1", "", `{"id":1,"payload":{"big":12345678901234567890,"city":"Berlin","n":1},"vector":[1,0]}`)
	h.ok("GET", c+"/18446744073709551615", "", `{"id":18446744073709551615,"payload":{"at":{"x":1.0,"y":2},"city":"Paris","tags":["a","b"]},"vector":[0.05,1e-7]}`)
	h.ok("GET", c+"/550e8400e29b41d4a716446655440000", "", `{"id":"550e8400-e29b-41d4-a716-446655440000","payload":{},"vector":[0,-1]}`)
	h.ok("POST", c, `{"ids":[7,1],"with_payload":["city"]}`, `[{"id":1,"payload":{"city":"Berlin"}}]`)
	h.ok("POST", c, `{"ids":[1],"with_payload":false,"with_vector":[""]}`, `[{"id":1,"vector":[1,0]}]`)
	h.ok("POST", c, `{"ids":[1],"with_payload":[],"with_vectors":true}`, `[{"id":1,"payload":{},"vector":[1,0]}]`)
	h.ok("POST", c+"/scroll", `{"limit":2,"with_payload":{"exclude":["big","at","tags"]},"filter":null,"order_by":null}`,
		`{"points":[{"id":1,"payload":{"city":"Berlin","n":1}},{"id":18446744073709551615,"payload":{"city":"Paris"}}],`+
			`"next_page_offset":"550e8400-e29b-41d4-a716-446655440000"}`)
	h.ok("POST", c+"/scroll", `{"offset":"550e8400-e29b-41d4-a716-446655440000"}`,
		`{"points":[{"id":"550e8400-e29b-41d4-a716-446655440000","payload":{}}],"next_page_offset":null}`)
	h.ok("POST", c+"/scroll", `{"with_payload":{"include":["at.x"]},"filter":{"must":{"has_id":[18446744073709551615]}}}`,
		`{"points":[{"id":18446744073709551615,"payload":{"at":{"x":1.0}}}],"next_page_offset":null}`)
	h.ok("POST", c+"/count?consistency=majority", `{"exact":false,"filter":{"must":[{"key":"city","match":{"any":["Berlin","Rome"]}}]}}`, `{"count":1}`)

	// Searching.
	h.ok("POST", c+"/query", `{"query":[2,1],"limit":1,"params":{"quantization":{"ignore":true,"rescore":null,"oversampling":2.5}}}`,
		`{"points":[{"id":1,"version":1,"score":2}]}`)
	h.ok("POST", c+"/query", `{"query":[2,1],"limit":2}`,
		`{"points":[{"id":1,"version":1,"score":2},{"id":18446744073709551615,"version":1,"score":0.1000001}]}`)
	h.ok("POST", c+"/query?timeout=3", `{"query":{"nearest":[2,1],"mmr":null},"limit":1,"offset":1,"with_vector":true,"using":"","prefetch":[],
		"params":{"hnsw_ef":12,"exact":true,"quantization":{"rescore":true}}}`,
		`{"points":[{"id":18446744073709551615,"version":1,"score":0.1000001,"vector":[0.05,1e-7]}]}`)
	h.ok("POST", c+"/query", `{"query":1,"with_payload":true,"limit":1}`,
		`{"points":[{"id":18446744073709551615,"version":1,"score":0.05,"payload":{"at":{"x":1.0,"y":2},"city":"Paris","tags":["a","b"]}}]}`)
	h.ok("POST", c+"/query", `{"query":{"nearest":"550e8400-e29b-41d4-a716-446655440000"},"score_threshold":-1e-7}`,
		`{"points":[{"id":1,"version":1,"score":0}]}`)
	h.ok("POST", c+"/query", `{"limit":1}`, `{"points":[{"id":1,"version":1,"score":0}]}`)
	h.ok("POST", c+"/query", `{"query":null,"filter":{"must_not":[{"has_id":[1]}]},"limit":1}`,
		`{"points":[{"id":18446744073709551615,"version":1,"score":0}]}`)
	h.ok("POST", c+"/query/batch", `{"searches":[{"query":[1,0],"limit":1},{"query":[0,1],"limit":1,"filter":{"must":[{"is_empty":{"key":"city"}}]}}]}`,
		`[{"points":[{"id":1,"version":1,"score":1}]},{"points":[{"id":"550e8400-e29b-41d4-a716-446655440000","version":1,"score":-1}]}]`)
	h.ok("POST", c+"/search", `{"vector":{"name":"","vector":[1,0]},"limit":1}`, `[{"id":1,"version":1,"score":1}]`)
	h.ok("POST", c+"/search", `{"vector":[1,0],"top":1}`, `[{"id":1,"version":1,"score":1}]`)
	h.ok("POST", c+"/search/batch", `{"searches":[{"vector":[1,0],"limit":1},{"vector":[1,0],"limit":1,"offset":3}]}`,
		`[[{"id":1,"version":1,"score":1}],[]]`)

	// Writing.
	h.ok("POST", c+"/payload?wait=true&ordering=strong", `{"payload":{"n":2,"city":null},"points":[1]}`, `{"operation_id":2,"status":"completed"}`)
	h.ok("POST", c+"/payload", `{"payload":{"z":[1]},"key":"at.deep","filter":{"must":[{"key":"n","match":{"value":2}}]}}`,
		`{"operation_id":3,"status":"acknowledged"}`)
	h.ok("GET", c+"/1", "", `{"id":1,"payload":{"at":{"deep":{"z":[1]}},"big":12345678901234567890,"n":2},"vector":[1,0]}`)
	h.ok("PUT", c+"/payload", `{"payload":{"only":true},"points":[1]}`, `{"operation_id":4,"status":"acknowledged"}`)
	h.ok("POST", c+"/payload/delete", `{"keys":["at.x","tags[]"],"filter":{}}`, "")
	h.ok("POST", c, `{"ids":[1,18446744073709551615]}`, `[{"id":1,"payload":{"only":true}},{"id":18446744073709551615,"payload":{"at":{"y":2},"city":"Paris","tags":[]}}]`)
	h.ok("POST", c+"/payload/clear", `{"points":[1]}`, "")
	h.ok("PUT", c+"/vectors", `{"points":[{"id":1,"vector":[5,5]}]}`, "")
	h.ok("GET", c+"/1", "", `{"id":1,"payload":{},"vector":[5,5]}`)
	h.ok("PUT", c, `{"batch":{"ids":[10,11],"vectors":[[1,1],[2,2]],"payloads":[null,{"a":1}]}}`, "")
	h.ok("PUT", c, `{"batch":{"ids":[12],"vectors":{"":[[3,3]]}},"shard_key":null,"update_mode":"upsert"}`, "")
	h.ok("POST", c, `{"ids":[10,11,12],"with_vector":true}`,
		`[{"id":10,"payload":{},"vector":[1,1]},{"id":11,"payload":{"a":1},"vector":[2,2]},{"id":12,"payload":{},"vector":[3,3]}]`)
	h.ok("POST", c+"/batch", `{"operations":[{"upsert":{"points":[{"id":20,"vector":[1,1]}]}},{"set_payload":{"payload":{"a":1,"b":2},"points":[20]}},
		{"overwrite_payload":{"payload":{"a":3,"c":4},"points":[20]}},{"delete_payload":{"keys":["c"],"points":[20]}},
		{"update_vectors":{"points":[{"id":20,"vector":[9,9]}]}},{"clear_payload":{"points":[12]}},{"delete":{"points":[10,11]}}]}`, "")
	h.ok("POST", c, `{"ids":[10,11,12,20],"with_vector":true}`, `[{"id":12,"payload":{},"vector":[3,3]},{"id":20,"payload":{"a":3},"vector":[9,9]}]`)
	h.ok("POST", c+"/delete?wait=true", `{"points":[]}`, "")
	h.ok("POST", c+"/delete?wait=true&ordering=weak", `{"filter":{"must":[{"key":"a","range":{"gte":3}}]}}`, "")
	h.ok("POST", c+"/count", `{}`, `{"count":4}`)
}

// TestErrors is the list of what a request can be refused for. None of it changes anything.
func TestErrors(t *testing.T) {
	h := withPoints(t, Options{})
	const c = "/collections/c/points"
	_, before, _ := h.send("POST", c+"/scroll", strings.NewReader(`{"with_vector":true}`))
	f := h.refused
	huge := func(n int) string { return strings.Repeat(" ", n) }

	// Vectors.
	f(400, "PUT", c, `{"points":[{"id":1,"vector":[1,2]},{"id":2,"vector":[1]}]}`, "Wrong input: Vector dimension error: expected dim: 2, got 1")
	f(400, "PUT", c+"/vectors", `{"points":[{"id":1,"vector":[1,2,3]}]}`, "Wrong input: Vector dimension error: expected dim: 2, got 3")
	f(400, "POST", c+"/query", `{"query":[1,2,3]}`, "Wrong input: Vector dimension error: expected dim: 2, got 3")
	f(400, "POST", c+"/search", `{"vector":[1],"limit":1}`, "Wrong input: Vector dimension error: expected dim: 2, got 1")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":[1,1e999]}]}`,
		"Format error in JSON body: points[0].vector: value 1e999 at index 1 is out of the range of a 32-bit float")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":[1,NaN]}]}`, "Format error in JSON body: points[0].vector[1]: invalid character 'N' at start of value at byte 31")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":[1,null]}]}`, "Format error in JSON body: points[0].vector: expected a number at index 1, got null")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":["1",2]}]}`, `Format error in JSON body: points[0].vector: expected a number at index 0, got "1"`)
	f(400, "PUT", c, `{"points":[{"id":2,"vector":7}]}`, "Format error in JSON body: points[0].vector: expected an array of numbers, got 7")
	f(400, "PUT", c, `{"points":[{"id":2}]}`, "Format error in JSON body: missing field `points[0].vector`")
	f(422, "PUT", c, `{"points":[{"id":2,"vector":[]}]}`, "Validation error in JSON body: [points[0].vector: the vector is empty]")
	f(422, "PUT", c, `{"points":[{"id":2,"vector":[`+strings.Repeat("0,", 65536)+`0]}]}`,
		"Validation error in JSON body: [points[0].vector: 65537 components, at most 65536 are accepted]")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":{"a":[1,2]}}]}`, "Wrong input: Not existing vector name error: a")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":{"":[1,2],"bm25":{"text":"x","model":"m"}}}]}`, "Wrong input: Not existing vector name error: bm25")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":[[1,2]]}]}`, `Wrong input: Wrong vector kind: dense vector expected for vector name "", got a multivector`)
	f(422, "PUT", c, `{"points":[{"id":2,"vector":[[1,2],[1]]}]}`,
		`Validation error in JSON body: [points[0].vector: rows of a multivector must have the same length, row 1 has 1, those before it 2]`)
	f(400, "PUT", c, `{"points":[{"id":2,"vector":{"indices":[1],"values":[1]}}]}`,
		`Wrong input: Wrong vector kind: dense vector expected for vector name "", got a sparse vector`)
	f(422, "PUT", c, `{"points":[{"id":2,"vector":{"s":{"indices":[1,2],"values":[1]}}}]}`,
		`Validation error in JSON body: [points[0].vector: s: values: must be the same length as indices, got 1 values and 2 indices]`)
	f(422, "PUT", c, `{"points":[{"id":2,"vector":{"s":{"indices":[2,2],"values":[1,1]}}}]}`,
		`Validation error in JSON body: [points[0].vector: s: indices: must be unique, 2 is there twice]`)
	f(400, "PUT", c, `{"points":[{"id":2,"vector":{"s":{"image":"x","model":"m"}}}]}`,
		`Bad request: points[0].vector: s: inference ("image") is not offered by this server`)
	f(400, "PUT", c, `{"points":[{"id":2,"vector":{"text":"x","model":"m"}}]}`,
		`Wrong input: Wrong vector kind: dense vector expected for vector name "", got a text`)
	f(400, "PUT", c, `{"points":[{"id":2,"vector":[1,2],"expires_at":"soon"}]}`,
		`Format error in JSON body: points[0].expires_at: expected milliseconds since 1970 or a time like 2026-01-31T12:00:00Z, got "soon"`)

	// Ids.
	f(400, "PUT", c, `{"points":[{"id":7,"vector":[1,2]},{"id":8,"vector":[1,2]},{"id":7,"vector":[3,4]}]}`,
		"Wrong input: points: id 7 is given twice, at positions 0 and 2")
	f(400, "PUT", c, `{"batch":{"ids":[7,7],"vectors":[[1,2],[3,4]]}}`, "Wrong input: points: id 7 is given twice, at positions 0 and 1")
	f(400, "PUT", c+"/vectors", `{"points":[{"id":1,"vector":[1,2]},{"id":1,"vector":[1,2]}]}`, "Wrong input: points: id 1 is given twice, at positions 0 and 1")
	f(400, "PUT", c, `{"points":[{"vector":[1,2]}]}`, "Format error in JSON body: missing field `points[0].id`")
	for _, id := range []string{"18446744073709551616", "-1", "1.5", "1e3", `"123"`, `"550e8400"`} {
		shown := strings.Trim(id, `"`)
		f(400, "PUT", c, `{"points":[{"id":`+id+`,"vector":[1,2]}]}`, fmt.Sprintf("Format error in JSON body: points[0].id: "+
			"value %q is not a valid point ID, valid values are either an unsigned integer or a UUID", shown))
	}
	f(400, "GET", c+"/x%201", "", `Format error in path parameters: value "x 1" is not a valid point ID, valid values are either an unsigned integer or a UUID`)
	f(404, "GET", c+"/5", "", "Not found: No point with id 5 found")
	f(404, "POST", c+"/query", `{"query":5}`, "Not found: No point with id 5 found")
	f(404, "PUT", c+"/vectors", `{"points":[{"id":5,"vector":[1,2]}]}`, "Not found: No point with id 5 found")
	f(404, "POST", c+"/payload", `{"payload":{"a":1},"points":[1,5]}`, "Not found: No point with id 5 found")
	f(404, "POST", c+"/payload/clear", `{"points":[1,5]}`, "Not found: No point with id 5 found")

	// Payloads and selectors.
	f(400, "PUT", c, `{"points":[{"id":2,"vector":[1,2],"payload":[]}]}`, "Format error in JSON body: points[0].payload: expected an object or null, got []")
	f(400, "PUT", c, `{"points":[{"id":2,"vector":[1,2],"payload":{"a":{"b":1,"b":2}}}]}`,
		"Format error in JSON body: points[0].payload.a.b: duplicate object member name at byte 56")
	f(422, "PUT", c, `{"points":[{"id":2,"vector":[1,2],"payload":{"a":`+strings.Repeat("[", 128)+strings.Repeat("]", 128)+`}}]}`,
		"Validation error in JSON body: [points[0].payload: nested 129 deep, at most 128 are accepted]")
	f(400, "POST", c+"/payload", `{"points":[1]}`, "Format error in JSON body: missing field `payload`")
	f(422, "POST", c+"/payload", `{"payload":{}}`, "Validation error in JSON body: [points: either points or filter must be given]")
	f(422, "POST", c+"/delete", `{"points":[1],"filter":{}}`, "Validation error in JSON body: [points: cannot be given together with filter]")
	f(400, "PUT", c+"/payload", `{"payload":{},"points":[1],"key":"a"}`, "Bad request: key: not offered where the payload is replaced")
	f(400, "POST", c+"/payload/delete", `{"points":[1]}`, "Format error in JSON body: missing field `keys`")
	f(400, "POST", c+"/payload/delete", `{"keys":["a..b"],"points":[1]}`, `Wrong input: "a..b" is not a valid payload path`)
	f(422, "PUT", c, `{"batch":{"ids":[1],"vectors":[]}}`, "Validation error in JSON body: [batch: number of ids and vectors must be equal, got 1 and 0]")
	f(422, "PUT", c, `{"batch":{"ids":[1],"vectors":[[1,2]],"payloads":[]}}`, "Validation error in JSON body: [batch: number of ids and payloads must be equal, got 1 and 0]")
	f(400, "PUT", c, `{}`, "Format error in JSON body: missing field `points`")
	f(422, "POST", c+"/delete", `{"points":[`+strings.Repeat("1,", 10_000)+`1]}`, "Validation error in JSON body: [points: more than 10000 elements]")
	f(400, "POST", c+"/batch", `{"operations":[{"delete":{"points":[1]}},{}]}`, "Format error in JSON body: operations[1]: exactly one of upsert, delete, "+
		"set_payload, overwrite_payload, delete_payload, clear_payload, update_vectors, delete_vectors must be given, got 0")
	f(400, "POST", c+"/batch", `{"operations":[{"delete":{"points":[1]}},{"upsert":{"points":[{"id":2,"vector":[1]}]}}]}`,
		"Wrong input: Vector dimension error: expected dim: 2, got 1")
	f(400, "POST", c+"/batch", `{"operations":[{"delete_vectors":{"points":[1],"vector":["a"]}}]}`, "Wrong input: Not existing vector name error: a")

	// Queries.
	f(422, "POST", c+"/query", `{"query":[1,2],"limit":0}`, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
	f(422, "POST", c+"/search", `{"vector":[1,2],"limit":10001}`, "Validation error in JSON body: [limit: value 10001 invalid, must be 10000 or less]")
	f(422, "POST", c+"/query", `{"query":[1,2],"offset":10001}`,
		"Validation error in JSON body: [offset: value 10001 invalid, must be 10000 or less; page through more points with scroll]")
	f(400, "POST", c+"/query", `{"query":[1,2],"limit":-1}`, "Format error in JSON body: limit: expected a non-negative integer, got -1")
	f(400, "POST", c+"/query", `{"query":[1,2],"limit":"x"}`, "Format error in JSON body: limit: expected a non-negative integer, got a string")
	f(422, "POST", c+"/query", `{"query":[1,2],"params":{"quantization":{"oversampling":0.5}}}`,
		"Validation error in JSON body: [params.quantization.oversampling: value 0.5 invalid, must be from 1 to 1000]")
	f(422, "POST", c+"/query", `{"query":[1,2],"params":{"quantization":{"oversampling":1001}}}`,
		"Validation error in JSON body: [params.quantization.oversampling: value 1001 invalid, must be from 1 to 1000]")
	f(422, "POST", c+"/query", `{"query":[1,2],"params":{"hnsw_ef":0}}`, "Validation error in JSON body: [params.hnsw_ef: value 0 invalid, must be from 1 to 10000]")
	f(400, "POST", c+"/query", `{"query":[1,2],"params":{"exact":1}}`, "Format error in JSON body: params.exact: expected true or false, got a number")
	f(400, "POST", c+"/query", `{"query":[1,2],"using":"image"}`, "Wrong input: Not existing vector name error: image")
	f(400, "POST", c+"/query", `{"query":[1,2],"with_vector":["image"]}`, "Wrong input: Not existing vector name error: image")
	f(400, "POST", c+"/query", `{"query":{"relevance_feedback":{}}}`, "Bad request: query: relevance_feedback is not offered by this server")
	q := func(status int, query, want string) {
		t.Helper()
		f(status, "POST", c+"/query", `{"query":`+query+`}`, want)
	}
	q(400, `{"nearest":[1,2],"sample":"random"}`, "Format error in JSON body: query: expected one form, got nearest, sample")
	q(400, `{"nearest":null}`, "Format error in JSON body: query: nearest: missing")
	q(400, `{"nearest":[1,2,3]}`, "Wrong input: Vector dimension error: expected dim: 2, got 3")
	q(400, `{"nearest":["x"]}`, `Format error in JSON body: query: nearest: expected a number at index 0, got "x"`)
	q(400, `true`, "Format error in JSON body: query: expected an array of numbers, got true")
	q(422, `{"nearest":[1,2],"mmr":{"diversity":1.5}}`, "Validation error in JSON body: [query.mmr.diversity: value 1.5 invalid, must be from 0 to 1]")
	q(422, `{"nearest":[1,2],"mmr":{"candidates_limit":16385}}`,
		"Validation error in JSON body: [query: mmr.candidates_limit: value 16385 invalid, must be 16384 or less]")
	q(400, `{"recommend":{}}`, "Wrong input: query.recommend.positive: At least one positive vector ID required with this strategy")
	q(400, `{"recommend":{"strategy":"best_score"}}`, "Wrong input: query.recommend: At least one positive or negative vector ID required with this strategy")
	q(400, `{"recommend":{"positive":[[1,2],null]}}`,
		"Format error in JSON body: query: recommend.positive[1]: expected a vector or the id of a point, got null")
	q(400, `{"recommend":{"positive":[1],"strategy":"worst"}}`,
		"Format error in JSON body: query: recommend.strategy: expected average_vector, best_score or sum_scores, got worst")
	q(404, `{"recommend":{"positive":[77]}}`, "Not found: No point with id 77 found")
	q(422, `{"recommend":{"positive":[`+strings.Repeat("1,", 1000)+`1]}}`,
		"Validation error in JSON body: [query.recommend: 1001 elements, at most 1000 are accepted]")
	q(400, `{"discover":{"context":[]}}`, "Format error in JSON body: query: missing field `discover.target`")
	q(400, `{"discover":{"target":1,"context":{"positive":1}}}`, "Format error in JSON body: query: missing field `discover.context[0].negative`")
	q(400, `{"context":[]}`, "Wrong input: query.context: at least one pair is required")
	q(400, `{"context":[{"positive":1,"negative":1},{"negative":1}]}`, "Format error in JSON body: query: missing field `context[1].positive`")
	q(400, `{"sample":"all"}`, "Format error in JSON body: query: sample: expected random, got all")
	q(400, `{"fusion":"rrf"}`, "Wrong input: query.fusion: needs prefetch")
	q(400, `{"fusion":"sum"},"prefetch":{}`, "Format error in JSON body: query: fusion: expected rrf or dbsf, got sum")
	q(400, `{"fusion":"dbsf"},"prefetch":{},"using":"x"`, `Wrong input: using: "x" cannot be given with a fusion`)
	q(422, `{"rrf":{"k":0}},"prefetch":{}`, "Validation error in JSON body: [query: rrf.k: value 0 invalid, must be from 1 to 1000000]")
	q(400, `{"rrf":{"weights":[1,2]}},"prefetch":{}`, "Wrong input: query.rrf.weights: 2 weights for 1 prefetches")
	q(422, `{"rrf":{"weights":[-1]}},"prefetch":{}`, "Validation error in JSON body: [query.rrf.weights[0]: value -1 invalid, must be a finite number from 0]")
	formula := func(status int, formula, want string) {
		t.Helper()
		q(status, `{"formula":`+formula+`},"prefetch":{}`, want)
	}
	q(400, `{"formula":1}`, "Wrong input: query.formula: needs prefetch")
	formula(400, `null`, "Format error in JSON body: query: formula: missing")
	formula(400, `[1]`, "Format error in JSON body: query: formula: expected a number, a name, a condition or an operation, got [1]")
	formula(400, `"$rank"`, "Format error in JSON body: query: formula: expected $score, $score[i] or a payload path, got $rank")
	formula(400, `"$score[1]"`, "Wrong input: query.formula: there is no $score[1], but 1 prefetches")
	formula(400, `"a..b"`, `Wrong input: "a..b" is not a valid payload path`)
	formula(400, `{"sum":[1,{"neg":[1]}]}`,
		"Format error in JSON body: query: formula: sum: [1]: neg: expected a number, a name, a condition or an operation, got [1]")
	formula(400, `{"div":{"left":1}}`, "Format error in JSON body: query: formula: div: missing field `right`")
	formula(400, `{"pow":{"base":1,"exponent":{"log":1}}}`,
		`Format error in JSON body: query: formula: pow: exponent: neither an operation nor a condition: filter condition: unknown field "log", `+
			"expected one of must, should, must_not, min_should, has_id, has_vector, is_empty, is_null, nested, slice, key, match, range, "+
			"geo_bounding_box, geo_radius, geo_polygon, values_count, is_empty, is_null")
	formula(400, `{"exp_decay":{"x":1,"midpoint":1}}`, "Wrong input: query.formula: a decay of midpoint 1, must be between 0 and 1")
	formula(400, `{"gauss_decay":{"x":1,"scale":0}}`, "Wrong input: query.formula: a decay of scale 0, must be above 0")
	formula(400, `{"geo_distance":{"origin":{"lon":1,"lat":2}}}`, "Format error in JSON body: query: formula: geo_distance: missing field `to`")
	formula(400, `{"datetime":"soon"}`, "Format error in JSON body: query: formula: datetime: expected a date and time, got soon")
	formula(400, `{"sum":[1],"mult":[2]}`, "Format error in JSON body: query: formula: expected one operation, got {\"sum\":[1],\"mult\":[2]}")
	formula(422, strings.Repeat(`{"neg":`, 200)+`1`+strings.Repeat(`}`, 200), "Validation error in JSON body: [query: formula: nested 200 deep, at most 128 are accepted]")
	formula(422, `{"sum":[`+strings.Repeat(`{"neg":1},`, 500)+`1]}`, "Validation error in JSON body: [query.formula: more than 1000 expressions]")
	f(400, "POST", c+"/query", `{"prefetch":{"query":[1,2]}}`, "Wrong input: query: needed to rank what was prefetched")
	f(400, "POST", c+"/query", `{"query":[1,2],"prefetch":[{"prefetch":[{}]}]}`, "Wrong input: prefetch[0].query: needed to rank what was prefetched")
	f(422, "POST", c+"/query", `{"query":[1,2],"prefetch":[{},{"limit":0}]}`,
		"Validation error in JSON body: [prefetch[1].limit: value 0 invalid, must be 1 or larger]")
	f(422, "POST", c+"/query", `{"query":1,"prefetch":[`+strings.Repeat("{},", 64)+`{}]}`, "Validation error in JSON body: [prefetch: more than 64 prefetches]")
	deep := strings.Repeat(`{"query":1,"prefetch":`, 9) + `{}` + strings.Repeat(`}`, 9)
	f(422, "POST", c+"/query", deep, "Validation error in JSON body: ["+strings.Repeat("prefetch[0].", 9)+"prefetch: nested 9 deep, at most 8 are accepted]")
	f(404, "POST", c+"/query", `{"query":1,"lookup_from":{"collection":"missing"}}`, "Not found: Collection `missing` doesn't exist!")
	f(400, "POST", c+"/query", `{"query":1,"lookup_from":{"vector":"a"}}`, "Format error in JSON body: lookup_from: missing field `collection`")
	f(400, "POST", c+"/query", `{"score_threshold":0.5}`, "Wrong input: score_threshold: there is no query to score by")
	f(400, "POST", c+"/query", `{"query":{"sample":"random"},"score_threshold":0.5}`, "Wrong input: score_threshold: there is no query to score by")
	f(422, "POST", c+"/query", `{"query":[1,2],"score_threshold":1e300}`,
		"Validation error in JSON body: [score_threshold: value 1e+300 invalid, must be within the range of a 32-bit float]")
	f(400, "POST", c+"/query", `{"query":"pear"}`,
		`Format error in JSON body: query: value "pear" is not a valid point ID, valid values are either an unsigned integer or a UUID`)
	f(400, "POST", c+"/query/batch", `{"searches":[{"query":[1,2]},{"query":[1]}]}`, "Wrong input: searches[1]: Vector dimension error: expected dim: 2, got 1")
	f(422, "POST", c+"/search/batch", `{"searches":[{"vector":[1,2],"limit":0}]}`, "Validation error in JSON body: [searches[0].limit: value 0 invalid, must be 1 or larger]")
	f(400, "POST", c+"/search", `{"vector":[1,2]}`, "Format error in JSON body: missing field `limit`")
	f(400, "POST", c+"/scroll", `{"with_payload":{"include":["a"],"exclude":["b"]}}`,
		`Format error in JSON body: with_payload: expected exactly one of include and exclude, got {"include":["a"],"exclude":["b"]}`)
	f(400, "POST", c+"/scroll", `{"filter":{"must":[{"key":"a","geo_circle":{}}]}}`, `Format error in JSON body: filter: filter condition: unknown field "geo_circle", `+
		"expected one of key, match, range, geo_bounding_box, geo_radius, geo_polygon, values_count, is_empty, is_null")
	f(422, "POST", c+"/scroll", `{"filter":{"must":[{"slice":{"total":2,"index":2}}]}}`,
		"Validation error in JSON body: [filter: filter.slice.index: value 2 invalid, must be below total, which is 2]")
	f(400, "POST", c+"/count", `{"filter":[]}`, "Format error in JSON body: filter: filter: expected an object, got []")

	// Collections.
	f(404, "PUT", "/collections/no/points", `{"points":[{"id":2,"vector":[1,2]}]}`, "Not found: Collection `no` doesn't exist!")
	f(404, "POST", "/collections/no/points/query", `{"query":[1,2]}`, "Not found: Collection `no` doesn't exist!")
	f(404, "GET", "/collections/no", "", "Not found: Collection `no` doesn't exist!")
	f(404, "PATCH", "/collections/no", "{}", "Not found: Collection `no` doesn't exist!")
	f(404, "GET", "/collections/no/aliases", "", "Not found: Collection `no` doesn't exist!")
	f(409, "PUT", "/collections/c", `{"vectors":{"size":4,"distance":"Dot"}}`, "Wrong input: Collection `c` already exists!")
	f(422, "PUT", "/collections/a%2Fb", `{"vectors":{"size":4,"distance":"Dot"}}`,
		`Validation error in path parameters: [collection_name: "a/b" contains the forbidden character '/']`)
	f(422, "PUT", "/collections/d", `{"vectors":{"size":0,"distance":"Dot"}}`, "Validation error in JSON body: [vectors.size: value 0 invalid, must be from 1 to 65536]")
	f(400, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Near"}}`,
		`Format error in JSON body: vectors: distance: unknown distance "Near", expected one of Cosine, Euclid, Dot, Manhattan`)
	f(400, "PUT", "/collections/d", `{"vectors":{"size":4}}`, "Format error in JSON body: vectors: missing field `vectors.distance`")
	f(400, "PUT", "/collections/d", `{}`, "Format error in JSON body: missing field `vectors`")
	f(400, "PUT", "/collections/d", `{"vectors":{"a":{"size":4}}}`, "Format error in JSON body: vectors: missing field `vectors.a.distance`")
	f(400, "PUT", "/collections/d", `{"vectors":{"a":{"size":4,"distance":"Dot"}},"sparse_vectors":{"a":{"modifier":"idf"}}}`,
		`Wrong input: sparse_vectors: the name "a" is one of vectors too`)
	f(400, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Dot","datatype":"turbo4"}}`,
		`Bad request: vectors.datatype: expected float32, float16 or uint8, got "turbo4"`)
	f(400, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Dot"},"quantization_config":{"turbo":{}}}`,
		`Bad request: quantization_config: only scalar, binary and product are offered by this server, got "{\"turbo\":{}}"`)
	f(400, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Manhattan"},"quantization_config":{"binary":{}}}`,
		"Wrong input: quantization_config: binary codes do not estimate the distance Manhattan, use scalar or product")
	f(422, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Dot"},"hnsw_config":{"m":1}}`,
		"Validation error in JSON body: [hnsw_config.m: value 1 invalid, must be 0 for no graph, or from 2 to 64]")
	f(422, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Dot"},"shard_number":18446744073709551615}`,
		"Validation error in JSON body: [shard_number: value 18446744073709551615 invalid, must be at most 1099511627776]")
	f(400, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Dot"},"metadata":3}`, "Format error in JSON body: metadata: expected an object, got 3")
	f(400, "PATCH", "/collections/c", `{"hnsw_config":{"max_layers":3}}`, "Bad request: hnsw_config: max_layers of an existing collection cannot change")
	f(422, "PATCH", "/collections/c", `{"hnsw_config":{"ef_search":10001}}`, "Validation error in JSON body: [hnsw_config.ef_search: value 10001 invalid, must be from 0 to 10000]")
	f(422, "PATCH", "/collections/c", `{"hnsw_config":{"recall_target":1}}`,
		"Validation error in JSON body: [hnsw_config.recall_target: value 1 invalid, must be from 0.5 to 0.999]")
	f(422, "PUT", "/collections/d", `{"vectors":{"size":4,"distance":"Dot"},"hnsw_config":{"recall_target":0}}`,
		"Validation error in JSON body: [hnsw_config.recall_target: value 0 invalid, must be from 0.5 to 0.999]")
	f(409, "POST", "/collections/aliases", `{"actions":[{"create_alias":{"collection_name":"c","alias_name":"c"}}]}`, "Wrong input: Collection `c` already exists!")
	f(404, "POST", "/collections/aliases", `{"actions":[{"create_alias":{"collection_name":"no","alias_name":"x"}}]}`, "Not found: Collection `no` doesn't exist!")
	f(400, "POST", "/collections/aliases", `{"actions":[{}]}`, "Format error in JSON body: actions[0]: exactly one of create_alias, delete_alias, rename_alias must be given, got 0")
	f(422, "POST", "/collections/aliases", `{"actions":[{"delete_alias":{"alias_name":""}}]}`,
		"Validation error in JSON body: [actions[0]: collection_name: length 0 invalid, must be from 1 to 255]")

	// The body as such, parameters, routes.
	f(400, "PUT", c, `{"points":[{"id":1,"vector":[1,2]}`, "Format error in JSON body: points: unexpected EOF at byte 34")
	f(400, "PUT", c, `{"points":[]} trailing`, "Format error in JSON body: invalid character 't' after top-level value at byte 14")
	f(400, "PUT", c, `[]`, "Format error in JSON body: expected an object, got an array")
	f(400, "PUT", c, ``, "Format error in JSON body: the body is empty")
	f(400, "PUT", c, `{"points":[],"points":[]}`, "Format error in JSON body: points: duplicate object member name at byte 13")
	f(400, "PUT", c, "{\"points\":\"\xff\"}", "Format error in JSON body: points: invalid UTF-8 at byte 11")
	f(413, "PUT", c, `{"points":[]`+huge(33<<20)+"}", "Bad request: the body is larger than 33554432 bytes")
	f(400, "PUT", c+"?wait=maybe", `{}`, `Format error in query parameters: wait: expected true or false, got "maybe"`)
	f(400, "PUT", c+"?ordering=none", `{}`, `Format error in query parameters: ordering: expected weak, medium or strong, got "none"`)
	f(400, "POST", c+"?consistency=-1", `{}`, `Format error in query parameters: consistency: expected an integer, majority, quorum, all, linearizable, bounded, leader or session, got "-1"`)
	f(422, "POST", c+"?consistency=0", `{}`, "Validation error in query parameters: [consistency: value 0 invalid, must be 1 or larger]")
	f(400, "POST", c+"?timeout=soon", `{}`, `Format error in query parameters: timeout: expected a number of seconds, got "soon"`)
	f(422, "POST", c+"?timeout=0", `{}`, "Validation error in query parameters: [timeout: value 0 invalid, must be 1 or larger]")
	f(404, "GET", "/nothing", "", "Not found: no route GET /nothing")
	f(405, "PATCH", "/collections", "", "Bad request: method PATCH is not allowed here")
	f(405, "OPTIONS", "/collections", "", "Bad request: method OPTIONS is not allowed here")

	if _, after, _ := h.send("POST", c+"/scroll", strings.NewReader(`{"with_vector":true}`)); result(t, after) != result(t, before) {
		t.Errorf("a refused request changed something:\n got %s\nwant %s", after, before)
	}
}

func TestIdempotencyKey(t *testing.T) {
	h := withPoints(t, Options{})
	put := func(body, key string) (int, string) {
		status, answer, _ := h.send("PUT", "/collections/c/points", strings.NewReader(body), "Idempotency-Key", key)
		return status, result(t, answer)
	}
	const body = `{"points":[{"id":9,"vector":[1,2]}]}`
	status, first := put(body, "k")
	if status != 200 {
		t.Fatal(first)
	}
	if status, again := put(body, "k"); status != 200 || again != first {
		t.Errorf("the retry: %d %s, want %s", status, again, first)
	}
	if status, text := put(`{"points":[{"id":9,"vector":[1,3]}]}`, "k"); status != 400 || !strings.Contains(text, `Idempotency-Key "k"`) {
		t.Errorf("the same key with another body: %d %s", status, text)
	}
	if status, text := put(body, strings.Repeat("k", 256)); status != 400 || text != "Wrong input: Idempotency-Key: 256 bytes, at most 255 are accepted" {
		t.Errorf("a long key: %d %s", status, text)
	}
}

// rawRequest writes text to a new connection and returns the first answer to it.
func (h *harness) rawRequest(text string) *http.Response {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		h.t.Fatalf("no answer to %.80q: %v", text, err)
	}
	return resp
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRefusedWithoutTheBody sends headers only: an answer that waits for one byte of the body never comes.
func TestRefusedWithoutTheBody(t *testing.T) {
	h := start(t, model.New(), Options{APIKey: "secret", ReadOnlyAPIKey: "look", JWTRBAC: true, RequestTimeout: 20 * time.Second})
	bearer := func(c token.Claims) string { return "Authorization: Bearer " + signed(t, "secret", c) + "\r\n" }
	forged := "Authorization: Bearer " + signed(t, "guess", token.Claims{Access: token.Manage}) + "\r\n"
	expired := bearer(token.Claims{Access: token.Manage, Expires: time.Unix(1, 0)})
	revoked := bearer(token.Claims{Access: token.Manage, Exists: &token.Exists{Collection: "users", Matches: []token.Match{{Key: "a", Value: []byte("1")}}}})
	elsewhere := bearer(token.Claims{Collections: []token.Collection{{Name: "other", Access: token.Write}}})
	f := func(status int, header, want string) {
		t.Helper()
		resp := h.rawRequest("PUT /collections/c/points HTTP/1.1\r\nHost: x\r\n" + header + "\r\n\r\n")
		if got := readAll(t, resp.Body); resp.StatusCode != status || !strings.Contains(got, want) {
			t.Errorf("%q: %d %s, want %d %s", header, resp.StatusCode, got, status, want)
		}
		if !resp.Close {
			t.Errorf("%q: the connection stays open with the body on the wire", header)
		}
	}
	for _, length := range []string{"Content-Length: 5", "Content-Length: 30000000", "Transfer-Encoding: chunked",
		"Content-Length: 30000000\r\nExpect: 100-continue"} {
		f(401, length, "Must provide an API key or an Authorization bearer token")
		f(401, "api-key: wrong\r\n"+length, "Invalid API key or token")
		f(403, forged+length, "the token is not one that was signed")
		f(403, expired+length, "the token has expired")
		f(403, revoked+length, "the token is not valid any more")
	}
	// The key comes before the size: a stranger does not even learn the limit.
	for _, length := range []string{"Content-Length: 33554433", "Content-Length: 33554433\r\nExpect: 100-continue"} {
		f(401, length, "Must provide an API key or an Authorization bearer token")
		f(401, "api-key: wrong\r\n"+length, "Invalid API key or token")
		f(403, "api-key: look\r\n"+length, "Forbidden: the key does not permit to write")
		f(403, forged+length, "the token is not one that was signed")
		f(403, expired+length, "the token has expired")
		f(403, elsewhere+length, "Forbidden: the token does not permit to write collection `c`")
	}
	f(413, "api-key: secret\r\nContent-Length: 33554433", "the body is larger than 33554432 bytes")
	f(413, "api-key: secret\r\nContent-Length: 9000000000000000000\r\nExpect: 100-continue", "the body is larger than 33554432 bytes")
	f(403, "api-key: look\r\nTransfer-Encoding: chunked", "Forbidden: the key does not permit to write")
	f(403, elsewhere+"Transfer-Encoding: chunked", "Forbidden: the token does not permit to write collection `c`")
}

// TestRefusalReachesABusyClient checks that a client which is still sending gets the answer and not a reset.
func TestRefusalReachesABusyClient(t *testing.T) {
	h := start(t, model.New(), Options{APIKey: "secret", ReadOnlyAPIKey: "look"})
	body := bytes.Repeat([]byte(" "), 20<<20)
	for _, key := range []string{"wrong", "look"} {
		for range 3 {
			status, answer, _ := h.send("PUT", "/collections/c/points", bytes.NewReader(body), "api-key", key)
			if want := map[string]int{"wrong": 401, "look": 403}[key]; status != want {
				t.Errorf("key %q: %d %s, want %d", key, status, answer, want)
			}
		}
	}
}
