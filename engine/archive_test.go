package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

// archiveRow is a row of the shard at a place in its collection's list.
type archiveRow struct {
	shard      uint32
	key, value []byte
}

// rowsOf returns what a store exports of a shard that write fills, as rows of the shard at place.
func rowsOf(t testing.TB, place uint32, write func(b *storage.Batch, shard uint32)) (rows []archiveRow) {
	t.Helper()
	s, err := storage.Open(storage.Options{Dir: "data", FS: storagetest.NewCrashFS(nil), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	write(b, 1)
	if err := b.CommitUnsynced(); err != nil {
		t.Fatal(err)
	}
	err = s.ExportShard(t.Context(), 1, func(key, value []byte) error {
		rows = append(rows, archiveRow{place, bytes.Clone(key), bytes.Clone(value)})
		return nil
	})
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return rows
}

// putPoint writes a point as Apply does.
func putPoint(b *storage.Batch, shard, slot uint32, id uint64, payload string, vector ...float32) {
	b.PutPoint(shard, vectord.NumberID(id), storage.PointRow{Slot: slot, Vectors: []uint16{0}, Payload: []byte(payload)})
	b.PutSlot(shard, slot, storage.SlotRow{ID: vectord.NumberID(id), Version: 1, Vectors: []uint16{0}})
	b.PutVector(storage.VectorSet{Shard: shard}, slot, vector)
}

func metaOf(name string, dim, shards int) collectionMeta {
	m := collectionMeta{ID: 5, Name: name, Config: vectord.DefaultCollectionConfig(dim, vectord.Euclid),
		Numbers: map[string]uint16{"": 0}, NextNumber: 1}
	m.Config.Params.ShardNumber = shards
	for i := range uint32(shards) {
		m.Shards = append(m.Shards, shardMeta{ID: 20 + i, Group: 20 + i})
	}
	return m
}

// archiveOf writes an archive of one collection.
func archiveOf(t testing.TB, head archiveHead, meta any, rows []archiveRow) []byte {
	t.Helper()
	var b bytes.Buffer
	a, err := newArchiveWriter(&b, head)
	if err != nil {
		t.Fatal(err)
	}
	m, err := json.Marshal(meta)
	if err == nil {
		err = a.collection(m)
	}
	for _, r := range rows {
		err = errors.Join(err, a.row(r.shard, r.key, r.value))
	}
	if err = errors.Join(err, a.end()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var oneCollection = archiveHead{Index: 7, Time: 9, Collections: 1}

func readAll(content io.Reader) (head archiveHead, metas []collectionMeta, rows []archiveRow, err error) {
	head, _, err = readArchive(context.Background(), content, archiveVisitor{
		collection: func(m collectionMeta) error { metas = append(metas, m); return nil },
		row: func(shard int, key, value []byte) error {
			rows = append(rows, archiveRow{uint32(shard), bytes.Clone(key), bytes.Clone(value)})
			return nil
		},
	})
	return head, metas, rows, err
}

// someRows are of two shards, with one payload that compresses well and one that does not, several frames in all.
func someRows(t testing.TB) []archiveRow {
	random := make([]byte, 2*frameTarget/3)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = 'a' + byte(rng.IntN(26))
	}
	var text strings.Builder
	for i := 0; text.Len() < 3*frameTarget; i++ {
		fmt.Fprintf(&text, "line %d of a long text, ", i)
	}
	var rows []archiveRow
	for place := range uint32(2) {
		rows = append(rows, rowsOf(t, place, func(b *storage.Batch, shard uint32) {
			putPoint(b, shard, 0, 1, `{}`, 1, 2)
			putPoint(b, shard, 1, 2, fmt.Sprintf(`{"a":"%s"}`, text.String()), 3, 4)
			putPoint(b, shard, 2, 3, fmt.Sprintf(`{"a":"%s"}`, random), 5, 6)
		})...)
	}
	return rows
}

func TestArchiveRoundTrip(t *testing.T) {
	meta, rows := metaOf("c", 2, 2), someRows(t)
	head := archiveHead{Node: true, Index: 7, Time: 9, Collections: 1, Aliases: []vectord.Alias{{Name: "a", Collection: "c"}}}
	content := archiveOf(t, head, meta, rows)
	gotHead, metas, got, err := readAll(iotestOneByte{bytes.NewReader(content)})
	if err != nil || !reflect.DeepEqual(gotHead, head) || len(metas) != 1 || !reflect.DeepEqual(got, rows) {
		t.Fatalf("%+v, %d collections, %d of %d rows, %v", gotHead, len(metas), len(got), len(rows), err)
	}
	if got, want := fmt.Sprintf("%+v", metas[0]), fmt.Sprintf("%+v", meta); strings.ReplaceAll(got, "[110 117 108 108]", "[]") != want { // null
		t.Errorf("%s, want %s", got, want)
	}
	if len(content) > 3*frameTarget {
		t.Errorf("%d bytes: what repeats itself was not compressed", len(content))
	}
}

// iotestOneByte reads little at a time.
type iotestOneByte struct{ r io.Reader }

func (r iotestOneByte) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 1000)]) }

