package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord/bench/dataset"
)

// idx returns n images of 2 × 3 pixels, the i-th of which has pixels i, i+1, ..., modulo 256.
func idx(n int) []byte {
	b := []byte{0, 0, 8, 3, 0, 0, byte(n >> 8), byte(n), 0, 0, 0, 2, 0, 0, 0, 3}
	for i := range n {
		for j := range 6 {
			b = append(b, byte(i+j))
		}
	}
	return b
}

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(b)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func TestRun(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "new")
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(from, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("train-images-idx3-ubyte.gz", zip(t, idx(300)))
	write("t10k-images-idx3-ubyte.gz", zip(t, idx(queries+5)))
	var said strings.Builder
	if err := run(from, to, &said); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "300 images in ") || !strings.Contains(said.String(), "1000 images in ") {
		t.Errorf("it said %q", said.String())
	}
	f := func(name string, want int) {
		t.Helper()
		v, err := dataset.LoadVectors(filepath.Join(to, name), 10_000)
		if err != nil || v.Len() != want || v.Dim != 6 {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range want {
			for j, x := range v.At(i) {
				if x != float32(byte(i+j)) {
					t.Fatalf("%s: row %d is %v", name, i, v.At(i))
				}
			}
		}
	}
	f("base.fvecs", 300)
	f("query.fvecs", queries)

	// A file that cannot be converted leaves the former one, and nothing else.
	write("train-images-idx3-ubyte.gz", zip(t, idx(300)[:100]))
	if err := run(from, to, io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "image 14 of 300") {
		t.Errorf("a short file: %v", err)
	}
	f("base.fvecs", 300)
	if entries, err := os.ReadDir(to); err != nil || len(entries) != 2 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	if err := run(t.TempDir(), to, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent files: %v", err)
	}
}

func TestIDXRefuses(t *testing.T) {
	f := func(b []byte, want string) {
		t.Helper()
		if _, err := copyImages(io.Discard, bytes.NewReader(zip(t, b)), 10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%x: error %v, want %q in it", b, err, want)
		}
	}
	f(nil, "read the header")
	f(idx(1)[:15], "read the header")
	f(slices.Replace(idx(1), 3, 4, 1), "the magic number is 0x00000801")
	f(slices.Replace(idx(1), 11, 12, 0), "0 × 3 pixels")
	f(slices.Replace(idx(1), 8, 16, 255, 255, 255, 255, 255, 255, 255, 255), "4294967295 × 4294967295 pixels")
	f(idx(0), "no images")
	f(idx(1)[:16], "image 0 of 1")
	if _, err := copyImages(io.Discard, bytes.NewReader(idx(1)), 10); err == nil {
		t.Error("what is not gzipped was read")
	}
}

func FuzzIDX(f *testing.F) {
	f.Add(idx(2))
	f.Add(idx(0))
	f.Add([]byte{0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 1, 0, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newIDXReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		n := 0
		for {
			v, err := r.Next()
			if err != nil {
				break
			}
			for j, x := range v {
				if at := 16 + n*len(v) + j; x != float32(b[at]) {
					t.Fatalf("image %d, pixel %d is %v, byte %d is %d", n, j, x, at, b[at])
				}
			}
			n++
		}
	})
}
