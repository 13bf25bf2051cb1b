package vectord

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// CollectionConfig is everything that a collection is created with. Its JSON form is what the API reports as "config".
type CollectionConfig struct {
	Params       CollectionParams `json:"params"`
	HNSW         HNSWConfig       `json:"hnsw_config"`
	Optimizer    OptimizerConfig  `json:"optimizer_config"`
	WAL          WALConfig        `json:"wal_config"`
	Quantization json.RawMessage  `json:"quantization_config"` // as given, see ParseQuantization; nil is null
	StrictMode   *StrictMode      `json:"strict_mode_config,omitempty"`
	Metadata     json.RawMessage  `json:"metadata,omitempty"` // an object of the user's own
}

// CollectionParams fix the shape of a collection.
type CollectionParams struct {
	Vectors                VectorsParams           `json:"vectors"`
	SparseVectors          map[string]SparseParams `json:"sparse_vectors,omitempty"`
	ShardNumber            int                     `json:"shard_number"`
	ReplicationFactor      int                     `json:"replication_factor"`
	WriteConsistencyFactor int                     `json:"write_consistency_factor"`
	OnDiskPayload          bool                    `json:"on_disk_payload"`
}

// HNSWConfig sets the shape of the graph (Malkov and Yashunin, 2016): M links a node (2M on layer 0), EfConstruct
// candidates while building, at most MaxLayers layers.
//
// A search that does not say keeps EfSearch candidates. If that is 0 each replica chooses the number by itself, the
// smallest with which searches find the share RecallTarget of their ten nearest, and follows the data.
type HNSWConfig struct {
	M                  int     `json:"m"`
	EfConstruct        int     `json:"ef_construct"`
	EfSearch           int     `json:"ef_search"`
	RecallTarget       float64 `json:"recall_target"`
	MaxLayers          int     `json:"max_layers"`
	FullScanThreshold  int     `json:"full_scan_threshold"` // KiB of vectors below which a scan is preferred to the graph
	MaxIndexingThreads int     `json:"max_indexing_threads"`
	OnDisk             bool    `json:"on_disk"`
}

// Recall is held at a target that the collection may say, from RecallTargetMin to RecallTargetMax.
const (
	DefaultRecallTarget = 0.95
	RecallTargetMin     = 0.5
	RecallTargetMax     = 0.999
	// UncalibratedEf is the number of candidates of searches for which neither the collection nor a measurement has said one.
	UncalibratedEf = 50
)

// OptimizerConfig holds the settings of background work. Only IndexingThreshold (KiB of vectors below which no graph is
// built; 0 turns indexing off) changes what vectord does; the others are kept for clients that read them back.
type OptimizerConfig struct {
	DeletedThreshold       float64 `json:"deleted_threshold"`
	VacuumMinVectorNumber  int     `json:"vacuum_min_vector_number"`
	DefaultSegmentNumber   int     `json:"default_segment_number"`
	MaxSegmentSize         *int    `json:"max_segment_size"`
	MemmapThreshold        *int    `json:"memmap_threshold"`
	IndexingThreshold      int     `json:"indexing_threshold"`
	FlushIntervalSec       int     `json:"flush_interval_sec"`
	MaxOptimizationThreads *int    `json:"max_optimization_threads"`
}

// WALConfig is kept for clients that read it back.
type WALConfig struct {
	CapacityMB    int `json:"wal_capacity_mb"`
	SegmentsAhead int `json:"wal_segments_ahead"`
}

// DefaultCollectionConfig returns the configuration of a collection for which only the vectors' shape was given.
func DefaultCollectionConfig(size int, distance Distance) CollectionConfig {
	return CollectionConfig{
		Params: CollectionParams{
			Vectors:     VectorsParams{"": {Size: size, Distance: distance}},
			ShardNumber: 1, ReplicationFactor: 1, WriteConsistencyFactor: 1, OnDiskPayload: true,
		},
		HNSW: HNSWConfig{M: 16, EfConstruct: 200, RecallTarget: DefaultRecallTarget, MaxLayers: 5, FullScanThreshold: 10_000},
		Optimizer: OptimizerConfig{DeletedThreshold: 0.2, VacuumMinVectorNumber: 1000, IndexingThreshold: 10_000,
			FlushIntervalSec: 5},
		WAL: WALConfig{CapacityMB: 32},
	}
}

