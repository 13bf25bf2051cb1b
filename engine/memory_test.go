package engine

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

// memoryBench is an engine with a collection for memories, of vectors of two components.
type memoryBench struct{ *clockBench }

func newMemoryBench(t *testing.T, d vectord.Distance, shards int) *memoryBench {
	b := &memoryBench{newClockBench(t)}
	t.Cleanup(b.close)
	b.log.now = 1_000_000
	config := vectord.DefaultCollectionConfig(2, d)
	config.Params.ShardNumber = shards
	b.must(b.db.CreateCollection(t.Context(), "c", config))
	return b
}

func (b *memoryBench) store(d *vectord.MemoryDedup, memories ...vectord.Memory) []vectord.MemoryResult {
	b.t.Helper()
	results, err := b.db.StoreMemories(b.t.Context(), "c", memories, d, vectord.WriteOptions{})
	b.must(err)
	return results
}

func (b *memoryBench) find(q vectord.MemoryQuery) []vectord.MemoryHit {
	b.t.Helper()
	if q.Vector == nil {
		q.Vector = new(vectord.Dense([]float32{1, 0}))
	}
	if q.Limit == 0 {
		q.Limit = 10
	}
	hits, err := b.db.SearchMemories(b.t.Context(), "c", q)
	b.must(err)
	return hits
}

// finds fails unless a query finds just the memories with these ids, in any order.
func (b *memoryBench) finds(q vectord.MemoryQuery, ids ...uint64) {
	b.t.Helper()
	var got []uint64
	for _, hit := range b.find(q) {
		got = append(got, hit.ID.Number())
	}
	slices.Sort(got)
	if !slices.Equal(got, ids) {
		b.t.Errorf("at %d: %+v finds %v, want %v", b.log.now, q, got, ids)
	}
}

// memory reads a memory back.
func (b *memoryBench) memory(id vectord.PointID) vectord.Memory {
	b.t.Helper()
	records, err := b.db.Retrieve(b.t.Context(), "c", []vectord.PointID{id}, vectord.Selection{Payload: true})
	b.must(err)
	if len(records) != 1 {
		b.t.Fatalf("memory %s is not there", id)
	}
	m, err := vectord.ParseMemory(records[0].Payload)
	b.must(err)
	m.Expires = records[0].Expires
	return m
}

func aMemory(id uint64, user string, vector ...float32) vectord.Memory {
	m := vectord.Memory{Text: fmt.Sprint("memory ", id), Vector: new(vectord.Dense(vector)), Scope: vectord.MemoryScope{UserID: user}}
	if id > 0 {
		m.ID = new(vectord.NumberID(id))
	}
	return m
}

var (
	skip      = &vectord.MemoryDedup{Action: vectord.DedupSkip}
	refreshes = &vectord.MemoryDedup{Action: vectord.DedupRefresh}
	supersede = &vectord.MemoryDedup{Action: vectord.DedupSupersede}
)

// TestMemoryScores compares scores with their parts computed by hand.
func TestMemoryScores(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 1)
	m := aMemory(1, "u", 3, 4)
	m.Importance = new(0.25)
	b.store(nil, m)
	_, err := b.db.TouchMemories(t.Context(), "c", []vectord.PointID{vectord.NumberID(1)}) // at once
	b.must(err)
	created := b.log.now
	f := func(after int64, q vectord.MemoryQuery, want float64, parts vectord.MemoryParts) {
		t.Helper()
		b.log.now = created + after
		hits := b.find(q)
		if len(hits) != 1 {
			t.Fatalf("%d hits", len(hits))
		}
		got := hits[0]
		near := func(a, b float64) bool { return math.Abs(a-b) < 1e-6 }
		if !near(got.Score, want) || !near(got.Parts.Similarity, parts.Similarity) || !near(got.Parts.Recency, parts.Recency) ||
			!near(got.Parts.Importance, parts.Importance) {
			t.Errorf("after %d ms, %+v: score %v of %+v, want %v of %+v", after, q, got.Score, got.Parts, want, parts)
		}
	}
	weights := func(s, r, i float64) vectord.MemoryWeights {
		return vectord.MemoryWeights{Similarity: s, Recency: r, Importance: i}
	}
	f(0, vectord.MemoryQuery{}, 0.6, vectord.MemoryParts{Similarity: 0.6, Recency: 1, Importance: 0.25})
	f(0, vectord.MemoryQuery{Weights: weights(1, 1, 1)}, 1.85, vectord.MemoryParts{Similarity: 0.6, Recency: 1, Importance: 0.25})
	f(1000, vectord.MemoryQuery{Weights: weights(0.5, 2, 0), HalfLife: 1000}, 1.3, vectord.MemoryParts{Similarity: 0.6, Recency: 0.5, Importance: 0.25})
	f(3000, vectord.MemoryQuery{Weights: weights(0, 1, 0), HalfLife: 1000}, 0.125, vectord.MemoryParts{Similarity: 0.6, Recency: 0.125, Importance: 0.25})
	f(vectord.DefaultMemoryHalfAge, vectord.MemoryQuery{Weights: weights(0, 1, 0)}, 0.5, vectord.MemoryParts{Similarity: 0.6, Recency: 0.5, Importance: 0.25})
	f(-500, vectord.MemoryQuery{Weights: weights(0, 1, 0)}, 1, vectord.MemoryParts{Similarity: 0.6, Recency: 1, Importance: 0.25}) // of the future

	b.log.now = created + 4000
	_, err = b.db.TouchMemories(t.Context(), "c", []vectord.PointID{vectord.NumberID(1)})
	b.must(err)
	f(5000, vectord.MemoryQuery{Weights: weights(0, 1, 0), HalfLife: 1000, Of: vectord.RecencyOfLastUsed}, 0.5,
		vectord.MemoryParts{Similarity: 0.6, Recency: 0.5, Importance: 0.25})
	f(5000, vectord.MemoryQuery{Weights: weights(0, 1, 0), HalfLife: 1000}, 1.0/32, vectord.MemoryParts{Similarity: 0.6, Recency: 1.0 / 32, Importance: 0.25})
	if got := b.memory(vectord.NumberID(1)).Uses; got != 2 {
		t.Errorf("%d uses, want 2", got)
	}

	for distance, want := range map[vectord.Distance]float64{vectord.Euclid: 1 / (1 + math.Sqrt(20)), vectord.Manhattan: 1.0 / 7, vectord.Dot: 3} {
		b = newMemoryBench(t, distance, 1)
		b.store(nil, m)
		f(0, vectord.MemoryQuery{}, want, vectord.MemoryParts{Similarity: want, Recency: 1, Importance: 0.25})
		b.finds(vectord.MemoryQuery{MinScore: new(want + 0.01)})
		b.finds(vectord.MemoryQuery{MinScore: new(want - 0.01)}, 1)
	}
}

