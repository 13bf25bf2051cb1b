package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
)

// roundTripper answers requests in the same goroutine, so that tests under synctest need no sockets.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

func newTestClient(t *testing.T, o Options, f roundTripper) *Client {
	t.Helper()
	o.HTTPClient = &http.Client{Transport: f}
	c, err := New("http://server.test/", o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const updated = `{"result":{"operation_id":7,"status":"completed"},"status":"ok","time":0}`

func TestRequests(t *testing.T) {
	var got string
	var reply string
	c := newTestClient(t, Options{APIKey: "secret"}, func(r *http.Request) (*http.Response, error) {
		var body []byte
		if r.Body != nil {
			body, _ = io.ReadAll(r.Body)
		}
		got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
		if r.Header.Get("api-key") != "secret" {
			t.Errorf("%s: no api-key", got)
		}
		if isWrite := r.Method == "PUT" || r.Method == "DELETE" || strings.Contains(r.URL.Path, "delete"); isWrite != (r.Header.Get("Idempotency-Key") != "") {
			t.Errorf("%s: Idempotency-Key %q", got, r.Header.Get("Idempotency-Key"))
		}
		return answer(200, reply), nil
	})
	ctx := t.Context()
	id := vectord.UUIDID([16]byte{15: 1})
	city := &vectord.Filter{Must: []vectord.Condition{{Field: &vectord.FieldCondition{Key: "city",
		Match: &vectord.Match{Value: &vectord.Scalar{Kind: vectord.ScalarString, String: "Oslo"}}}}}}
	threshold := float32(0.25)

	f := func(name, wantRequest, replyWith string, call func() (any, error), want any) {
		t.Helper()
		reply = replyWith
		result, err := call()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got != wantRequest {
			t.Errorf("%s sent\n\t%s, want\n\t%s", name, got, wantRequest)
		}
		if !reflect.DeepEqual(result, want) {
			t.Errorf("%s = %+v, want %+v", name, result, want)
		}
	}
	f("upsert", `PUT /collections/a%20b/points?wait=true {"points":[{"id":18446744073709551615,"vector":[0.1,-2e-07],"payload":{"n":1.0}},{"id":"00000000-0000-0000-0000-000000000001","vector":[1,2]}]}`, updated,
		func() (any, error) {
			return c.Upsert(ctx, "a b", []vectord.Point{
				{ID: vectord.NumberID(math.MaxUint64), Vectors: vectord.Unnamed([]float32{0.1, -2e-7}), Payload: []byte(`{"n":1.0}`)},
				{ID: id, Vectors: vectord.Unnamed([]float32{1, 2})},
			}, vectord.WriteOptions{})
		}, vectord.UpdateResult{OperationID: 7})
	f("delete", `POST /collections/c/points/delete?wait=true {"points":[3,4]}`, updated,
		func() (any, error) {
			return c.Delete(ctx, "c", []vectord.PointID{vectord.NumberID(3), vectord.NumberID(4)}, vectord.WriteOptions{})
		}, vectord.UpdateResult{OperationID: 7})
	f("delete matching", `POST /collections/c/points/delete?wait=true {"filter":{"must":[{"key":"city","match":{"value":"Oslo"}}]}}`, updated,
		func() (any, error) { return c.DeleteMatching(ctx, "c", city, vectord.WriteOptions{}) }, vectord.UpdateResult{OperationID: 7})
	f("query", `POST /collections/c/points/query {"limit":3,"query":[1,0],"offset":2,"score_threshold":0.25,"params":{"exact":false,"indexed_only":false,"hnsw_ef":64},"filter":{"must":[{"key":"city","match":{"value":"Oslo"}}]},"with_vector":true,"with_payload":{"include":["n"]}}`,
		`{"result":{"points":[{"id":5,"version":9,"score":0.5,"vector":[1,0],"payload":{"n":1}},{"id":6,"version":9,"score":0.25,"payload":null}]}}`,
		func() (any, error) {
			return c.Query(ctx, "c", vectord.Query{Nearest: vectord.Near([]float32{1, 0}), Filter: city, Limit: 3, Offset: 2, ScoreThreshold: &threshold,
				Params: vectord.SearchParams{HNSWEf: 64}, Select: vectord.Selection{Vectors: true, Payload: true, Include: []string{"n"}}})
		}, []vectord.Hit{
			{Record: vectord.Record{ID: vectord.NumberID(5), Version: 9, Vectors: vectord.Unnamed([]float32{1, 0}), Payload: []byte(`{"n":1}`)}, Score: 0.5},
			{Record: vectord.Record{ID: vectord.NumberID(6), Version: 9}, Score: 0.25},
		})
	f("query by id", `POST /collections/c/points/query {"limit":1,"query":"00000000-0000-0000-0000-000000000001","with_vector":false,"with_payload":false}`,
		`{"result":{"points":[]}}`,
		func() (any, error) {
			return c.Query(ctx, "c", vectord.Query{Nearest: &vectord.Example{ID: &id}, Limit: 1})
		}, []vectord.Hit{})
	document := vectord.Vector{Kind: vectord.TextVector, Text: &vectord.Document{Text: `a "b"`, Model: "m", Options: []byte(`{"k":1}`)}}
	f("fused query", `POST /collections/c/points/query {"limit":2,"query":{"rrf":{"k":60,"weights":[0.5,2]}},"prefetch":[`+
		`{"limit":20,"query":[1,0],"using":"d","params":{"exact":true,"indexed_only":false}},`+
		`{"limit":9,"query":{"fusion":"dbsf"},"prefetch":[{"limit":8,"query":{"text":"a \"b\"","model":"m","options":{"k":1}},"using":"s"}]}],"with_vector":false,"with_payload":false}`,
		`{"result":{"points":[]}}`,
		func() (any, error) {
			return c.Query(ctx, "c", vectord.Query{Fusion: &vectord.Fusion{K: 60, Weights: []float32{0.5, 2}}, Limit: 2, Prefetch: []vectord.Query{
				{Nearest: vectord.Near([]float32{1, 0}), Using: "d", Limit: 20, Params: vectord.SearchParams{Exact: true}},
				{Fusion: &vectord.Fusion{Method: vectord.DistributionScore}, Limit: 9, Prefetch: []vectord.Query{
					{Nearest: &vectord.Example{Vector: document}, Using: "s", Limit: 8}}}}})
		}, []vectord.Hit{})
	f("count", `POST /collections/c/points/count {"exact":true}`, `{"result":{"count":12}}`,
		func() (any, error) { return c.Count(ctx, "c", nil) }, 12)
	next := vectord.NumberID(18446744073709551614)
	f("scroll", `POST /collections/c/points/scroll {"limit":1,"offset":"00000000-0000-0000-0000-000000000001","with_vector":false,"with_payload":{"exclude":["x"]}}`,
		`{"result":{"points":[{"id":1}],"next_page_offset":18446744073709551614}}`,
		func() (any, error) {
			return c.Scroll(ctx, "c", vectord.ScrollRequest{Offset: &id, Limit: 1, Select: vectord.Selection{Payload: true, Exclude: []string{"x"}}})
		}, vectord.ScrollPage{Points: []vectord.Record{{ID: vectord.NumberID(1)}}, Next: &next})
	f("last page", `POST /collections/c/points/scroll {"limit":1,"with_vector":false,"with_payload":false}`,
		`{"result":{"points":[],"next_page_offset":null}}`,
		func() (any, error) { return c.Scroll(ctx, "c", vectord.ScrollRequest{Limit: 1}) },
		vectord.ScrollPage{Points: []vectord.Record{}})
	f("retrieve", `POST /collections/c/points {"ids":[2],"with_vector":true,"with_payload":true}`,
		`{"result":[{"id":2,"vector":[0.5],"payload":{"a":9007199254740993}}]}`,
		func() (any, error) {
			return c.Retrieve(ctx, "c", []vectord.PointID{vectord.NumberID(2)}, vectord.Selection{Vectors: true, Payload: true})
		}, []vectord.Record{{ID: vectord.NumberID(2), Vectors: vectord.Unnamed([]float32{0.5}), Payload: []byte(`{"a":9007199254740993}`)}})
	f("delete collection", `DELETE /collections/c `, `{"result":false}`,
		func() (any, error) { return c.DeleteCollection(ctx, "c") }, false)
	config, ratio := vectord.DefaultCollectionConfig(2, vectord.Euclid), 0.97
	f("collection", `GET /collections/c `,
		`{"result":{"status":"yellow","points_count":3,"indexed_vectors_count":2,"config":{"params":{"vectors":{"size":2,"distance":"Euclid"}}},
			"recall":{"ef":64,"ratio":0.97,"queries":300}}}`,
		func() (any, error) { return c.Collection(ctx, "c") },
		vectord.CollectionInfo{Status: vectord.StatusYellow, Points: 3, IndexedVectors: 2, Config: vectord.CollectionConfig{
			Params: vectord.CollectionParams{Vectors: config.Params.Vectors}}, Recall: map[string]vectord.RecallState{"": {Ef: 64, Ratio: &ratio, Queries: 300}}})
	f("create", `PUT /collections/c {"vectors":{"size":2,"distance":"Euclid"},"shard_number":1,"hnsw_config":{"m":16,"ef_construct":200,"ef_search":0,"recall_target":0.95,"max_layers":5,"full_scan_threshold":10000,"max_indexing_threads":0,"on_disk":false},"optimizers_config":{"indexing_threshold":10000}}`,
		`{"result":true}`, func() (any, error) { return nil, c.CreateCollection(ctx, "c", config) }, nil)
}

func TestRefusedBeforeSending(t *testing.T) {
	c := newTestClient(t, Options{}, func(r *http.Request) (*http.Response, error) {
		t.Errorf("sent %s %s", r.Method, r.URL)
		return answer(200, updated), nil
	})
	ctx := t.Context()
	f := func(name, want string, call func() error) {
		t.Helper()
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", name, err, want)
		}
	}
	f("NaN", "component 1 of the vector is NaN", func() error {
		_, err := c.Upsert(ctx, "c", []vectord.Point{{Vectors: vectord.Unnamed([]float32{0, float32(math.NaN())})}}, vectord.WriteOptions{})
		return err
	})
	f("infinite query", "component 0 of the vector is +Inf", func() error {
		_, err := c.Query(ctx, "c", vectord.Query{Nearest: vectord.Near([]float32{float32(math.Inf(1))})})
		return err
	})
	f("infinite weight", "weights: component 0 of the vector is +Inf", func() error {
		_, err := c.Query(ctx, "c", vectord.Query{Fusion: &vectord.Fusion{Weights: []float32{float32(math.Inf(1))}}})
		return err
	})
	f("a query that cannot be sent", "prefetch 0: query: only nearest and fusion", func() error {
		_, err := c.Query(ctx, "c", vectord.Query{Fusion: &vectord.Fusion{}, Prefetch: []vectord.Query{{Sample: true}}})
		return err
	})
	f("delete everything", "would select every point", func() error {
		_, err := c.DeleteMatching(ctx, "c", &vectord.Filter{}, vectord.WriteOptions{})
		return err
	})
	f("include and exclude", "both given", func() error {
		_, err := c.Retrieve(ctx, "c", nil, vectord.Selection{Include: []string{"a"}, Exclude: []string{"b"}})
		return err
	})
	f("dimension", "vectors.size", func() error {
		return c.CreateCollection(ctx, "c", vectord.DefaultCollectionConfig(0, vectord.Cosine))
	})
}

func TestNewRefuses(t *testing.T) {
	f := func(url string) {
		t.Helper()
		if _, err := New(url, Options{}); err == nil {
			t.Errorf("New(%q) succeeded", url)
		}
	}
	f("")
	f("127.0.0.1:6333")
	f("ftp://host")
	f("http://")
	f("http://host/?a=b")
	f("http://host\x00")
}

// TestRetries checks that refusals which pass are retried under one key, after the pause asked for, and no others.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := func(name string, wantAttempts int, atLeast time.Duration, wantErr bool, answers ...func() (*http.Response, error)) {
			t.Helper()
			keys := map[string]bool{}
			attempts := 0
			c := newTestClient(t, Options{Attempts: 4}, func(r *http.Request) (*http.Response, error) {
				body, _ := io.ReadAll(r.Body)
				if !json.Valid(body) {
					t.Errorf("%s: attempt %d sent the body %q", name, attempts, body)
				}
				keys[r.Header.Get("Idempotency-Key")] = true
				attempts++
				return answers[min(attempts, len(answers))-1]()
			})
			begin := time.Now()
			_, err := c.Upsert(context.Background(), "c", []vectord.Point{{Vectors: vectord.Unnamed([]float32{1})}}, vectord.WriteOptions{})
			if (err != nil) != wantErr {
				t.Errorf("%s: error %v", name, err)
			}
			if attempts != wantAttempts || len(keys) != 1 {
				t.Errorf("%s: %d attempts under %d keys, want %d under 1", name, attempts, len(keys), wantAttempts)
			}
			if d := time.Since(begin); d < atLeast || d > atLeast+3*backoffMax {
				t.Errorf("%s: took %v, want at least %v and not much more", name, d, atLeast)
			}
		}
		ok := func() (*http.Response, error) { return answer(200, updated), nil }
		status := func(code int, header ...string) func() (*http.Response, error) {
			return func() (*http.Response, error) { return answer(code, `{"status":{"error":"no"}}`, header...), nil }
		}
		broken := func() (*http.Response, error) { return nil, errors.New("connection reset") }

		f("at once", 1, 0, false, ok)
		f("busy twice", 3, backoffFirst/2, false, status(429), status(503), ok)
		f("comes back when told", 2, 3*time.Second, false, status(429, "Retry-After", "3"), ok)
		f("asked to wait for ever", 2, retryAfterMax, false, status(503, "Retry-After", "999999"), ok)
		f("connection lost", 2, backoffFirst/2, false, broken, ok)
		f("busy for ever", 4, 0, true, status(429))
		f("a bad request stays bad", 1, 0, true, status(400))
		f("an internal error may have had its effect", 1, 0, true, status(500))
	})
}

func TestRetryEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c := newTestClient(t, Options{}, func(*http.Request) (*http.Response, error) {
			return answer(429, "busy", "Retry-After", "20"), nil
		})
		begin := time.Now()
		_, err := c.Count(ctx, "c", nil)
		if !errors.Is(err, context.DeadlineExceeded) || StatusOf(err) != 429 {
			t.Errorf("error %v, want both the deadline and the last refusal", err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("returned after %v", d)
		}
	})
}

func TestErrorText(t *testing.T) {
	f := func(status int, body, want string) {
		t.Helper()
		c := newTestClient(t, Options{Attempts: 1}, func(*http.Request) (*http.Response, error) { return answer(status, body), nil })
		_, err := c.Count(t.Context(), "c", nil)
		var e *Error
		if !errors.As(err, &e) || e.Status != status || e.Text != want {
			t.Errorf("answer %d %q gives %v", status, body, err)
		}
	}
	f(404, `{"status":{"error":"Not found: Collection `+"`c`"+` doesn't exist!"},"time":0.1}`, "Not found: Collection `c` doesn't exist!")
	f(401, "Must provide an API key\n", "Must provide an API key")
	f(502, strings.Repeat("x", 5000), strings.Repeat("x", errorTextMax)+"…")
	f(500, "\xff\xfe", "�")

	c := newTestClient(t, Options{}, func(*http.Request) (*http.Response, error) { return answer(200, `{"result":{"count":"x"}}`), nil })
	if _, err := c.Count(t.Context(), "c", nil); err == nil || !errors.Is(err, errResponse) {
		t.Errorf("an answer of the wrong shape gives %v", err)
	}
}

