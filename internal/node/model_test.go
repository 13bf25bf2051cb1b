package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/storage/storagetest"
)

// TestModel gives random histories to a node and to a plain map of points, and compares every answer. Restarts and power
// cuts are operations like others. Run it with -rapid.checks=N for longer, and -rapid.seed=S to repeat.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &modelMachine{disk: storagetest.NewCrashFS(nil), model: model.New()}
		m.open(t)
		defer func() { m.node.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"":            m.check,
			"create":      m.create,
			"drop":        m.drop,
			"aliases":     m.aliases,
			"metadata":    m.update,
			"upsert":      m.upsert,
			"upsert more": m.upsert,
			"change":      m.change,
			"change more": m.change,
			"batch":       m.batch,
			"retrieve":    m.retrieve,
			"scroll":      m.scroll,
			"count":       m.count,
			"search":      m.search,
			"search more": m.search,
			"restart":     m.restart,
			"power cut":   m.powerCut,
		})
	})
}

type modelMachine struct {
	disk  *storagetest.CrashFS
	node  *Node
	model *model.Model
	keys  int
}

var background = context.Background()

func (m *modelMachine) open(t *rapid.T) {
	n, err := Open(Config{DataDir: "data", FS: m.disk, MemoryLimit: 256 << 20, Logger: quiet, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	m.node = n
}

func (m *modelMachine) restart(t *rapid.T) {
	if err := m.node.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
}

// powerCut goes on with what was synced alone. Every operation so far was acknowledged, so none may be missing.
func (m *modelMachine) powerCut(t *rapid.T) {
	disk := m.disk.Crash(rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "unsynced kept"), rapid.Uint64().Draw(t, "seed"))
	if err := m.node.Close(); err != nil {
		t.Fatal(err)
	}
	m.disk = disk
	m.open(t)
}

// same fails unless both sides refused for the same kind of reason, or neither did.
func same(t *rapid.T, what string, got, want error) bool {
	if (got == nil) != (want == nil) || got != nil && vectord.KindOf(got) != vectord.KindOf(want) {
		t.Fatalf("%s: error %v, the model's is %v", what, got, want)
	}
	return want == nil
}

var (
	names      = rapid.SampledFrom([]string{"a", "b"})
	aliasNames = rapid.SampledFrom([]string{"x", "y", "a"})
	targets    = rapid.SampledFrom([]string{"a", "a", "a", "b", "b", "x", "y", "missing"})
	uuid       = vectord.UUIDID([16]byte{0xfe, 15: 1})
	idsDrawn   = rapid.Custom(func(t *rapid.T) vectord.PointID {
		switch n := rapid.IntRange(0, 41).Draw(t, "id"); n {
		case 40:
			return vectord.NumberID(math.MaxUint64)
		case 41:
			return uuid
		default:
			return vectord.NumberID(uint64(n))
		}
	})
	payloads = rapid.SampledFrom([]string{``, `{}`, `{"color":"red","n":1}`, `{"color":"blue","n":2.5}`, `{"color":["red","green"],"n":null}`,
		`{"n":9007199254740993}`, `{"deep":{"list":[{"v":1},{"v":"x"}],"flag":true}}`, `{"deep":{"list":[]},"color":null}`,
		`{"a.b":1,"color":""}`, `{"n":[1,2,3],"flag":false}`})
	pathsDrawn = rapid.SampledFrom([]string{"color", "n", "deep", "deep.list", "deep.list[]", "deep.list[0]", "deep.list[].v", "deep.list[0].v", "deep.flag", `"a.b"`, "flag", "none.at.all"})
)

const modelDim = 4

// vectors are of small whole numbers: sums of their products are exact, so both sides compute the same scores.
var vectors = rapid.Custom(func(t *rapid.T) []float32 {
	v := make([]float32, modelDim)
	for i := range v {
		v[i] = float32(rapid.IntRange(-3, 3).Draw(t, "component"))
	}
	return v
})

var filters = rapid.Custom(func(t *rapid.T) *vectord.Filter {
	if rapid.IntRange(0, 3).Draw(t, "filtered") == 0 {
		return nil
	}
	text := `{"must":` + list(t, 2) + `,"should":` + list(t, 2) + `,"must_not":` + list(t, 1) + `}`
	f, err := vectord.ParseFilter([]byte(text))
	if err != nil {
		t.Fatalf("filter %s: %v", text, err)
	}
	return f
})

func list(t *rapid.T, conditionsMax int) string {
	text := "["
	for i := range rapid.IntRange(0, conditionsMax).Draw(t, "conditions") {
		if i > 0 {
			text += ","
		}
		text += condition(t)
	}
	return text + "]"
}

func condition(t *rapid.T) string {
	key, err := json.Marshal(pathsDrawn.Draw(t, "path"))
	if err != nil {
		t.Fatal(err)
	}
	test := rapid.SampledFrom([]string{
		`{"key":%s,"match":{"value":"red"}}`, `{"key":%s,"match":{"value":1}}`, `{"key":%s,"match":{"value":true}}`,
		`{"key":%s,"match":{"value":9007199254740993}}`,
		`{"key":%s,"match":{"any":["red","x"]}}`, `{"key":%s,"match":{"any":[]}}`, `{"key":%s,"match":{"except":["red"]}}`,
		`{"key":%s,"match":{"except":[1,2]}}`, `{"key":%s,"match":{"text":"re"}}`, `{"key":%s,"range":{"gte":1,"lt":3}}`,
		`{"key":%s,"values_count":{"gte":1}}`, `{"key":%s,"values_count":{"lt":2}}`, `{"is_empty":{"key":%s}}`,
		`{"is_null":{"key":%s}}`, `{"key":%s,"is_empty":false}`, `{"key":%s,"is_null":true}`,
		`{"key":%s,"range":{"gt":2},"match":{"value":1}}`,
		`{"has_id":[1,2,3,"fe000000-0000-0000-0000-000000000001",18446744073709551615]}`,
		`{"must_not":[{"key":%s,"match":{"value":"red"}}]}`,
		`{"min_should":{"min_count":2,"conditions":[{"has_id":[1,2,3,4,5]},{"is_empty":{"key":%s}},{"key":"n","range":{"gt":0}}]}}`,
	}).Draw(t, "test")
	return string(bytes.ReplaceAll([]byte(test), []byte("%s"), key))
}

func (m *modelMachine) create(t *rapid.T) {
	name := names.Draw(t, "name")
	config := vectord.DefaultCollectionConfig(modelDim, rapid.SampledFrom([]vectord.Distance{vectord.Dot, vectord.Euclid,
		vectord.Manhattan, vectord.Cosine}).Draw(t, "distance"))
	config.Params.ShardNumber = rapid.SampledFrom([]int{1, 1, 3}).Draw(t, "shards")
	config.Optimizer.IndexingThreshold = rapid.SampledFrom([]int{0, 1, 10_000}).Draw(t, "indexing threshold")
	same(t, "create "+name, m.node.Engine().CreateCollection(background, name, config), m.model.CreateCollection(background, name, config))
}

func (m *modelMachine) drop(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		t.Skip("collections live longer than a few operations")
	}
	name := targets.Draw(t, "name")
	got, err := m.node.Engine().DeleteCollection(background, name)
	want, wantErr := m.model.DeleteCollection(background, name)
	if same(t, "delete "+name, err, wantErr) && got != want {
		t.Fatalf("delete %s: existed %v, the model says %v", name, got, want)
	}
}