// TestMemoryDedup checks what becomes of memories that are like others, within one write and beyond, in one shard and in several.
func TestMemoryDedup(t *testing.T) {
	for _, shards := range []int{1, 5} {
		b := newMemoryBench(t, vectord.Cosine, shards)
		f := func(d *vectord.MemoryDedup, want string, memories ...vectord.Memory) {
			t.Helper()
			var got []string
			for _, r := range b.store(d, memories...) {
				s := fmt.Sprintf("%s %s", r.Outcome, r.ID)
				if r.Superseded != nil {
					s += fmt.Sprintf(" for %s", r.Superseded)
				}
				got = append(got, s)
			}
			if s := strings.Join(got, ", "); s != want {
				t.Errorf("%d shards: %s, want %s", shards, s, want)
			}
		}
		f(skip, "created 1, skipped 1, created 3, created 4", aMemory(1, "u", 1, 0), aMemory(2, "u", 2, 0), aMemory(3, "v", 1, 0), aMemory(4, "u", 0, 1))
		f(nil, "created 5", aMemory(5, "w", 1, 0))
		f(skip, "skipped 1, skipped 4", aMemory(6, "u", 5, 0.1), aMemory(7, "u", 0, 3))
		f(skip, "created 8", aMemory(8, "", 1, 0))  // nobody's is another scope
		f(skip, "created 1", aMemory(1, "u", 1, 0)) // itself
		b.finds(vectord.MemoryQuery{Scope: vectord.MemoryScope{UserID: "u"}}, 1, 4)

		f(supersede, "superseded 9 for 1, superseded 10 for 9", aMemory(9, "u", 1, 0), aMemory(10, "u", 1, 0))
		b.finds(vectord.MemoryQuery{Scope: vectord.MemoryScope{UserID: "u"}}, 4, 10)
		b.finds(vectord.MemoryQuery{Scope: vectord.MemoryScope{UserID: "u"}, IncludeSuperseded: new(true)}, 1, 4, 9, 10)
		for old, by := range map[uint64]uint64{1: 9, 9: 10} {
			m := b.memory(vectord.NumberID(old))
			if m.SupersededBy == nil || *m.SupersededBy != vectord.NumberID(by) || m.ValidTo != vectord.Datetime(b.log.now*1000) {
				t.Errorf("memory %d: superseded by %v at %v", old, m.SupersededBy, m.ValidTo)
			}
		}
		f(skip, "skipped 10", aMemory(11, "u", 1, 0)) // and not one that was superseded

		lasting := aMemory(12, "u", 0, 1)
		lasting.TTL, lasting.Importance = 5000, new(0.9)
		f(refreshes, "refreshed 4", lasting)
		m := b.memory(vectord.NumberID(4))
		if m.Text != "memory 4" || *m.Importance != 0.9 || m.Uses != 1 || m.LastUsed != vectord.Datetime(b.log.now*1000) || m.Expires != 0 {
			t.Errorf("refreshed: %+v", m)
		}
		soon, later, sooner := aMemory(13, "x", 0, 1), aMemory(14, "x", 0, 1), aMemory(16, "x", 0, 1)
		soon.TTL, later.TTL, sooner.TTL = 1000, 2000, 500
		f(refreshes, "created 13, refreshed 13, refreshed 13", soon, later, sooner)
		if m := b.memory(vectord.NumberID(13)); m.Expires != b.log.now+2000 || m.Uses != 2 {
			t.Errorf("refreshed within the write: %+v", m)
		}
		later.TTL = 9000
		f(refreshes, "refreshed 13", later)
		if m := b.memory(vectord.NumberID(13)); m.Expires != b.log.now+9000 || m.Uses != 3 {
			t.Errorf("refreshed afterwards: %+v", m)
		}
		pinned := aMemory(15, "x", 0, 1)
		pinned.Pinned = true
		f(refreshes, "refreshed 13", pinned)
		if m := b.memory(vectord.NumberID(13)); m.Expires != 0 || !m.Pinned {
			t.Errorf("refreshed by a pinned one: %+v", m)
		}
	}
}

