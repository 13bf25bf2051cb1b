package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/node"
)

// TestRestore brings a node's snapshot into an empty data directory, and refuses to bring it into one that is not.
func TestRestore(t *testing.T) {
	ctx := context.Background()
	from := t.TempDir()
	n, err := node.Open(node.Config{DataDir: from})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Engine().CreateCollection(ctx, "c", vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	op := vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 2})}}}
	if _, err := n.Engine().Write(ctx, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := n.Engine().CreateSnapshot(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(from, "snapshots", s.Name)
	to := filepath.Join(t.TempDir(), "data")
	if code, stdout, stderr := invoke(t, nil, "restore", file, "--data-dir", to); code != exitOK || !strings.HasPrefix(stdout, "1 collections are restored") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := invoke(t, nil, "restore", file, "--data-dir", to); code != exitError || !strings.Contains(stderr, "the node has 1 collections") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr := invoke(t, nil, "check", "--data-dir", to); code != exitOK || !strings.Contains(stdout, " 1 points") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := invoke(t, nil, "restore", filepath.Join(from, "FORMAT"), "--data-dir", t.TempDir()); code != exitError || !strings.Contains(stderr, "damaged") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
