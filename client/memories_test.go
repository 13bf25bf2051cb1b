package client

import (
	"context"
	"net"
	"reflect"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/server"
)

// told is an engine that keeps what it was told about memories.
type told struct {
	*model.Model
	memories []vectord.Memory
	dedup    *vectord.MemoryDedup
	query    vectord.MemoryQuery
	selector vectord.MemorySelector
}

func (e *told) StoreMemories(_ context.Context, _ string, memories []vectord.Memory, d *vectord.MemoryDedup, _ vectord.WriteOptions) ([]vectord.MemoryResult, error) {
	e.memories, e.dedup = memories, d
	similarity := float32(0.99)
	id := vectord.NumberID(8)
	return []vectord.MemoryResult{{ID: id, Outcome: vectord.MemoryCreated},
		{ID: vectord.NumberID(9), Outcome: vectord.MemorySuperseded, Superseded: &id, Similarity: &similarity}}, nil
}

func (e *told) SearchMemories(_ context.Context, _ string, q vectord.MemoryQuery) ([]vectord.MemoryHit, error) {
	e.query = q
	return []vectord.MemoryHit{someHit}, nil
}

func (e *told) TouchMemories(_ context.Context, _ string, ids []vectord.PointID) (int, error) {
	return len(ids), nil
}

func (e *told) ForgetMemories(_ context.Context, _ string, s vectord.MemorySelector) (int, error) {
	e.selector = s
	return 7, nil
}

var someHit = vectord.MemoryHit{Record: vectord.Record{ID: vectord.NumberID(3), Version: 4, Payload: []byte(`{"text":"x"}`), Expires: 2000}, Score: 1.5,
	Parts: vectord.MemoryParts{Similarity: 0.5, Recency: 0.25, Importance: 0.125}}

// TestMemories sends memories, and what is asked about them, to a server and checks that it reads what was meant.
func TestMemories(t *testing.T) {
	engine := &told{Model: model.New()}
	s := server.New(engine, server.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	defer func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	c, err := New("http://"+ln.Addr().String(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id, importance, vector, no := vectord.NumberID(7), 0.75, vectord.Dense([]float32{1, 0.5}), false
	scope := vectord.MemoryScope{UserID: "u", AgentID: "a", SessionID: "s", RunID: "r"}
	memories := []vectord.Memory{
		{Text: "x <y>", Model: "m", TTL: 3000},
		{ID: &id, Text: "z", Vector: &vector, Using: "v", Scope: scope, Kind: vectord.MemoryEpisodic, Importance: &importance, Created: 1_000_000, LastUsed: 2_000_000,
			Expires: 5000, Uses: 3, SourceTask: "t", ValidFrom: -1_000_000, ValidTo: 9_000_001, SupersededBy: &id, Metadata: []byte(`{"a":1.0}`)},
		{Text: "w", Pinned: true},
	}
	dedup := &vectord.MemoryDedup{Threshold: 0.5, Action: vectord.DedupRefresh}
	// The server answers two results, which are not as many as there are memories.
	if _, err := c.StoreMemories(t.Context(), "c", memories, dedup, vectord.WriteOptions{}); StatusOf(err) != 500 {
		t.Errorf("too few results: %v", err)
	}
	same("memories", engine.memories, memories)
	same("dedup", engine.dedup, dedup)
	results, err := c.StoreMemories(t.Context(), "c", memories[:2], nil, vectord.WriteOptions{})
	must(err)
	if len(results) != 2 || results[1].Outcome != vectord.MemorySuperseded || *results[1].Superseded != vectord.NumberID(8) || *results[1].Similarity != 0.99 {
		t.Errorf("results: %+v", results)
	}
	same("no dedup", engine.dedup, (*vectord.MemoryDedup)(nil))

	filter := &vectord.Filter{Must: []vectord.Condition{{IsEmpty: "a"}}}
	for _, q := range []vectord.MemoryQuery{
		{Text: "x", Model: "m", Limit: 3, Weights: vectord.MemoryWeights{Similarity: 1}},
		{Vector: &vector, Using: "v", Scope: scope, Kind: vectord.MemoryProcedural, Filter: filter, AsOf: 5_000_000, Weights: vectord.MemoryWeights{Recency: 1, Importance: 2},
			HalfLife: 4000, Of: vectord.RecencyOfLastUsed, MinScore: &importance, Limit: 2, Touch: true, IncludeSuperseded: &no,
			Select: vectord.Selection{Payload: true}},
	} {
		hits, err := c.SearchMemories(t.Context(), "c", q)
		must(err)
		same("query", engine.query, q)
		want := someHit
		if !q.Select.Payload {
			want.Payload = nil
		}
		same("hits", hits, []vectord.MemoryHit{want})
	}
	n, err := c.TouchMemories(t.Context(), "c", []vectord.PointID{id, id})
	must(err)
	same("touched", n, 2)
	for _, s := range []vectord.MemorySelector{{IDs: []vectord.PointID{id}}, {IDs: []vectord.PointID{}}, {Scope: scope, Kind: vectord.MemorySemantic, Filter: filter, IncludePinned: true}} {
		n, err := c.ForgetMemories(t.Context(), "c", s)
		must(err)
		same("forgotten", n, 7)
		same("selector", engine.selector, s)
	}
	if _, err := c.ForgetMemories(t.Context(), "c", vectord.MemorySelector{IncludePinned: true}); vectord.KindOf(err) != vectord.KindUnprocessable {
		t.Errorf("forget everything: %v", err)
	}
}