// TestMemoryExpiry checks that a memory is found until it expires, and not after, before any sweep: neither by searches nor as
// one that another is like.
func TestMemoryExpiry(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 1)
	m := aMemory(1, "u", 1, 0)
	m.TTL = 500
	pinned := aMemory(2, "v", 1, 0)
	pinned.Pinned = true
	b.store(skip, m, pinned)
	for _, weights := range []vectord.MemoryWeights{{}, {Similarity: 1, Recency: 1}} {
		b.log.now = 1_000_499
		b.finds(vectord.MemoryQuery{Weights: weights}, 1, 2)
		b.log.now = 1_000_500
		b.finds(vectord.MemoryQuery{Weights: weights}, 2)
		b.finds(vectord.MemoryQuery{Weights: weights, IncludeSuperseded: new(true)}, 2)
	}
	if r := b.store(skip, aMemory(3, "u", 1, 0)); r[0].Outcome != vectord.MemoryCreated {
		t.Errorf("%s, like a memory that has expired", r[0].Outcome)
	}
	if n, err := b.db.TouchMemories(t.Context(), "c", []vectord.PointID{vectord.NumberID(1), vectord.NumberID(2)}); n != 1 || err != nil {
		t.Errorf("touched %d (%v), want 1: the other has expired", n, err)
	}
	if n, err := b.db.ForgetMemories(t.Context(), "c", vectord.MemorySelector{Scope: vectord.MemoryScope{UserID: "u"}}); n != 1 || err != nil {
		t.Errorf("forgot %d (%v), want 1: the other has expired", n, err)
	}
	b.log.now = math.MaxInt32
	b.finds(vectord.MemoryQuery{}, 2)
}

// TestMemoryValidity checks what held when.
func TestMemoryValidity(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 1)
	at := func(ms int64) vectord.Datetime { return vectord.Datetime(ms * 1000) }
	m := aMemory(1, "u", 1, 0)
	m.ValidFrom, m.ValidTo = at(1000), at(2000)
	b.store(nil, m, aMemory(2, "u", 1, 0))
	b.log.now = 2_000_000
	b.store(supersede, aMemory(3, "u", 1, 0)) // takes the place of 2, for 1 has ceased to hold
	b.finds(vectord.MemoryQuery{}, 1, 3)
	b.finds(vectord.MemoryQuery{AsOf: at(999)}, 2)
	b.finds(vectord.MemoryQuery{AsOf: at(1000)}, 1, 2)
	b.finds(vectord.MemoryQuery{AsOf: at(1999)}, 1, 2)
	b.finds(vectord.MemoryQuery{AsOf: at(2000)}, 2)
	b.finds(vectord.MemoryQuery{AsOf: at(1_999_999)}, 2)
	b.finds(vectord.MemoryQuery{AsOf: at(2_000_000)}, 3)
	b.finds(vectord.MemoryQuery{AsOf: at(1_999_999), IncludeSuperseded: new(false)})
}

// TestForgetMemories counts what is forgotten.
func TestForgetMemories(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 3)
	var all []vectord.Memory
	for id := range uint64(60) {
		m := aMemory(id+1, fmt.Sprint("u", id%3), 1, float32(id))
		m.Scope.AgentID = fmt.Sprint("a", id%2)
		m.Pinned = id < 6
		m.Kind = vectord.MemoryKinds()[id%3]
		all = append(all, m)
	}
	b.store(nil, all...)
	b.must(b.write(upsertOf(expiringPoint(100, 0)))) // no memory
	f := func(want int, s vectord.MemorySelector) {
		t.Helper()
		before, err := b.db.Count(t.Context(), "c", nil)
		b.must(err)
		got, err := b.db.ForgetMemories(t.Context(), "c", s)
		b.must(err)
		after, err := b.db.Count(t.Context(), "c", nil)
		b.must(err)
		if got != want || before-after != want {
			t.Errorf("%+v: says %d, deletes %d, want %d", s, got, before-after, want)
		}
	}
	byNumber := func(ids ...uint64) (out []vectord.PointID) {
		for _, id := range ids {
			out = append(out, vectord.NumberID(id))
		}
		return out
	}
	f(9, vectord.MemorySelector{Scope: vectord.MemoryScope{UserID: "u0", AgentID: "a0"}}) // 10, one of them pinned
	f(0, vectord.MemorySelector{Scope: vectord.MemoryScope{UserID: "u0", AgentID: "a0"}})
	f(1, vectord.MemorySelector{Scope: vectord.MemoryScope{UserID: "u0", AgentID: "a0"}, IncludePinned: true})
	f(2, vectord.MemorySelector{IDs: byNumber(2, 3, 2, 100, 777)})
	f(0, vectord.MemorySelector{IDs: byNumber(4), Scope: vectord.MemoryScope{UserID: "nobody"}})
	f(0, vectord.MemorySelector{IDs: []vectord.PointID{}})
	f(18, vectord.MemorySelector{Kind: vectord.MemoryEpisodic})
	f(60-9-1-2-18, vectord.MemorySelector{Scope: vectord.MemoryScope{}, Filter: anyMemory(), IncludePinned: true})
	if _, err := b.db.ForgetMemories(t.Context(), "c", vectord.MemorySelector{IncludePinned: true, Filter: &vectord.Filter{}}); vectord.KindOf(err) != vectord.KindUnprocessable {
		t.Errorf("forget everything: %v", err)
	}
	b.sees(100)
}

