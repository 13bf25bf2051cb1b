package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
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
			"index":       m.createIndex,
			"index more":  m.createIndex,
			"drop index":  m.dropIndex,
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

// TestModelOfQueries asks many queries of the same points, where TestModel asks few of what its histories leave.
func TestModelOfQueries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &modelMachine{disk: storagetest.NewCrashFS(nil), model: model.New()}
		m.open(t)
		defer func() { m.node.Close() }()
		for _, name := range []string{"a", "b"} {
			config := vectord.DefaultCollectionConfig(modelDim, rapid.SampledFrom([]vectord.Distance{vectord.Dot, vectord.Euclid, vectord.Cosine}).Draw(t, "distance"))
			maps.Copy(config.Params.Vectors, namedVectors.Vectors)
			config.Params.SparseVectors = namedVectors.SparseVectors
			config.Params.ShardNumber = rapid.SampledFrom([]int{3, 1}).Draw(t, "shards")
			same(t, "create "+name, m.node.Engine().CreateCollection(background, name, config), m.model.CreateCollection(background, name, config))
			op := vectord.Operation{Kind: vectord.OpUpsert}
			for id := range uint64(40) {
				op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(id), Vectors: allVectors(t, &config.Params), Payload: []byte(payloads.Draw(t, "payload"))})
			}
			for _, side := range []interface {
				Write(context.Context, string, []vectord.Operation, vectord.WriteOptions) ([]vectord.UpdateResult, error)
			}{m.node.Engine(), m.model} {
				if _, err := side.Write(background, name, clonedOperations([]vectord.Operation{op}), vectord.WriteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 60 {
			m.searchIn(t, "a")
		}
	})
}

type modelMachine struct {
	disk  *storagetest.CrashFS
	node  *Node
	model *model.Model
	keys  int
	// building says that a payload index may still be built in the background.
	building bool
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
		`{"a.b":1,"color":""}`, `{"n":[1,2,3],"flag":false}`,
		`{"n":9007199254740992.0,"color":"a red house"}`, `{"n":[-9223372036854775808,18446744073709551616,0.1]}`,
		`{"place":{"lon":1.5,"lat":2},"at":"2026-08-04T12:30:00+02:00"}`, `{"place":[{"lon":-179.5,"lat":0.5},{"lon":179.5,"lat":0.5}],"at":["2026-08-04","x"]}`,
		`{"place":{"lon":0,"lat":90.5},"at":"2026-08-04 10:30:00.0000015"}`, `{"place":{"lon":3,"lat":1,"name":"x"},"at":1785000000}`,
		`{"items":[{"v":1,"color":"red","tags":["x"]},{"v":2,"color":"blue","tags":[]},7]}`,
		`{"items":[{"v":1,"color":"blue","in":[{"v":1,"w":2},{"v":2,"w":1}]},{"v":2.5}]}`, `{"items":{"v":1,"color":"red"}}`, `{"items":[[{"v":1}],{}]}`})
	pathsDrawn = rapid.SampledFrom([]string{"color", "n", "deep", "deep.list", "deep.list[]", "deep.list[0]", "deep.list[].v", "deep.list[0].v", "deep.flag", `"a.b"`, "flag", "none.at.all",
		"place", "place[]", "place[1]", "at", "at[]", "items", "items[]", "items[].v", "items[].tags", "items[].in[].v"})
)

const modelDim = 4

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
	test := conditions.Draw(t, "test")
	if test == nested { // whose conditions are drawn with paths of elements, where the upper ones lead to nothing
		return `{"nested":{"key":` + rapid.SampledFrom([]string{`"items"`, `"items[]"`, `"deep.list"`, `"items[0].in"`, `"color"`}).Draw(t, "array") +
			`,"filter":{"must":` + inner(t, 2) + `,"must_not":` + inner(t, 1) + `}}}`
	}
	return string(bytes.ReplaceAll([]byte(test), []byte("%s"), key))
}

// inner draws conditions that may stand within a nested one.
func inner(t *rapid.T, most int) string {
	var list []string
	for range rapid.IntRange(0, most).Draw(t, "inner conditions") {
		list = append(list, rapid.SampledFrom([]string{`{"key":"v","match":{"value":1}}`, `{"key":"v","range":{"gt":1}}`, `{"key":"color","match":{"value":"red"}}`,
			`{"key":"color","match":{"except":["red"]}}`, `{"is_empty":{"key":"tags"}}`, `{"key":"in","values_count":{"gt":0}}`,
			`{"nested":{"key":"in","filter":{"must":[{"key":"v","match":{"value":1}},{"key":"w","match":{"value":1}}]}}}`,
			`{"should":[{"key":"v","match":{"value":2}},{"key":"color","match":{"text":"l"}}]}`}).Draw(t, "inner condition"))
	}
	return "[" + strings.Join(list, ",") + "]"
}

