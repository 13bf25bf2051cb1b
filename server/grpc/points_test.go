package grpcserver_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// writes are the methods of the client that change points.
func (h *harness) upsert(points ...*qdrant.PointStruct) {
	h.Helper()
	got := must[*qdrant.UpdateResult](h)(h.c.Upsert(h.Context(), &qdrant.UpsertPoints{CollectionName: "c", Wait: p(true), Points: points}))
	if got.GetStatus() != qdrant.UpdateStatus_Completed {
		h.Errorf("upsert: %v", got)
	}
}

// get returns a point with everything.
func (h *harness) get(id *qdrant.PointId) *qdrant.RetrievedPoint {
	h.Helper()
	found := must[[]*qdrant.RetrievedPoint](h)(h.c.Get(h.Context(), &qdrant.GetPoints{CollectionName: "c", Ids: []*qdrant.PointId{id}, WithVectors: qdrant.NewWithVectors(true)}))
	if len(found) != 1 {
		h.Fatalf("point %v: %v", id, found)
	}
	return found[0]
}

func denseOutput(values ...float32) *qdrant.VectorOutput {
	return &qdrant.VectorOutput{Vector: &qdrant.VectorOutput_Dense{Dense: &qdrant.DenseVector{Data: values}}}
}

// TestPayloads writes every kind of value by gRPC and reads it back by both doors, and the other way about.
func TestPayloads(t *testing.T) {
	h := start(t)
	h.ok(h.c.CreateCollection(t.Context(), &qdrant.CreateCollection{CollectionName: "c", VectorsConfig: qdrant.NewVectorsConfig(&qdrant.VectorParams{Size: 1, Distance: qdrant.Distance_Dot})}))
	payload := qdrant.NewValueMap(map[string]any{
		"null": nil, "true": true, "false": false, "text": "ä \"quoted\" \u2028 \x00 😀", "empty": "", "": "no key",
		"int": 42, "beyond 2^53": int64(9007199254740993), "least": int64(math.MinInt64), "most": int64(math.MaxInt64),
		"double": 0.1, "whole double": 1.0, "big double": 1e16, "small": -1.5e-7, "zero": 0.0, "minus zero": math.Copysign(0, -1), "largest": math.MaxFloat64,
		"list": []any{1, 1.0, "a", nil, []any{}, map[string]any{}}, "nested": map[string]any{"b": map[string]any{"a": []any{map[string]any{"x": 1}}}},
	})
	id := qdrant.NewIDUUID("F47AC10B-58CC-4372-A567-0E02B2C3D479")
	h.upsert(&qdrant.PointStruct{Id: id, Vectors: qdrant.NewVectors(0.5), Payload: payload})
	got := h.get(id)
	h.same("payload", &qdrant.Struct{Fields: got.GetPayload()}, &qdrant.Struct{Fields: payload})
	if uuid := got.GetId().GetUuid(); uuid != "f47ac10b-58cc-4372-a567-0e02b2c3d479" {
		t.Errorf("id %s", uuid)
	}
	h.same("vector", got.GetVectors().GetVector(), denseOutput(0.5))

	const wantJSON = `{"":"no key","beyond 2^53":9007199254740993,"big double":1e+16,"double":0.1,"empty":"","false":false,"int":42,` +
		`"largest":1.7976931348623157e+308,"least":-9223372036854775808,"list":[1,1.0,"a",null,[],{}],"minus zero":-0.0,"most":9223372036854775807,` +
		`"nested":{"b":{"a":[{"x":1}]}},"null":null,"small":-1.5e-07,"text":"ä \"quoted\" ` + "\u2028" + ` \u0000 😀","true":true,"whole double":1.0,"zero":0.0}`
	var record struct {
		Payload json.RawMessage
		Vector  json.RawMessage
	}
	h.ok(json.Unmarshal([]byte(h.rest("GET", "/collections/c/points/f47ac10b-58cc-4372-a567-0e02b2c3d479", "")), &record))
	if string(record.Payload) != wantJSON || string(record.Vector) != "[0.5]" {
		t.Errorf("over HTTP:\n%s\nwant\n%s\nvector %s", record.Payload, wantJSON, record.Vector)
	}

	h.rest("PUT", "/collections/c/points", `{"points":[{"id":7,"vector":[2],"payload":{"a":1,"b":1.0,"c":1e2,"d":18446744073709551615,"e":[{"f":null}],"g":-0}}]}`)
	want := qdrant.NewValueMap(map[string]any{"a": 1, "b": 1.0, "c": 100.0, "d": 18446744073709551615.0, "e": []any{map[string]any{"f": nil}}, "g": math.Copysign(0, -1)})
	h.same("payload from HTTP", &qdrant.Struct{Fields: h.get(qdrant.NewIDNum(7)).GetPayload()}, &qdrant.Struct{Fields: want})

	refuse := func(want codes.Code, text string, point *qdrant.PointStruct) {
		t.Helper()
		_, err := h.c.Upsert(t.Context(), &qdrant.UpsertPoints{CollectionName: "c", Points: []*qdrant.PointStruct{point}})
		h.refused(err, want, text)
	}
	v := qdrant.NewVectors(1)
	deep := qdrant.NewValueNull()
	for range 200 {
		deep = qdrant.NewValueFromList(deep)
	}
	refuse(codes.InvalidArgument, "points[0].payload", &qdrant.PointStruct{Id: id, Vectors: v, Payload: qdrant.NewValueMap(map[string]any{"nan": math.NaN()})})
	refuse(codes.InvalidArgument, "nested deeper", &qdrant.PointStruct{Id: id, Vectors: v, Payload: map[string]*qdrant.Value{"deep": deep}})
	refuse(codes.InvalidArgument, "points[0].id", &qdrant.PointStruct{Vectors: v})
	refuse(codes.InvalidArgument, "not a valid point ID", &qdrant.PointStruct{Id: qdrant.NewIDUUID("123"), Vectors: v})
	refuse(codes.InvalidArgument, "vectors", &qdrant.PointStruct{Id: id})
	refuse(codes.InvalidArgument, "dimension", &qdrant.PointStruct{Id: id, Vectors: qdrant.NewVectors(1, 2)})
	refuse(codes.InvalidArgument, "empty", &qdrant.PointStruct{Id: id, Vectors: qdrant.NewVectors()})
	refuse(codes.Unimplemented, "inference", &qdrant.PointStruct{Id: id, Vectors: qdrant.NewVectorsImage(&qdrant.Image{Model: "m"})})
	_, err := h.c.Upsert(t.Context(), &qdrant.UpsertPoints{CollectionName: "no"})
	h.refused(err, codes.NotFound, "no")
}

