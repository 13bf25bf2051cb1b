package hnsw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/vectord/vectord"
)

// saved returns a checkpoint of a small graph, some of whose nodes are deleted and some of whose slots are free.
func saved(t testing.TB, n, dim int) (*world, []byte) {
	t.Helper()
	w := newWorld(t, vectord.Euclid, clustered(31, n+20, dim), n, Config{M: 4, EfConstruction: 30, MaxLayers: 3})
	for slot := 0; slot < n; slot += 5 {
		w.delete(t, uint32(slot))
	}
	w.unlink(t)
	for slot := 1; slot < n; slot += 7 {
		w.graph.Delete(uint32(slot))
	}
	var b bytes.Buffer
	if err := w.graph.Save(&b); err != nil {
		t.Fatal(err)
	}
	return w, b.Bytes()
}

func TestSaveLoad(t *testing.T) {
	oneGoroutine(t)
	const n, dim = 1500, 1024 // more than a frame holds
	w, b := saved(t, n, dim)
	if len(b) < frameBytes {
		t.Fatalf("checkpoint of %d bytes fits one frame", len(b))
	}
	g, err := Load(iotest.HalfReader(bytes.NewReader(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	g.costs.fixed = new(float64)
	verify(t, g)
	if g.Config() != w.graph.Config() || g.Len() != w.graph.Len() || g.Deleted() != w.graph.Deleted() || g.MemoryBytes() > w.graph.MemoryBytes() {
		t.Errorf("loaded %+v with %d live and %d deleted nodes in %d bytes, saved %+v with %d, %d, %d", g.Config(), g.Len(), g.Deleted(),
			g.MemoryBytes(), w.graph.Config(), w.graph.Len(), w.graph.Deleted(), w.graph.MemoryBytes())
	}
	for _, q := range w.vectors[n:] {
		got, want := g.Search(nil, q, Params{K: 10, Ef: 50}), w.graph.Search(nil, q, Params{K: 10, Ef: 50})
		if !slices.Equal(got, want) {
			t.Fatalf("loaded graph finds %v, saved one %v", got, want)
		}
	}
	var again bytes.Buffer
	if err := g.Save(&again); err != nil || !bytes.Equal(again.Bytes(), b) {
		t.Errorf("saved again: %v, equal %v", err, bytes.Equal(again.Bytes(), b))
	}
}

func TestSaveLoadEmpty(t *testing.T) {
	w := newWorld(t, vectord.Cosine, clustered(1, 10, 4), 0, Config{})
	w.reload(t)
	if got := w.graph.Search(nil, w.vectors[0], Params{K: 5, Ef: 50}); len(got) != 0 {
		t.Errorf("found %v in an empty graph", got)
	}
	w.insert(t, 3)
	verify(t, w.graph)
}

func TestLoadDamaged(t *testing.T) {
	oneGoroutine(t)
	_, b := saved(t, 40, 4)
	load := func(b []byte) error {
		g, err := Load(bytes.NewReader(b), Limits{})
		if err == nil {
			g.Close()
		}
		return err
	}
	if err := load(b); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if err := load(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("first %d bytes of %d: %v", i, len(b), err)
		}
		for _, flip := range []byte{1, 0x80, 0xff} {
			damaged := slices.Clone(b)
			damaged[i] ^= flip
			if err := load(damaged); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d changed by %#x: %v", i, flip, err)
			}
		}
	}
	if _, err := Load(bytes.NewReader(b), Limits{MaxSlots: 39}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("more slots than the limit: %v", err)
	}
	if _, err := Load(bytes.NewReader(b), Limits{MaxSlots: 1 << 31}); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("limit out of range: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Load(io.MultiReader(bytes.NewReader(b[:50]), iotest.ErrReader(broken)), Limits{}); !errors.Is(err, broken) || errors.Is(err, ErrCorrupt) {
		t.Errorf("reader that fails: %v", err)
	}
}

// failingWriter fails after some bytes.
type failingWriter int

func (w *failingWriter) Write(b []byte) (int, error) {
	if *w -= failingWriter(len(b)); *w < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestSaveFails(t *testing.T) {
	oneGoroutine(t)
	w, b := saved(t, 40, 4)
	for n := range len(b) {
		out := failingWriter(n)
		if err := w.graph.Save(&out); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("writer that fails after %d bytes: %v", n, err)
		}
	}
}

// TestLoadForged checks that a checkpoint with right checksums and wrong contents is refused.
func TestLoadForged(t *testing.T) {
	w, b := saved(t, 40, 4)
	header := frames(b)[0]
	firstRow := func(nodes []byte) []byte { // links of slot 1, the first that is not free
		return nodes[8+40+w.graph.codec.RowSize():]
	}
	f := func(name string, frame int, forge func(payload []byte)) {
		t.Helper()
		forged := slices.Clone(b)
		forge(frames(forged)[frame])
		seal(forged)
		if g, err := Load(bytes.NewReader(forged), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, g, err)
		}
	}
	put := binary.LittleEndian.PutUint32
	f("M of 0", 0, func(p []byte) { put(p, 0) })
	f("M of 1000", 0, func(p []byte) { put(p, 1000) })
	f("ef of 2^32-1", 0, func(p []byte) { put(p[4:], 1<<32-1) })
	f("100 layers", 0, func(p []byte) { put(p[8:], 100) })
	f("fewer slots", 0, func(p []byte) { put(p[12:], 39) })
	f("more slots", 0, func(p []byte) { put(p[12:], 41) })
	f("entry point beyond the slots", 0, func(p []byte) { put(p[16:], 40) })
	f("entry point free", 0, func(p []byte) { put(p[16:], 0) })
	f("entry point on another layer", 0, func(p []byte) { put(p[20:], 1+binary.LittleEndian.Uint32(header[20:])) })
	f("no entry point", 0, func(p []byte) { copy(p[16:], bytes.Repeat([]byte{0xff}, 8)) })
	f("growth of -1", 0, func(p []byte) { binary.LittleEndian.PutUint64(p[24:], math.Float64bits(-1)) })
	f("growth not a number", 0, func(p []byte) { binary.LittleEndian.PutUint64(p[24:], math.Float64bits(math.NaN())) })
	f("growth of 2^63 nodes", 0, func(p []byte) { p[39] = 0x80 })
	f("codec of another version", 0, func(p []byte) { p[40] = 0xff })
	f("nodes from slot 1", 1, func(p []byte) { put(p, 1) })
	f("no nodes", 1, func(p []byte) { put(p[4:], 0) })
	f("too many nodes", 1, func(p []byte) { put(p[4:], 41) })
	f("unknown state", 1, func(p []byte) { p[8+1] = 3 })
	f("node missing", 1, func(p []byte) { p[8+1] = savedFree })
	f("node too many", 1, func(p []byte) { p[8] = savedLive })
	f("link beyond the slots", 1, func(p []byte) { put(firstRow(p), 40) })
	f("link to a free slot", 1, func(p []byte) { put(firstRow(p), 0) })
	f("link to itself", 1, func(p []byte) { put(firstRow(p), 1) })
	f("link after the end", 1, func(p []byte) { put(firstRow(p), none) })
	f("other count of live nodes", 2, func(p []byte) { p[0]++ })
	f("other count of deleted nodes", 2, func(p []byte) { p[8]++ })
}