// TestConnectionsAreKept drives a real server and counts connections: each of two sequential callers needs one.
func TestConnectionsAreKept(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"result":{"count":1}}`)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	c, err := New(server.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if n, err := c.Count(t.Context(), "c", nil); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for sequential calls", n)
	}
}

func FuzzParseVector(f *testing.F) {
	for _, seed := range []string{"[]", "[1,2.5,-3e-7]", " [ 1 , 2 ] ", "[1,null]", "[01]", "[+1]", "[.5]", "[5.]", "[1e400]", "[1,]", "[1", "[NaN]", "[0x1p-2]", "[1_0]", "[-0]", "[1] x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseVector(nil, b)
		var pointers []*float32 // tell null from 0
		want := json.Unmarshal(b, &pointers)
		ok := want == nil && pointers != nil
		for _, p := range pointers {
			ok = ok && p != nil
		}
		if ok != (err == nil) {
			t.Fatalf("ParseVector(%q): %v; encoding/json: %v", b, err, want)
		}
		if !ok {
			return
		}
		for i, p := range pointers {
			if got[i] != *p {
				t.Fatalf("ParseVector(%q)[%d] = %v, encoding/json has %v", b, i, got[i], *p)
			}
		}
		again, err := ParseVector(nil, AppendVector(nil, got))
		if err != nil || len(again) != len(got) {
			t.Fatalf("round trip of %v: %v, %v", got, again, err)
		}
		for i := range again {
			if math.Float32bits(again[i]) != math.Float32bits(got[i]) {
				t.Fatalf("component %d of %v came back as %v", i, got, again[i])
			}
		}
	})
}

func BenchmarkAppendPoint(b *testing.B) {
	v := make([]float32, 100)
	for i := range v {
		v[i] = float32(math.Sin(float64(i)))
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendPoint(dst[:0], vectord.Point{ID: vectord.NumberID(7), Vectors: vectord.Unnamed(v)})
	}
}