const nested = "nested"

var conditions = rapid.SampledFrom([]string{
	nested, nested, nested,
	`{"key":%s,"match":{"phrase":"red h"}}`, `{"key":%s,"match":{"text_any":"green red"}}`, `{"key":%s,"match":{"text_any":" "}}`,
	`{"key":%s,"match":{"prefix":"re"}}`, `{"key":%s,"match":{"prefix":""}}`,
	`{"key":%s,"range":{"gt":9007199254740992}}`, `{"key":%s,"range":{"gte":9007199254740993,"lte":9007199254740993}}`,
	`{"key":%s,"range":{"lte":0.1}}`, `{"key":%s,"range":{"lt":9223372036854775807}}`, `{"key":%s,"range":{"gte":1e19}}`, `{"key":%s,"range":{}}`,
	`{"key":%s,"range":{"gte":"2026-08-04T10:30:00Z"}}`, `{"key":%s,"range":{"gt":"2026-08-04T10:30","lte":"2026-08-04 10:30:00.000001"}}`,
	`{"key":%s,"range":{"lt":"2026-08-04T01:00:00+00:30"}}`,
	`{"key":"place","geo_bounding_box":{"top_left":{"lon":1,"lat":3},"bottom_right":{"lon":3,"lat":0}}}`,
	`{"key":%s,"geo_bounding_box":{"top_left":{"lon":179,"lat":3},"bottom_right":{"lon":-179.5,"lat":0}}}`,
	`{"key":"place","geo_radius":{"center":{"lon":1.5,"lat":1},"radius":120000}}`, `{"key":%s,"geo_radius":{"center":{"lon":180,"lat":0},"radius":100000}}`,
	`{"key":"place","geo_polygon":{"exterior":{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]}}}`,
	`{"key":%s,"geo_polygon":{"exterior":{"points":[{"lon":-1,"lat":-1},{"lon":4,"lat":-1},{"lon":4,"lat":4},{"lon":-1,"lat":4},{"lon":-1,"lat":-1}]},
		"interiors":[{"points":[{"lon":1,"lat":1},{"lon":2,"lat":1},{"lon":2,"lat":3},{"lon":1,"lat":1}]}]}}`,
	`{"has_vector":""}`, `{"has_vector":"other"}`, `{"slice":{"total":3,"index":1}}`, `{"slice":{"total":1,"index":0}}`,
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
})

func (m *modelMachine) create(t *rapid.T) {
	name := names.Draw(t, "name")
	config := vectord.DefaultCollectionConfig(modelDim, rapid.SampledFrom([]vectord.Distance{vectord.Dot, vectord.Euclid,
		vectord.Manhattan, vectord.Cosine}).Draw(t, "distance"))
	if rapid.Bool().Draw(t, "named vectors") {
		maps.Copy(config.Params.Vectors, namedVectors.Vectors)
		config.Params.SparseVectors = namedVectors.SparseVectors
	}
	config.Params.ShardNumber = rapid.SampledFrom([]int{1, 1, 3}).Draw(t, "shards")
	config.Optimizer.IndexingThreshold = rapid.SampledFrom([]int{0, 1, 10_000}).Draw(t, "indexing threshold")
	same(t, "create "+name, m.node.Engine().CreateCollection(background, name, config), m.model.CreateCollection(background, name, config))
}

var fieldTypes = rapid.SampledFrom([]vectord.FieldType{vectord.FieldKeyword, vectord.FieldInteger, vectord.FieldFloat, vectord.FieldBool,
	vectord.FieldDatetime, vectord.FieldUUID, vectord.FieldGeo})

// createIndex creates a payload index, of which the model knows that it changes no answer.
func (m *modelMachine) createIndex(t *rapid.T) {
	name, field := targets.Draw(t, "name"), pathsDrawn.Draw(t, "field")
	schema := vectord.FieldSchema{Type: fieldTypes.Draw(t, "type")}
	wait := rapid.IntRange(0, 5).Draw(t, "wait") > 0
	m.building = m.building || !wait
	_, err := m.node.Engine().CreateFieldIndex(background, name, field, schema, wait)
	_, wantErr := m.model.CreateFieldIndex(background, name, field, schema, wait)
	same(t, "index "+field, err, wantErr)
}

