package grpcserver

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// configOf reads what a collection is to be created with: the defaults, changed by what is given.
func configOf(m *qdrant.CreateCollection) (vectord.CollectionConfig, error) {
	c := vectord.DefaultCollectionConfig(0, 0)
	if m.GetShardingMethod() != qdrant.ShardingMethod_Auto {
		return c, vectord.Errorf(vectord.KindUnsupported, "sharding_method: %v is not offered by this server, only auto", m.GetShardingMethod())
	}
	if m.GetVectorsConfig().GetConfig() == nil && len(m.GetSparseVectorsConfig().GetMap()) == 0 {
		return c, missing("vectors_config")
	}
	for _, n := range []struct {
		given *uint32
		into  *int
	}{
		{m.ShardNumber, &c.Params.ShardNumber},
		{m.ReplicationFactor, &c.Params.ReplicationFactor},
		{m.WriteConsistencyFactor, &c.Params.WriteConsistencyFactor},
	} {
		if n.given != nil {
			*n.into = number(uint64(*n.given))
		}
	}
	if m.OnDiskPayload != nil {
		c.Params.OnDiskPayload = *m.OnDiskPayload
	}
	var err error
	if c.Params.Vectors, err = vectorsParamsOf(m.GetVectorsConfig()); err != nil {
		return c, err
	}
	if c.Params.SparseVectors, err = sparseParamsOf(m.GetSparseVectorsConfig()); err != nil {
		return c, err
	}
	raw, err := settings(m.GetHnswConfig(), nil)
	if err := merge("hnsw_config", raw, err, &c.HNSW); err != nil {
		return c, err
	}
	raw, err = settings(m.GetWalConfig(), nil)
	if err := merge("wal_config", raw, err, &c.WAL); err != nil {
		return c, err
	}
	raw, err = optimizerSettings(m.GetOptimizersConfig())
	if err := merge("optimizers_config", raw, err, &c.Optimizer); err != nil {
		return c, err
	}
	raw, err = strictSettings(m.GetStrictModeConfig())
	if err := merge("strict_mode_config", raw, err, &c.StrictMode); err != nil {
		return c, err
	}
	if c.Quantization, err = quantizationOf(m.GetQuantizationConfig()); err != nil {
		return c, err
	}
	if c.Metadata, err = payloadJSON("metadata", m.GetMetadata()); err != nil {
		return c, err
	}
	return c, c.Validate()
}

func vectorsParamsOf(m *qdrant.VectorsConfig) (vectord.VectorsParams, error) {
	named := m.GetParamsMap().GetMap()
	if one := m.GetParams(); one != nil {
		named = map[string]*qdrant.VectorParams{"": one}
	}
	if len(named) == 0 {
		return nil, nil
	}
	out := vectord.VectorsParams{}
	for name, p := range named {
		v := vectord.VectorParams{Size: number(p.GetSize()), OnDisk: p.GetOnDisk()}
		if text, ok := distances.of(p.GetDistance()); ok { // else the configuration's check says that it is missing
			v.Distance, _ = vectord.ParseDistance(text)
		}
		v.Datatype, _ = datatypes.of(p.GetDatatype())
		if p.GetMultivectorConfig() != nil {
			v.Multi = &vectord.MultiParams{Comparator: vectord.MaxSim}
		}
		var err error
		if v.HNSW, err = settings(p.GetHnswConfig(), nil); err != nil {
			return nil, err
		}
		if v.Quantization, err = quantizationOf(p.GetQuantizationConfig()); err != nil {
			return nil, err
		}
		out[name] = v
	}
	return out, nil
}

func sparseParamsOf(m *qdrant.SparseVectorConfig) (map[string]vectord.SparseParams, error) {
	if len(m.GetMap()) == 0 {
		return nil, nil
	}
	out := map[string]vectord.SparseParams{}
	for name, p := range m.GetMap() {
		var s vectord.SparseParams
		if p.Modifier != nil {
			s.Modifier, _ = modifiers.of(p.GetModifier())
		}
		var err error
		if s.Index, err = settings(p.GetIndex(), values{"datatype": datatypes.given(p.GetIndex().GetDatatype())}); err != nil {
			return nil, err
		}
		out[name] = s
	}
	return out, nil
}

