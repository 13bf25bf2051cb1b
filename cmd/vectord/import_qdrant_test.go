package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// gate stands before a server and, after a number of pages of points, lets nothing more of them through.
type gate struct {
	url    string
	pages  atomic.Int64 // asked for
	closed atomic.Int64 // from this page on, 0 for never
}

func newGate(t *testing.T, target string) *gate {
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	g, proxy, release := &gate{}, httputil.NewSingleHostReverseProxy(u), make(chan struct{})
	proxy.ErrorLog = nil
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/scroll") {
			if n, closed := g.pages.Add(1), g.closed.Load(); closed > 0 && n >= closed {
				<-release
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	g.url = server.URL
	return g
}

// ask makes a request that must succeed and returns its result.
func ask(t *testing.T, method, url, body string, header ...string) string {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	var envelope struct{ Result json.RawMessage }
	if err == nil {
		err = json.Unmarshal(answer, &envelope)
	}
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s %s: %d %s (%v)", method, url, resp.StatusCode, answer, err)
	}
	return string(envelope.Result)
}

// fill makes collections with every kind of vectors, settings, ids and payloads.
func fill(t *testing.T, url string, rng *rand.Rand, points int) {
	t.Helper()
	ask(t, "PUT", url+"/collections/plain", `{"vectors":{"size":4,"distance":"Cosine"},"hnsw_config":{"m":24,"recall_target":0.9},"quantization_config":"Disabled",
		"metadata":{"owner":"me"},"shard_number":2}`)
	ask(t, "PUT", url+"/collections/many%20kinds", `{"vectors":{"":{"size":3,"distance":"Dot"},"image":{"size":2,"distance":"Euclid","hnsw_config":{"m":8},"datatype":"float16"},
		"rows":{"size":2,"distance":"Manhattan","multivector_config":{"comparator":"max_sim"}}},"sparse_vectors":{"words":{"modifier":"idf"}},
		"strict_mode_config":{"enabled":true,"max_query_limit":60}}`)
	ask(t, "PUT", url+"/collections/only-sparse", `{"sparse_vectors":{"words":{}}}`)
	ask(t, "PUT", url+"/collections/empty", `{"vectors":{"size":1,"distance":"Dot"}}`)
	ask(t, "PUT", url+"/collections/plain/index?wait=true", `{"field_name":"n","field_schema":"integer"}`)
	ask(t, "PUT", url+"/collections/plain/index?wait=true", `{"field_name":"text","field_schema":{"type":"text","tokenizer":"word","lowercase":true}}`)
	ask(t, "POST", url+"/collections/aliases", `{"actions":[{"create_alias":{"collection_name":"plain","alias_name":"production"}}]}`)

	var body bytes.Buffer
	write := func(collection string, point func(i int) string) {
		t.Helper()
		for first := 0; first < points; first += 500 {
			body.Reset()
			for i := first; i < min(first+500, points); i++ {
				fmt.Fprintf(&body, "%s%s", map[bool]string{true: `{"points":[`, false: ","}[i == first], point(i))
			}
			ask(t, "PUT", url+"/collections/"+collection+"/points", body.String()+"]}")
		}
	}
	id := func(i int) string {
		if i%3 == 0 {
			return fmt.Sprintf(`"%08x-0000-4000-8000-%012x"`, rng.Uint32(), i)
		}
		return fmt.Sprint(1<<64 - 1 - uint64(i)*12345)
	}
	write("plain", func(i int) string {
		payload := []string{`null`, `{}`, `{"n":9007199254740993,"f":1.0,"deep":{"a":[null,{"b":"ü \u0000"}]}}`, `{"text":"some words","n":[1,2]}`}[i%4]
		return fmt.Sprintf(`{"id":%s,"vector":[%v,%v,0.25,-1e-7],"payload":%s}`, id(i), rng.Float32(), rng.Float32()-.5, payload)
	})
	write("many%20kinds", func(i int) string {
		vector := []string{`{}`, `[1,2,3]`, `{"":[0.1,0.2,0.3],"image":[1.5,-2]}`, `{"rows":[[1,2],[3,4],[0.5,0]],"words":{"indices":[4294967295,7],"values":[0.125,-1]}}`,
			`{"words":{"indices":[],"values":[]},"image":[0,0]}`}[i%5]
		return fmt.Sprintf(`{"id":%s,"vector":%s,"expires_at":"2099-01-01T00:00:00.5Z"}`, id(i), vector)
	})
	write("only-sparse", func(i int) string {
		return fmt.Sprintf(`{"id":%d,"vector":{"words":{"indices":[%d],"values":[1]}}}`, i, i)
	})
}

