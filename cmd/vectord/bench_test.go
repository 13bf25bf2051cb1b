package main

import (
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vectord/vectord/bench/dataset"
)

// TestBenchCollections measures a few, twice: the second run creates nothing.
func TestBenchCollections(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("the system does not tell what is resident")
	}
	dir := t.TempDir()
	for run, created := range []int{20, 0} {
		code, stdout, stderr := invoke(t, nil, "bench", "collections", "--data-dir", dir, "--count", "20", "--dim", "4", "--cycles", "0", "--idle", "0s", "--json")
		var report struct {
			Collections int     `json:"collections"`
			Created     int     `json:"created"`
			Boot        float64 `json:"boot_seconds"`
		}
		if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitOK {
			t.Fatalf("exit code %d, %s%s (%v)", code, stdout, stderr, err)
		}
		if report.Collections != 20 || report.Created != created || report.Boot <= 0 {
			t.Errorf("run %d: %+v", run, report)
		}
	}
	if code, _, stderr := invoke(t, nil, "bench", "collections", "--data-dir", dir, "--count", "0"); code != exitError || !strings.Contains(stderr, "0 collections") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// TestBenchFiles goes the way of bench/peers/run: a truth is written and measured with, and the reports are compared.
func TestBenchFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	var base, query []byte
	for i := range 40 {
		base = dataset.AppendFVec(base, []float32{float32(i), 20})
	}
	for _, x := range []float32{7.2, 30.8} {
		query = dataset.AppendFVec(query, []float32{x, 20})
	}
	for name, b := range map[string][]byte{"base.fvecs": base, "query.fvecs": query} {
		if err := os.WriteFile(path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vectors := func(command string, more ...string) (code int, stdout, stderr string) {
		args := []string{"bench", command, "--base", path("base.fvecs"), "--query", path("query.fvecs")}
		return invoke(t, nil, append(args, more...)...)
	}

	truth := func(metric string, want [][]int32) {
		t.Helper()
		out := path(metric + ".ivecs")
		if code, _, stderr := vectors("truth", "--metric", metric, "--k", "3", "--out", out); code != exitOK {
			t.Fatal(stderr)
		}
		got, err := dataset.LoadIVecs(out, 10)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v, want %v", metric, got, err, want)
		}
	}
	truth("euclid", [][]int32{{7, 8, 6}, {31, 30, 32}})
	truth("dot", [][]int32{{39, 38, 37}, {39, 38, 37}})
	truth("cosine", [][]int32{{7, 8, 6}, {31, 30, 32}})
	if code, _, stderr := vectors("truth", "--k", "41", "--out", path("x")); code != exitError || !strings.Contains(stderr, "--k: 41 invalid, must be from 1 to 40") {
		t.Errorf("exit code %d, %s", code, stderr)
	}

	var reports strings.Builder
	for range 2 {
		code, stdout, stderr := vectors("ann", "--metric", "euclid", "--truth", path("euclid.ivecs"), "--k", "3", "--ef", "10,20", "--json")
		if code != exitOK || !json.Valid([]byte(stdout)) || strings.Count(stdout, "\n") != 1 {
			t.Fatalf("exit code %d, %s%s", code, stdout, stderr)
		}
		reports.WriteString(stdout)
	}
	if err := os.WriteFile(path("clothes.jsonl"), []byte(reports.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := invoke(t, nil, "bench", "compare", "--plot", dir, path("clothes.jsonl"), path("clothes.jsonl"))
	if code != exitOK || strings.Count(stdout, "clothes: 40 × 2 Euclid") != 2 || strings.Count(stdout, "vectord int8     2") != 2 {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	f, err := os.Open(path("clothes.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := png.Decode(f); err != nil {
		t.Error(err)
	}
	if code, _, stderr := invoke(t, nil, "bench", "compare", path("base.fvecs")); code != exitError || !strings.Contains(stderr, "base.fvecs: line 1") {
		t.Errorf("a file of something else: exit code %d, %s", code, stderr)
	}
}
