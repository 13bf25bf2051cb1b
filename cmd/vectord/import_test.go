package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
)

// keeper is a stand-in for a server that keeps the points of one collection.
type keeper struct {
	mu      sync.Mutex // guards what follows
	config  *vectord.VectorParams
	points  map[vectord.PointID]string // payloads
	writes  int                        // points received, repeated ones too
	freeze  int                        // points after which upserts are not answered any more, 0 for never
	release chan struct{}
}

func newKeeper(t *testing.T) (*keeper, string) {
	k := &keeper{points: make(map[vectord.PointID]string), release: make(chan struct{})}
	server := httptest.NewServer(k)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(k.release) })
	return k, server.URL
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case r.Method == "GET" && k.config == nil:
		w.WriteHeader(404)
		io.WriteString(w, `{"status":{"error":"Not found: Collection doesn't exist!"}}`)
	case r.Method == "GET":
		json.NewEncoder(w).Encode(map[string]any{"result": map[string]any{"config": map[string]any{"params": map[string]any{"vectors": k.config}}}})
	case strings.HasSuffix(r.URL.Path, "/points"):
		var upsert struct {
			Points []struct {
				ID      vectord.PointID
				Payload json.RawMessage
			}
		}
		if json.Unmarshal(body, &upsert) != nil {
			w.WriteHeader(400)
			return
		}
		if k.freeze > 0 && k.writes >= k.freeze {
			k.mu.Unlock()
			<-k.release
			k.mu.Lock()
			return
		}
		k.writes += len(upsert.Points)
		for _, p := range upsert.Points {
			k.points[p.ID] = string(p.Payload)
		}
		io.WriteString(w, `{"result":{"operation_id":1}}`)
	default:
		var create struct{ Vectors vectord.VectorParams }
		json.Unmarshal(body, &create)
		k.config = &create.Vectors
		io.WriteString(w, `{"result":true}`)
	}
}

