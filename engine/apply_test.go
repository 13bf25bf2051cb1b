package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// replica is an engine that a test applies entries to.
type replica struct {
	t     testing.TB
	disk  *storagetest.CrashFS
	store *storage.Store
	db    *DB
}

func newReplica(t testing.TB) *replica {
	r := &replica{t: t, disk: storagetest.NewCrashFS(nil)}
	r.open()
	return r
}

func (r *replica) open() {
	r.t.Helper()
	var err error
	if r.store, err = storage.Open(storage.Options{Dir: "data", FS: r.disk, Logger: quiet, Fatal: func(err error) { panic(err) }}); err != nil {
		r.t.Fatal(err)
	}
	if r.db, err = Open(r.store, Options{Logger: quiet}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) close() {
	r.t.Helper()
	if err := r.db.Close(); err != nil {
		r.t.Fatal(err)
	}
	if err := r.store.Close(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) apply(entries ...vectord.Entry) []vectord.Result {
	r.t.Helper()
	results, durable, err := r.db.Apply(entries)
	if err == nil {
		err = durable()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return results
}

// dump writes everything replicated that the store holds.
func (r *replica) dump() string {
	r.t.Helper()
	var b bytes.Buffer
	check := func(err error) {
		if err != nil {
			r.t.Fatal(err)
		}
	}
	check(r.store.ScanMeta(func(key string, value []byte) error {
		_, err := fmt.Fprintf(&b, "meta %s %s\n", key, value)
		return err
	}))
	for id := range uint32(20) {
		applied, err := r.store.Applied(id)
		check(err)
		fmt.Fprintf(&b, "applied %d %+v\n", id, applied)
		check(r.store.ScanPoints(id, nil, func(p vectord.PointID, row storage.PointRow) (bool, error) {
			_, err := fmt.Fprintf(&b, "point %d %s %d %s\n", id, p, row.Slot, row.Payload)
			return true, err
		}))
		check(r.store.ScanSlots(id, func(slot uint32, row storage.SlotRow) error {
			_, err := fmt.Fprintf(&b, "slot %d %d %+v\n", id, slot, row)
			return err
		}))
		check(r.store.ScanVectors(storage.VectorSet{Shard: id}, func(slot uint32, v []float32) error {
			_, err := fmt.Fprintf(&b, "vector %d %d %v\n", id, slot, v)
			return err
		}))
		for number := range uint16(8) {
			check(r.store.ScanPostings(id, number, func(term []byte, slot uint32) error {
				_, err := fmt.Fprintf(&b, "posting %d %d %q %d\n", id, number, term, slot)
				return err
			}))
		}
		for key := range 6 {
			session, ok, err := r.store.Session(id, sessionKey(1, fmt.Sprint(key)))
			check(err)
			fmt.Fprintf(&b, "session %d %d %v %+v\n", id, key, ok, session)
		}
	}
	return b.String()
}

// randomEntries makes a log of commands as a proposer would write them, and some that Apply must refuse.
func randomEntries(t *testing.T, rng *rand.Rand, n int) []vectord.Entry {
	t.Helper()
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var entries []vectord.Entry
	add := func(group uint32, command []byte) {
		index := uint64(len(entries) + 1)
		entries = append(entries, vectord.Entry{Group: group, Index: index, Time: int64(index) * 700, Command: command})
	}
	for i := range uint32(3) {
		config := vectord.DefaultCollectionConfig(3, vectord.Euclid)
		config.Params.ShardNumber = 1 + int(i)
		config.Optimizer.IndexingThreshold = 1
		add(metaGroup, must(encodeCatalogCommand(commandCreateCollection, createCollection{fmt.Sprint("c", i), config})))
	}
	for len(entries) < n {
		switch rng.IntN(40) {
		case 0:
			add(metaGroup, must(encodeCatalogCommand(commandDeleteCollection, deleteCollection{fmt.Sprint("c", rng.IntN(4))})))
		case 1:
			add(metaGroup, must(encodeCatalogCommand(commandCreateCollection, createCollection{fmt.Sprint("c", rng.IntN(4)), vectord.DefaultCollectionConfig(3, vectord.Dot)})))
		case 3:
			types := []vectord.FieldType{vectord.FieldInteger, vectord.FieldKeyword, vectord.FieldFloat}
			add(metaGroup, must(encodeCatalogCommand(commandCreateField, createField{fmt.Sprint("c", rng.IntN(4)), []string{"b", "a.z", "a.c", "k"}[rng.IntN(4)],
				vectord.FieldSchema{Type: types[rng.IntN(len(types))]}})))
		case 4:
			add(metaGroup, must(encodeCatalogCommand(commandDeleteField, deleteField{fmt.Sprint("c", rng.IntN(4)), []string{"b", "a.z", "a.c", "k"}[rng.IntN(4)]})))
		case 5:
			collection := 1 + rng.Uint32N(3)
			shard := collection * (collection + 1) / 2 // the last of the collection
			add(shard, must(encodeCatalogCommand(commandFillField, fillField{collection, shard, uint16(rng.IntN(4)), rng.Uint32N(10)})))
		case 6:
			add(metaGroup, must(encodeCatalogCommand(commandFieldReady, fieldReady{1 + rng.Uint32N(3), uint16(rng.IntN(4))})))
		case 2:
			add(metaGroup, must(encodeCatalogCommand(commandUpdateAliases, updateAliases{[]vectord.AliasAction{
				{Create: &vectord.Alias{Name: fmt.Sprint("a", rng.IntN(3)), Collection: fmt.Sprint("c", rng.IntN(3))}}}})))
		default:
			shards := [][2]uint32{{1, 1}, {2, 2}, {2, 3}, {3, 4}, {3, 5}, {3, 6}} // collection and shard, as made above
			to := shards[rng.IntN(len(shards))]
			w := write{Collection: to[0], Shard: to[1]}
			if rng.IntN(4) == 0 {
				w.Session, w.Fingerprint = sessionKey(1, fmt.Sprint(rng.IntN(6))), uint64(rng.IntN(2))
			}
			for range 1 + rng.IntN(3) {
				op := vectord.Operation{Kind: vectord.OperationKind(1 + rng.IntN(9))}
				for range rng.IntN(4) {
					id := vectord.NumberID(uint64(rng.IntN(30)))
					if op.Kind == vectord.OpUpsert || op.Kind == vectord.OpUpdateVectors {
						op.Points = append(op.Points, vectord.Point{ID: id, Vectors: vectord.Unnamed([]float32{rng.Float32(), rng.Float32(), rng.Float32()}),
							Payload: fmt.Appendf(nil, `{"b":%d,"a":{"z":%d,"c":[1,2]}}`, rng.IntN(3), rng.IntN(3))})
						continue
					}
					op.IDs = append(op.IDs, id)
				}
				switch op.Kind {
				case vectord.OpSetPayload, vectord.OpOverwritePayload:
					op.Payload = []byte(`{"k":1,"j":2,"a":{"y":3}}`)
				case vectord.OpDeletePayload:
					op.Keys = []string{"a.c", "b"}
				case vectord.OpDeleteVectors:
					op.Keys = []string{""}
				case vectord.OpSetExpiry:
					op.Expires = rng.Int64N(int64(n) * 700)
				}
				w.Operations = append(w.Operations, op)
			}
			add(to[1], must(w.append(nil)))
		}
	}
	return entries
}

// TestApplyIsDeterministic applies one log to two replicas: entry by entry to one, in batches of random sizes, with
// restarts and with entries offered again, to the other. They must hold the same bytes and give the same answers.
func TestApplyIsDeterministic(t *testing.T) {
	for range 5 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 1))
		entries := randomEntries(t, rng, 250)
		one, other := newReplica(t), newReplica(t)
		var answers, otherAnswers []vectord.Result
		for _, e := range entries {
			answers = append(answers, one.apply(e)...)
		}
		for at := 0; at < len(entries); {
			n := min(1+rng.IntN(40), len(entries)-at)
			otherAnswers = append(otherAnswers, other.apply(entries[at:at+n]...)...)
			at += n
			if rng.IntN(4) == 0 {
				other.close()
				other.open()
			}
			if rng.IntN(4) == 0 {
				other.apply(entries[at-min(at, rng.IntN(20)) : at]...) // the log offers what was applied
			}
		}
		if a, b := one.dump(), other.dump(); a != b {
			t.Fatalf("seed %d: two replicas of one log differ:\n%s\n\n%s", seed, a, b)
		}
		for i := range answers {
			if a, b := fmt.Sprint(answers[i]), fmt.Sprint(otherAnswers[i]); a != b {
				t.Fatalf("seed %d: entry %d is answered %s and %s", seed, i, a, b)
			}
		}
		one.close()
		other.close()
	}
}

