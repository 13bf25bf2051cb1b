package server

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// vectorParamsJSON describes the vectors of a new collection, bare or as {"": {…}}.
type vectorParamsJSON struct {
	given        bool
	size         *uint64
	distance     *vectord.Distance
	onDisk       *bool
	hnsw         *hnswJSON
	quantization jsontext.Value
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *vectorParamsJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*v = vectorParamsJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	if raw.Kind() == 'n' {
		return nil
	}
	if raw.Kind() != '{' {
		return vectord.Errorf(vectord.KindInvalid, "expected an object, got %s", excerpt(raw))
	}
	return v.parse(raw)
}

func (v *vectorParamsJSON) parse(raw jsontext.Value) error {
	var object map[string]jsontext.Value
	if err := decodeInner(raw, &object); err != nil {
		return err
	}
	if inner, ok := object[""]; ok && len(object) == 1 && inner.Kind() == '{' {
		raw = inner
	} else if _, ok := object["size"]; !ok {
		for name, params := range object {
			if params.Kind() == '{' {
				return vectord.Errorf(vectord.KindUnsupported, "named vectors (%q) are not offered by this server", name)
			}
		}
	}
	var p struct {
		Size         *uint64           `json:"size"`
		Distance     *vectord.Distance `json:"distance"`
		OnDisk       *bool             `json:"on_disk"`
		HNSW         *hnswJSON         `json:"hnsw_config"`
		Quantization jsontext.Value    `json:"quantization_config"`
		Datatype     *string           `json:"datatype"`
		Multi        notOffered        `json:"multivector_config"`
	}
	if err := decodeInner(raw, &p); err != nil {
		return err
	}
	if p.Datatype != nil && *p.Datatype != "float32" {
		return vectord.Errorf(vectord.KindUnsupported, "datatype %s is not offered by this server, only float32", excerpt([]byte(*p.Datatype)))
	}
	*v = vectorParamsJSON{true, p.Size, p.Distance, p.OnDisk, p.HNSW, p.Quantization}
	return nil
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

// strictModeJSON is accepted as long as it is switched off.
type strictModeJSON struct {
	Enabled bool `json:"enabled"`
}

func (s *strictModeJSON) refuse() error {
	if s != nil && s.Enabled {
		return vectord.Errorf(vectord.KindUnsupported, "strict_mode_config: not offered by this server")
	}
	return nil
}

// decodeCreateCollection reads the body of PUT /collections/{name}: the defaults, changed by what is given.
func decodeCreateCollection(body []byte) (vectord.CollectionConfig, error) {
	var b struct {
		Vectors                vectorParamsJSON `json:"vectors"`
		SparseVectors          notOffered       `json:"sparse_vectors"`
		ShardNumber            *uint64          `json:"shard_number"`
		ShardingMethod         *string          `json:"sharding_method"`
		ReplicationFactor      *uint64          `json:"replication_factor"`
		WriteConsistencyFactor *uint64          `json:"write_consistency_factor"`
		OnDiskPayload          *bool            `json:"on_disk_payload"`
		HNSW                   *hnswJSON        `json:"hnsw_config"`
		Optimizers             *optimizersJSON  `json:"optimizers_config"`
		Quantization           jsontext.Value   `json:"quantization_config"`
		StrictMode             *strictModeJSON  `json:"strict_mode_config"`
		Metadata               jsontext.Value   `json:"metadata"`
		InitFrom               notOffered       `json:"init_from"`
		WAL                    *struct {
			CapacityMB    *uint64 `json:"wal_capacity_mb"`
			SegmentsAhead *uint64 `json:"wal_segments_ahead"`
		} `json:"wal_config"`
	}
	none := vectord.CollectionConfig{}
	if err := decodeBody(body, &b); err != nil {
		return none, err
	}
	switch {
	case !b.Vectors.given:
		return none, missing("vectors")
	case b.Vectors.size == nil:
		return none, missing("vectors.size")
	case b.Vectors.distance == nil:
		return none, missing("vectors.distance")
	case b.ShardingMethod != nil && *b.ShardingMethod != "auto":
		return none, vectord.Errorf(vectord.KindUnsupported, "sharding_method: %s is not offered by this server, only auto",
			excerpt([]byte(*b.ShardingMethod)))
	}
	if err := b.StrictMode.refuse(); err != nil {
		return none, err
	}
	c := vectord.DefaultCollectionConfig(0, *b.Vectors.distance)
	for _, s := range []struct {
		dst  *int
		v    *uint64
		name string
	}{
		{&c.Params.Vectors.Size, b.Vectors.size, "vectors.size"},
		{&c.Params.ShardNumber, b.ShardNumber, "shard_number"},
		{&c.Params.ReplicationFactor, b.ReplicationFactor, "replication_factor"},
		{&c.Params.WriteConsistencyFactor, b.WriteConsistencyFactor, "write_consistency_factor"},
	} {
		if err := setInt(s.dst, s.v, s.name); err != nil {
			return none, err
		}
	}
	if b.Vectors.onDisk != nil {
		c.Params.Vectors.OnDisk = *b.Vectors.onDisk
	}
	if b.OnDiskPayload != nil {
		c.Params.OnDiskPayload = *b.OnDiskPayload
	}
	if err := b.HNSW.apply(&c.HNSW, "hnsw_config"); err != nil {
		return none, err
	}
	if err := b.Vectors.hnsw.apply(&c.HNSW, "vectors.hnsw_config"); err != nil {
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
	quantization := b.Vectors.quantization
	if !given(quantization) {
		quantization = b.Quantization
	}
	var err error
	if given(quantization) {
		if c.Quantization, err = quantizationOf(quantization); err != nil {
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
// change; those that vectord only keeps for clients to read back are accepted and stay as they were.
func decodeUpdateCollection(body []byte) (vectord.CollectionUpdate, error) {
	var b struct {
		Vectors map[string]struct {
			HNSW         *hnswJSON      `json:"hnsw_config"`
			Quantization jsontext.Value `json:"quantization_config"`
		} `json:"vectors"`
		SparseVectors notOffered      `json:"sparse_vectors"`
		HNSW          *hnswJSON       `json:"hnsw_config"`
		Optimizers    *optimizersJSON `json:"optimizers_config"`
		Quantization  jsontext.Value  `json:"quantization_config"`
		StrictMode    *strictModeJSON `json:"strict_mode_config"`
		Metadata      jsontext.Value  `json:"metadata"`
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
	if err := b.StrictMode.refuse(); err != nil {
		return u, err
	}
	hnsw, quantization := b.HNSW, b.Quantization
	for name, v := range b.Vectors {
		if name != "" {
			return u, noVectorName(name)
		}
		if v.HNSW != nil {
			hnsw = v.HNSW
		}
		if given(v.Quantization) {
			quantization = v.Quantization
		}
	}
	if err := graphUpdate(&u, hnsw); err != nil {
		return u, err
	}
	if b.Optimizers != nil {
		var checked vectord.OptimizerConfig
		if err := b.Optimizers.apply(&checked); err != nil {
			return u, err
		}
		if b.Optimizers.IndexingThreshold != nil {
			u.IndexingThreshold = &checked.IndexingThreshold
		}
	}
	if b.Params != nil {
		u.OnDiskPayload = b.Params.OnDiskPayload
	}
	var err error
	if given(quantization) {
		if u.Quantization, err = quantizationOf(quantization); err != nil {
			return u, err
		}
	}
	if given(b.Metadata) {
		u.Metadata, err = rawObject(b.Metadata, "metadata")
	}
	return u, err
}

// graphUpdate puts the settings of the graph that can change at run time into u.
func graphUpdate(u *vectord.CollectionUpdate, h *hnswJSON) error {
	if h == nil {
		return nil
	}
	if h.M != nil || h.MaxLayers != nil {
		return vectord.Errorf(vectord.KindUnsupported, "hnsw_config: m and max_layers of an existing collection cannot change")
	}
	var checked vectord.HNSWConfig
	if err := h.apply(&checked, "hnsw_config"); err != nil {
		return err
	}
	u.RecallTarget = h.RecallTarget
	for _, s := range []struct {
		dst   **int
		given *uint64
		v     *int
	}{
		{&u.EfSearch, h.EfSearch, &checked.EfSearch},
		{&u.EfConstruct, h.EfConstruct, &checked.EfConstruct},
		{&u.FullScanThreshold, h.FullScanThreshold, &checked.FullScanThreshold},
		{&u.MaxIndexingThreads, h.MaxIndexingThreads, &checked.MaxIndexingThreads},
	} {
		if s.given != nil {
			*s.dst = s.v
		}
	}
	return nil
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