// writeRows writes n vectors of two components as fvecs.
func writeRows(t *testing.T, path string, n int) string {
	t.Helper()
	var b []byte
	for i := range n {
		b = dataset.AppendFVec(b, []float32{float32(i), 1})
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	k, url := newKeeper(t)
	one, two := writeRows(t, filepath.Join(dir, "one.fvecs"), 10), writeRows(t, filepath.Join(dir, "two.fvecs"), 5)
	lines := filepath.Join(dir, "lines.txt")
	if err := os.WriteFile(lines, []byte(strings.Repeat("a \"word\"\n", 15)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := invoke(t, nil, "import", one, two, "--url", url, "--collection", "c", "--create", "--distance", "euclid", "--batch", "4",
		"--first-id", "100", "--lines", lines, "--lines-field", "word")
	if code != exitOK || !strings.Contains(stdout, "15 points in collection") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if k.config.Size != 2 || k.config.Distance != vectord.Euclid || len(k.points) != 15 {
		t.Errorf("created %+v with %d points", k.config, len(k.points))
	}
	for i := range uint64(15) {
		if payload, ok := k.points[vectord.NumberID(100+i)]; !ok || payload != `{"word":"a \"word\""}` {
			t.Errorf("point %d: %t, payload %s", 100+i, ok, payload)
		}
	}
	if _, err := os.Stat(one + importStateSuffix); err == nil {
		t.Error("a complete import left its progress behind")
	}

	short := filepath.Join(dir, "short.txt")
	long := filepath.Join(dir, "long.txt")
	os.WriteFile(short, []byte("a\nb\n"), 0o600)
	os.WriteFile(long, []byte(strings.Repeat("x\n", 11)), 0o600)
	points := filepath.Join(dir, "points.jsonl")
	os.WriteFile(points, []byte(`{"id":1,"vector":[1,2],"payload":{"a":1}}`), 0o600)
	wide := filepath.Join(dir, "wide.jsonl")
	os.WriteFile(wide, []byte(`{"id":1,"vector":[1,2,3]}`), 0o600)
	empty := writeRows(t, filepath.Join(dir, "empty.fvecs"), 0)
	f := func(want string, args ...string) {
		t.Helper()
		code, _, stderr := invoke(t, nil, append([]string{"import", "--url", url, "--collection", "c"}, args...)...)
		if code == exitOK || !strings.Contains(stderr, want) {
			t.Errorf("import %q: exit code %d, output lacks %q: %s", args, code, want, stderr)
		}
	}
	f("no such file", filepath.Join(dir, "absent.npy"))
	f(`unknown data format ".txt"`, lines)
	f("the data set is empty", empty)
	f("the vectors have 3 components, those of collection \"c\" have 2", wide)
	f("--distance is Cosine, collection \"c\" has Euclid", one, "--distance", "cosine")
	f("has no line for point 2", one, "--lines", short)
	f("has more lines than there are points", one, "--lines", long)
	f("has a payload of its own", points, "--lines", short)
	f("batch: 0 invalid", one, "--batch", "0")
	f("was interrupted", two, "--resume")
	f("forbidden character", one, "--collection", "a/b")
	k.config = nil
	f("--create creates it", one)
}

// TestImportResumes kills a real import in the middle and goes on with it: every point arrives, few of them twice.
func TestImportResumes(t *testing.T) {
	const n, batch, concurrency = 2000, 10, 4
	k, url := newKeeper(t)
	k.config = &vectord.VectorParams{Size: 2, Distance: vectord.Cosine}
	k.freeze = n / 2
	path := writeRows(t, filepath.Join(t.TempDir(), "rows.fvecs"), n)
	args := []string{"import", path, "--url", url, "--collection", "c", "--batch", fmt.Sprint(batch), "--concurrency", fmt.Sprint(concurrency)}

	// Interrupted: what was acknowledged is kept, exactly.
	p := start(t, args...)
	frozen := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.writes >= k.freeze
	}
	for deadline := time.Now().Add(30 * time.Second); !frozen(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the import does not proceed:\n%s", p.output())
		}
	}
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.wait(10 * time.Second); code != exitInterrupted || !strings.Contains(p.output(), "--resume goes on from there") {
		t.Fatalf("exit code %d:\n%s", code, p.output())
	}
	if _, err := os.Stat(path + importStateSuffix); err != nil {
		t.Fatal(err)
	}

	// With other flags it is another import.
	if code, _, stderr := invoke(t, nil, append(args, "--resume", "--first-id", "7")...); code != exitError || !strings.Contains(stderr, "with other flags") {
		t.Errorf("exit code %d: %s", code, stderr)
	}

	// Killed: what was kept within the last second is behind, and comes again.
	k.mu.Lock()
	received := k.writes
	k.freeze = n * 3 / 4
	k.mu.Unlock()
	p = start(t, append(args, "--resume")...)
	for deadline := time.Now().Add(30 * time.Second); !frozen(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the import does not go on:\n%s", p.output())
		}
	}
	p.cmd.Process.Kill()
	p.wait(10 * time.Second)
	k.mu.Lock()
	again := k.writes - received
	k.freeze = 0
	k.mu.Unlock()
	if again > n/4+concurrency*batch {
		t.Errorf("the resumed import sent %d points to get from %d to %d", again, received, n*3/4)
	}

	code, stdout, stderr := invoke(t, nil, append(args, "--resume")...)
	if code != exitOK || !strings.Contains(stdout, fmt.Sprintf("%d points", n)) || !strings.Contains(stderr, "going on behind") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// What was ahead comes again, and after the kill at most a second's worth: here, all since the interruption.
	if len(k.points) != n || k.writes > n+n/4+2*2*concurrency*batch {
		t.Errorf("%d points arrived in %d writes, want all %d", len(k.points), k.writes, n)
	}
	if _, err := os.Stat(path + importStateSuffix); err == nil {
		t.Error("a complete import left its progress behind")
	}
}