// TestVectors writes vectors of all kinds, in the form of today and in the older one.
func TestVectors(t *testing.T) {
	h := start(t)
	ctx := t.Context()
	create := everything("c")
	create.StrictModeConfig = nil
	h.ok(h.c.CreateCollection(ctx, create))
	older := func(v *qdrant.Vector) *qdrant.Vector {
		old := &qdrant.Vector{}
		switch kind := v.GetVector().(type) {
		case *qdrant.Vector_Dense:
			old.Data = kind.Dense.GetData() //nolint:staticcheck // what older clients send
		case *qdrant.Vector_Sparse:
			old.Data, old.Indices = kind.Sparse.GetValues(), &qdrant.SparseIndices{Data: kind.Sparse.GetIndices()} //nolint:staticcheck // see above
		case *qdrant.Vector_MultiDense:
			for _, row := range kind.MultiDense.GetVectors() {
				old.Data = append(old.Data, row.GetData()...) //nolint:staticcheck // see above
			}
			old.VectorsCount = p(uint32(len(kind.MultiDense.GetVectors()))) //nolint:staticcheck // see above
		}
		return old
	}
	today := map[string]*qdrant.Vector{
		"":      qdrant.NewVector(1, 2, 3, 4),
		"image": qdrant.NewVectorDense([]float32{0.5, 0.25, -1}),
		"words": qdrant.NewVectorMulti([][]float32{{1, 0}, {0, 1}}),
		"terms": qdrant.NewVectorSparse([]uint32{70000, 3}, []float32{0.5, 2}),
	}
	before := map[string]*qdrant.Vector{}
	for name, v := range today {
		before[name] = older(v)
	}
	h.upsert(&qdrant.PointStruct{Id: qdrant.NewIDNum(1), Vectors: qdrant.NewVectorsMap(today)},
		&qdrant.PointStruct{Id: qdrant.NewIDNum(2), Vectors: qdrant.NewVectorsMap(before)},
		&qdrant.PointStruct{Id: qdrant.NewIDNum(3), Vectors: qdrant.NewVectorsMap(map[string]*qdrant.Vector{
			"bm25": qdrant.NewVectorDocument(&qdrant.Document{Text: "the quick fox", Model: "Qdrant/bm25"})})})
	want := &qdrant.NamedVectorsOutput{Vectors: map[string]*qdrant.VectorOutput{
		"":      denseOutput(1, 2, 3, 4),
		"image": denseOutput(0.5, 0.25, -1),
		"words": {Vector: &qdrant.VectorOutput_MultiDense{MultiDense: &qdrant.MultiDenseVector{Vectors: []*qdrant.DenseVector{{Data: []float32{1, 0}}, {Data: []float32{0, 1}}}}}},
		"terms": {Vector: &qdrant.VectorOutput_Sparse{Sparse: &qdrant.SparseVector{Indices: []uint32{3, 70000}, Values: []float32{2, 0.5}}}},
	}}
	for id := range uint64(2) {
		h.same(fmt.Sprintf("vectors of %d", id+1), h.get(qdrant.NewIDNum(id+1)).GetVectors().GetVectors(), want)
	}
	var record struct{ Vector json.RawMessage }
	h.ok(json.Unmarshal([]byte(h.rest("GET", "/collections/c/points/2", "")), &record))
	if got := string(record.Vector); got != `{"":[1,2,3,4],"image":[0.5,0.25,-1],"terms":{"indices":[3,70000],"values":[2,0.5]},"words":[[1,0],[0,1]]}` {
		t.Errorf("over HTTP: %s", got)
	}
	if bm25 := h.get(qdrant.NewIDNum(3)).GetVectors().GetVectors().GetVectors()["bm25"].GetSparse(); len(bm25.GetIndices()) != 2 {
		t.Errorf("the text made %v", bm25)
	}

	some := must[[]*qdrant.RetrievedPoint](h)(h.c.Get(ctx, &qdrant.GetPoints{CollectionName: "c", Ids: []*qdrant.PointId{qdrant.NewIDNum(1)}, WithPayload: qdrant.NewWithPayload(false), WithVectors: qdrant.NewWithVectorsInclude("image")}))
	h.same("one vector", some[0].GetVectors().GetVectors(), &qdrant.NamedVectorsOutput{Vectors: map[string]*qdrant.VectorOutput{"image": denseOutput(0.5, 0.25, -1)}})

	must[*qdrant.UpdateResult](h)(h.c.UpdateVectors(ctx, &qdrant.UpdatePointVectors{CollectionName: "c", Wait: p(true), Points: []*qdrant.PointVectors{
		{Id: qdrant.NewIDNum(1), Vectors: qdrant.NewVectorsMap(map[string]*qdrant.Vector{"image": qdrant.NewVector(1, 1, 1)})}}}))
	must[*qdrant.UpdateResult](h)(h.c.DeleteVectors(ctx, &qdrant.DeletePointVectors{CollectionName: "c", Wait: p(true), PointsSelector: qdrant.NewPointsSelector(qdrant.NewIDNum(1)),
		Vectors: &qdrant.VectorsSelector{Names: []string{"", "words"}}}))
	h.same("updated", h.get(qdrant.NewIDNum(1)).GetVectors().GetVectors(), &qdrant.NamedVectorsOutput{Vectors: map[string]*qdrant.VectorOutput{
		"image": denseOutput(1, 1, 1), "terms": want.GetVectors()["terms"]}})
	_, err := h.c.UpdateVectors(ctx, &qdrant.UpdatePointVectors{CollectionName: "c", Points: []*qdrant.PointVectors{{Id: qdrant.NewIDNum(9), Vectors: qdrant.NewVectorsMap(today)}}})
	h.refused(err, codes.NotFound, "9")

	refuse := func(text, name string, v *qdrant.Vector) {
		t.Helper()
		_, err := h.c.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: "c", Points: []*qdrant.PointStruct{{Id: qdrant.NewIDNum(5), Vectors: qdrant.NewVectorsMap(map[string]*qdrant.Vector{name: v})}}})
		h.refused(err, codes.InvalidArgument, text)
	}
	refuse("Not existing vector name", "absent", qdrant.NewVector(1))
	refuse("same length", "terms", qdrant.NewVectorSparse([]uint32{1, 2}, []float32{1}))
	refuse("unique", "terms", qdrant.NewVectorSparse([]uint32{2, 2}, []float32{1, 1}))
	refuse("row 1 has 1", "words", qdrant.NewVectorMulti([][]float32{{1, 2}, {1}}))
	refuse("row 0 of the multivector is empty", "words", qdrant.NewVectorMulti([][]float32{{}}))
	refuse("3 components in 2 rows", "words", &qdrant.Vector{Data: []float32{1, 2, 3}, VectorsCount: p(uint32(2))}) //nolint:staticcheck // what older clients send
	refuse("empty", "image", &qdrant.Vector{})
	refuse("model", "bm25", qdrant.NewVectorDocument(&qdrant.Document{Text: "x"}))
	refuse("finite", "image", qdrant.NewVector(1, float32(math.NaN()), 0))
}