// TestDamagedArchives changes every byte of an archive, cuts it off everywhere, and puts its frames in other orders.
func TestDamagedArchives(t *testing.T) {
	rows := rowsOf(t, 0, func(b *storage.Batch, shard uint32) { putPoint(b, shard, 0, 1, `{"a":1}`, 1, 2) })
	content := archiveOf(t, oneCollection, metaOf("c", 2, 1), rows)
	refused := func(what string, b []byte) {
		t.Helper()
		if _, _, _, err := readAll(bytes.NewReader(b)); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range content {
		for bit := range 8 {
			b := bytes.Clone(content)
			b[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), b)
		}
		refused(fmt.Sprintf("cut off at %d", i), content[:i])
	}
	refused("a byte more", append(bytes.Clone(content), 0))
	refused("twice", append(bytes.Clone(content), content...))
	var frames [][]byte
	for rest := content[len(archiveMagic):]; len(rest) > 0; {
		n := frameHeaderSize + int(binary.LittleEndian.Uint32(rest[6:]))
		frames = append(frames, rest[:n])
		rest = rest[n:]
	}
	if len(frames) != 4 {
		t.Fatalf("%d frames", len(frames))
	}
	for i := range frames {
		without := slices.Delete(slices.Clone(frames), i, i+1)
		refused(fmt.Sprintf("without frame %d", i), append([]byte(archiveMagic), bytes.Join(without, nil)...))
		twice := slices.Insert(slices.Clone(frames), i, frames[i])
		refused(fmt.Sprintf("frame %d twice", i), append([]byte(archiveMagic), bytes.Join(twice, nil)...))
	}
	newer := bytes.Clone(content)
	newer[len(archiveMagic)-1]++
	if _, _, _, err := readAll(bytes.NewReader(newer)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Error(err)
	}
}

// frameOf makes a frame with the header that is asked for, whose checksum fits.
func frameOf(kind frameKind, encoding byte, number, raw uint32, stored []byte) []byte {
	h := make([]byte, frameHeaderSize)
	h[0], h[1] = byte(kind), encoding
	binary.LittleEndian.PutUint32(h[2:], number)
	binary.LittleEndian.PutUint32(h[6:], uint32(len(stored)))
	binary.LittleEndian.PutUint32(h[10:], raw)
	binary.LittleEndian.PutUint32(h[14:], frameChecksum(h, stored))
	return append(h, stored...)
}