// Validate checks every number of the configuration against its range.
func (c *CollectionConfig) Validate() error {
	err := checkRanges("",
		rangeCheck{"shard_number", c.Params.ShardNumber, 1, MaxShards},
		rangeCheck{"replication_factor", c.Params.ReplicationFactor, 1, 64},
		rangeCheck{"write_consistency_factor", c.Params.WriteConsistencyFactor, 1, 64},
		rangeCheck{"optimizers_config.indexing_threshold", c.Optimizer.IndexingThreshold, 0, 1 << 30},
	)
	if err != nil {
		return err
	}
	if err := c.HNSW.check("hnsw_config"); err != nil {
		return err
	}
	if _, err := ParseQuantization(c.Quantization); err != nil {
		return err
	}
	if err := c.StrictMode.check(); err != nil {
		return err
	}
	return c.checkVectors()
}

type rangeCheck struct {
	field     string
	value     int
	low, high int
}

func checkRanges(prefix string, checks ...rangeCheck) error {
	for _, r := range checks {
		if r.value < r.low || r.value > r.high {
			return Errorf(KindUnprocessable, "%s%s: value %d invalid, must be from %d to %d", prefix, r.field, r.value, r.low, r.high)
		}
	}
	return nil
}

func (h *HNSWConfig) check(field string) error {
	err := checkRanges(field+".",
		rangeCheck{"m", h.M, 0, 64},
		rangeCheck{"ef_construct", h.EfConstruct, 4, 4096},
		rangeCheck{"ef_search", h.EfSearch, 0, MaxLimit},
		rangeCheck{"max_layers", h.MaxLayers, 1, 16},
		rangeCheck{"full_scan_threshold", h.FullScanThreshold, 0, 1 << 30},
		rangeCheck{"max_indexing_threads", h.MaxIndexingThreads, 0, 1024},
	)
	if err != nil {
		return err
	}
	if h.M == 1 {
		return Errorf(KindUnprocessable, "%s.m: value 1 invalid, must be 0 for no graph, or from 2 to 64", field)
	}
	if t := h.RecallTarget; !(t >= RecallTargetMin && t <= RecallTargetMax) {
		return Errorf(KindUnprocessable, "%s.recall_target: value %v invalid, must be from %v to %v", field, t, RecallTargetMin, RecallTargetMax)
	}
	return nil
}

func (c *CollectionConfig) checkVectors() error {
	if n := len(c.Params.Vectors) + len(c.Params.SparseVectors); n > MaxVectorNames {
		return Errorf(KindUnprocessable, "vectors: %d names, at most %d are accepted", n, MaxVectorNames)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Params.Vectors)) {
		if err := c.checkVector(name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Params.SparseVectors)) {
		if err := CheckVectorName(name); err != nil {
			return err
		}
		if _, twice := c.Params.Vectors[name]; twice {
			return Errorf(KindInvalid, "sparse_vectors: the name %q is one of vectors too", name)
		}
		if m := c.Params.SparseVectors[name].Modifier; m != "" && m != "none" && m != ModifierIDF {
			return Errorf(KindInvalid, "sparse_vectors.%s.modifier: expected none or idf, got %s", name, excerptOf(m))
		}
	}
	return nil
}