// TestWrites takes points through every operation, alone and in a batch, and compares payloads with what is expected.
func TestWrites(t *testing.T) {
	h := start(t)
	ctx := t.Context()
	h.ok(h.c.CreateCollection(ctx, &qdrant.CreateCollection{CollectionName: "c", VectorsConfig: qdrant.NewVectorsConfig(&qdrant.VectorParams{Size: 1, Distance: qdrant.Distance_Dot})}))
	num := qdrant.NewIDNum
	point := func(id uint64, x float32, payload map[string]any) *qdrant.PointStruct {
		return &qdrant.PointStruct{Id: num(id), Vectors: qdrant.NewVectors(x), Payload: qdrant.NewValueMap(payload)}
	}
	want := func(when string, all map[uint64]string) {
		t.Helper()
		got := map[uint64]string{}
		var rows struct {
			Points []struct {
				ID      uint64
				Payload json.RawMessage
			}
		}
		h.ok(json.Unmarshal([]byte(h.rest("POST", "/collections/c/points/scroll", `{"limit":100}`)), &rows))
		for _, r := range rows.Points {
			got[r.ID] = string(r.Payload)
		}
		if fmt.Sprint(got) != fmt.Sprint(all) {
			t.Errorf("%s: %v, want %v", when, got, all)
		}
	}
	some := func(ids ...uint64) *qdrant.PointsSelector {
		var list []*qdrant.PointId
		for _, id := range ids {
			list = append(list, num(id))
		}
		return qdrant.NewPointsSelectorIDs(list)
	}
	where := func(key string, n int64) *qdrant.PointsSelector {
		return qdrant.NewPointsSelectorFilter(&qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatchInt(key, n)}})
	}
	done := func(got *qdrant.UpdateResult, err error) {
		t.Helper()
		h.ok(err)
		if got.OperationId == nil || got.GetStatus() != qdrant.UpdateStatus_Completed {
			t.Errorf("result: %v", got)
		}
	}
	yes := p(true)
	got := must[*qdrant.UpdateResult](h)(h.c.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: "c", Points: []*qdrant.PointStruct{point(1, 1, map[string]any{"a": 1}), point(2, 2, map[string]any{"a": 2}), point(3, 3, nil)}}))
	if got.GetStatus() != qdrant.UpdateStatus_Acknowledged {
		t.Errorf("without wait: %v", got)
	}
	done(h.c.SetPayload(ctx, &qdrant.SetPayloadPoints{CollectionName: "c", Wait: yes, Payload: qdrant.NewValueMap(map[string]any{"b": 1}), PointsSelector: some(1, 3)}))
	done(h.c.SetPayload(ctx, &qdrant.SetPayloadPoints{CollectionName: "c", Wait: yes, Payload: qdrant.NewValueMap(map[string]any{"x": 1}), Key: p("o"), PointsSelector: where("a", 2)}))
	want("set", map[uint64]string{1: `{"a":1,"b":1}`, 2: `{"a":2,"o":{"x":1}}`, 3: `{"b":1}`})
	done(h.c.OverwritePayload(ctx, &qdrant.SetPayloadPoints{CollectionName: "c", Wait: yes, Payload: qdrant.NewValueMap(map[string]any{"z": 0}), PointsSelector: some(3)}))
	done(h.c.DeletePayload(ctx, &qdrant.DeletePayloadPoints{CollectionName: "c", Wait: yes, Keys: []string{"b", "o.x"}, PointsSelector: some(1, 2)}))
	want("overwritten and deleted", map[uint64]string{1: `{"a":1}`, 2: `{"a":2,"o":{}}`, 3: `{"z":0}`})
	done(h.c.OverwritePayload(ctx, &qdrant.SetPayloadPoints{CollectionName: "c", Wait: yes, PointsSelector: some(3)}))
	done(h.c.ClearPayload(ctx, &qdrant.ClearPayloadPoints{CollectionName: "c", Wait: yes, Points: where("a", 2)}))
	want("cleared", map[uint64]string{1: `{"a":1}`, 2: `{}`, 3: `{}`})
	done(h.c.Delete(ctx, &qdrant.DeletePoints{CollectionName: "c", Wait: yes, Points: some(2)}))
	done(h.c.Delete(ctx, &qdrant.DeletePoints{CollectionName: "c", Wait: yes, Points: where("a", 1)}))
	want("deleted", map[uint64]string{3: `{}`})

	// Conditional writes.
	upsert := func(m *qdrant.UpsertPoints) {
		t.Helper()
		m.CollectionName, m.Wait = "c", yes
		done(h.c.Upsert(ctx, m))
	}
	upsert(&qdrant.UpsertPoints{Points: []*qdrant.PointStruct{point(3, 1, map[string]any{"new": 1}), point(4, 1, map[string]any{"v": 1})}, UpdateMode: p(qdrant.UpdateMode_InsertOnly)})
	upsert(&qdrant.UpsertPoints{Points: []*qdrant.PointStruct{point(5, 1, nil), point(4, 1, map[string]any{"v": 2})}, UpdateMode: p(qdrant.UpdateMode_UpdateOnly)})
	upsert(&qdrant.UpsertPoints{Points: []*qdrant.PointStruct{point(3, 1, map[string]any{"v": 9}), point(4, 1, map[string]any{"v": 3})}, UpdateFilter: &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatchInt("v", 2)}}})
	want("conditional", map[uint64]string{3: `{}`, 4: `{"v":3}`})

	// A batch is applied in order.
	batch := &qdrant.UpdateBatchPoints{CollectionName: "c", Wait: yes, Operations: []*qdrant.PointsUpdateOperation{
		qdrant.NewPointsUpdateUpsert(&qdrant.PointsUpdateOperation_PointStructList{Points: []*qdrant.PointStruct{point(10, 1, map[string]any{"a": 1}), point(11, 1, map[string]any{"a": 1}), point(12, 1, nil), point(13, 1, nil)}}),
		qdrant.NewPointsUpdateSetPayload(&qdrant.PointsUpdateOperation_SetPayload{Payload: qdrant.NewValueMap(map[string]any{"b": 2}), PointsSelector: some(10, 11, 12)}),
		qdrant.NewPointsUpdateOverwritePayload(&qdrant.PointsUpdateOperation_OverwritePayload{Payload: qdrant.NewValueMap(map[string]any{"c": 3}), PointsSelector: some(11)}),
		qdrant.NewPointsUpdateDeletePayload(&qdrant.PointsUpdateOperation_DeletePayload{Keys: []string{"a"}, PointsSelector: some(10)}),
		qdrant.NewPointsUpdateClearPayload(&qdrant.PointsUpdateOperation_ClearPayload{Points: some(12)}),
		qdrant.NewPointsUpdateUpdateVectors(&qdrant.PointsUpdateOperation_UpdateVectors{Points: []*qdrant.PointVectors{{Id: num(10), Vectors: qdrant.NewVectors(5)}}}),
		qdrant.NewPointsUpdateDeleteVectors(&qdrant.PointsUpdateOperation_DeleteVectors{Vectors: &qdrant.VectorsSelector{Names: []string{""}}, PointsSelector: some(11)}),
		qdrant.NewPointsUpdateDeletePoints(&qdrant.PointsUpdateOperation_DeletePoints{Points: some(3, 13)}),
		{Operation: &qdrant.PointsUpdateOperation_DeleteDeprecated{DeleteDeprecated: some(4)}},              //nolint:staticcheck // what older clients send
		{Operation: &qdrant.PointsUpdateOperation_ClearPayloadDeprecated{ClearPayloadDeprecated: some(11)}}, //nolint:staticcheck // see above
	}}
	results := must[[]*qdrant.UpdateResult](h)(h.c.UpdateBatch(ctx, batch))
	if len(results) != len(batch.GetOperations()) {
		t.Errorf("%d results", len(results))
	}
	want("batch", map[uint64]string{10: `{"b":2}`, 11: `{}`, 12: `{}`})
	h.same("vector of 10", h.get(num(10)).GetVectors().GetVector(), denseOutput(5))

	// A key makes a retry the first attempt.
	withKey := metadata.AppendToOutgoingContext(ctx, "idempotency-key", "k1")
	once := &qdrant.UpsertPoints{CollectionName: "c", Points: []*qdrant.PointStruct{point(20, 1, map[string]any{"b": 1, "a": 2, "c": 3, "d": 4})}}
	for range 5 { // a message has the keys of a payload in another order each time
		must[*qdrant.UpdateResult](h)(h.c.Upsert(withKey, once))
	}
	once.Points = []*qdrant.PointStruct{point(20, 1, nil)}
	_, err := h.c.Upsert(withKey, once)
	h.refused(err, codes.InvalidArgument, "")
	_, err = h.c.Upsert(metadata.AppendToOutgoingContext(ctx, "idempotency-key", strings.Repeat("x", 256)), once)
	h.refused(err, codes.InvalidArgument, "idempotency-key")

	_, err = h.c.Delete(ctx, &qdrant.DeletePoints{CollectionName: "c"})
	h.refused(err, codes.InvalidArgument, "points_selector")
	_, err = h.c.OverwritePayload(ctx, &qdrant.SetPayloadPoints{CollectionName: "c", Key: p("a"), PointsSelector: some(1)})
	h.refused(err, codes.Unimplemented, "key")
	_, err = h.c.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: "c", UpdateMode: qdrant.UpdateMode(9).Enum()})
	h.refused(err, codes.InvalidArgument, "update_mode")
	keys := &qdrant.ShardKeySelector{ShardKeys: []*qdrant.ShardKey{qdrant.NewShardKey("k")}}
	_, err = h.c.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: "c", ShardKeySelector: keys})
	h.refused(err, codes.Unimplemented, "shard_key_selector")
	_, err = h.c.UpdateBatch(ctx, &qdrant.UpdateBatchPoints{CollectionName: "c", Operations: []*qdrant.PointsUpdateOperation{
		qdrant.NewPointsUpdateDeletePoints(&qdrant.PointsUpdateOperation_DeletePoints{Points: some(10), ShardKeySelector: keys})}})
	h.refused(err, codes.Unimplemented, "operations[0]: shard_key_selector")
	_, err = h.c.UpdateBatch(ctx, &qdrant.UpdateBatchPoints{CollectionName: "c", Operations: []*qdrant.PointsUpdateOperation{{}}})
	h.refused(err, codes.InvalidArgument, "operations[0]")
	if n := must[uint64](h)(h.c.Count(ctx, &qdrant.CountPoints{CollectionName: "c"})); n != 4 {
		t.Errorf("%d points are left", n)
	}
}