// TestMemoryRankingIsExact has the memory that is the least similar win by its importance, among as many as are scored.
func TestMemoryRankingIsExact(t *testing.T) {
	b := newMemoryBench(t, vectord.Dot, 2)
	for id := uint64(0); id < vectord.MaxMemoryCandidates; id += vectord.MaxMemories {
		var chunk []vectord.Memory
		for i := range uint64(vectord.MaxMemories) {
			m := aMemory(id+i+1, "u", 1+float32(id+i)/vectord.MaxMemoryCandidates, 0)
			m.Importance = new(0.0)
			if id+i == 0 {
				m.Importance = new(1.0)
			}
			chunk = append(chunk, m)
		}
		b.store(nil, chunk...)
	}
	q := vectord.MemoryQuery{Weights: vectord.MemoryWeights{Similarity: 1, Importance: 2}, Limit: 1}
	b.finds(q, 1)
	// With one more only the most similar are looked at.
	b.store(nil, aMemory(vectord.MaxMemoryCandidates+1, "u", 1.5, 0))
	b.finds(q, vectord.MaxMemoryCandidates+1)
	b.finds(vectord.MemoryQuery{Weights: q.Weights, Limit: 1, Scope: vectord.MemoryScope{UserID: "u"}, Kind: vectord.MemorySemantic,
		Filter: &vectord.Filter{MustNot: []vectord.Condition{{HasID: &[]vectord.PointID{vectord.NumberID(vectord.MaxMemoryCandidates + 1)}}}}}, 1)
}