// frames returns the payloads of the frames that a checkpoint consists of, as far as it does.
func frames(b []byte) [][]byte {
	var payloads [][]byte
	for b = b[min(len(b), len(checkpointMagic)):]; len(b) >= frameHeaderBytes; {
		size := int(min(binary.LittleEndian.Uint32(b), uint32(len(b)-frameHeaderBytes)))
		payloads = append(payloads, b[frameHeaderBytes:frameHeaderBytes+size])
		b = b[frameHeaderBytes+size:]
	}
	return payloads
}

// seal makes the checksums of a checkpoint's frames right.
func seal(b []byte) {
	at := min(len(b), len(checkpointMagic))
	for _, payload := range frames(b) {
		binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(payload, castagnoli))
		at += frameHeaderBytes + len(payload)
	}
}

// FuzzLoad checks that whatever Load accepts is a sound graph, which can be searched, changed and saved. The checksums are
// made right, as nothing would get past them.
func FuzzLoad(f *testing.F) {
	for _, n := range []int{0, 1, 2, 12} {
		_, b := saved(f, n, 3)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		seal(b)
		g, err := Load(bytes.NewReader(b), Limits{MaxSlots: 1 << 12})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v, which is not ErrCorrupt", err)
			}
			return
		}
		defer g.Close()
		g.costs.fixed = new(float64)
		q := make([]float32, g.codec.Dim())
		g.Search(nil, q, Params{K: 3, Ef: 20})
		for slot := range uint32(4) {
			if err := g.Insert(slot, q); err != nil && vectord.KindOf(err) != vectord.KindExists {
				t.Fatal(err)
			}
			g.Delete(slot + 1)
		}
		if _, err := g.Unlink(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.validate(); err != nil {
			t.Fatal(err)
		}
		if err := g.Save(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}