// strictSettings returns the limits of a strict mode as JSON. The message has those by name one level deeper.
func strictSettings(m *qdrant.StrictModeConfig) (json.RawMessage, error) {
	apart := values{"multivector_config": nil, "sparse_config": nil}
	if multi := m.GetMultivectorConfig(); multi != nil {
		apart["multivector_config"] = multi.GetMultivectorConfig()
	}
	if sparse := m.GetSparseConfig(); sparse != nil {
		apart["sparse_config"] = sparse.GetSparseConfig()
	}
	return settings(m, apart)
}

// strictMode is the inverse of strictSettings.
func strictMode(s *vectord.StrictMode) (*qdrant.StrictModeConfig, error) {
	apart := values{"multivector_config": nil, "sparse_config": nil}
	if s.Multivector != nil {
		apart["multivector_config"] = values{"multivector_config": s.Multivector}
	}
	if s.Sparse != nil {
		apart["sparse_config"] = values{"sparse_config": s.Sparse}
	}
	return told[qdrant.StrictModeConfig](s, apart)
}

// optimizerSettings returns the settings of background work as JSON; automatic threads are none given.
func optimizerSettings(m *qdrant.OptimizersConfigDiff) (json.RawMessage, error) {
	if m == nil {
		return nil, nil
	}
	if t := m.DeletedThreshold; t != nil && !(*t >= 0 && *t <= 1) {
		return nil, outOfRange("optimizers_config.deleted_threshold", *t, "from 0 to 1")
	}
	apart := values{"max_optimization_threads": nil, "deprecated_max_optimization_threads": nil, "prevent_unoptimized": nil}
	threads := m.DeprecatedMaxOptimizationThreads
	if v, ok := m.GetMaxOptimizationThreads().GetVariant().(*qdrant.MaxOptimizationThreads_Value); ok {
		threads = &v.Value
	}
	if threads != nil {
		const threadsMax = 1024
		if *threads > threadsMax {
			return nil, outOfRange("optimizers_config.max_optimization_threads", *threads, "from 0 to 1024")
		}
		apart["max_optimization_threads"] = *threads
	}
	return settings(m, apart)
}

// quantizationFields are those that a quantization has where it is given and where it is changed.
type quantizationFields interface {
	comparable
	GetScalar() *qdrant.ScalarQuantization
	GetProduct() *qdrant.ProductQuantization
	GetBinary() *qdrant.BinaryQuantization
}

// quantizationOf returns the JSON form of a quantization_config, nil for none given.
func quantizationOf[M quantizationFields](m M) (raw json.RawMessage, err error) {
	var absent M
	if m == absent {
		return nil, nil
	}
	var kind string
	if s := m.GetScalar(); s != nil {
		kind = "scalar"
		raw, err = settings(s, values{"type": "int8"})
	} else if p := m.GetProduct(); p != nil {
		kind = "product"
		raw, err = settings(p, values{"compression": compressions.given(p.GetCompression())})
	} else if b := m.GetBinary(); b != nil {
		kind = "binary"
		apart := values{"encoding": nil, "query_encoding": nil}
		if b.Encoding != nil {
			apart["encoding"] = encodings.given(b.GetEncoding())
		}
		if b.GetQueryEncoding().GetVariant() != nil {
			apart["query_encoding"] = queryEncodings.given(b.GetQueryEncoding().GetSetting())
		}
		raw, err = settings(b, apart)
	} else if d, ok := any(m).(*qdrant.QuantizationConfigDiff); ok && d.GetDisabled() != nil {
		return json.RawMessage(vectord.QuantizationDisabled), nil
	} else {
		return nil, missing("quantization_config: the kind")
	}
	if err != nil {
		return nil, err
	}
	if raw, err = json.Marshal(values{kind: raw}); err != nil {
		return nil, err
	}
	_, err = vectord.ParseQuantization(raw)
	return raw, err
}