// TestSameMemoryAtTheSameTime adds one memory many times at once: one may stay.
func TestSameMemoryAtTheSameTime(t *testing.T) {
	for _, d := range []*vectord.MemoryDedup{skip, refreshes, supersede} {
		for _, shards := range []int{1, 3} {
			b := newMemoryBench(t, vectord.Cosine, shards)
			const writers = 16
			outcomes := make([]vectord.MemoryOutcome, writers)
			var wg sync.WaitGroup
			for i := range writers {
				wg.Go(func() {
					results, err := b.db.StoreMemories(t.Context(), "c", []vectord.Memory{aMemory(0, "u", 1, 1)}, d, vectord.WriteOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					outcomes[i] = results[0].Outcome
				})
			}
			wg.Wait()
			created := 0
			for _, o := range outcomes {
				if o == vectord.MemoryCreated {
					created++
				}
			}
			hits := b.find(vectord.MemoryQuery{Select: vectord.Selection{Payload: true}})
			if created != 1 || len(hits) != 1 {
				t.Fatalf("%s, %d shards: %d created, %d there (%v)", d.Action, shards, created, len(hits), outcomes)
			}
			m, err := vectord.ParseMemory(hits[0].Payload)
			b.must(err)
			if d == refreshes && m.Uses != writers-1 {
				t.Errorf("%d uses, want %d", m.Uses, writers-1)
			}
		}
	}
}

// TestUsesAreCounted touches and refreshes a memory at the same time: each use counts.
func TestUsesAreCounted(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 1)
	b.store(nil, aMemory(1, "u", 1, 1))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.db.TouchMemories(t.Context(), "c", []vectord.PointID{vectord.NumberID(1)}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := b.db.StoreMemories(t.Context(), "c", []vectord.Memory{aMemory(0, "u", 1, 1)}, refreshes, vectord.WriteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := b.memory(vectord.NumberID(1)).Uses; got != 16 {
		t.Errorf("%d uses, want 16", got)
	}
}

// TestMemoriesUnderOneKey repeats a write under its idempotency key: it has one effect and one answer.
func TestMemoriesUnderOneKey(t *testing.T) {
	for _, shards := range []int{1, 4} {
		b := newMemoryBench(t, vectord.Cosine, shards)
		b.store(nil, aMemory(1, "u", 0, 1))
		memories := []vectord.Memory{aMemory(0, "u", 1, 0), aMemory(0, "u", 1, 0), aMemory(0, "u", 0, 1)}
		o := vectord.WriteOptions{IdempotencyKey: "k"}
		first, err := b.db.StoreMemories(t.Context(), "c", memories, supersede, o)
		b.must(err)
		b.log.now += 5000
		again, err := b.db.StoreMemories(t.Context(), "c", memories, supersede, o)
		b.must(err)
		if !reflect.DeepEqual(first, again) {
			t.Errorf("%d shards: first %+v, then %+v", shards, first, again)
		}
		if n, err := b.db.Count(t.Context(), "c", nil); n != 4 || err != nil {
			t.Errorf("%d shards: %d memories (%v), want 4", shards, n, err)
		}
		memories[0].Text = "another"
		if _, err := b.db.StoreMemories(t.Context(), "c", memories, supersede, o); vectord.KindOf(err) != vectord.KindUnprocessable {
			t.Errorf("the key of another request: %v", err)
		}
		if _, err := b.db.StoreMemories(t.Context(), "c", memories[:1], supersede, vectord.WriteOptions{IdempotencyKey: "l"}); err != nil {
			t.Error(err)
		}
	}
}

// TestMemoriesRefused checks that what is wrong is refused with its kind, and changes nothing.
func TestMemoriesRefused(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 1)
	f := func(want vectord.Kind, text string, change func(*vectord.Memory)) {
		t.Helper()
		m := aMemory(2, "u", 1, 0)
		change(&m)
		_, err := b.db.StoreMemories(t.Context(), "c", []vectord.Memory{aMemory(1, "u", 0, 1), m}, skip, vectord.WriteOptions{})
		if vectord.KindOf(err) != want || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("got %v (%v), want %q (%v)", err, vectord.KindOf(err), text, want)
		}
	}
	f(vectord.KindUnprocessable, "text: is empty", func(m *vectord.Memory) { m.Text = "" })
	f(vectord.KindUnprocessable, "importance: value 1.5", func(m *vectord.Memory) { m.Importance = new(1.5) })
	f(vectord.KindUnprocessable, "importance: value NaN", func(m *vectord.Memory) { m.Importance = new(math.NaN()) })
	f(vectord.KindUnprocessable, "kind: expected semantic", func(m *vectord.Memory) { m.Kind = "vague" })
	f(vectord.KindUnprocessable, "scope.run_id: 256 bytes", func(m *vectord.Memory) { m.Scope.RunID = strings.Repeat("x", 256) })
	f(vectord.KindUnprocessable, "ttl_seconds: cannot", func(m *vectord.Memory) { m.TTL, m.Expires = 1, 1 })
	f(vectord.KindUnprocessable, "pinned", func(m *vectord.Memory) { m.TTL, m.Pinned = 1, true })
	f(vectord.KindUnprocessable, "valid_to", func(m *vectord.Memory) { m.ValidFrom, m.ValidTo = 2, 2 })
	f(vectord.KindInvalid, "metadata: expected an object", func(m *vectord.Memory) { m.Metadata = []byte(`[1]`) })
	f(vectord.KindInvalid, "expected dim: 2, got 3", func(m *vectord.Memory) { m.Vector.Values = []float32{1, 2, 3} })
	f(vectord.KindInvalid, "given twice", func(m *vectord.Memory) { m.ID = new(vectord.NumberID(1)) })
	f(vectord.KindInvalid, "model: missing", func(m *vectord.Memory) { m.Vector = nil })
	f(vectord.KindUnsupported, `model "none"`, func(m *vectord.Memory) { m.Vector, m.Model = nil, "none" })
	f(vectord.KindInvalid, "other", func(m *vectord.Memory) { m.Using = "other" })
	if _, err := b.db.StoreMemories(t.Context(), "c", make([]vectord.Memory, vectord.MaxMemories+1), nil, vectord.WriteOptions{}); vectord.KindOf(err) != vectord.KindUnprocessable {
		t.Errorf("too many: %v", err)
	}
	if _, err := b.db.StoreMemories(t.Context(), "d", []vectord.Memory{aMemory(1, "u", 0, 1)}, nil, vectord.WriteOptions{}); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("of no collection: %v", err)
	}
	if info, err := b.db.CollectionInfo("c"); err != nil || info.Points != 0 || len(info.Fields) != 0 {
		t.Errorf("what was refused has left %d points and %d payload indexes (%v)", info.Points, len(info.Fields), err)
	}
}

// TestPreparedMemories commits what PrepareMemories returns by hand, beside something else, and holds the scope meanwhile.
func TestPreparedMemories(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 1)
	b.store(nil, aMemory(1, "u", 1, 0))
	ops, results, release, err := b.db.PrepareMemories(t.Context(), "c", []vectord.Memory{aMemory(2, "u", 1, 0)}, supersede)
	b.must(err)
	stored := make(chan vectord.MemoryOutcome)
	go func() {
		results, err := b.db.StoreMemories(t.Context(), "c", []vectord.Memory{aMemory(3, "u", 1, 0)}, supersede, vectord.WriteOptions{})
		if err != nil || *results[0].Superseded != vectord.NumberID(2) {
			t.Errorf("%+v, %v", results, err)
		}
		close(stored)
	}()
	col, err := b.db.catalog.resolve("c")
	b.must(err)
	w := write{Collection: col.id, Shard: col.shards[0].id, Operations: append(ops, upsertOf(expiringPoint(100, 0)))}
	command, err := w.append(nil)
	b.must(err)
	b.finds(vectord.MemoryQuery{}, 1) // nothing of it yet, nor of the other
	r, err := b.log.Propose(t.Context(), col.shards[0].group, command)
	b.must(err)
	b.must(r.Err)
	b.finds(vectord.MemoryQuery{}, 2)
	release()
	release()
	<-stored
	b.finds(vectord.MemoryQuery{}, 3)
	if results[0].Outcome != vectord.MemorySuperseded {
		t.Errorf("%+v", results)
	}
}