// TestArchiveBombs gives the reader small archives that say or hold that they are large. It must not allocate for them.
func TestArchiveBombs(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	f := func(what string, frame []byte) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, _, err := readAll(bytes.NewReader(append([]byte(archiveMagic), frame...)))
		runtime.ReadMemStats(&after)
		if vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%s: %d bytes were allocated", what, n)
		}
	}
	const large = 60 << 20
	zeros := encoder.EncodeAll(make([]byte, large), nil)
	f("a frame that expands", frameOf(frameHead, frameZstd, 0, large, zeros))
	f("a frame that expands to more than it says", frameOf(frameHead, frameZstd, 0, 1000, zeros))
	huge := frameOf(frameHead, frameAsIs, 0, frameMax, []byte("x"))
	binary.LittleEndian.PutUint32(huge[6:], frameMax)
	f("a frame that says it is long and is not", huge)
	over := frameOf(frameHead, frameAsIs, 0, frameMax+1, []byte("x"))
	binary.LittleEndian.PutUint32(over[6:], frameMax+1)
	f("a frame over the limit", over)
	f("an empty frame", frameOf(frameHead, frameAsIs, 0, 0, nil))
	f("no head", frameOf(frameRows, frameAsIs, 0, 4, make([]byte, 4)))
	head := func(text string) []byte { return frameOf(frameHead, frameAsIs, 0, uint32(len(text)), []byte(text)) }
	f("many collections", head(`{"node":true,"collections":1000000000}`))
	f("a negative number of collections", head(`{"node":true,"collections":-1}`))
	f("a collection's with two", head(`{"collections":2}`))
	f("no JSON", head(`{`))
	f("rows before a collection", append(head(`{"node":true,"collections":0}`), frameOf(frameRows, frameAsIs, 1, 4, make([]byte, 4))...))
	f("a collection too many", append(head(`{"node":true,"collections":0}`), frameOf(frameCollection, frameAsIs, 1, 2, []byte("{}"))...))
	f("a kind that is none", append(head(`{"node":true,"collections":0}`), frameOf(9, frameAsIs, 1, 2, []byte("{}"))...))
}

