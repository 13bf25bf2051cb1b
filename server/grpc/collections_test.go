package grpcserver_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc/codes"
)

// everything is a collection with every setting that the interface has and this server keeps.
func everything(name string) *qdrant.CreateCollection {
	return &qdrant.CreateCollection{
		CollectionName: name,
		VectorsConfig: qdrant.NewVectorsConfigMap(map[string]*qdrant.VectorParams{
			"": {Size: 4, Distance: qdrant.Distance_Dot},
			"image": {Size: 3, Distance: qdrant.Distance_Euclid, OnDisk: p(true), Datatype: p(qdrant.Datatype_Float16),
				HnswConfig:         &qdrant.HnswConfigDiff{M: p(uint64(8)), EfConstruct: p(uint64(77))},
				QuantizationConfig: qdrant.NewQuantizationBinary(&qdrant.BinaryQuantization{AlwaysRam: p(true), Encoding: p(qdrant.BinaryQuantizationEncoding_OneBit), QueryEncoding: qdrant.NewBinaryQuantizationQueryEncodingSetting(qdrant.BinaryQuantizationQueryEncoding_Scalar4Bits)})},
			"words": {Size: 2, Distance: qdrant.Distance_Cosine, MultivectorConfig: &qdrant.MultiVectorConfig{Comparator: qdrant.MultiVectorComparator_MaxSim}},
		}),
		SparseVectorsConfig: qdrant.NewSparseVectorsConfig(map[string]*qdrant.SparseVectorParams{
			"bm25":  {Modifier: p(qdrant.Modifier_Idf)},
			"terms": {Index: &qdrant.SparseIndexConfig{FullScanThreshold: p(uint64(10)), OnDisk: p(true), Datatype: p(qdrant.Datatype_Float32)}},
		}),
		HnswConfig: &qdrant.HnswConfigDiff{M: p(uint64(12)), EfConstruct: p(uint64(99)), FullScanThreshold: p(uint64(123)), MaxIndexingThreads: p(uint64(2)), OnDisk: p(false)},
		WalConfig:  &qdrant.WalConfigDiff{WalCapacityMb: p(uint64(16)), WalSegmentsAhead: p(uint64(1))},
		OptimizersConfig: &qdrant.OptimizersConfigDiff{DeletedThreshold: p(0.3), VacuumMinVectorNumber: p(uint64(500)), DefaultSegmentNumber: p(uint64(2)),
			MaxSegmentSize: p(uint64(4000)), MemmapThreshold: p(uint64(3000)), IndexingThreshold: p(uint64(2000)), FlushIntervalSec: p(uint64(7)), MaxOptimizationThreads: qdrant.NewMaxOptimizationThreads(3)},
		ShardNumber:            p(uint32(2)),
		OnDiskPayload:          p(false),
		ReplicationFactor:      p(uint32(1)),
		WriteConsistencyFactor: p(uint32(1)),
		QuantizationConfig:     qdrant.NewQuantizationScalar(&qdrant.ScalarQuantization{Type: qdrant.QuantizationType_Int8, Quantile: p(float32(0.99)), AlwaysRam: p(true)}),
		StrictModeConfig: &qdrant.StrictModeConfig{Enabled: p(true), MaxQueryLimit: p(uint32(100)), SearchMaxOversampling: p(float32(2.5)), UpsertMaxBatchsize: p(uint64(50)), UnindexedFilteringRetrieve: p(true), MaxPointsCount: p(uint64(1000)),
			MultivectorConfig: &qdrant.StrictModeMultivectorConfig{MultivectorConfig: map[string]*qdrant.StrictModeMultivector{"words": {MaxVectors: p(uint64(5))}}},
			SparseConfig:      &qdrant.StrictModeSparseConfig{SparseConfig: map[string]*qdrant.StrictModeSparse{"terms": {MaxLength: p(uint64(9))}}}},
		Metadata: qdrant.NewValueMap(map[string]any{"owner": "ann", "version": int64(9007199254740993)}),
	}
}