// TestMemoriesLikeModel gives random histories to the engine and to a plain map and compares all answers.
func TestMemoriesLikeModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		distance := rapid.SampledFrom([]vectord.Distance{vectord.Cosine, vectord.Dot, vectord.Euclid, vectord.Manhattan}).Draw(rt, "distance")
		b := newMemoryBench(t, distance, rapid.SampledFrom([]int{1, 3}).Draw(rt, "shards"))
		oracle := model.New()
		oracle.Clock = func() int64 { return b.log.now }
		config := vectord.DefaultCollectionConfig(2, distance)
		b.must(oracle.CreateCollection(t.Context(), "c", config))
		h := memoryHistory{b, oracle}
		rt.Repeat(map[string]func(*rapid.T){
			"store": h.store, "store more": h.store, "search": h.search, "touch": h.touch, "forget": h.forget, "time": h.time, "": h.same,
		})
	})
}

type memoryHistory struct {
	b     *memoryBench
	model *model.Model
}

var (
	memoryVectors = rapid.SampledFrom([][]float32{{1, 0}, {2, 0}, {1, 0.02}, {0, 1}, {0, 0.98}, {1, 1}, {-1, 0}, {0.5, 0.7}})
	memoryIDs     = rapid.Uint64Range(1, 12)
	memoryUsers   = rapid.SampledFrom([]string{"", "u", "v"})
	moments       = rapid.SampledFrom([]vectord.Datetime{0, 0, -5_000_000, 900_000_000, 1_000_000_000, 1_000_500_000})
)

func (h *memoryHistory) draw(t *rapid.T) vectord.Memory {
	m := aMemory(memoryIDs.Draw(t, "id"), memoryUsers.Draw(t, "user"), memoryVectors.Draw(t, "vector")...)
	m.Scope.AgentID = rapid.SampledFrom([]string{"", "", "a"}).Draw(t, "agent")
	m.Kind = rapid.SampledFrom(append(vectord.MemoryKinds(), "")).Draw(t, "kind")
	if rapid.Bool().Draw(t, "important") {
		m.Importance = new(rapid.SampledFrom([]float64{0, 0.25, 1}).Draw(t, "importance"))
	}
	switch rapid.IntRange(0, 3).Draw(t, "lasts") {
	case 0:
		m.TTL = rapid.Int64Range(1, 1000).Draw(t, "ttl")
	case 1:
		m.Pinned = true
	}
	if m.ValidFrom, m.ValidTo = moments.Draw(t, "from"), moments.Draw(t, "to"); m.ValidTo <= m.ValidFrom {
		m.ValidTo = 0
	}
	return m
}

func (h *memoryHistory) store(t *rapid.T) {
	var memories []vectord.Memory
	used := map[vectord.PointID]bool{}
	for range rapid.IntRange(1, 4).Draw(t, "memories") {
		if m := h.draw(t); !used[*m.ID] {
			used[*m.ID] = true
			memories = append(memories, m)
		}
	}
	d := rapid.SampledFrom([]*vectord.MemoryDedup{nil, skip, refreshes, supersede}).Draw(t, "dedup")
	got, err := h.b.db.StoreMemories(h.b.t.Context(), "c", memories, d, vectord.WriteOptions{})
	want, wantErr := h.model.StoreMemories(h.b.t.Context(), "c", memories, d, vectord.WriteOptions{})
	if err != nil || wantErr != nil {
		t.Fatalf("engine: %v, model: %v", err, wantErr)
	}
	for i := range got {
		g, w := &got[i], &want[i]
		if g.ID != w.ID || g.Outcome != w.Outcome || (g.Superseded == nil) != (w.Superseded == nil) || g.Superseded != nil && *g.Superseded != *w.Superseded {
			t.Fatalf("memory %d: engine %+v, model %+v", i, *g, *w)
		}
	}
}

