package server

import (
	"maps"
	"slices"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// vectorsParamsJSON describes the vectors of a new collection, bare or by name.
type vectorsParamsJSON struct {
	given  bool
	params vectord.VectorsParams
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *vectorsParamsJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*v = vectorsParamsJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch raw.Kind() {
	case 'n':
		return nil
	case '{':
	default:
		return vectord.Errorf(vectord.KindInvalid, "expected an object, got %s", excerpt(raw))
	}
	var object map[string]jsontext.Value
	if err := decodeInner(raw, &object); err != nil {
		return err
	}
	v.given, v.params = true, vectord.VectorsParams{}
	named := map[string]jsontext.Value{"": raw}
	size, bare := object["size"]
	if _, ok := object["distance"]; ok && !bare {
		return missing("vectors.size")
	}
	if !bare || size.Kind() == '{' {
		named = object
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if v.params[name], err = vectorParams(named[name], vectorField(name)); err != nil {
			return err
		}
	}
	return nil
}

// vectorField names the place of the settings of vectors in a body.
func vectorField(name string) string {
	if name == "" {
		return "vectors"
	}
	return "vectors." + excerpt([]byte(name))
}

func vectorParams(raw jsontext.Value, field string) (out vectord.VectorParams, err error) {
	var p struct {
		Size         *uint64           `json:"size"`
		Distance     *vectord.Distance `json:"distance"`
		OnDisk       bool              `json:"on_disk"`
		HNSW         *hnswJSON         `json:"hnsw_config"`
		Quantization jsontext.Value    `json:"quantization_config"`
		Datatype     string            `json:"datatype"`
		Multi        *struct {
			Comparator string `json:"comparator"`
		} `json:"multivector_config"`
	}
	if err := decodeInner(raw, &p); err != nil {
		return out, err
	}
	if p.Size == nil {
		return out, missing(field + ".size")
	}
	if p.Distance == nil {
		return out, missing(field + ".distance")
	}
	if err := setInt(&out.Size, p.Size, field+".size"); err != nil {
		return out, err
	}
	out.Distance, out.OnDisk, out.Datatype = *p.Distance, p.OnDisk, p.Datatype
	if p.Multi != nil {
		out.Multi = &vectord.MultiParams{Comparator: p.Multi.Comparator}
	}
	if given(p.Quantization) {
		if out.Quantization, err = quantizationOf(p.Quantization); err != nil {
			return out, err
		}
	}
	out.HNSW, err = p.HNSW.raw(field + ".hnsw_config")
	return out, err
}

// sparseJSON are the sparse vectors of a collection by name; the settings of a name may be null.
type sparseJSON map[string]*struct {
	Index    jsontext.Value `json:"index"`
	Modifier *string        `json:"modifier"`
}

func (s sparseJSON) params() (map[string]vectord.SparseParams, error) {
	if len(s) == 0 {
		return nil, nil
	}
	out := map[string]vectord.SparseParams{}
	for name, settings := range s {
		var p vectord.SparseParams
		if settings != nil {
			if settings.Modifier != nil {
				p.Modifier = *settings.Modifier
			}
			if given(settings.Index) {
				var err error
				if p.Index, err = rawObject(settings.Index, "sparse_vectors."+excerpt([]byte(name))+".index"); err != nil {
					return nil, err
				}
			}
		}
		out[name] = p
	}
	return out, nil
}

// hnswJSON are the settings of the graph, each of which may be absent. ef_search, recall_target and
// max_layers are vectord's own.
type hnswJSON struct {
	M                  *uint64  `json:"m"`
	EfConstruct        *uint64  `json:"ef_construct"`
	EfSearch           *uint64  `json:"ef_search"`
	RecallTarget       *float64 `json:"recall_target"`
	MaxLayers          *uint64  `json:"max_layers"`
	FullScanThreshold  *uint64  `json:"full_scan_threshold"`
	MaxIndexingThreads *uint64  `json:"max_indexing_threads"`
	OnDisk             *bool    `json:"on_disk"`
}

func (h *hnswJSON) apply(c *vectord.HNSWConfig, field string) error {
	if h == nil {
		return nil
	}
	for _, s := range []struct {
		dst  *int
		v    *uint64
		name string
	}{
		{&c.M, h.M, "m"},
		{&c.EfConstruct, h.EfConstruct, "ef_construct"},
		{&c.EfSearch, h.EfSearch, "ef_search"},
		{&c.MaxLayers, h.MaxLayers, "max_layers"},
		{&c.FullScanThreshold, h.FullScanThreshold, "full_scan_threshold"},
		{&c.MaxIndexingThreads, h.MaxIndexingThreads, "max_indexing_threads"},
	} {
		if err := setInt(s.dst, s.v, field+"."+s.name); err != nil {
			return err
		}
	}
	if h.RecallTarget != nil {
		c.RecallTarget = *h.RecallTarget
	}
	if h.OnDisk != nil {
		c.OnDisk = *h.OnDisk
	}
	return nil
}

// raw returns the settings that are given as the JSON of a vectord.HNSWConfig, nil for none.
func (h *hnswJSON) raw(field string) ([]byte, error) {
	if h == nil {
		return nil, nil
	}
	var checked vectord.HNSWConfig
	if err := h.apply(&checked, field); err != nil {
		return nil, err
	}
	return settings(h)
}

// settings returns the members of a struct of pointers that are set, as JSON.
func settings(of any) ([]byte, error) {
	return jsonv2.Marshal(of, jsonv2.OmitZeroStructFields(true))
}

// optimizersJSON are the settings of background work, each of which may be absent.
type optimizersJSON struct {
	DeletedThreshold       *float64 `json:"deleted_threshold"`
	VacuumMinVectorNumber  *uint64  `json:"vacuum_min_vector_number"`
	DefaultSegmentNumber   *uint64  `json:"default_segment_number"`
	MaxSegmentSize         *uint64  `json:"max_segment_size"`
	MemmapThreshold        *uint64  `json:"memmap_threshold"`
	IndexingThreshold      *uint64  `json:"indexing_threshold"`
	FlushIntervalSec       *uint64  `json:"flush_interval_sec"`
	MaxOptimizationThreads any      `json:"max_optimization_threads"` // a number or "auto"
}

func (o *optimizersJSON) apply(c *vectord.OptimizerConfig) error {
	if o == nil {
		return nil
	}
	if o.DeletedThreshold != nil {
		if *o.DeletedThreshold < 0 || *o.DeletedThreshold > 1 {
			return outOfRange("optimizers_config.deleted_threshold", *o.DeletedThreshold, "from 0 to 1")
		}
		c.DeletedThreshold = *o.DeletedThreshold
	}
	for _, s := range []struct {
		dst  *int
		v    *uint64
		name string
	}{
		{&c.VacuumMinVectorNumber, o.VacuumMinVectorNumber, "vacuum_min_vector_number"},
		{&c.DefaultSegmentNumber, o.DefaultSegmentNumber, "default_segment_number"},
		{&c.IndexingThreshold, o.IndexingThreshold, "indexing_threshold"},
		{&c.FlushIntervalSec, o.FlushIntervalSec, "flush_interval_sec"},
	} {
		if err := setInt(s.dst, s.v, "optimizers_config."+s.name); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		dst  **int
		v    *uint64
		name string
	}{
		{&c.MaxSegmentSize, o.MaxSegmentSize, "max_segment_size"},
		{&c.MemmapThreshold, o.MemmapThreshold, "memmap_threshold"},
	} {
		if s.v == nil {
			continue
		}
		*s.dst = new(int)
		if err := setInt(*s.dst, s.v, "optimizers_config."+s.name); err != nil {
			return err
		}
	}
	switch threads := o.MaxOptimizationThreads.(type) {
	case nil:
	case string:
		if threads != "auto" {
			return outOfRange("optimizers_config.max_optimization_threads", excerpt([]byte(threads)), `a number or "auto"`)
		}
	case float64:
		if threads < 0 || threads > 1024 || threads != float64(int(threads)) {
			return outOfRange("optimizers_config.max_optimization_threads", threads, "an integer from 0 to 1024")
		}
		n := int(threads)
		c.MaxOptimizationThreads = &n
	default:
		return outOfRange("optimizers_config.max_optimization_threads", threads, `a number or "auto"`)
	}
	return nil
}

// decodeCreateCollection reads the body of PUT /collections/{name}: the defaults, changed by what is given.
func decodeCreateCollection(body []byte) (vectord.CollectionConfig, error) {
	var b struct {
		Vectors                vectorsParamsJSON   `json:"vectors"`
		SparseVectors          sparseJSON          `json:"sparse_vectors"`
		ShardNumber            *uint64             `json:"shard_number"`
		ShardingMethod         *string             `json:"sharding_method"`
		ReplicationFactor      *uint64             `json:"replication_factor"`
		WriteConsistencyFactor *uint64             `json:"write_consistency_factor"`
		OnDiskPayload          *bool               `json:"on_disk_payload"`
		HNSW                   *hnswJSON           `json:"hnsw_config"`
		Optimizers             *optimizersJSON     `json:"optimizers_config"`
		Quantization           jsontext.Value      `json:"quantization_config"`
		StrictMode             *vectord.StrictMode `json:"strict_mode_config"`
		Metadata               jsontext.Value      `json:"metadata"`
		InitFrom               notOffered          `json:"init_from"`
		WAL                    *struct {
			CapacityMB    *uint64 `json:"wal_capacity_mb"`
			SegmentsAhead *uint64 `json:"wal_segments_ahead"`
		} `json:"wal_config"`
	}
	none := vectord.CollectionConfig{}
	if err := decodeBody(body, &b); err != nil {
		return none, err
	}
	if b.ShardingMethod != nil && *b.ShardingMethod != "auto" {
		return none, vectord.Errorf(vectord.KindUnsupported, "sharding_method: %s is not offered by this server, only auto",
			excerpt([]byte(*b.ShardingMethod)))
	}
	if !b.Vectors.given && len(b.SparseVectors) == 0 {
		return none, missing("vectors")
	}
	c := vectord.DefaultCollectionConfig(0, 0)
	c.Params.Vectors = b.Vectors.params
	c.StrictMode = b.StrictMode
	var err error
	if c.Params.SparseVectors, err = b.SparseVectors.params(); err != nil {
		return none, err
	}
	for _, s := range []struct {
		dst  *int
		v    *uint64
		name string
	}{
		{&c.Params.ShardNumber, b.ShardNumber, "shard_number"},
		{&c.Params.ReplicationFactor, b.ReplicationFactor, "replication_factor"},
		{&c.Params.WriteConsistencyFactor, b.WriteConsistencyFactor, "write_consistency_factor"},
	} {
		if err := setInt(s.dst, s.v, s.name); err != nil {
			return none, err
		}
	}
	if b.OnDiskPayload != nil {
		c.Params.OnDiskPayload = *b.OnDiskPayload
	}
	if err := b.HNSW.apply(&c.HNSW, "hnsw_config"); err != nil {
		return none, err
	}
	if err := b.Optimizers.apply(&c.Optimizer); err != nil {
		return none, err
	}
	if b.WAL != nil {
		if err := setInt(&c.WAL.CapacityMB, b.WAL.CapacityMB, "wal_config.wal_capacity_mb"); err != nil {
			return none, err
		}
		if err := setInt(&c.WAL.SegmentsAhead, b.WAL.SegmentsAhead, "wal_config.wal_segments_ahead"); err != nil {
			return none, err
		}
	}
	if given(b.Quantization) {
		if c.Quantization, err = quantizationOf(b.Quantization); err != nil {
			return none, err
		}
	}
	if given(b.Metadata) {
		if c.Metadata, err = rawObject(b.Metadata, "metadata"); err != nil {
			return none, err
		}
	}
	return c, c.Validate()
}

func given(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != 'n' }

// quantizationOf checks a quantization_config and returns it without blanks.
func quantizationOf(raw jsontext.Value) ([]byte, error) {
	if string(raw) == vectord.QuantizationDisabled {
		return raw.Clone(), nil
	}
	compact, err := rawObject(raw, "quantization_config")
	if err != nil {
		return nil, err
	}
	_, err = vectord.ParseQuantization(compact)
	return compact, err
}

// decodeUpdateCollection reads the body of PATCH /collections/{name}. Settings that fix the shape of what is stored cannot
// change.
func decodeUpdateCollection(body []byte) (vectord.CollectionUpdate, error) {
	var b struct {
		Vectors map[string]struct {
			HNSW         *hnswJSON      `json:"hnsw_config"`
			Quantization jsontext.Value `json:"quantization_config"`
			OnDisk       *bool          `json:"on_disk"`
		} `json:"vectors"`
		SparseVectors sparseJSON          `json:"sparse_vectors"`
		HNSW          *hnswJSON           `json:"hnsw_config"`
		Optimizers    *optimizersJSON     `json:"optimizers_config"`
		Quantization  jsontext.Value      `json:"quantization_config"`
		StrictMode    *vectord.StrictMode `json:"strict_mode_config"`
		Metadata      jsontext.Value      `json:"metadata"`
		Params        *struct {
			OnDiskPayload          *bool      `json:"on_disk_payload"`
			ReplicationFactor      notOffered `json:"replication_factor"`
			WriteConsistencyFactor notOffered `json:"write_consistency_factor"`
		} `json:"params"`
	}
	var u vectord.CollectionUpdate
	if err := decodeBody(body, &b); err != nil {
		return u, err
	}
	var err error
	if u.HNSW, err = graphUpdate(b.HNSW, "hnsw_config"); err != nil {
		return u, err
	}
	for name, v := range b.Vectors {
		if u.Vectors == nil {
			u.Vectors = map[string]vectord.VectorUpdate{}
		}
		changed := vectord.VectorUpdate{OnDisk: v.OnDisk}
		if changed.HNSW, err = graphUpdate(v.HNSW, vectorField(name)+".hnsw_config"); err != nil {
			return u, err
		}
		if given(v.Quantization) {
			if changed.Quantization, err = quantizationOf(v.Quantization); err != nil {
				return u, err
			}
		}
		u.Vectors[name] = changed
	}
	if u.SparseVectors, err = b.SparseVectors.params(); err != nil {
		return u, err
	}
	if b.Optimizers != nil {
		var checked vectord.OptimizerConfig
		if err := b.Optimizers.apply(&checked); err != nil {
			return u, err
		}
		if n, ok := b.Optimizers.MaxOptimizationThreads.(string); ok && n == "auto" {
			b.Optimizers.MaxOptimizationThreads = nil
		}
		if u.Optimizer, err = settings(b.Optimizers); err != nil {
			return u, err
		}
	}
	if b.StrictMode != nil {
		if u.StrictMode, err = settings(b.StrictMode); err != nil {
			return u, err
		}
	}
	if b.Params != nil {
		u.OnDiskPayload = b.Params.OnDiskPayload
	}
	if given(b.Quantization) {
		if u.Quantization, err = quantizationOf(b.Quantization); err != nil {
			return u, err
		}
	}
	if given(b.Metadata) {
		u.Metadata, err = rawObject(b.Metadata, "metadata")
	}
	return u, err
}

// graphUpdate returns the settings of the graph to change.
func graphUpdate(h *hnswJSON, field string) ([]byte, error) {
	if h != nil && h.MaxLayers != nil {
		return nil, vectord.Errorf(vectord.KindUnsupported, "%s: max_layers of an existing collection cannot change", field)
	}
	return h.raw(field)
}

// decodeNewVectors reads the body of PUT /collections/{name}/vectors/{vector}.
func decodeNewVectors(body []byte) (v vectord.NewVectors, err error) {
	var b struct {
		Dense  jsontext.Value `json:"dense"`
		Sparse *struct {
			Modifier string `json:"modifier"`
			Datatype string `json:"datatype"`
		} `json:"sparse"`
	}
	if err := decodeBody(body, &b); err != nil {
		return v, err
	}
	if given(b.Dense) {
		dense, err := vectorParams(b.Dense, "dense")
		if err != nil {
			return v, err
		}
		v.Dense = &dense
	}
	if b.Sparse != nil {
		if d := b.Sparse.Datatype; d != "" && d != vectord.Float32 {
			return v, vectord.Errorf(vectord.KindUnsupported, "sparse.datatype: only float32 is offered by this server, got %s", excerpt([]byte(d)))
		}
		v.Sparse = &vectord.SparseParams{Modifier: b.Sparse.Modifier}
	}
	if v.Dense == nil && v.Sparse == nil {
		return v, missing("dense")
	}
	return v, nil
}

// fieldIndex is a payload index to be created.
type fieldIndex struct {
	name   string
	schema vectord.FieldSchema
}

// decodeCreateFieldIndex reads the body of PUT /collections/{name}/index.
func decodeCreateFieldIndex(body []byte) (index fieldIndex, err error) {
	var b struct {
		Name   *string        `json:"field_name"`
		Schema jsontext.Value `json:"field_schema"`
	}
	if err := decodeBody(body, &b); err != nil {
		return index, err
	}
	switch {
	case b.Name == nil:
		return index, missing("field_name")
	case !given(b.Schema):
		return index, missing("field_schema")
	}
	index.name = *b.Name
	if err := vectord.CheckFieldName(index.name); err != nil {
		return index, err
	}
	index.schema, err = vectord.ParseFieldSchema(b.Schema)
	return index, err
}