// TestReads pages, counts, and asks for parts of points.
func TestReads(t *testing.T) {
	h := start(t)
	ctx := t.Context()
	h.ok(h.c.CreateCollection(ctx, &qdrant.CreateCollection{CollectionName: "c", VectorsConfig: qdrant.NewVectorsConfig(&qdrant.VectorParams{Size: 1, Distance: qdrant.Distance_Dot})}))
	var points []*qdrant.PointStruct
	for i := range uint64(25) {
		points = append(points, &qdrant.PointStruct{Id: qdrant.NewIDNum(i), Vectors: qdrant.NewVectors(float32(i)),
			Payload: qdrant.NewValueMap(map[string]any{"n": int64(i * 7 % 25), "o": map[string]any{"a": 1, "b": 2}, "at": fmt.Sprintf("2026-01-%02dT00:00:00Z", i+1)})})
	}
	h.upsert(points...)
	var seen []uint64
	for offset := qdrant.NewIDNum(0); offset != nil; {
		page, next, err := h.c.ScrollAndOffset(ctx, &qdrant.ScrollPoints{CollectionName: "c", Offset: offset, Limit: p(uint32(10))})
		h.ok(err)
		for _, r := range page {
			seen = append(seen, r.GetId().GetNum())
			if r.GetVectors() != nil || !proto.Equal(&qdrant.Struct{Fields: r.GetPayload()}, &qdrant.Struct{Fields: points[r.GetId().GetNum()].GetPayload()}) {
				t.Errorf("a page has %v", r)
			}
		}
		offset = next
	}
	if len(seen) != 25 || !slices.IsSorted(seen) {
		t.Errorf("pages: %v", seen)
	}
	if page := must[[]*qdrant.RetrievedPoint](h)(h.c.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: "c"})); len(page) != 10 {
		t.Errorf("a page has %d points unless told otherwise", len(page))
	}

	for _, key := range []string{"n", "at"} {
		kind := qdrant.FieldType_FieldTypeInteger.Enum()
		if key == "at" {
			kind = qdrant.FieldType_FieldTypeDatetime.Enum()
		}
		must[*qdrant.UpdateResult](h)(h.c.CreateFieldIndex(ctx, &qdrant.CreateFieldIndexCollection{CollectionName: "c", Wait: p(true), FieldName: key, FieldType: kind}))
	}
	ordered := func(by *qdrant.OrderBy, want ...int64) {
		t.Helper()
		page := must[[]*qdrant.RetrievedPoint](h)(h.c.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: "c", OrderBy: by, Limit: p(uint32(3))}))
		var got []int64
		for _, r := range page {
			got = append(got, r.GetOrderValue().GetInt())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", by, got, want)
		}
	}
	ordered(&qdrant.OrderBy{Key: "n"}, 0, 1, 2)
	ordered(&qdrant.OrderBy{Key: "n", Direction: p(qdrant.Direction_Desc)}, 24, 23, 22)
	ordered(&qdrant.OrderBy{Key: "n", StartFrom: qdrant.NewStartFromInt(5)}, 5, 6, 7)
	ordered(&qdrant.OrderBy{Key: "n", StartFrom: qdrant.NewStartFromFloat(4.5)}, 5, 6, 7)
	const day = int64(24 * 3600 * 1e6)
	const january = int64(1767225600 * 1e6)
	ordered(&qdrant.OrderBy{Key: "at", StartFrom: qdrant.NewStartFromDatetime("2026-01-03")}, january+2*day, january+3*day, january+4*day)
	ordered(&qdrant.OrderBy{Key: "at", StartFrom: qdrant.NewStartFromTimestamp(january/1e6, 0)}, january, january+day, january+2*day)
	_, err := h.c.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: "c", OrderBy: &qdrant.OrderBy{Key: "at", StartFrom: qdrant.NewStartFromDatetime("soon")}})
	h.refused(err, codes.InvalidArgument, "start_from")

	with := func(s *qdrant.WithPayloadSelector, want string) {
		t.Helper()
		found := must[[]*qdrant.RetrievedPoint](h)(h.c.Get(ctx, &qdrant.GetPoints{CollectionName: "c", Ids: []*qdrant.PointId{qdrant.NewIDNum(3), qdrant.NewIDNum(99)}, WithPayload: s}))
		var keys []string
		for k, v := range found[0].GetPayload() {
			keys = append(keys, fmt.Sprintf("%s:%d", k, len(v.GetStructValue().GetFields())))
		}
		slices.Sort(keys)
		if got := strings.Join(keys, " "); len(found) != 1 || got != want {
			t.Errorf("%v: %s, want %s", s, got, want)
		}
	}
	with(nil, "at:0 n:0 o:2")
	with(qdrant.NewWithPayload(true), "at:0 n:0 o:2")
	with(qdrant.NewWithPayload(false), "")
	with(qdrant.NewWithPayloadInclude("o.a"), "o:1")
	with(qdrant.NewWithPayloadExclude("o.a", "n"), "at:0 o:1")
	_, err = h.c.Get(ctx, &qdrant.GetPoints{CollectionName: "c", Ids: []*qdrant.PointId{{}}})
	h.refused(err, codes.InvalidArgument, "ids[0]")
	_, err = h.c.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: "c", Limit: p(uint32(0))})
	h.refused(err, codes.InvalidArgument, "limit")
}