func (m *modelMachine) aliases(t *rapid.T) {
	var actions []vectord.AliasAction
	for range rapid.IntRange(1, 3).Draw(t, "actions") {
		var a vectord.AliasAction
		switch rapid.IntRange(0, 2).Draw(t, "action") {
		case 0:
			a.Create = &vectord.Alias{Name: aliasNames.Draw(t, "alias"), Collection: names.Draw(t, "collection")}
		case 1:
			a.Rename = &vectord.AliasRename{Old: aliasNames.Draw(t, "old"), New: aliasNames.Draw(t, "new")}
		default:
			a.Delete = aliasNames.Draw(t, "alias")
		}
		actions = append(actions, a)
	}
	same(t, fmt.Sprintf("aliases %+v", actions), m.node.Engine().UpdateAliases(background, actions), m.model.UpdateAliases(background, actions))
}

func (m *modelMachine) update(t *rapid.T) {
	ef := rapid.IntRange(0, 300).Draw(t, "ef")
	threshold := rapid.SampledFrom([]int{0, 1, 10_000}).Draw(t, "indexing threshold")
	target := rapid.SampledFrom([]float64{0.5, 0.9, 0.999, 1}).Draw(t, "recall target")
	u := vectord.CollectionUpdate{EfSearch: &ef, RecallTarget: &target, IndexingThreshold: &threshold,
		Metadata: rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":null,"b":[2]}`)}).Draw(t, "metadata")}
	// A change of the codes replaces graphs beside everything that follows.
	u.Quantization = rapid.SampledFrom([]json.RawMessage{nil, nil, json.RawMessage(`null`), json.RawMessage(vectord.QuantizationDisabled),
		json.RawMessage(`{"binary":{}}`), json.RawMessage(`{"product":{"compression":"x4"}}`)}).Draw(t, "quantization")
	name := targets.Draw(t, "name")
	same(t, "update "+name, m.node.Engine().UpdateCollection(background, name, u), m.model.UpdateCollection(background, name, u))
}

func points(t *rapid.T, most int) []vectord.Point {
	n := rapid.IntRange(0, most).Draw(t, "points")
	ids := rapid.SliceOfNDistinct(idsDrawn, n, n, rapid.ID[vectord.PointID]).Draw(t, "ids")
	if n > 1 && rapid.IntRange(0, 30).Draw(t, "twice") == 0 {
		ids[1] = ids[0]
	}
	points := make([]vectord.Point, n)
	for i, id := range ids {
		points[i] = vectord.Point{ID: id, Vector: vectors.Draw(t, "vector"), Payload: []byte(payloads.Draw(t, "payload"))}
		if rapid.IntRange(0, 200).Draw(t, "wrong dimension") == 0 {
			points[i].Vector = points[i].Vector[:2]
		}
	}
	return points
}

func (m *modelMachine) upsert(t *rapid.T) {
	m.write(t, []vectord.Operation{{Kind: vectord.OpUpsert, Points: points(t, 20)}})
}

func (m *modelMachine) change(t *rapid.T) { m.write(t, []vectord.Operation{operation(t)}) }

func (m *modelMachine) batch(t *rapid.T) {
	var ops []vectord.Operation
	for range rapid.IntRange(2, 4).Draw(t, "operations") {
		if op := operation(t); op.Kind != vectord.OpUpdateVectors {
			ops = append(ops, op)
		}
	}
	m.write(t, ops)
}

func operation(t *rapid.T) vectord.Operation {
	op := vectord.Operation{Kind: vectord.OperationKind(rapid.IntRange(1, 7).Draw(t, "kind"))}
	switch op.Kind {
	case vectord.OpUpsert:
		op.Points = points(t, 5)
		return op
	case vectord.OpUpdateVectors:
		op.Points = points(t, 3)
		for i := range op.Points {
			op.Points[i].Payload = nil
		}
		return op
	case vectord.OpSetPayload:
		op.Payload = []byte(rapid.SampledFrom([]string{`{"n":7}`, `{"color":null,"extra":[1]}`, `{}`}).Draw(t, "payload"))
		op.Key = rapid.SampledFrom([]string{"", "", "deep", "new.path", "deep.list[0]", "deep.list[]"}).Draw(t, "key")
	case vectord.OpOverwritePayload:
		op.Payload = []byte(payloads.Draw(t, "payload"))
	case vectord.OpDeletePayload:
		op.Keys = rapid.SliceOfN(pathsDrawn, 1, 3).Draw(t, "keys")
	}
	if op.Filter = filters.Draw(t, "filter"); op.Filter == nil {
		op.IDs = rapid.SliceOfN(idsDrawn, 1, 4).Draw(t, "ids")
	}
	return op
}

func clonedOperations(ops []vectord.Operation) []vectord.Operation {
	ops = slices.Clone(ops)
	for i := range ops {
		ops[i].Points = slices.Clone(ops[i].Points)
		for j := range ops[i].Points {
			ops[i].Points[j].Vector = slices.Clone(ops[i].Points[j].Vector)
		}
	}
	return ops
}

// write gives both sides the operations, sometimes twice under one idempotency key, of which the second must change
// nothing.
func (m *modelMachine) write(t *rapid.T, ops []vectord.Operation) {
	name := targets.Draw(t, "name")
	times := 1
	var options vectord.WriteOptions
	if rapid.IntRange(0, 5).Draw(t, "repeated") == 0 {
		m.keys++
		options.IdempotencyKey, times = fmt.Sprint("key ", m.keys), 2
	}
	want, wantErr := m.model.Write(background, name, clonedOperations(ops), vectord.WriteOptions{})
	for range times {
		got, err := m.node.Engine().Write(background, name, clonedOperations(ops), options)
		if same(t, fmt.Sprintf("write to %s", name), err, wantErr) && len(got) != len(want) {
			t.Fatalf("write: %d results, the model gives %d", len(got), len(want))
		}
		if wantErr != nil {
			return
		}
	}
}

func (m *modelMachine) retrieve(t *rapid.T) {
	name := targets.Draw(t, "name")
	ids := rapid.SliceOfN(idsDrawn, 0, 6).Draw(t, "ids")
	s := selection(t)
	got, err := m.node.Engine().Retrieve(background, name, ids, s)
	want, wantErr := m.model.Retrieve(background, name, ids, s)
	if same(t, "retrieve", err, wantErr) {
		sameRecords(t, "retrieve", got, want)
	}
}

func selection(t *rapid.T) vectord.Selection {
	s := vectord.Selection{Vector: rapid.Bool().Draw(t, "with vector"), Payload: rapid.Bool().Draw(t, "with payload")}
	if s.Payload {
		switch rapid.IntRange(0, 3).Draw(t, "part") {
		case 0:
			s.Include = rapid.SliceOfN(pathsDrawn, 1, 3).Draw(t, "include")
		case 1:
			s.Exclude = rapid.SliceOfN(pathsDrawn, 1, 3).Draw(t, "exclude")
		}
	}
	return s
}

func sameRecords(t *rapid.T, what string, got, want []vectord.Record) {
	if len(got) != len(want) {
		t.Fatalf("%s: %d points, the model has %d", what, len(got), len(want))
	}
	for i := range got {
		sameRecord(t, what, got[i], want[i])
	}
}

func sameRecord(t *rapid.T, what string, got, want vectord.Record) {
	if got.ID != want.ID || !slices.Equal(got.Vector, want.Vector) || !sameJSON(got.Payload, want.Payload) {
		t.Fatalf("%s: point %s %v %s, the model has %s %v %s", what, got.ID, got.Vector, got.Payload, want.ID, want.Vector, want.Payload)
	}
}

// sameJSON compares payloads as values, numbers digit by digit. No payload is an empty object.
func sameJSON(a, b []byte) bool {
	decode := func(b []byte) (v any) {
		if len(b) == 0 {
			return map[string]any{}
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			panic(err)
		}
		return v
	}
	return reflect.DeepEqual(decode(a), decode(b))
}

func (m *modelMachine) scroll(t *rapid.T) {
	name := targets.Draw(t, "name")
	r := vectord.ScrollRequest{Limit: rapid.IntRange(1, 12).Draw(t, "limit"), Filter: filters.Draw(t, "filter"), Select: selection(t)}
	if rapid.Bool().Draw(t, "from") {
		id := idsDrawn.Draw(t, "offset")
		r.Offset = &id
	}
	got, err := m.node.Engine().Scroll(background, name, r)
	want, wantErr := m.model.Scroll(background, name, r)
	if !same(t, "scroll", err, wantErr) {
		return
	}
	sameRecords(t, "scroll", got.Points, want.Points)
	if !reflect.DeepEqual(got.Next, want.Next) {
		t.Fatalf("scroll: next page at %v, the model says %v", got.Next, want.Next)
	}
}

func (m *modelMachine) count(t *rapid.T) {
	name, f := targets.Draw(t, "name"), filters.Draw(t, "filter")
	got, err := m.node.Engine().Count(background, name, f)
	want, wantErr := m.model.Count(background, name, f)
	if same(t, "count", err, wantErr) && got != want {
		t.Fatalf("count: %d, the model says %d", got, want)
	}
}

// search asks for one query, or for a batch of several.
func (m *modelMachine) search(t *rapid.T) {
	name := targets.Draw(t, "name")
	if rapid.Bool().Draw(t, "alone") {
		q := m.query(t, name)
		got, err := m.node.Engine().Search(background, name, q)
		want, wantErr := m.model.Search(background, name, q)
		if same(t, "search", err, wantErr) {
			m.sameHits(t, name, q, got, want)
		}
		return
	}
	queries := make([]vectord.Query, rapid.IntRange(0, 6).Draw(t, "queries"))
	for i := range queries {
		queries[i] = m.query(t, name)
	}
	got, err := m.node.Engine().SearchBatch(background, name, queries)
	want, wantErr := m.model.SearchBatch(background, name, queries)
	if len(queries) > 0 && same(t, "batch", err, wantErr) {
		for i, q := range queries {
			m.sameHits(t, name, q, got[i], want[i])
		}
	}
}

// query draws a query of a collection.
func (m *modelMachine) query(t *rapid.T, name string) vectord.Query {
	q := vectord.Query{Filter: filters.Draw(t, "filter"), Limit: rapid.IntRange(1, 15).Draw(t, "limit"),
		Offset: rapid.IntRange(0, 3).Draw(t, "offset"), Select: selection(t)}
	switch rapid.IntRange(0, 9).Draw(t, "form") {
	case 0: // a list
	case 1:
		id := idsDrawn.Draw(t, "query id")
		q.ID = &id
	case 2:
		q.Vector = []float32{1, 2}
	default:
		q.Vector = vectors.Draw(t, "query")
	}
	if (q.Vector != nil || q.ID != nil) && rapid.IntRange(0, 4).Draw(t, "with threshold") == 0 {
		// Beside every score that small whole numbers give, since the last bit of a Cosine score may differ.
		score := float32(rapid.IntRange(-4, 4).Draw(t, "threshold")) + 0.12345
		q.ScoreThreshold = &score
	}
	q.Params.Exact = rapid.Bool().Draw(t, "exact")
	q.Params.HNSWEf = rapid.SampledFrom([]int{0, 64, 500}).Draw(t, "ef")
	if info, err := m.model.CollectionInfo(name); err == nil && string(info.Config.Quantization) == `{"binary":{}}` {
		// Bits of four components tell hardly anything, so all candidates of a walk that meets everybody must be compared.
		q.Params.HNSWEf, q.Params.Quantization.Ignore = 500, true
	} else if rapid.Bool().Draw(t, "oversampled") {
		q.Params.Quantization.Oversampling = 50
	}
	return q
}

// sameHits compares scores one by one. Points at equal scores may come in either order and either may be cut off, so the
// ids are looked up in the model's answer to the same query without limit.
func (m *modelMachine) sameHits(t *rapid.T, name string, q vectord.Query, got, want []vectord.Hit) {
	if len(got) != len(want) {
		t.Fatalf("search: %d hits, the model has %d", len(got), len(want))
	}
	all := q
	all.Limit, all.Offset = vectord.MaxLimit, 0
	ranking, err := m.model.Search(background, name, all)
	if err != nil {
		t.Fatal(err)
	}
	byID := map[vectord.PointID]vectord.Hit{}
	for _, h := range ranking {
		byID[h.ID] = h
	}
	for i, h := range got {
		other, ok := byID[h.ID]
		if !ok {
			t.Fatalf("search: point %s is no hit by the model", h.ID)
		}
		delete(byID, h.ID) // a second hit of the same point is no hit
		if !near(h.Score, want[i].Score) || !near(h.Score, other.Score) {
			t.Fatalf("search: hit %d is point %s with score %v; the model's has %v, and gives that point %v", i, h.ID, h.Score, want[i].Score, other.Score)
		}
		sameRecord(t, "search", h.Record, other.Record)
	}
}

func near(a, b float32) bool { return math.Abs(float64(a-b)) <= 1e-5*(1+math.Abs(float64(b))) }

// check compares what can be seen without naming a collection.
func (m *modelMachine) check(t *rapid.T) {
	db := m.node.Engine()
	if got, want := db.Collections(), m.model.Collections(); !slices.Equal(got, want) {
		t.Fatalf("collections %q, the model has %q", got, want)
	}
	if got, want := db.Aliases(), m.model.Aliases(); !slices.Equal(got, want) {
		t.Fatalf("aliases %v, the model has %v", got, want)
	}
	for _, name := range []string{"a", "b", "x", "y", "missing"} {
		if got, want := db.CollectionExists(name), m.model.CollectionExists(name); got != want {
			t.Fatalf("collection %q exists: %v, the model says %v", name, got, want)
		}
		got, err := db.CollectionInfo(name)
		want, wantErr := m.model.CollectionInfo(name)
		if !same(t, "info of "+name, err, wantErr) {
			continue
		}
		if got.Points != want.Points || got.Config.HNSW != want.Config.HNSW || !sameJSON(got.Config.Metadata, want.Config.Metadata) {
			t.Fatalf("info of %s: %+v, the model has %+v", name, got, want)
		}
	}
}