// TestApplyStopsAtWhatItDoesNotKnow checks that a command of a newer version ends Apply instead of being skipped.
func TestApplyStopsAtWhatItDoesNotKnow(t *testing.T) {
	for _, command := range [][]byte{{}, {commandVersion}, {commandVersion + 1, byte(commandWrite)}, {commandVersion, 99}, {commandVersion, byte(commandWrite), 1}} {
		r := newReplica(t)
		if _, _, err := r.db.Apply([]vectord.Entry{{Index: 1, Command: command}}); err == nil {
			t.Errorf("command % x was applied", command)
		}
		r.close()
	}
}

// logOf applies every proposal at once, as an idle log does.
type logOf struct {
	r    *replica
	last uint64
}

func (l *logOf) Propose(_ context.Context, group uint32, command []byte) (vectord.Result, error) {
	l.last++
	return l.r.apply(vectord.Entry{Group: group, Index: l.last, Time: int64(l.last), Command: command})[0], nil
}

// TestSessionsEnd checks that an idempotency key is forgotten after a day of the log's time, and not before.
func TestSessionsEnd(t *testing.T) {
	r := newReplica(t)
	defer r.close()
	config := vectord.DefaultCollectionConfig(1, vectord.Dot)
	create, err := encodeCatalogCommand(commandCreateCollection, createCollection{"c", config})
	if err != nil {
		t.Fatal(err)
	}
	r.apply(vectord.Entry{Index: 1, Time: 1000, Command: create})
	w := write{Collection: 1, Shard: 1, Session: sessionKey(1, "key"), Fingerprint: 5,
		Operations: []vectord.Operation{{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1})}}}}}
	command, err := w.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	version := func() uint64 {
		p, ok := r.db.catalog.get(1).shards[0].slots.get(0)
		if !ok {
			t.Fatal("the point is not in slot 0")
		}
		return p.version
	}
	day := sessionLifetime.Milliseconds()
	r.apply(vectord.Entry{Group: 1, Index: 2, Time: 2000, Command: command})
	r.apply(vectord.Entry{Group: 1, Index: 3, Time: 2000 + day, Command: command})
	if got := version(); got != 2 {
		t.Errorf("the point has version %d after a repetition within a day, want 2", got)
	}
	r.apply(vectord.Entry{Group: 1, Index: 4, Time: 2000 + day + 1, Command: command})
	if p, ok := r.db.catalog.get(1).shards[0].slots.get(1); !ok || p.version != 4 {
		t.Errorf("a day later slot 1 holds %v, %v; want version 4", p, ok)
	}
}

// TestIdempotencyKeyOfAnotherRequest checks that a key cannot be used for something else.
func TestIdempotencyKeyOfAnotherRequest(t *testing.T) {
	r := newReplica(t)
	defer r.close()
	r.db.Start(&logOf{r: r})
	ctx := context.Background()
	if err := r.db.CreateCollection(ctx, "c", vectord.DefaultCollectionConfig(1, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	write := func(x float32) error {
		op := vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{x})}}}
		_, err := r.db.Write(ctx, "c", []vectord.Operation{op}, vectord.WriteOptions{IdempotencyKey: "k"})
		return err
	}
	if err := write(1); err != nil {
		t.Fatal(err)
	}
	if err := write(1); err != nil {
		t.Errorf("the same request again: %v", err)
	}
	if err := write(2); vectord.KindOf(err) != vectord.KindUnprocessable {
		t.Errorf("another request under the same key: %v", err)
	}
}