func (h *memoryHistory) search(t *rapid.T) {
	weight := rapid.SampledFrom([]float64{0, 0.5, 1})
	q := vectord.MemoryQuery{Vector: new(vectord.Dense(memoryVectors.Draw(t, "vector"))), Limit: rapid.IntRange(1, 8).Draw(t, "limit"),
		Scope: vectord.MemoryScope{UserID: memoryUsers.Draw(t, "user")}, AsOf: moments.Draw(t, "as of"),
		Weights:  vectord.MemoryWeights{Similarity: weight.Draw(t, "s"), Recency: weight.Draw(t, "r"), Importance: weight.Draw(t, "i")},
		HalfLife: rapid.SampledFrom([]int64{0, 300}).Draw(t, "half"), Of: rapid.SampledFrom([]vectord.RecencyOf{"", vectord.RecencyOfLastUsed}).Draw(t, "of")}
	if rapid.Bool().Draw(t, "say superseded") {
		q.IncludeSuperseded = new(rapid.Bool().Draw(t, "superseded"))
	}
	q.Touch = rapid.Bool().Draw(t, "touch") && q.Limit == 8
	got, err := h.b.db.SearchMemories(h.b.t.Context(), "c", q)
	want, wantErr := h.model.SearchMemories(h.b.t.Context(), "c", q)
	if err != nil || wantErr != nil || len(got) != len(want) {
		t.Fatalf("%+v: engine %d (%v), model %d (%v)", q, len(got), err, len(want), wantErr)
	}
	for i := range got {
		// Scores that are equal but for their rounding may come in either order.
		if math.Abs(got[i].Score-want[i].Score) > 1e-5 {
			t.Fatalf("%+v: place %d: engine %+v, model %+v", q, i, got[i], want[i])
		}
	}
	if q.Touch { // which of equal ones were hits may differ beyond a limit
		h.untie(got, want)
	}
}

// untie has the model count the uses that the engine did.
func (h *memoryHistory) untie(got, want []vectord.MemoryHit) {
	has := func(hits []vectord.MemoryHit, id vectord.PointID) bool {
		return slices.ContainsFunc(hits, func(hit vectord.MemoryHit) bool { return hit.ID == id })
	}
	for _, hit := range got {
		if !has(want, hit.ID) {
			_, err := h.model.TouchMemories(h.b.t.Context(), "c", []vectord.PointID{hit.ID})
			h.b.must(err)
		}
	}
	for _, hit := range want {
		if !has(got, hit.ID) {
			_, err := h.b.db.TouchMemories(h.b.t.Context(), "c", []vectord.PointID{hit.ID})
			h.b.must(err)
		}
	}
}

func (h *memoryHistory) touch(t *rapid.T) {
	ids := []vectord.PointID{vectord.NumberID(memoryIDs.Draw(t, "id")), vectord.NumberID(memoryIDs.Draw(t, "other"))}
	got, err := h.b.db.TouchMemories(h.b.t.Context(), "c", ids)
	want, wantErr := h.model.TouchMemories(h.b.t.Context(), "c", ids)
	if got != want || err != nil || wantErr != nil {
		t.Fatalf("touched %d (%v), model %d (%v)", got, err, want, wantErr)
	}
}

func (h *memoryHistory) forget(t *rapid.T) {
	s := vectord.MemorySelector{Scope: vectord.MemoryScope{UserID: memoryUsers.Draw(t, "user")}, Kind: vectord.MemoryProcedural, IncludePinned: rapid.Bool().Draw(t, "pinned")}
	if rapid.Bool().Draw(t, "by id") {
		s = vectord.MemorySelector{IDs: []vectord.PointID{vectord.NumberID(memoryIDs.Draw(t, "id"))}}
	}
	got, err := h.b.db.ForgetMemories(h.b.t.Context(), "c", s)
	want, wantErr := h.model.ForgetMemories(h.b.t.Context(), "c", s)
	if got != want || err != nil || wantErr != nil {
		t.Fatalf("%+v: forgot %d (%v), model %d (%v)", s, got, err, want, wantErr)
	}
}

func (h *memoryHistory) time(t *rapid.T) { h.b.log.now += rapid.Int64Range(0, 400).Draw(t, "ms") }

// same compares everything that is stored.
func (h *memoryHistory) same(t *rapid.T) {
	request := vectord.ScrollRequest{Limit: vectord.MaxLimit, Select: vectord.Selection{Payload: true}}
	got, err := h.b.db.Scroll(h.b.t.Context(), "c", request)
	h.b.must(err)
	want, err := h.model.Scroll(h.b.t.Context(), "c", request)
	h.b.must(err)
	if len(got.Points) != len(want.Points) {
		t.Fatalf("engine has %d memories, model %d", len(got.Points), len(want.Points))
	}
	for i := range got.Points {
		g, w := &got.Points[i], &want.Points[i]
		gm, err := vectord.ParseMemory(g.Payload)
		h.b.must(err)
		wm, err := vectord.ParseMemory(w.Payload)
		h.b.must(err)
		if g.ID != w.ID || g.Expires != w.Expires || !reflect.DeepEqual(gm, wm) {
			t.Fatalf("engine: %s expires %d %s\nmodel:  %s expires %d %s", g.ID, g.Expires, g.Payload, w.ID, w.Expires, w.Payload)
		}
	}
}

// benchMemories makes an engine with memories of random vectors in one scope.
func benchMemories(b *testing.B, n int) (bench *memoryBench, vector func() []float32) {
	bench = &memoryBench{&clockBench{replica: newReplica(b)}}
	b.Cleanup(bench.close)
	bench.log = &clockLog{r: bench.replica, now: 1_000_000}
	bench.start()
	bench.must(bench.db.CreateCollection(b.Context(), "c", vectord.DefaultCollectionConfig(256, vectord.Cosine)))
	rng := rand.New(rand.NewPCG(1, 0))
	vector = func() []float32 {
		v := make([]float32, 256)
		for i := range v {
			v[i] = rng.Float32() - 0.5
		}
		return v
	}
	for stored := 0; stored < n; stored += 100 {
		var chunk []vectord.Memory
		for range 100 {
			chunk = append(chunk, aMemory(0, "u", vector()...))
		}
		bench.store(nil, chunk...)
	}
	return bench, vector
}