func (m *modelMachine) dropIndex(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "really") > 0 {
		t.Skip("indexes live longer than a few operations")
	}
	name, field := targets.Draw(t, "name"), pathsDrawn.Draw(t, "field")
	_, err := m.node.Engine().DeleteFieldIndex(background, name, field)
	_, wantErr := m.model.DeleteFieldIndex(background, name, field)
	same(t, "drop index "+field, err, wantErr)
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
	u := vectord.CollectionUpdate{HNSW: fmt.Appendf(nil, `{"ef_search":%d,"recall_target":%v}`, ef, target),
		Optimizer: fmt.Appendf(nil, `{"indexing_threshold":%d}`, threshold),
		Metadata:  rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":null,"b":[2]}`)}).Draw(t, "metadata")}
	// A change of the codes replaces graphs beside everything that follows.
	u.Quantization = rapid.SampledFrom([]json.RawMessage{nil, nil, json.RawMessage(`null`), json.RawMessage(vectord.QuantizationDisabled),
		json.RawMessage(`{"binary":{}}`), json.RawMessage(`{"product":{"compression":"x4"}}`)}).Draw(t, "quantization")
	name := targets.Draw(t, "name")
	same(t, "update "+name, m.node.Engine().UpdateCollection(background, name, u), m.model.UpdateCollection(background, name, u))
}

// namedVectors are what some collections have beside the default vectors.
var namedVectors = vectord.CollectionParams{
	Vectors: vectord.VectorsParams{
		"dense": {Size: 3, Distance: vectord.Manhattan},
		"multi": {Size: 2, Distance: vectord.Euclid, Multi: &vectord.MultiParams{Comparator: vectord.MaxSim}}},
	SparseVectors: map[string]vectord.SparseParams{"sparse": {}, "idf": {Modifier: vectord.ModifierIDF}},
}

// params returns what vectors a collection has.
func (m *modelMachine) params(name string) vectord.CollectionParams {
	info, err := m.model.CollectionInfo(name)
	if err != nil {
		return vectord.DefaultCollectionConfig(modelDim, vectord.Dot).Params
	}
	return info.Config.Params
}

// components draws small whole numbers: sums of their products are exact, so both sides compute the same scores.
func components(t *rapid.T, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rapid.IntRange(-3, 3).Draw(t, "component"))
	}
	return v
}

// vector draws a vector of a name.
func vector(t *rapid.T, params *vectord.CollectionParams, name string) vectord.Vector {
	if _, ok := params.SparseVectors[name]; ok {
		indices := rapid.SliceOfNDistinct(rapid.Uint32Range(0, 6), 0, 4, rapid.ID[uint32]).Draw(t, "indices")
		return vectord.Sparse(indices, components(t, len(indices)))
	}
	v := params.Vectors[name]
	if v.Multi != nil {
		rows := rapid.IntRange(1, 3).Draw(t, "rows")
		return vectord.Vector{Kind: vectord.MultiVector, Rows: rows, Values: components(t, rows*v.Size)}
	}
	return vectord.Dense(components(t, v.Size))
}

// allVectors draws the vectors of a point: nearly always the default one, and some of the others.
func allVectors(t *rapid.T, params *vectord.CollectionParams) vectord.Vectors {
	drawn := vectord.Vectors{}
	if len(params.Vectors) == 1 || rapid.IntRange(0, 5).Draw(t, "default vector") > 0 {
		drawn = append(drawn, vectord.NamedVector{Vector: vector(t, params, "")})
	}
	names := slices.Concat(slices.Collect(maps.Keys(params.Vectors)), slices.Collect(maps.Keys(params.SparseVectors)))
	slices.Sort(names)
	for _, name := range names[1:] {
		if rapid.Bool().Draw(t, "has "+name) {
			drawn = append(drawn, vectord.NamedVector{Name: name, Vector: vector(t, params, name)})
		}
	}
	return drawn
}