func (c *CollectionConfig) checkVector(name string) error {
	if err := CheckVectorName(name); err != nil {
		return err
	}
	v, field := c.Params.Vectors[name], "vectors"
	if name != "" {
		field += "." + name
	}
	if !v.Distance.Valid() {
		return Errorf(KindInvalid, "%s.distance is missing or unknown, expected one of Cosine, Euclid, Dot, Manhattan", field)
	}
	if err := checkRanges(field+".", rangeCheck{"size", v.Size, 1, MaxDimension}); err != nil {
		return err
	}
	switch v.Datatype {
	case "", Float32, Float16, Uint8:
	default:
		return Errorf(KindUnsupported, "%s.datatype: expected float32, float16 or uint8, got %s", field, excerptOf(v.Datatype))
	}
	if v.Multi != nil && v.Multi.Comparator != MaxSim {
		return Errorf(KindInvalid, "%s.multivector_config.comparator: expected max_sim, got %s", field, excerptOf(v.Multi.Comparator))
	}
	h, err := c.HNSWOf(name)
	if err != nil {
		return err
	}
	if err := h.check(field + ".hnsw_config"); err != nil {
		return err
	}
	q, err := c.QuantizationOf(name)
	if err != nil {
		return err
	}
	return q.fits(v.Distance)
}

// WithVectors returns the configuration with vectors of one name more. If there are such already it is returned as it is, and
// with others of the name that is an error of KindExists. c stays as it is.
func (c CollectionConfig) WithVectors(name string, v NewVectors) (CollectionConfig, error) {
	if (v.Dense == nil) == (v.Sparse == nil) {
		return c, Errorf(KindInvalid, "vector name %q: expected one of dense and sparse", name)
	}
	dense, hasDense := c.Params.Vectors[name]
	sparse, hasSparse := c.Params.SparseVectors[name]
	if hasDense || hasSparse {
		same := hasDense && v.Dense != nil && sameSpace(dense, *v.Dense) || hasSparse && v.Sparse != nil && sparse.Modifier == v.Sparse.Modifier
		if !same {
			return c, Errorf(KindExists, "vector name %q exists already, with other settings", name)
		}
		return c, nil
	}
	if v.Dense != nil {
		c.Params.Vectors = maps.Clone(c.Params.Vectors)
		if c.Params.Vectors == nil {
			c.Params.Vectors = VectorsParams{}
		}
		c.Params.Vectors[name] = *v.Dense
	} else {
		c.Params.SparseVectors = maps.Clone(c.Params.SparseVectors)
		if c.Params.SparseVectors == nil {
			c.Params.SparseVectors = map[string]SparseParams{}
		}
		c.Params.SparseVectors[name] = *v.Sparse
	}
	return c, c.Validate()
}

// sameSpace reports whether vectors of a and b are of the same kind and compared alike.
func sameSpace(a, b VectorParams) bool {
	return a.Size == b.Size && a.Distance == b.Distance && a.Datatype == b.Datatype && (a.Multi == nil) == (b.Multi == nil)
}

// WithoutVectors returns the configuration without the vectors of a name. c stays as it is.
func (c CollectionConfig) WithoutVectors(name string) CollectionConfig {
	c.Params.Vectors, c.Params.SparseVectors = maps.Clone(c.Params.Vectors), maps.Clone(c.Params.SparseVectors)
	delete(c.Params.Vectors, name)
	delete(c.Params.SparseVectors, name)
	return c
}

// HNSWOf returns the settings of the graph of the vectors of a name.
func (c *CollectionConfig) HNSWOf(name string) (HNSWConfig, error) {
	h := c.HNSW
	if own := c.Params.Vectors[name].HNSW; len(own) > 0 {
		if err := json.Unmarshal(own, &h); err != nil {
			return h, Errorf(KindInvalid, "vectors.%s.hnsw_config: %v", name, err)
		}
	}
	return h, nil
}

// QuantizationOf returns by which codes the graph of the vectors of a name compares them.
func (c *CollectionConfig) QuantizationOf(name string) (Quantization, error) {
	if own := c.Params.Vectors[name].Quantization; len(own) > 0 {
		return ParseQuantization(own)
	}
	return ParseQuantization(c.Quantization)
}

