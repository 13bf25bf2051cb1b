package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vectord/vectord/bench/dataset"
)

func TestRun(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/schema/Bench":
			w.WriteHeader(http.StatusNotFound)
		case "/v1/batch/objects":
			io.WriteString(w, "[]")
		case "/v1/graphql":
			io.WriteString(w, `{"data":{"Get":{"Bench":[{"_additional":{"id":"00000000-0000-4000-8000-000000000001"}}]}}}`)
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := write("base.fvecs", dataset.AppendFVec(dataset.AppendFVec(nil, []float32{1, 0}), []float32{0, 1}))
	query := write("query.fvecs", dataset.AppendFVec(nil, []float32{0.1, 0.9}))
	truth := write("truth.ivecs", dataset.AppendIVec(nil, []int32{1, 0}))

	args := []string{"--url", server.URL, "--base", base, "--query", query, "--metric", "euclid", "--k", "1", "--concurrency", "1,2", "--duration", "100ms"}
	for _, more := range [][]string{nil, {"--truth", truth}} {
		var out, said strings.Builder
		if err := run(t.Context(), append(args, more...), &out, &said); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), `"recall":1,`) || strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), `"concurrency":2`) {
			t.Errorf("it printed %s", out.String())
		}
		if !strings.Contains(said.String(), "imported 2 vectors") {
			t.Errorf("it said %s", said.String())
		}
	}

	f := func(want string, args ...string) {
		t.Helper()
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", args, err, want)
		}
	}
	f(`unexpected argument "x"`, "x")
	f(`metric "l2"`, "--metric", "l2")
	f("concurrency:", "--concurrency", "1,x")
	f("no such file", "--base", filepath.Join(dir, "absent.fvecs"))
	f("no such file", "--base", base, "--query", filepath.Join(dir, "absent.fvecs"))
	f("no such file", "--base", base, "--query", query, "--truth", filepath.Join(dir, "absent.ivecs"))
}