func points(t *rapid.T, params *vectord.CollectionParams, most int) []vectord.Point {
	n := rapid.IntRange(0, most).Draw(t, "points")
	ids := rapid.SliceOfNDistinct(idsDrawn, n, n, rapid.ID[vectord.PointID]).Draw(t, "ids")
	if n > 1 && rapid.IntRange(0, 30).Draw(t, "twice") == 0 {
		ids[1] = ids[0]
	}
	points := make([]vectord.Point, n)
	for i, id := range ids {
		points[i] = vectord.Point{ID: id, Vectors: allVectors(t, params), Payload: []byte(payloads.Draw(t, "payload"))}
		if _, idf := params.SparseVectors["idf"]; !idf && rapid.IntRange(0, 5).Draw(t, "expires") == 0 {
			// Long ago or in far future. What is rare is counted among all points, so there would be two answers until the sweep.
			points[i].Expires = rapid.SampledFrom([]int64{1, 1 << 50}).Draw(t, "at")
		}
		switch rapid.IntRange(0, 200).Draw(t, "wrong") {
		case 0:
			points[i].Vectors = vectord.Unnamed([]float32{1, 2})
		case 1:
			points[i].Vectors = vectord.Vectors{{Name: "missing", Vector: vectord.Dense([]float32{1})}}
		}
	}
	return points
}

func (m *modelMachine) upsert(t *rapid.T) {
	m.write(t, func(params *vectord.CollectionParams) []vectord.Operation {
		return []vectord.Operation{{Kind: vectord.OpUpsert, Points: points(t, params, 20)}}
	})
}

func (m *modelMachine) change(t *rapid.T) {
	m.write(t, func(params *vectord.CollectionParams) []vectord.Operation {
		return []vectord.Operation{operation(t, params)}
	})
}

func (m *modelMachine) batch(t *rapid.T) {
	m.write(t, func(params *vectord.CollectionParams) (ops []vectord.Operation) {
		for range rapid.IntRange(2, 4).Draw(t, "operations") {
			if op := operation(t, params); op.Kind != vectord.OpUpdateVectors {
				ops = append(ops, op)
			}
		}
		return ops
	})
}

func operation(t *rapid.T, params *vectord.CollectionParams) vectord.Operation {
	op := vectord.Operation{Kind: vectord.OperationKind(rapid.IntRange(1, 8).Draw(t, "kind"))}
	switch op.Kind {
	case vectord.OpUpsert, vectord.OpUpdateVectors:
		if rapid.IntRange(0, 2).Draw(t, "conditional") == 0 {
			op.UpdateFilter = filters.Draw(t, "update filter")
		}
		op.Points = points(t, params, 5)
		if op.Kind == vectord.OpUpsert {
			op.UpdateMode = vectord.UpdateMode(rapid.IntRange(0, 2).Draw(t, "mode"))
			return op
		}
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
	case vectord.OpDeleteVectors:
		op.Keys = rapid.SliceOfN(rapid.SampledFrom([]string{"", "dense", "multi", "sparse", "idf"}), 0, 2).Draw(t, "names")
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
			p := &ops[i].Points[j]
			p.Vectors = slices.Clone(p.Vectors)
			for k := range p.Vectors {
				p.Vectors[k].Vector = p.Vectors[k].Clone()
			}
		}
	}
	return ops
}