// CollectionStatus tells how far a collection's background work is.
type CollectionStatus string

// The states of a collection.
const (
	StatusGreen  CollectionStatus = "green"  // all points that should be in the graph are
	StatusYellow CollectionStatus = "yellow" // points wait for the graph, or for one of other codes; searches see them all the same
	StatusGrey   CollectionStatus = "grey"   // they wait, and the memory limit leaves no room to go on
	StatusRed    CollectionStatus = "red"    // background work failed, see CollectionInfo.Problem; it is tried again each second
)

// CollectionInfo is a collection's configuration and state.
type CollectionInfo struct {
	Status         CollectionStatus
	Problem        string // why the status is red
	Points         int    // live points
	IndexedVectors int    // of all names, in graphs and inverted indexes
	Config         CollectionConfig
	Recall         map[string]RecallState // by name of dense vectors
	Fields         map[string]FieldInfo   // the payload indexes by field; nil or empty: none
}

// RecallState is how well a collection's searches find the ten nearest points. Each replica measures it by itself.
type RecallState struct {
	Ef      int      `json:"ef"`      // candidates of a search that does not say, where shards differ the most of them
	Ratio   *float64 `json:"ratio"`   // share of the ten nearest found with Ef, measured last; nil: not measured
	Queries int      `json:"queries"` // that Ratio was measured with
}

// CollectionUpdate changes a collection's settings at run time; absent fields stay as they are. Its JSON form is part of
// the log's format.
type CollectionUpdate struct {
	HNSW          json.RawMessage         `json:"hnsw,omitempty"`      // settings of HNSWConfig to change
	Optimizer     json.RawMessage         `json:"optimizer,omitempty"` // settings of OptimizerConfig to change
	Vectors       map[string]VectorUpdate `json:"vectors,omitempty"`
	SparseVectors map[string]SparseParams `json:"sparse_vectors,omitempty"` // replaced whole, by name
	OnDiskPayload *bool                   `json:"on_disk_payload,omitempty"`
	Quantization  json.RawMessage         `json:"quantization,omitempty"` // empty: as it is; else see ParseQuantization
	StrictMode    json.RawMessage         `json:"strict_mode,omitempty"`  // settings of StrictMode to change
	Metadata      json.RawMessage         `json:"metadata,omitempty"`     // merged key by key; a null value removes the key
}

// VectorUpdate changes settings of the vectors of one name.
type VectorUpdate struct {
	HNSW         json.RawMessage `json:"hnsw,omitempty"` // settings to change; {} goes back to the collection's
	Quantization json.RawMessage `json:"quantization,omitempty"`
	OnDisk       *bool           `json:"on_disk,omitempty"`
}

// Updated returns the configuration with the changes of u, which must be valid together. c stays as it is.
func (c CollectionConfig) Updated(u CollectionUpdate) (CollectionConfig, error) {
	for _, merge := range []struct {
		field string
		raw   json.RawMessage
		into  any
	}{{"hnsw_config", u.HNSW, &c.HNSW}, {"optimizers_config", u.Optimizer, &c.Optimizer}} {
		if len(merge.raw) == 0 {
			continue
		}
		if err := json.Unmarshal(merge.raw, merge.into); err != nil {
			return c, Errorf(KindInvalid, "%s: %v", merge.field, err)
		}
	}
	if len(u.StrictMode) > 0 {
		strict := StrictMode{}
		if c.StrictMode != nil {
			strict = *c.StrictMode
			strict.Multivector, strict.Sparse = maps.Clone(strict.Multivector), maps.Clone(strict.Sparse) // which decoding adds to
		}
		if err := json.Unmarshal(u.StrictMode, &strict); err != nil {
			return c, Errorf(KindInvalid, "strict_mode_config: %v", err)
		}
		c.StrictMode = &strict
	}
	if u.OnDiskPayload != nil {
		c.Params.OnDiskPayload = *u.OnDiskPayload
	}
	if len(u.Quantization) > 0 {
		c.Quantization = u.Quantization
	}
	c.Params.Vectors = maps.Clone(c.Params.Vectors)
	for _, name := range slices.Sorted(maps.Keys(u.Vectors)) {
		v, ok := c.Params.Vectors[name]
		if !ok {
			return c, NoVectorName(name)
		}
		var err error
		if c.Params.Vectors[name], err = v.updated(name, u.Vectors[name]); err != nil {
			return c, err
		}
	}
	c.Params.SparseVectors = maps.Clone(c.Params.SparseVectors)
	for _, name := range slices.Sorted(maps.Keys(u.SparseVectors)) {
		if _, ok := c.Params.SparseVectors[name]; !ok {
			return c, NoVectorName(name)
		}
		c.Params.SparseVectors[name] = u.SparseVectors[name]
	}
	var err error
	if c.Metadata, err = mergeObject(c.Metadata, u.Metadata); err != nil {
		return c, Errorf(KindInvalid, "metadata: %v", err)
	}
	return c, c.Validate()
}