// updateOf reads what is to change of a collection.
func updateOf(m *qdrant.UpdateCollection) (u vectord.CollectionUpdate, err error) {
	p := m.GetParams()
	if p.GetReplicationFactor() != 0 || p.GetWriteConsistencyFactor() != 0 || p.GetReadFanOutFactor() != 0 || p.GetReadFanOutDelayMs() != 0 {
		return u, vectord.Errorf(vectord.KindUnsupported, "params: only on_disk_payload can change on this server")
	}
	if p != nil {
		u.OnDiskPayload = p.OnDiskPayload
	}
	if u.HNSW, err = settings(m.GetHnswConfig(), nil); err != nil {
		return u, err
	}
	if u.Optimizer, err = optimizerSettings(m.GetOptimizersConfig()); err != nil {
		return u, err
	}
	if u.StrictMode, err = strictSettings(m.GetStrictModeConfig()); err != nil {
		return u, err
	}
	if u.Quantization, err = quantizationOf(m.GetQuantizationConfig()); err != nil {
		return u, err
	}
	if u.SparseVectors, err = sparseParamsOf(m.GetSparseVectorsConfig()); err != nil {
		return u, err
	}
	if u.Metadata, err = payloadJSON("metadata", m.GetMetadata()); err != nil {
		return u, err
	}
	named := m.GetVectorsConfig().GetParamsMap().GetMap()
	if one := m.GetVectorsConfig().GetParams(); one != nil {
		named = map[string]*qdrant.VectorParamsDiff{"": one}
	}
	for name, v := range named {
		if u.Vectors == nil {
			u.Vectors = map[string]vectord.VectorUpdate{}
		}
		changed := vectord.VectorUpdate{OnDisk: v.OnDisk}
		if changed.HNSW, err = settings(v.GetHnswConfig(), nil); err != nil {
			return u, err
		}
		if changed.Quantization, err = quantizationOf(v.GetQuantizationConfig()); err != nil {
			return u, err
		}
		u.Vectors[name] = changed
	}
	return u, nil
}

// aliasActionsOf reads steps of a change of aliases.
func aliasActionsOf(in []*qdrant.AliasOperations) ([]vectord.AliasAction, error) {
	out := make([]vectord.AliasAction, len(in))
	for i, step := range in {
		var named []string
		switch a := step.GetAction().(type) {
		case *qdrant.AliasOperations_CreateAlias:
			out[i].Create = &vectord.Alias{Name: a.CreateAlias.GetAliasName(), Collection: a.CreateAlias.GetCollectionName()}
			named = []string{out[i].Create.Name, out[i].Create.Collection}
		case *qdrant.AliasOperations_RenameAlias:
			out[i].Rename = &vectord.AliasRename{Old: a.RenameAlias.GetOldAliasName(), New: a.RenameAlias.GetNewAliasName()}
			named = []string{out[i].Rename.Old, out[i].Rename.New}
		case *qdrant.AliasOperations_DeleteAlias:
			out[i].Delete = a.DeleteAlias.GetAliasName()
			named = []string{out[i].Delete}
		default:
			return nil, vectord.Errorf(vectord.KindInvalid, "actions[%d]: is empty", i)
		}
		for _, name := range named {
			if err := vectord.CheckCollectionName(name); err != nil {
				return nil, vectord.Errorf(vectord.KindOf(err), "actions[%d]: %v", i, err)
			}
		}
	}
	return out, nil
}

func aliasDescriptions(aliases []vectord.Alias) []*qdrant.AliasDescription {
	out := make([]*qdrant.AliasDescription, len(aliases))
	for i, a := range aliases {
		out[i] = &qdrant.AliasDescription{AliasName: a.Name, CollectionName: a.Collection}
	}
	return out
}