// TestMigration copies all of one server to another one, killed in the middle and interrupted once more.
func TestMigration(t *testing.T) {
	const points = 1200
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	t.Chdir(t.TempDir())
	from := start(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--grpc", "", "--tcp", "", "--memory-limit", "256MiB").url()
	to := start(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--grpc", "", "--tcp", "", "--memory-limit", "256MiB", "--api-key", "secret").url()
	fill(t, from, rng, points)
	g := newGate(t, from)
	args := []string{"import", "--from-qdrant", g.url, "--url", to, "--api-key", "secret", "--batch", "100"}

	until := func(p *process, what string, reached func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !reached(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s:\n%s", what, p.output())
			}
		}
	}
	stuck := func() bool { return g.pages.Load() >= g.closed.Load() }
	const pages, killedAt, interruptedAt = 1 + 2*points/100 + points/60, 9, 40 // all that there are, and two in the middle of a collection
	g.closed.Store(killedAt)
	p := start(t, args...)
	until(p, "the migration does not proceed", stuck)
	p.cmd.Process.Kill()
	p.wait(10 * time.Second)

	if code, _, stderr := invoke(t, nil, args...); code != exitError || !strings.Contains(stderr, "remove it to start over") {
		t.Errorf("starting over: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := invoke(t, nil, append(args, "--resume", "--collection", "plain")...); code != exitError || !strings.Contains(stderr, "of other collections") {
		t.Errorf("going on with another one: exit code %d: %s", code, stderr)
	}
	g.pages.Store(0)
	g.closed.Store(interruptedAt)
	p = start(t, append(args, "--resume")...)
	until(p, "the migration does not go on", stuck)
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.wait(10 * time.Second); code != exitInterrupted || !strings.Contains(p.output(), "--resume goes on") {
		t.Fatalf("exit code %d:\n%s", code, p.output())
	}
	g.pages.Store(0)
	g.closed.Store(0)
	code, stdout, stderr := invoke(t, nil, append(args, "--resume")...)
	for _, want := range []string{`collection "empty"`, `collection "many kinds": 1200 points`,
		`collection "only-sparse": 1200 points`, `collection "plain": 1200 points copied, counts agree, 100 of them compared`, "1 aliases"} {
		if code != exitOK || !strings.Contains(stdout, want) {
			t.Fatalf("exit code %d, lacks %q: %s%s", code, want, stdout, stderr)
		}
	}
	if n := g.pages.Load(); n > pages-interruptedAt+3 {
		t.Errorf("after the interruption at page %d of %d, %d more were read", interruptedAt, pages, n)
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 0 {
		t.Errorf("a complete migration left %v behind (%v)", left, err)
	}

	key := []string{"api-key", "secret"}
	same := func(method, path, body string, got func(string) any) {
		t.Helper()
		a, b := got(ask(t, method, from+path, body)), got(ask(t, method, to+path, body, key...))
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s %s:\n got %.2000v\nwant %.2000v", method, path, b, a)
		}
	}
	whole := func(s string) any { return s }
	settings := func(s string) any {
		var info struct {
			Points        int `json:"points_count"`
			Config        any
			PayloadSchema any `json:"payload_schema"`
		}
		if err := json.Unmarshal([]byte(s), &info); err != nil {
			t.Fatal(err)
		}
		return info
	}
	same("GET", "/collections", "", whole)
	same("GET", "/aliases", "", whole)
	for _, name := range []string{"plain", "many%20kinds", "only-sparse", "empty"} {
		same("GET", "/collections/"+name, "", settings)
		for url, header := range map[string][]string{from: nil, to: key} { // so that all can be asked for at once
			ask(t, "PATCH", url+"/collections/"+name, `{"strict_mode_config":{"enabled":false}}`, header...)
		}
		if name != "plain" { // whose vectors are normalized once more
			same("POST", "/collections/"+name+"/points/scroll", `{"limit":10000,"with_vector":true}`, whole)
		}
	}
	same("POST", "/collections/plain/points/scroll", `{"limit":10000,"with_vector":false}`, whole)
}

// TestMigrationRefuses checks what a migration finds at its end, and what it does not begin.
func TestMigrationRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	from := start(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--grpc", "", "--tcp", "", "--memory-limit", "256MiB").url()
	to := start(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--grpc", "", "--tcp", "", "--memory-limit", "256MiB").url()
	ask(t, "PUT", from+"/collections/c", `{"vectors":{"size":1,"distance":"Dot"}}`)
	ask(t, "PUT", from+"/collections/c/points", `{"points":[{"id":1,"vector":[1]},{"id":2,"vector":[2],"payload":{"a":1}}]}`)
	ask(t, "PUT", to+"/collections/c", `{"vectors":{"size":1,"distance":"Dot"}}`)
	f := func(want string, wantCode int, args ...string) {
		t.Helper()
		code, stdout, stderr := invoke(t, nil, append([]string{"import", "--url", to}, args...)...)
		if code != wantCode || !strings.Contains(stdout+stderr, want) {
			t.Errorf("%q: exit code %d, output lacks %q: %s%s", args, code, want, stdout, stderr)
		}
	}
	f("cannot be given together", exitUsage, "--from-qdrant", from, "a.npy")
	f("cannot be given together", exitUsage, "--from-qdrant", from, "--create")
	f("--from-qdrant: server URL", exitError, "--from-qdrant", "localhost:6333")
	f("was interrupted in this directory", exitError, "--from-qdrant", from, "--resume")
	f(`has no collection "d"`, exitError, "--from-qdrant", from, "--collection", "d")
	f(`or --from-qdrant`, exitUsage)

	// A target that loses or changes what is written to it is found out.
	behind, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	var from1, to1 string
	proxy := httputil.NewSingleHostReverseProxy(behind)
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/points") && r.Method == "PUT" {
			body, _ := io.ReadAll(r.Body)
			changed := strings.Replace(string(body), from1, to1, 1)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(changed)), int64(len(changed))
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(liar.Close)
	for _, c := range []struct{ from, to, want string }{
		{`"id":2`, `"id":1`, "is given twice"},
		{`"id":2`, `"id":3`, "is missing in the target"},
		{`"payload":{"a":1}`, `"payload":{"a":2}`, "the payload is"},
		{`"vector":[2]`, `"vector":[2.001]`, "the vector is"},
		{`,{"id":2,"vector":[2],"payload":{"a":1}}`, ``, "the target has 1 points, the source 2"},
	} {
		from1, to1 = c.from, c.to
		if left, err := filepath.Glob("*" + importStateSuffix); err != nil || len(left) > 1 || len(left) == 1 && os.Remove(left[0]) != nil {
			t.Fatal(left, err)
		}
		ask(t, "DELETE", to+"/collections/c", "")
		f(c.want, exitError, "--from-qdrant", from, "--url", liar.URL)
	}
	if err := os.Remove(strings.Replace(strings.TrimPrefix(from, "http://"), ":", "_", 1) + importStateSuffix); err != nil {
		t.Fatal(err)
	}
	from1, to1 = "-", "-"
	ask(t, "DELETE", to+"/collections/c", "")
	ask(t, "PUT", to+"/collections/c", `{"vectors":{"size":1,"distance":"Dot"},"hnsw_config":{"m":5}}`)
	f("2 points copied, counts agree, 2 of them compared", exitOK, "--from-qdrant", from, "--collection", "c") // an empty one is used
	f("the target has it already, with 2 points", exitError, "--from-qdrant", from)
}

// qdrantInfo is a collection as Qdrant describes it, with what vectord does not know and with nulls where nothing was set.
const qdrantInfo = `{"status":"green","optimizer_status":"ok","indexed_vectors_count":0,"points_count":3,"segments_count":8,"config":{"params":{
	"vectors":{"image":{"size":2,"distance":"Cosine","hnsw_config":{"m":32,"payload_m":16,"inline_storage":false},"on_disk":true}},"shard_number":2,
	"sharding_method":"custom","replication_factor":3,"write_consistency_factor":2,"read_fan_out_factor":null,"on_disk_payload":true,
	"sparse_vectors":{"words":{"index":{"full_scan_threshold":500,"on_disk":false},"modifier":"idf"}}},
	"hnsw_config":{"m":12,"ef_construct":64,"full_scan_threshold":9000,"max_indexing_threads":0,"on_disk":false,"payload_m":null},
	"optimizer_config":{"deleted_threshold":0.3,"vacuum_min_vector_number":1000,"default_segment_number":0,"max_segment_size":null,"memmap_threshold":null,
		"indexing_threshold":20000,"flush_interval_sec":5,"max_optimization_threads":null},
	"wal_config":{"wal_capacity_mb":32,"wal_segments_ahead":0,"wal_retain_closed":1},"quantization_config":null,
	"strict_mode_config":{"enabled":true,"upsert_max_batchsize":1},"metadata":null},
	"payload_schema":{"tag":{"data_type":"keyword","params":{"type":"keyword","is_tenant":true,"on_disk":true},"points":2},"at":{"data_type":"datetime","points":1}}}`

// TestMigrationFromQdrant reads what Qdrant answers: a stand-in for it that has one collection.
func TestMigrationFromQdrant(t *testing.T) {
	t.Chdir(t.TempDir())
	const points = `{"id":1,"payload":null,"shard_key":"a","vector":{"image":[0.6,0.8]}},{"id":2,"payload":{"tag":"x"},"shard_key":"b","vector":{}},
		{"id":"550e8400-e29b-41d4-a716-446655440000","payload":{"tag":["y"],"at":"2026-08-04T00:00:00Z"},"shard_key":"a",
			"vector":{"words":{"indices":[3,9],"values":[0.5,2.0]},"image":[1.0,0.0]}}`
	qdrant := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result := map[string]string{
			"GET /collections": `{"collections":[{"name":"shop"}]}`, "GET /collections/shop": qdrantInfo, "GET /aliases": `{"aliases":[]}`,
			"POST /collections/shop/points/scroll": `{"points":[` + points + `],"next_page_offset":null}`,
			"POST /collections/shop/points":        `[` + points + `]`, "POST /collections/shop/points/count": `{"count":3}`,
		}[r.Method+" "+r.URL.Path]
		if result == "" || r.Header.Get("api-key") != "old" {
			t.Errorf("asked for %s %s with key %q", r.Method, r.URL, r.Header.Get("api-key"))
			w.WriteHeader(404)
			return
		}
		io.WriteString(w, `{"result":`+result+`,"status":"ok","time":0.1}`)
	}))
	t.Cleanup(qdrant.Close)
	to := start(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--grpc", "", "--tcp", "", "--memory-limit", "256MiB").url()
	code, stdout, stderr := invoke(t, []string{"VECTORD_FROM_API_KEY=old"}, "import", "--from-qdrant", qdrant.URL, "--url", to)
	if want := `collection "shop": 3 points copied, counts agree, 3 of them compared`; code != exitOK || !strings.Contains(stdout, want) ||
		!strings.Contains(stderr, "shard keys, which are not taken over") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	info := ask(t, "GET", to+"/collections/shop", "")
	for _, want := range []string{`"image":{"size":2,"distance":"Cosine","on_disk":true,"hnsw_config":{"m":32}}`, `"modifier":"idf"`, `"shard_number":2`, `"m":12,"ef_construct":64`,
		`"recall_target":0.95`, `"indexing_threshold":20000`, `"quantization_config":{"scalar":{"type":"int8"}}`, `"upsert_max_batchsize":1`, `"at":{"data_type":"datetime","points":1}`,
		`"is_tenant":true`} {
		if !strings.Contains(info, want) {
			t.Errorf("the copy lacks %s: %s", want, info)
		}
	}
}

func TestSameNumber(t *testing.T) {
	f := func(a, b json.Number, same, near bool) {
		t.Helper()
		if sameNumber(a, b) != same || closeNumber(a, b) != near {
			t.Errorf("%s and %s: same %t, close %t", a, b, sameNumber(a, b), closeNumber(a, b))
		}
	}
	f("1", "1", true, true)
	f("9007199254740993", "9007199254740992", false, true)
	f("1", "1.0", true, true)
	f("1e2", "100.0", true, true)
	f("0.1", "0.100001", false, true)
	f("0.1", "0.1001", false, false)
	f("100", "100.0005", false, true)
}