// BenchmarkStoreMemory refreshes a memory of a scope of many: the comparison that a dedup needs, and one command.
func BenchmarkStoreMemory(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			bench, vector := benchMemories(b, n)
			m := aMemory(0, "u", vector()...)
			bench.store(nil, m)
			for b.Loop() {
				bench.store(refreshes, m)
			}
		})
	}
}

// BenchmarkSearchMemories scores all memories of a scope.
func BenchmarkSearchMemories(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			bench, vector := benchMemories(b, n)
			q := vectord.MemoryQuery{Vector: new(vectord.Dense(vector())), Scope: vectord.MemoryScope{UserID: "u"}, Weights: vectord.MemoryWeights{Similarity: 1, Recency: 0.3}}
			for b.Loop() {
				bench.find(q)
			}
		})
	}
}

// cutLog refuses what is proposed from a moment on.
type cutLog struct {
	*clockLog
	mu   sync.Mutex
	left int
}

func (l *cutLog) Propose(ctx context.Context, group uint32, command []byte) (vectord.Result, error) {
	l.mu.Lock()
	l.left--
	cut := l.left < 0
	l.mu.Unlock()
	if cut {
		return vectord.Result{}, vectord.Errorf(vectord.KindClosed, "cut")
	}
	return l.clockLog.Propose(ctx, group, command)
}

// TestSupersedingCutShort interrupts a write to several shards after each of its commands: what it was to supersede is found
// until its successor is, and a repetition under the same key completes the write.
func TestSupersedingCutShort(t *testing.T) {
	for cut := range 8 {
		b := newMemoryBench(t, vectord.Cosine, 4)
		var olds, news []vectord.Memory
		for id := range uint64(8) {
			user := fmt.Sprint("u", id)
			olds, news = append(olds, aMemory(id+1, user, 1, 0)), append(news, aMemory(0, user, 1, 0))
		}
		b.store(nil, olds...)
		b.db.log = &cutLog{clockLog: b.log, left: cut}
		o := vectord.WriteOptions{IdempotencyKey: "k"}
		_, err := b.db.StoreMemories(t.Context(), "c", news, supersede, o)
		cutShort := err != nil
		if cut == 0 && !cutShort {
			t.Fatal("nothing was cut")
		}
		for _, m := range olds {
			if hits := b.find(vectord.MemoryQuery{Scope: m.Scope}); len(hits) == 0 {
				t.Errorf("cut after %d commands: nothing is found of %s", cut, m.Scope.UserID)
			}
		}
		b.db.log = b.log
		if _, err := b.db.StoreMemories(t.Context(), "c", news, supersede, o); err != nil {
			t.Fatal(err)
		}
		for _, m := range olds {
			if hits := b.find(vectord.MemoryQuery{Scope: m.Scope}); len(hits) != 1 || !hits[0].ID.IsUUID() {
				t.Errorf("cut after %d commands and repeated: %d memories of %s", cut, len(hits), m.Scope.UserID)
			}
		}
		if n, err := b.db.Count(t.Context(), "c", nil); n != 16 || err != nil {
			t.Errorf("cut after %d commands and repeated: %d memories (%v), want 16", cut, n, err)
		}
	}
}

// slowLog lets commands wait until the test says so.
type slowLog struct {
	*clockLog
	waiting chan struct{} // one of each command that waits
	pass    chan struct{} // closed when they may pass
}

func (l *slowLog) Propose(ctx context.Context, group uint32, command []byte) (vectord.Result, error) {
	l.waiting <- struct{}{}
	<-l.pass
	return l.clockLog.Propose(ctx, group, command)
}

// TestLockOutlivesItsRequest gives up waiting for a write that then takes effect all the same: the next one of the scope decides by it.
func TestLockOutlivesItsRequest(t *testing.T) {
	b := newMemoryBench(t, vectord.Cosine, 1)
	b.store(nil, aMemory(100, "other", 1, 1)) // has the payload indexes made
	slow := &slowLog{b.log, make(chan struct{}, 10), make(chan struct{})}
	b.db.log = slow
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := b.db.StoreMemories(ctx, "c", []vectord.Memory{aMemory(1, "u", 1, 1)}, skip, vectord.WriteOptions{})
		gaveUp <- err
	}()
	<-slow.waiting
	cancel()
	if err := <-gaveUp; vectord.KindOf(err) != vectord.KindTimeout {
		t.Errorf("given up: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := b.db.memoryLocks.lock(ended, 1, []vectord.MemoryScope{{UserID: "u"}}); err == nil {
		t.Error("the scope is not locked while the command waits")
	}
	close(slow.pass)
	if r := b.store(skip, aMemory(2, "u", 1, 1)); r[0].Outcome != vectord.MemorySkipped {
		t.Errorf("%+v", r)
	}
}