var collectionStatus = map[vectord.CollectionStatus]qdrant.CollectionStatus{
	vectord.StatusGreen:  qdrant.CollectionStatus_Green,
	vectord.StatusYellow: qdrant.CollectionStatus_Yellow,
	vectord.StatusGrey:   qdrant.CollectionStatus_Grey,
	vectord.StatusRed:    qdrant.CollectionStatus_Red,
}

func collectionInfo(info *vectord.CollectionInfo) (*qdrant.CollectionInfo, error) {
	indexed, live := uint64(info.IndexedVectors), uint64(info.Points)
	out := &qdrant.CollectionInfo{
		Status:              collectionStatus[info.Status],
		OptimizerStatus:     &qdrant.OptimizerStatus{Ok: info.Problem == "", Error: info.Problem},
		SegmentsCount:       uint64(info.Config.Params.ShardNumber), // vectord has shards, each of which is one piece
		PointsCount:         &live,
		IndexedVectorsCount: &indexed,
		PayloadSchema:       map[string]*qdrant.PayloadSchemaInfo{},
	}
	var err error
	if out.Config, err = collectionConfig(&info.Config); err != nil {
		return nil, err
	}
	for name, field := range info.Fields {
		if out.PayloadSchema[name], err = schemaInfo(&field); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func collectionConfig(c *vectord.CollectionConfig) (out *qdrant.CollectionConfig, err error) {
	out = &qdrant.CollectionConfig{}
	if out.Params, err = collectionParams(&c.Params); err != nil {
		return nil, err
	}
	if out.HnswConfig, err = told[qdrant.HnswConfigDiff](c.HNSW, nil); err != nil {
		return nil, err
	}
	if out.WalConfig, err = told[qdrant.WalConfigDiff](c.WAL, nil); err != nil {
		return nil, err
	}
	if out.OptimizerConfig, err = told[qdrant.OptimizersConfigDiff](c.Optimizer, values{"max_optimization_threads": nil}); err != nil {
		return nil, err
	}
	if n := c.Optimizer.MaxOptimizationThreads; n != nil {
		threads := uint64(*n)
		out.OptimizerConfig.DeprecatedMaxOptimizationThreads = &threads
		out.OptimizerConfig.MaxOptimizationThreads = qdrant.NewMaxOptimizationThreads(threads)
	}
	if out.QuantizationConfig, err = quantizationInEffect(c.Quantization); err != nil {
		return nil, err
	}
	if c.StrictMode != nil {
		if out.StrictModeConfig, err = strictMode(c.StrictMode); err != nil {
			return nil, err
		}
	}
	out.Metadata, err = payloadValues(c.Metadata)
	return out, err
}

func collectionParams(p *vectord.CollectionParams) (*qdrant.CollectionParams, error) {
	replicas, consistent := uint32(p.ReplicationFactor), uint32(p.WriteConsistencyFactor)
	out := &qdrant.CollectionParams{ShardNumber: uint32(p.ShardNumber), OnDiskPayload: p.OnDiskPayload,
		ReplicationFactor: &replicas, WriteConsistencyFactor: &consistent}
	named := map[string]*qdrant.VectorParams{}
	for _, name := range slices.Sorted(maps.Keys(p.Vectors)) {
		var err error
		if named[name], err = vectorParams(p.Vectors[name]); err != nil {
			return nil, err
		}
	}
	if unnamed, ok := named[""]; ok && len(named) == 1 {
		out.VectorsConfig = qdrant.NewVectorsConfig(unnamed)
	} else {
		out.VectorsConfig = qdrant.NewVectorsConfigMap(named)
	}
	if len(p.SparseVectors) == 0 {
		return out, nil
	}
	sparse := map[string]*qdrant.SparseVectorParams{}
	for name, s := range p.SparseVectors {
		params, err := sparseParams(s)
		if err != nil {
			return nil, err
		}
		sparse[name] = params
	}
	out.SparseVectorsConfig = qdrant.NewSparseVectorsConfig(sparse)
	return out, nil
}

func vectorParams(v vectord.VectorParams) (out *qdrant.VectorParams, err error) {
	out = &qdrant.VectorParams{Size: uint64(v.Size), Distance: distances[v.Distance.String()]}
	if v.OnDisk {
		out.OnDisk = &v.OnDisk
	}
	if datatype, ok := datatypes[v.Datatype]; ok {
		out.Datatype = &datatype
	}
	if v.Multi != nil {
		out.MultivectorConfig = &qdrant.MultiVectorConfig{Comparator: qdrant.MultiVectorComparator_MaxSim}
	}
	if len(v.HNSW) > 0 {
		if out.HnswConfig, err = told[qdrant.HnswConfigDiff](v.HNSW, nil); err != nil {
			return nil, err
		}
	}
	if len(v.Quantization) > 0 {
		out.QuantizationConfig, err = quantizationInEffect(v.Quantization)
	}
	return out, err
}

func sparseParams(s vectord.SparseParams) (out *qdrant.SparseVectorParams, err error) {
	out = &qdrant.SparseVectorParams{}
	if modifier, ok := modifiers[s.Modifier]; ok {
		out.Modifier = &modifier
	}
	if len(s.Index) == 0 {
		return out, nil
	}
	if out.Index, err = told[qdrant.SparseIndexConfig](s.Index, values{"datatype": nil}); err != nil {
		return nil, err
	}
	var named struct {
		Datatype string `json:"datatype"`
	}
	if err := json.Unmarshal(s.Index, &named); err != nil {
		return nil, err
	}
	if datatype, ok := datatypes[named.Datatype]; ok {
		out.Index.Datatype = &datatype
	}
	return out, nil
}

// quantizationInEffect returns a quantization_config in terms of Qdrant's API, to which vectord's default is a choice, and
// none is nil.
func quantizationInEffect(raw json.RawMessage) (*qdrant.QuantizationConfig, error) {
	var c struct {
		Scalar, Product, Binary json.RawMessage
	}
	switch {
	case len(raw) == 0 || string(raw) == "null":
		c.Scalar = json.RawMessage("{}")
	case string(raw) == vectord.QuantizationDisabled:
		return nil, nil
	default:
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, err
		}
	}
	var named struct {
		Compression   string `json:"compression"`
		Encoding      string `json:"encoding"`
		QueryEncoding string `json:"query_encoding"`
	}
	kind := slices.Concat(c.Scalar, c.Product, c.Binary) // one of them
	if err := json.Unmarshal(kind, &named); err != nil {
		return nil, err
	}
	switch {
	case c.Scalar != nil:
		s, err := told[qdrant.ScalarQuantization](kind, values{"type": qdrant.QuantizationType_Int8})
		return &qdrant.QuantizationConfig{Quantization: &qdrant.QuantizationConfig_Scalar{Scalar: s}}, err
	case c.Product != nil:
		p, err := told[qdrant.ProductQuantization](kind, values{"compression": compressions[named.Compression]})
		return &qdrant.QuantizationConfig{Quantization: &qdrant.QuantizationConfig_Product{Product: p}}, err
	}
	b, err := told[qdrant.BinaryQuantization](kind, values{"encoding": nil, "query_encoding": nil})
	if err != nil {
		return nil, err
	}
	if encoding, ok := encodings[named.Encoding]; ok {
		b.Encoding = &encoding
	}
	if encoding, ok := queryEncodings[named.QueryEncoding]; ok {
		b.QueryEncoding = &qdrant.BinaryQuantizationQueryEncoding{
			Variant: &qdrant.BinaryQuantizationQueryEncoding_Setting_{Setting: encoding}}
	}
	return &qdrant.QuantizationConfig{Quantization: &qdrant.QuantizationConfig_Binary{Binary: b}}, nil
}