// write gives both sides the operations, sometimes twice under one idempotency key, of which the second must change
// nothing.
func (m *modelMachine) write(t *rapid.T, draw func(params *vectord.CollectionParams) []vectord.Operation) {
	name := targets.Draw(t, "name")
	params := m.params(name)
	ops := draw(&params)
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
	s := vectord.Selection{Vectors: rapid.Bool().Draw(t, "with vector"),
		VectorNames: rapid.SampledFrom([][]string{nil, nil, {"", "sparse"}, {"multi"}}).Draw(t, "vector names"), Payload: rapid.Bool().Draw(t, "with payload")}
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
	sameVector := func(a, b vectord.NamedVector) bool { return a.Name == b.Name && a.Vector.Equal(b.Vector) }
	if got.ID != want.ID || !slices.EqualFunc(got.Vectors, want.Vectors, sameVector) || !sameJSON(got.Payload, want.Payload) {
		t.Fatalf("%s: point %s %v %s, the model has %s %v %s", what, got.ID, got.Vectors, got.Payload, want.ID, want.Vectors, want.Payload)
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
func (m *modelMachine) search(t *rapid.T) { m.searchIn(t, targets.Draw(t, "name")) }

func (m *modelMachine) searchIn(t *rapid.T, name string) {
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
	if err != nil && wantErr != nil {
		return // perhaps not that of the same query: formulas fail when all that can be refused was
	}
	if len(queries) > 0 && same(t, "batch", err, wantErr) {
		for i, q := range queries {
			m.sameHits(t, name, q, got[i], want[i])
		}
	}
}

// query draws a query of a collection.
func (m *modelMachine) query(t *rapid.T, name string) vectord.Query {
	d := queryDraw{T: t, params: m.params(name)}
	d.pick, _ = m.node.Engine().CollectionInfo(name) // nothing, if there is no such collection
	q := d.query(2)
	q.Offset, q.Select = rapid.IntRange(0, 3).Draw(t, "offset"), selection(t)
	return q
}

// queryDraw draws the parts of one query.
type queryDraw struct {
	*rapid.T
	params vectord.CollectionParams
	pick   vectord.CollectionInfo
}

// query draws a query that may prefetch to some depth.
func (d *queryDraw) query(depth int) vectord.Query {
	t := d.T
	q := vectord.Query{Filter: filters.Draw(t, "filter"), Limit: rapid.IntRange(1, 15).Draw(t, "limit"), Using: d.name()}
	if rapid.IntRange(0, 9).Draw(t, "looked up elsewhere") == 7 {
		q.Lookup = &vectord.Lookup{Collection: targets.Draw(t, "lookup")}
		if rapid.Bool().Draw(t, "other vector") {
			q.Lookup.Vector = new(string)
		}
	}
	if depth > 0 && rapid.IntRange(0, 2).Draw(t, "prefetching") == 0 {
		for range rapid.IntRange(1, 3).Draw(t, "prefetches") {
			q.Prefetch = append(q.Prefetch, d.prefetch(depth-1))
		}
	}
	forms := []string{"nearest", "recommend", "context", "mmr", "id", "discover", "sample", "list", "wrong"}
	if q.Prefetch != nil {
		forms = append([]string{"fusion", "formula"}, forms...)
	}
	form := rapid.SampledFrom(forms).Draw(t, "form")
	d.form(&q, form)
	if threshold := rapid.IntRange(0, 9).Draw(t, "with threshold"); threshold == 5 || threshold == 0 && form != "list" && form != "sample" {
		// Beside every score that small whole numbers give, since the last bit of a Cosine score may differ.
		score := float32(rapid.IntRange(-4, 4).Draw(t, "threshold")) + 0.12345
		q.ScoreThreshold = &score
	}
	q.Params.Exact = rapid.Bool().Draw(t, "exact")
	q.Params.HNSWEf = rapid.SampledFrom([]int{0, 64, 500}).Draw(t, "ef")
	if string(d.pick.Config.Quantization) == `{"binary":{}}` {
		// Bits of four components tell hardly anything, so all candidates of a walk that meets everybody must be compared.
		q.Params.HNSWEf, q.Params.Quantization.Ignore = 500, true
	} else if rapid.Bool().Draw(t, "oversampled") {
		q.Params.Quantization.Oversampling = 50
	}
	return q
}

// form draws what a query ranks by.
func (d *queryDraw) form(q *vectord.Query, form string) {
	t := d.T
	switch form {
	case "nearest":
		q.Nearest = &vectord.Example{Vector: vector(t, &d.params, q.Using)}
	case "id":
		q.Nearest = vectord.NearPoint(idsDrawn.Draw(t, "query id"))
	case "wrong":
		q.Nearest = vectord.Near([]float32{1, 2})
	case "recommend":
		q.Recommend = &vectord.Recommend{Positive: d.examples(q, 3), Negative: d.examples(q, 2)[rapid.IntRange(0, 1).Draw(t, "from"):],
			Strategy: rapid.SampledFrom([]vectord.RecommendStrategy{vectord.BestScore, vectord.AverageVector, vectord.SumScores}).Draw(t, "strategy")}
		if q.Recommend.Strategy == vectord.BestScore && !d.exact(q.Using) {
			q.Recommend.Strategy = vectord.SumScores
		}
	case "context":
		pairs := d.pairs(q)
		q.Context = &pairs
	case "mmr":
		q.Nearest = &vectord.Example{Vector: vector(t, &d.params, q.Using)}
		if d.exact(q.Using) {
			q.MMR = &vectord.MMR{Diversity: rapid.SampledFrom([]float32{0.5, 0.25, 0, 1}).Draw(t, "diversity"), Candidates: rapid.IntRange(0, 20).Draw(t, "candidates")}
		}
	case "discover":
		if d.exact(q.Using) {
			q.Discover = &vectord.Discover{Target: d.example(q), Context: d.pairs(q)}
		}
	case "sample":
		q.Sample = true
	case "fusion":
		q.Fusion = d.fusion(q)
	case "formula":
		q.Formula = &vectord.Formula{Expression: d.expression(3, len(q.Prefetch)), Defaults: map[string]json.RawMessage{"n": json.RawMessage(`2`),
			"at": json.RawMessage(`"2026-08-01"`), "place": json.RawMessage(`{"lon":1,"lat":1}`), "$score": json.RawMessage(`3`)}}
	}
}

// prefetch draws a query whose hits do not depend on the last bits of scores: it is cut off where both sides cut, or nowhere.
func (d *queryDraw) prefetch(depth int) vectord.Query {
	q := d.query(depth)
	if q.Formula != nil || q.Sample { // nearly equal scores, and chance
		q.Formula, q.Sample, q.ScoreThreshold, q.Prefetch = nil, false, nil, nil
	}
	inexact := q.Context != nil || q.Recommend != nil && q.Recommend.Strategy == vectord.AverageVector || q.Fusion != nil && q.Fusion.Method == vectord.DistributionScore
	if compares := q.Nearest != nil || q.Recommend != nil || q.Discover != nil || q.Context != nil; inexact || compares && !d.exact(q.Using) {
		q.Limit = 50
	}
	return q
}

// name draws a name of vectors, rarely one that is not there.
func (d *queryDraw) name() string {
	if len(d.params.Vectors) > 1 || rapid.IntRange(0, 30).Draw(d.T, "wrong name") == 0 {
		return rapid.SampledFrom([]string{"", "", "dense", "multi", "sparse", "idf"}).Draw(d.T, "using")
	}
	return ""
}

// exact reports whether both sides compute the same scores, to the last bit.
func (d *queryDraw) exact(name string) bool {
	return name != "idf" && d.params.Vectors[name].Distance != vectord.Cosine
}

func (d *queryDraw) example(q *vectord.Query) vectord.Example {
	if rapid.IntRange(0, 2).Draw(d.T, "by id") == 0 {
		return *vectord.NearPoint(idsDrawn.Draw(d.T, "example"))
	}
	return vectord.Example{Vector: vector(d.T, &d.params, q.Using)}
}

func (d *queryDraw) examples(q *vectord.Query, most int) (list []vectord.Example) {
	for range rapid.IntRange(1, most).Draw(d.T, "examples") {
		list = append(list, d.example(q))
	}
	return list
}

func (d *queryDraw) pairs(q *vectord.Query) (pairs []vectord.ContextPair) {
	for range rapid.IntRange(1, 3).Draw(d.T, "pairs") {
		pairs = append(pairs, vectord.ContextPair{Positive: d.example(q), Negative: d.example(q)})
	}
	return pairs
}

// fusion draws one, and makes lists of those prefetches whose hits may have nearly the same score: it would make much of that.
func (d *queryDraw) fusion(q *vectord.Query) *vectord.Fusion {
	q.Using = ""
	for i, p := range q.Prefetch {
		if p.Limit == 50 { // see prefetch
			q.Prefetch[i] = vectord.Query{Limit: 5, Filter: p.Filter}
		}
	}
	f := &vectord.Fusion{Method: vectord.FusionMethod(rapid.IntRange(0, 1).Draw(d.T, "method")), K: rapid.IntRange(0, 60).Draw(d.T, "k")}
	if rapid.Bool().Draw(d.T, "weighted") {
		for range q.Prefetch {
			f.Weights = append(f.Weights, rapid.SampledFrom([]float32{0, 0.5, 1, 3}).Draw(d.T, "weight"))
		}
	}
	return f
}

var nearPlace = vectord.GeoPoint{Lon: 1, Lat: 2}

// expression draws a formula, some of which fail for some points.
func (d *queryDraw) expression(depth, prefetches int) vectord.Expression {
	t := d.T
	args := func(n int) (list []vectord.Expression) {
		for range n {
			list = append(list, d.expression(depth-1, prefetches))
		}
		return list
	}
	kinds := []vectord.ExpressionKind{vectord.ExprNumber, vectord.ExprScore, vectord.ExprScore, vectord.ExprScore, vectord.ExprValue, vectord.ExprCondition,
		vectord.ExprGeoDistance, vectord.ExprTime, vectord.ExprTimeKey}
	if depth > 0 {
		kinds = append([]vectord.ExpressionKind{vectord.ExprSum, vectord.ExprSum, vectord.ExprMult, vectord.ExprMult, vectord.ExprNeg, vectord.ExprAbs, vectord.ExprDiv,
			vectord.ExprSqrt, vectord.ExprPow, vectord.ExprExp, vectord.ExprLog10, vectord.ExprLn, vectord.ExprLinDecay, vectord.ExprExpDecay, vectord.ExprGaussDecay}, kinds...)
	}
	e := vectord.Expression{Kind: rapid.SampledFrom(kinds).Draw(t, "expression")}
	switch e.Kind {
	case vectord.ExprNumber:
		e.Number = rapid.SampledFrom([]float64{0, 1, -2, 0.5, 100}).Draw(t, "number")
	case vectord.ExprScore:
		e.Score = rapid.IntRange(0, prefetches-1).Draw(t, "prefetch")
	case vectord.ExprValue:
		e.Key = rapid.SampledFrom([]string{"n", "n", "n", "deep.list[0].v", "items[].v"}).Draw(t, "value")
	case vectord.ExprCondition:
		filter, err := vectord.ParseFilter([]byte(`{"must":[` + condition(t) + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		e.Condition = &filter.Must[0]
	case vectord.ExprGeoDistance:
		e.Key, e.Origin = rapid.SampledFrom([]string{"place", "place", "place[1]"}).Draw(t, "to"), nearPlace
	case vectord.ExprTime:
		e.Time = 1_785_000_000_500_000
	case vectord.ExprTimeKey:
		e.Key = "at"
	case vectord.ExprSum, vectord.ExprMult:
		e.Args = args(rapid.IntRange(0, 3).Draw(t, "operands"))
	case vectord.ExprDiv:
		e.Args, e.Number, e.HasNumber = args(2), 7, rapid.Bool().Draw(t, "by zero")
	case vectord.ExprPow:
		e.Args = args(2)
	case vectord.ExprLinDecay, vectord.ExprExpDecay, vectord.ExprGaussDecay:
		e.Args, e.Number, e.HasNumber = args(rapid.IntRange(1, 2).Draw(t, "with target")), 10, rapid.Bool().Draw(t, "scale")
		if rapid.Bool().Draw(t, "midpoint") {
			midpoint := rapid.SampledFrom([]float64{0.1, 0.75}).Draw(t, "at scale")
			e.Midpoint = &midpoint
		}
	default:
		e.Args = args(1)
	}
	return e
}

// sameHits compares scores one by one. Points at equal scores may come in either order and either may be cut off, so the
// ids are looked up in the model's answer to the same query without limit.
func (m *modelMachine) sameHits(t *rapid.T, name string, q vectord.Query, got, want []vectord.Hit) {
	if len(got) != len(want) {
		t.Fatalf("search: %d hits, the model has %d", len(got), len(want))
	}
	all := q
	all.Limit, all.Offset = vectord.MaxLimit, 0
	if all.MMR != nil {
		all = vectord.Query{Nearest: q.Nearest, Using: q.Using, Lookup: q.Lookup, Limit: vectord.MaxLimit, Select: q.Select}
	}
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
		if got, want := db.ResolveAlias(name), m.model.ResolveAlias(name); got != want {
			t.Fatalf("%q stands for %q, the model says %q", name, got, want)
		}
		got, err := db.CollectionInfo(name)
		want, wantErr := m.model.CollectionInfo(name)
		if !same(t, "info of "+name, err, wantErr) {
			continue
		}
		if got.Points != want.Points || got.Config.HNSW != want.Config.HNSW || !sameJSON(got.Config.Metadata, want.Config.Metadata) {
			t.Fatalf("info of %s: %+v, the model has %+v", name, got, want)
		}
		for field, info := range want.Fields {
			if g := got.Fields[field]; !g.Equal(info.FieldSchema) || !m.building && g.Points != info.Points {
				t.Fatalf("index on %s of %s: %+v, the model has %+v", field, name, g, info)
			}
		}
		if len(got.Fields) != len(want.Fields) {
			t.Fatalf("indexes of %s: %v, the model has %v", name, got.Fields, want.Fields)
		}
	}
}