func TestCollections(t *testing.T) {
	h := start(t)
	ctx := t.Context()
	made := everything("c")
	h.ok(h.c.CreateCollection(ctx, made))
	h.refused(h.c.CreateCollection(ctx, made), codes.AlreadyExists, "already exists")

	info := must[*qdrant.CollectionInfo](h)(h.c.GetCollectionInfo(ctx, "c"))
	config := info.GetConfig()
	h.same("vectors", config.GetParams().GetVectorsConfig(), made.GetVectorsConfig())
	h.same("sparse vectors", config.GetParams().GetSparseVectorsConfig(), made.GetSparseVectorsConfig())
	h.same("hnsw", config.GetHnswConfig(), made.GetHnswConfig())
	h.same("wal", config.GetWalConfig(), made.GetWalConfig())
	wantOptimizers := made.GetOptimizersConfig()
	wantOptimizers.DeprecatedMaxOptimizationThreads = p(uint64(3)) // for older clients
	h.same("optimizers", config.GetOptimizerConfig(), wantOptimizers)
	h.same("quantization", config.GetQuantizationConfig(), made.GetQuantizationConfig())
	h.same("strict mode", config.GetStrictModeConfig(), made.GetStrictModeConfig())
	h.same("metadata", &qdrant.Struct{Fields: config.GetMetadata()}, &qdrant.Struct{Fields: made.GetMetadata()})
	if n := config.GetParams(); n.GetShardNumber() != 2 || n.GetOnDiskPayload() || n.GetReplicationFactor() != 1 || n.GetWriteConsistencyFactor() != 1 {
		t.Errorf("params: %v", n)
	}
	if info.GetStatus() != qdrant.CollectionStatus_Green || !info.GetOptimizerStatus().GetOk() || info.PointsCount == nil || info.IndexedVectorsCount == nil {
		t.Errorf("info: %v", info)
	}

	// The HTTP door says the same.
	var rest struct {
		Config struct {
			Params struct {
				Vectors map[string]struct {
					Datatype     string                     `json:"datatype"`
					Quantization map[string]json.RawMessage `json:"quantization_config"`
					HNSW         struct{ M int }            `json:"hnsw_config"`
				} `json:"vectors"`
				Sparse map[string]struct {
					Modifier string
					Index    struct{ Datatype string }
				} `json:"sparse_vectors"`
			} `json:"params"`
			Optimizer struct {
				Threads int `json:"max_optimization_threads"`
			} `json:"optimizer_config"`
			Metadata json.RawMessage
		}
	}
	h.ok(json.Unmarshal([]byte(h.rest("GET", "/collections/c", "")), &rest))
	image := rest.Config.Params.Vectors["image"]
	if image.Datatype != "float16" || image.HNSW.M != 8 || string(image.Quantization["binary"]) != `{"always_ram":true,"encoding":"one_bit","query_encoding":"scalar4bits"}` {
		t.Errorf("over HTTP image is %+v", image)
	}
	if s := rest.Config.Params.Sparse; s["bm25"].Modifier != "idf" || s["terms"].Index.Datatype != "float32" || rest.Config.Optimizer.Threads != 3 ||
		string(rest.Config.Metadata) != `{"owner":"ann","version":9007199254740993}` {
		t.Errorf("over HTTP: %+v", rest.Config)
	}

	h.ok(h.c.UpdateCollection(ctx, &qdrant.UpdateCollection{
		CollectionName:      "c",
		OptimizersConfig:    &qdrant.OptimizersConfigDiff{IndexingThreshold: p(uint64(0))},
		Params:              &qdrant.CollectionParamsDiff{OnDiskPayload: p(true)},
		HnswConfig:          &qdrant.HnswConfigDiff{EfConstruct: p(uint64(111))},
		VectorsConfig:       qdrant.NewVectorsConfigDiffMap(map[string]*qdrant.VectorParamsDiff{"image": {HnswConfig: &qdrant.HnswConfigDiff{M: p(uint64(9))}, QuantizationConfig: qdrant.NewQuantizationDiffDisabled(), OnDisk: p(false)}}),
		QuantizationConfig:  qdrant.NewQuantizationDiffDisabled(),
		SparseVectorsConfig: qdrant.NewSparseVectorsConfig(map[string]*qdrant.SparseVectorParams{"terms": {Modifier: p(qdrant.Modifier_Idf)}}),
		StrictModeConfig:    &qdrant.StrictModeConfig{MaxQueryLimit: p(uint32(200)), MaxTimeout: p(uint32(5))},
		Metadata:            qdrant.NewValueMap(map[string]any{"owner": nil, "more": 1.5}),
	}))
	config = must[*qdrant.CollectionInfo](h)(h.c.GetCollectionInfo(ctx, "c")).GetConfig()
	vector := config.GetParams().GetVectorsConfig().GetParamsMap().GetMap()["image"]
	if config.GetHnswConfig().GetEfConstruct() != 111 || config.GetHnswConfig().GetM() != 12 || config.GetOptimizerConfig().GetIndexingThreshold() != 0 ||
		config.GetOptimizerConfig().GetFlushIntervalSec() != 7 || !config.GetParams().GetOnDiskPayload() || config.QuantizationConfig != nil {
		t.Errorf("updated: %v", config)
	}
	if vector.GetHnswConfig().GetM() != 9 || vector.GetHnswConfig().GetEfConstruct() != 77 || vector.QuantizationConfig != nil || vector.GetOnDisk() {
		t.Errorf("updated vectors: %v", vector)
	}
	if s := config.GetStrictModeConfig(); s.GetMaxQueryLimit() != 200 || s.GetUpsertMaxBatchsize() != 50 {
		t.Errorf("updated strict mode: %v", s)
	}
	_, err := h.c.Count(ctx, &qdrant.CountPoints{CollectionName: "c", Timeout: p(uint64(6))})
	h.refused(err, codes.InvalidArgument, "max_timeout")
	_, err = h.c.Count(ctx, &qdrant.CountPoints{CollectionName: "c", Timeout: p(uint64(5))})
	h.ok(err)
	h.same("updated metadata", &qdrant.Struct{Fields: config.GetMetadata()}, &qdrant.Struct{Fields: qdrant.NewValueMap(map[string]any{"version": int64(9007199254740993), "more": 1.5})})
	if config.GetParams().GetSparseVectorsConfig().GetMap()["terms"].GetModifier() != qdrant.Modifier_Idf {
		t.Errorf("updated sparse vectors: %v", config.GetParams().GetSparseVectorsConfig())
	}

	plain := func(name string) *qdrant.CreateCollection {
		return &qdrant.CreateCollection{CollectionName: name, VectorsConfig: qdrant.NewVectorsConfig(&qdrant.VectorParams{Size: 2, Distance: qdrant.Distance_Manhattan})}
	}
	h.ok(h.c.CreateCollection(ctx, plain("a")))
	if got := must[[]string](h)(h.c.ListCollections(ctx)); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("collections: %v", got)
	}
	a := must[*qdrant.CollectionInfo](h)(h.c.GetCollectionInfo(ctx, "a")).GetConfig()
	h.same("bare vectors", a.GetParams().GetVectorsConfig(), plain("a").GetVectorsConfig())
	h.same("default quantization", a.GetQuantizationConfig(), qdrant.NewQuantizationScalar(&qdrant.ScalarQuantization{Type: qdrant.QuantizationType_Int8}))
	h.ok(h.c.UpdateCollection(ctx, &qdrant.UpdateCollection{CollectionName: "a", VectorsConfig: qdrant.NewVectorsConfigDiff(&qdrant.VectorParamsDiff{OnDisk: p(true)})}))

	h.ok(h.c.CreateAlias(ctx, "x", "c"))
	h.ok(h.c.RenameAlias(ctx, "x", "y"))
	h.ok(h.c.UpdateAliases(ctx, []*qdrant.AliasOperations{qdrant.NewAliasCreate("z", "a"), qdrant.NewAliasCreate("w", "c")}))
	if got := must[[]string](h)(h.c.ListCollectionAliases(ctx, "c")); !slices.Equal(got, []string{"w", "y"}) {
		t.Errorf("aliases of c: %v", got)
	}
	if all := must[[]*qdrant.AliasDescription](h)(h.c.ListAliases(ctx)); len(all) != 3 || all[2].GetAliasName() != "z" || all[2].GetCollectionName() != "a" {
		t.Errorf("aliases: %v", all)
	}
	h.ok(h.c.DeleteAlias(ctx, "w"))
	for name, want := range map[string]bool{"c": true, "y": true, "w": false, "no": false} {
		if got := must[bool](h)(h.c.CollectionExists(ctx, name)); got != want {
			t.Errorf("%s exists: %v", name, got)
		}
	}
	h.ok(h.c.DeleteCollection(ctx, "c"))
	if must[bool](h)(h.c.CollectionExists(ctx, "c")) {
		t.Error("a deleted collection exists")
	}

	refuse := func(want codes.Code, text string, change func(m *qdrant.CreateCollection)) {
		t.Helper()
		m := plain("bad")
		change(m)
		h.refused(h.c.CreateCollection(ctx, m), want, text)
	}
	refuse(codes.InvalidArgument, "collection_name", func(m *qdrant.CreateCollection) { m.CollectionName = "" })
	refuse(codes.InvalidArgument, "collection_name", func(m *qdrant.CreateCollection) { m.CollectionName = "a/b" })
	refuse(codes.InvalidArgument, "vectors_config", func(m *qdrant.CreateCollection) { m.VectorsConfig = nil })
	refuse(codes.InvalidArgument, "vectors.size", func(m *qdrant.CreateCollection) { m.VectorsConfig.GetParams().Size = 1 << 40 })
	refuse(codes.InvalidArgument, "vectors.distance", func(m *qdrant.CreateCollection) { m.VectorsConfig.GetParams().Distance = 0 })
	refuse(codes.InvalidArgument, "hnsw_config.m", func(m *qdrant.CreateCollection) { m.HnswConfig = &qdrant.HnswConfigDiff{M: p(uint64(1000))} })
	refuse(codes.InvalidArgument, "hnsw_config", func(m *qdrant.CreateCollection) { m.HnswConfig = &qdrant.HnswConfigDiff{M: p(uint64(1) << 63)} })
	refuse(codes.InvalidArgument, "deleted_threshold", func(m *qdrant.CreateCollection) {
		m.OptimizersConfig = &qdrant.OptimizersConfigDiff{DeletedThreshold: p(2.)}
	})
	refuse(codes.InvalidArgument, "max_optimization_threads", func(m *qdrant.CreateCollection) {
		m.OptimizersConfig = &qdrant.OptimizersConfigDiff{MaxOptimizationThreads: qdrant.NewMaxOptimizationThreads(5000)}
	})
	refuse(codes.Unimplemented, "sharding_method", func(m *qdrant.CreateCollection) { m.ShardingMethod = p(qdrant.ShardingMethod_Custom) })
	refuse(codes.InvalidArgument, "the kind", func(m *qdrant.CreateCollection) { m.QuantizationConfig = &qdrant.QuantizationConfig{} })
	h.refused(h.c.UpdateCollection(ctx, &qdrant.UpdateCollection{CollectionName: "no"}), codes.NotFound, "no")
	h.refused(h.c.UpdateCollection(ctx, &qdrant.UpdateCollection{CollectionName: "a", Params: &qdrant.CollectionParamsDiff{ReplicationFactor: p(uint32(2))}}), codes.Unimplemented, "params")
	h.refused(h.c.UpdateAliases(ctx, []*qdrant.AliasOperations{{}}), codes.InvalidArgument, "actions[0]")
	h.refused(h.c.CreateShardKey(ctx, "a", &qdrant.CreateShardKey{ShardKey: qdrant.NewShardKey("k")}), codes.Unimplemented, "CreateShardKey")
	_, err = h.c.GetCollectionInfo(ctx, "no")
	h.refused(err, codes.NotFound, "no")
	_, err = h.c.ListCollectionAliases(ctx, "no")
	h.refused(err, codes.NotFound, "no")
}