// TestForeignArchives recovers archives whose checksums fit and whose content no vectord wrote. They are refused, and what
// they left goes away; so is one that comes while its rows cannot be added.
func TestForeignArchives(t *testing.T) {
	r := newReplica(t)
	defer r.close()
	r.db.Start(&logOf{r: r})
	good := func(b *storage.Batch, shard uint32) { putPoint(b, shard, 0, 1, `{"a":1}`, 1, 2) }
	bring := func(head archiveHead, meta any, rows ...archiveRow) error {
		content := bytes.NewReader(archiveOf(t, head, meta, rows))
		return r.db.recoverFile(context.Background(), "c", content, content.Size(), "")
	}
	f := func(what, want string, head archiveHead, meta any, rows ...archiveRow) {
		t.Helper()
		if err := bring(head, meta, rows...); vectord.KindOf(err) != vectord.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
		if r.db.CollectionExists("c") {
			t.Fatalf("%s: it was recovered", what)
		}
		if err := r.store.ShardsWithRows(func(shard uint32) error { return fmt.Errorf("shard %d has rows", shard) }); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	meta := metaOf("c", 2, 1)
	write := func(what, want string, write func(b *storage.Batch, shard uint32)) {
		t.Helper()
		f(what, want, oneCollection, meta, rowsOf(t, 0, write)...)
	}
	write("a vector of another size", "expected dim: 2, got 3", func(b *storage.Batch, shard uint32) { putPoint(b, shard, 0, 1, `{}`, 1, 2, 3) })
	write("a component that is no number", "finite", func(b *storage.Batch, shard uint32) { putPoint(b, shard, 0, 1, `{}`, 1, float32(math.NaN())) })
	write("a payload that is no object", "payload", func(b *storage.Batch, shard uint32) { putPoint(b, shard, 0, 1, `[1]`, 1, 2) })
	write("a payload that is broken", "payload", func(b *storage.Batch, shard uint32) { putPoint(b, shard, 0, 1, `{"a":`, 1, 2) })
	write("a point without a slot", "belong together", func(b *storage.Batch, shard uint32) {
		b.PutPoint(shard, vectord.NumberID(1), storage.PointRow{Slot: 3, Vectors: []uint16{0}})
	})
	write("two points in a slot", "belong together", func(b *storage.Batch, shard uint32) {
		good(b, shard)
		b.PutPoint(shard, vectord.NumberID(2), storage.PointRow{Slot: 0, Vectors: []uint16{0}})
	})
	write("a vector without a slot", "belong together", func(b *storage.Batch, shard uint32) { b.PutVector(storage.VectorSet{Shard: shard}, 3, []float32{1, 2}) })
	rows := rowsOf(t, 0, good)
	f("a shard too many", "shard 1", oneCollection, meta, append(slices.Clone(rows), archiveRow{1, rows[0].key, rows[0].value})...)
	f("rows out of order", "in its place", oneCollection, meta, rows[1], rows[0])
	f("a row twice", "in its place", oneCollection, meta, rows[0], rows[0])
	f("a key of another kind", "key", oneCollection, meta, archiveRow{0, []byte("../../x"), rows[0].value})
	f("a change", "key", oneCollection, meta, archiveRow{0, []byte("c12345678"), rows[0].value})
	f("a value without checksum", "damaged", oneCollection, meta, archiveRow{0, rows[0].key, []byte("12345678")})
	two := metaOf("c", 2, 2)
	misplaced := append(rowsOf(t, 0, good), rowsOf(t, 1, good)...) // one of the two is where it does not belong
	f("a point in the wrong shard", "another shard", oneCollection, two, misplaced...)
	two.Shards = two.Shards[:1]
	f("fewer shards than configured", "1 shards", oneCollection, two, rows...)
	f("a name that is none", "collection_name", oneCollection, metaOf("a/b", 2, 1), rows...)
	f("a dimension out of range", "vectors.size", oneCollection, metaOf("c", 0, 1))
	broken := meta
	broken.Config.Metadata = []byte(`[1]`)
	f("metadata that is no object", "metadata", oneCollection, broken, rows...)
	f("no JSON", "collection 1", oneCollection, "text", rows...)

	if err := bring(oneCollection, meta, rows...); err != nil || !r.db.CollectionExists("c") {
		t.Errorf("what is as it should be: %v", err)
	}
}

// TestReplacementIsReplicated applies the command of a recovery on a replica that has the rows and did not load them, and
// commands that must be refused.
func TestReplacementIsReplicated(t *testing.T) {
	const collections = 2
	rows := rowsOf(t, 0, func(b *storage.Batch, shard uint32) {
		for i := range uint32(50) {
			putPoint(b, shard, i, uint64(i), `{"a":1}`, float32(i), 2)
		}
	})
	var dumps []string
	for _, loads := range []bool{true, false} {
		r := newReplica(t)
		index := uint64(0)
		apply := func(kind commandKind, body any) vectord.Result {
			t.Helper()
			b, err := encodeCatalogCommand(kind, body)
			if err != nil {
				t.Fatal(err)
			}
			index++
			return r.apply(vectord.Entry{Group: metaGroup, Index: index, Time: int64(index), Command: b})[0]
		}
		for _, name := range []string{"c", "d"} {
			if result := apply(commandCreateCollection, createCollection{Name: name, Config: vectord.DefaultCollectionConfig(3, vectord.Dot)}); result.Err != nil {
				t.Fatal(result.Err)
			}
		}
		alias := updateAliases{Actions: []vectord.AliasAction{{Create: &vectord.Alias{Name: "a", Collection: "c"}}}}
		if result := apply(commandUpdateAliases, alias); result.Err != nil {
			t.Fatal(result.Err)
		}
		first, _ := apply(commandReserveShards, reserveShards{Count: 2}).Value.(uint32)
		if first != collections+1 {
			t.Fatalf("shards are reserved from %d", first)
		}
		in := r.store.NewImport(index)
		for _, row := range rows {
			if err := in.Add(first, row.key, row.value); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(in.Commit(), in.Close()); err != nil {
			t.Fatal(err)
		}
		m := metaOf("c", 2, 1)
		m.ID, m.Shards[0] = 0, shardMeta{ID: first, Group: first}
		refused := func(kind vectord.Kind, body replaceCollections) {
			t.Helper()
			if result := apply(commandReplaceCollections, body); vectord.KindOf(result.Err) != kind || result.Err == nil {
				t.Errorf("%+v: %v", body, result.Err)
			}
		}
		named := func(name string) collectionMeta { m := m; m.Name = name; return m }
		to := func(name, target string) []vectord.Alias { return []vectord.Alias{{Name: name, Collection: target}} }
		refused(vectord.KindInvalid, replaceCollections{Collections: []collectionMeta{m, m}})
		refused(vectord.KindInvalid, replaceCollections{Collections: []collectionMeta{named("a")}})
		refused(vectord.KindExists, replaceCollections{Collections: []collectionMeta{m}, Aliases: to("d", "c")})
		refused(vectord.KindExists, replaceCollections{Collections: []collectionMeta{named("e")}, Aliases: to("e", "c")})
		refused(vectord.KindNotFound, replaceCollections{Collections: []collectionMeta{m}, Aliases: to("x", "e")})
		refused(vectord.KindUnprocessable, replaceCollections{Collections: []collectionMeta{m}, Aliases: to("x/y", "c")})
		if loads {
			c, err := r.db.newCollection(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.db.loadShard(c.shards[0], c, 0); err != nil {
				t.Fatal(err)
			}
			r.db.snapshots.keep(c.shards)
		}
		if result := apply(commandReplaceCollections, replaceCollections{Collections: []collectionMeta{m}, Aliases: to("x", "c")}); result.Err != nil {
			t.Fatal(result.Err)
		}
		for _, name := range []string{"c", "a", "x"} {
			if info, err := r.db.CollectionInfo(name); err != nil || info.Points != 50 || info.Config.Params.Vectors[""].Size != 2 {
				t.Errorf("%s: %+v, %v", name, info, err)
			}
		}
		if len(r.db.snapshots.imported) != 0 {
			t.Error("shards are kept after they were given away")
		}
		dumps = append(dumps, r.dump())
		r.close()
		r.open()
		dumps = append(dumps, r.dump())
		r.close()
	}
	for _, d := range dumps[1:] {
		if d != dumps[0] {
			t.Errorf("replicas differ:\n%s\n%s", dumps[0], d)
		}
	}
}

// FuzzReadArchive reads anything as an archive, and as one frame in an archive: without a panic, within bounds, and what it
// accepts is written the same way again.
func FuzzReadArchive(f *testing.F) {
	rows := rowsOf(f, 0, func(b *storage.Batch, shard uint32) { putPoint(b, shard, 0, 1, `{"a":1}`, 1, 2) })
	whole := archiveOf(f, oneCollection, metaOf("c", 2, 1), rows)
	f.Add(whole, byte(0), false)
	f.Add([]byte(`{"node":true,"collections":1}`), byte(frameHead), true)
	f.Add([]byte(`{"name":"c","shards":[{}]}`), byte(frameCollection), true)
	f.Add(append(make([]byte, 4), appendBytes(appendBytes(nil, rows[0].key), rows[0].value)...), byte(frameRows), true)
	f.Add(make([]byte, 16), byte(frameEnd), true)
	f.Fuzz(func(t *testing.T, b []byte, kind byte, frame bool) {
		if frame { // its checksum fits, and what comes before it is as it should be
			framed := []byte(archiveMagic)
			number := uint32(0)
			add := func(kind frameKind, raw []byte) {
				framed = append(framed, frameOf(kind, frameAsIs, number, uint32(len(raw)), raw)...)
				number++
			}
			if frameKind(kind) != frameHead {
				add(frameHead, []byte(`{"node":true,"collections":1}`))
			}
			if frameKind(kind) == frameRows {
				add(frameCollection, []byte(`{"name":"c","shards":[{},{}]}`))
			}
			add(frameKind(kind), b)
			b = framed
		}
		head, metas, rows, err := readAll(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		a, err := newArchiveWriter(&again, head)
		if err != nil {
			t.Fatal(err)
		}
		if len(metas) != 1 {
			return
		}
		m, err := json.Marshal(metas[0])
		if err != nil {
			return // a configuration with JSON in it that is none
		}
		err = a.collection(m)
		for _, r := range rows {
			err = errors.Join(err, a.row(r.shard, r.key, r.value))
		}
		if err = errors.Join(err, a.end()); err != nil {
			t.Fatal(err)
		}
		if _, _, got, err := readAll(&again); err != nil || !reflect.DeepEqual(got, rows) {
			t.Fatalf("%d rows of %d, %v", len(got), len(rows), err)
		}
	})
}

func BenchmarkArchive(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	rows := rowsOf(b, 0, func(batch *storage.Batch, shard uint32) {
		for i := range uint32(1000) {
			v := make([]float32, 384)
			for j := range v {
				v[j] = float32(rng.NormFloat64())
			}
			putPoint(batch, shard, i, uint64(i), `{"title":"a text of some length","year":1984}`, v...)
		}
	})
	size := 0
	for _, r := range rows {
		size += len(r.key) + len(r.value)
	}
	content := archiveOf(b, oneCollection, metaOf("c", 384, 1), rows)
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(size))
		for b.Loop() {
			archiveOf(b, oneCollection, metaOf("c", 384, 1), rows)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(size))
		for b.Loop() {
			_, _, err := readArchive(context.Background(), bytes.NewReader(content), archiveVisitor{
				collection: func(collectionMeta) error { return nil }, row: func(int, []byte, []byte) error { return nil }})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