func (v VectorParams) updated(name string, u VectorUpdate) (VectorParams, error) {
	var err error
	if v.HNSW, err = mergeObject(v.HNSW, u.HNSW); err != nil {
		return v, Errorf(KindInvalid, "vectors.%s.hnsw_config: %v", name, err)
	}
	if string(u.HNSW) == "{}" {
		v.HNSW = nil
	}
	if len(u.Quantization) > 0 {
		v.Quantization = u.Quantization
	}
	if u.OnDisk != nil {
		v.OnDisk = *u.OnDisk
	}
	return v, nil
}

// mergeObject returns the object old with the keys of update set, and those whose value is null removed.
func mergeObject(old, update json.RawMessage) (json.RawMessage, error) {
	if len(update) == 0 {
		return old, nil
	}
	var merged, changes map[string]json.RawMessage
	if len(old) > 0 {
		if err := json.Unmarshal(old, &merged); err != nil {
			return nil, err
		}
	}
	if err := json.Unmarshal(update, &changes); err != nil {
		return nil, err
	}
	if merged == nil {
		merged = map[string]json.RawMessage{}
	}
	for key, value := range changes {
		if string(value) == "null" {
			delete(merged, key)
		} else {
			merged[key] = value
		}
	}
	return json.Marshal(merged)
}

// NoVectorName returns the error for a vector name that a collection does not have.
func NoVectorName(name string) error {
	return Errorf(KindInvalid, "Not existing vector name error: %s", name)
}

// StrictMode are limits of one collection, in force while Enabled is true. A nil limit is none.
type StrictMode struct {
	Enabled                    *bool    `json:"enabled,omitempty"`
	MaxQueryLimit              *int     `json:"max_query_limit,omitempty"`
	MaxTimeout                 *int     `json:"max_timeout,omitempty"` // seconds
	UnindexedFilteringRetrieve *bool    `json:"unindexed_filtering_retrieve,omitempty"`
	UnindexedFilteringUpdate   *bool    `json:"unindexed_filtering_update,omitempty"`
	SearchMaxHNSWEf            *int     `json:"search_max_hnsw_ef,omitempty"`
	SearchAllowExact           *bool    `json:"search_allow_exact,omitempty"`
	SearchMaxOversampling      *float64 `json:"search_max_oversampling,omitempty"`
	UpsertMaxBatchSize         *int     `json:"upsert_max_batchsize,omitempty"`
	SearchMaxBatchSize         *int     `json:"search_max_batchsize,omitempty"`
	MaxVectorSizeBytes         *int64   `json:"max_collection_vector_size_bytes,omitempty"`
	MaxPayloadSizeBytes        *int64   `json:"max_collection_payload_size_bytes,omitempty"`
	MaxPointsCount             *int64   `json:"max_points_count,omitempty"`
	ReadRateLimit              *int     `json:"read_rate_limit,omitempty"`  // a minute
	WriteRateLimit             *int     `json:"write_rate_limit,omitempty"` // a minute
	FilterMaxConditions        *int     `json:"filter_max_conditions,omitempty"`
	ConditionMaxSize           *int     `json:"condition_max_size,omitempty"`
	MaxPayloadIndexCount       *int     `json:"max_payload_index_count,omitempty"`

	Multivector map[string]StrictMultivector `json:"multivector_config,omitempty"` // by name of the vectors
	Sparse      map[string]StrictSparse      `json:"sparse_config,omitempty"`      // by name of the vectors
}