func TestFieldIndexes(t *testing.T) {
	h := start(t)
	ctx := t.Context()
	h.ok(h.c.CreateCollection(ctx, &qdrant.CreateCollection{CollectionName: "c", VectorsConfig: qdrant.NewVectorsConfig(&qdrant.VectorParams{Size: 1, Distance: qdrant.Distance_Dot})}))
	must[*qdrant.UpdateResult](h)(h.c.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: "c", Points: []*qdrant.PointStruct{
		{Id: qdrant.NewIDNum(1), Vectors: qdrant.NewVectors(1), Payload: qdrant.NewValueMap(map[string]any{"k": "a", "n": 1, "text": "The running fox"})}}}))
	yes := p(true)
	params := map[string]*qdrant.PayloadIndexParams{
		"k":    qdrant.NewPayloadIndexParamsKeyword(&qdrant.KeywordIndexParams{IsTenant: yes, OnDisk: yes}),
		"n":    qdrant.NewPayloadIndexParamsInt(&qdrant.IntegerIndexParams{Lookup: yes, Range: yes, IsPrincipal: yes}),
		"f":    qdrant.NewPayloadIndexParamsFloat(&qdrant.FloatIndexParams{IsPrincipal: yes}),
		"g":    qdrant.NewPayloadIndexParamsGeo(&qdrant.GeoIndexParams{OnDisk: yes}),
		"b":    qdrant.NewPayloadIndexParamsBool(&qdrant.BoolIndexParams{OnDisk: yes}),
		"d":    qdrant.NewPayloadIndexParamsDatetime(&qdrant.DatetimeIndexParams{IsPrincipal: yes}),
		"u":    qdrant.NewPayloadIndexParamsUUID(&qdrant.UuidIndexParams{IsTenant: yes}),
		"text": qdrant.NewPayloadIndexParamsText(&qdrant.TextIndexParams{Tokenizer: qdrant.TokenizerType_Word, Lowercase: yes, MinTokenLen: p(uint64(2)), PhraseMatching: yes, Stopwords: &qdrant.StopwordsSet{Languages: []string{"english"}, Custom: []string{"hm"}}, Stemmer: qdrant.NewStemmingAlgorithmSnowball(&qdrant.SnowballParams{Language: "english"})}),
		"t2":   qdrant.NewPayloadIndexParamsText(&qdrant.TextIndexParams{Stopwords: &qdrant.StopwordsSet{Languages: []string{"german"}}}),
	}
	types := map[string]qdrant.PayloadSchemaType{"k": qdrant.PayloadSchemaType_Keyword, "n": qdrant.PayloadSchemaType_Integer, "f": qdrant.PayloadSchemaType_Float,
		"g": qdrant.PayloadSchemaType_Geo, "b": qdrant.PayloadSchemaType_Bool, "d": qdrant.PayloadSchemaType_Datetime, "u": qdrant.PayloadSchemaType_Uuid,
		"text": qdrant.PayloadSchemaType_Text, "t2": qdrant.PayloadSchemaType_Text, "plain": qdrant.PayloadSchemaType_Integer}
	for name, of := range params {
		got := must[*qdrant.UpdateResult](h)(h.c.CreateFieldIndex(ctx, &qdrant.CreateFieldIndexCollection{CollectionName: "c", Wait: yes, FieldName: name, FieldIndexParams: of}))
		if got.GetStatus() != qdrant.UpdateStatus_Completed || got.OperationId == nil {
			t.Errorf("index on %s: %v", name, got)
		}
	}
	must[*qdrant.UpdateResult](h)(h.c.CreateFieldIndex(ctx, &qdrant.CreateFieldIndexCollection{CollectionName: "c", Wait: yes, FieldName: "plain", FieldType: qdrant.FieldType_FieldTypeInteger.Enum()}))
	schema := must[*qdrant.CollectionInfo](h)(h.c.GetCollectionInfo(ctx, "c")).GetPayloadSchema()
	if len(schema) != len(types) {
		t.Errorf("%d indexes: %v", len(schema), schema)
	}
	for name, of := range types {
		if schema[name].GetDataType() != of {
			t.Errorf("index on %s: %v, want %v", name, schema[name], of)
		}
		h.same("parameters of "+name, schema[name].GetParams(), params[name])
	}
	if schema["k"].GetPoints() != 1 || schema["f"].GetPoints() != 0 {
		t.Errorf("points of indexes: %v", schema)
	}
	found := must[uint64](h)(h.c.Count(ctx, &qdrant.CountPoints{CollectionName: "c", Filter: &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatchText("text", "fox runs")}}}))
	if found != 1 { // the index stems
		t.Errorf("%d points match the text", found)
	}
	must[*qdrant.UpdateResult](h)(h.c.DeleteFieldIndex(ctx, &qdrant.DeleteFieldIndexCollection{CollectionName: "c", Wait: yes, FieldName: "k"}))
	if _, ok := must[*qdrant.CollectionInfo](h)(h.c.GetCollectionInfo(ctx, "c")).GetPayloadSchema()["k"]; ok {
		t.Error("a deleted index is there")
	}

	refuse := func(text string, m *qdrant.CreateFieldIndexCollection) {
		t.Helper()
		m.CollectionName = "c"
		_, err := h.c.CreateFieldIndex(ctx, m)
		h.refused(err, codes.InvalidArgument, text)
	}
	refuse("field_type", &qdrant.CreateFieldIndexCollection{FieldName: "x"})
	refuse("field_name", &qdrant.CreateFieldIndexCollection{FieldType: qdrant.FieldType_FieldTypeInteger.Enum()})
	refuse("field_type: geo", &qdrant.CreateFieldIndexCollection{FieldName: "x", FieldType: qdrant.FieldType_FieldTypeGeo.Enum(), FieldIndexParams: params["n"]})
	refuse("field_type: unknown", &qdrant.CreateFieldIndexCollection{FieldName: "x", FieldType: qdrant.FieldType(99).Enum()})
}