// StrictMultivector are limits of the multivectors of one name.
type StrictMultivector struct {
	MaxVectors *int `json:"max_vectors,omitempty"` // in one
}

// StrictSparse are limits of the sparse vectors of one name.
type StrictSparse struct {
	MaxLength *int `json:"max_length,omitempty"` // components of one
}

// check returns an error unless every limit is a number that it can be.
func (m *StrictMode) check() error {
	if m == nil {
		return nil
	}
	const field = "strict_mode_config."
	least := func(name string, value *int64, least int64) error {
		if value != nil && *value < least {
			return Errorf(KindUnprocessable, "%s%s: value %d invalid, must be %d or larger", field, name, *value, least)
		}
		return nil
	}
	wide := func(n *int) *int64 {
		if n == nil {
			return nil
		}
		w := int64(*n)
		return &w
	}
	for _, l := range []struct {
		name  string
		value *int64
		least int64
	}{
		{"max_query_limit", wide(m.MaxQueryLimit), 1}, {"max_timeout", wide(m.MaxTimeout), 1}, {"search_max_hnsw_ef", wide(m.SearchMaxHNSWEf), 0},
		{"upsert_max_batchsize", wide(m.UpsertMaxBatchSize), 0}, {"search_max_batchsize", wide(m.SearchMaxBatchSize), 0},
		{"max_collection_vector_size_bytes", m.MaxVectorSizeBytes, 0}, {"max_collection_payload_size_bytes", m.MaxPayloadSizeBytes, 0},
		{"max_points_count", m.MaxPointsCount, 1}, {"read_rate_limit", wide(m.ReadRateLimit), 1}, {"write_rate_limit", wide(m.WriteRateLimit), 1},
		{"filter_max_conditions", wide(m.FilterMaxConditions), 0}, {"condition_max_size", wide(m.ConditionMaxSize), 0},
		{"max_payload_index_count", wide(m.MaxPayloadIndexCount), 0},
	} {
		if err := least(l.name, l.value, l.least); err != nil {
			return err
		}
	}
	if o := m.SearchMaxOversampling; o != nil && !(*o >= 0) {
		return Errorf(KindUnprocessable, "%ssearch_max_oversampling: value %v invalid, must be 0 or larger", field, *o)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Multivector)) {
		if err := least("multivector_config."+name+".max_vectors", wide(m.Multivector[name].MaxVectors), 1); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Sparse)) {
		if err := least("sparse_config."+name+".max_length", wide(m.Sparse[name].MaxLength), 1); err != nil {
			return err
		}
	}
	return nil
}

// CheckCollectionName returns an error unless name may name a collection or an alias.
func CheckCollectionName(name string) error {
	n := utf8.RuneCountInString(name)
	switch {
	case n < 1 || n > MaxCollectionNameSize:
		return Errorf(KindUnprocessable, "collection_name: length %d invalid, must be from 1 to %d", n, MaxCollectionNameSize)
	case !utf8.ValidString(name):
		return Errorf(KindUnprocessable, "collection_name: %q is not valid UTF-8", name)
	}
	return checkCharacters("collection_name", name)
}

func checkCharacters(what, name string) error {
	if i := strings.IndexAny(name, "<>:\"/\\|?*\x00\x1f"); i >= 0 {
		return Errorf(KindUnprocessable, "%s: %q contains the forbidden character %q", what, name, name[i])
	}
	return nil
}