func TestSnapshots(t *testing.T) {
	h := start(t)
	ctx := t.Context()
	h.ok(h.c.CreateCollection(ctx, everything("c")))
	made := must[*qdrant.SnapshotDescription](h)(h.c.CreateSnapshot(ctx, "c"))
	listed := must[[]*qdrant.SnapshotDescription](h)(h.c.ListSnapshots(ctx, "c"))
	if len(listed) != 1 || made.GetSize() == 0 || len(made.GetChecksum()) != 64 || made.GetCreationTime().AsTime().Year() < 2020 {
		t.Fatalf("made %v, listed %v", made, listed)
	}
	h.same("the snapshot", listed[0], made)
	full := must[*qdrant.SnapshotDescription](h)(h.c.CreateFullSnapshot(ctx))
	if all := must[[]*qdrant.SnapshotDescription](h)(h.c.ListFullSnapshots(ctx)); len(all) != 1 || all[0].GetName() != full.GetName() {
		t.Errorf("snapshots of the node: %v", all)
	}
	h.ok(h.c.DeleteFullSnapshot(ctx, full.GetName()))
	h.ok(h.c.DeleteSnapshot(ctx, "c", made.GetName()))
	if left := must[[]*qdrant.SnapshotDescription](h)(h.c.ListSnapshots(ctx, "c")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	h.refused(h.c.DeleteSnapshot(ctx, "c", made.GetName()), codes.NotFound, made.GetName())
	h.refused(h.c.DeleteSnapshot(ctx, "c", "../c.snapshot"), codes.InvalidArgument, "snapshot_name")
	_, err := h.c.CreateSnapshot(ctx, "no")
	h.refused(err, codes.NotFound, "no")
	_, err = h.c.ListSnapshots(ctx, "no")
	h.refused(err, codes.NotFound, "no")
}
