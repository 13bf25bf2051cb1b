package vectord

import (
	"encoding/json"
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
	Metadata     json.RawMessage  `json:"metadata,omitempty"`  // an object of the user's own
}

// CollectionParams fix the shape of a collection.
type CollectionParams struct {
	Vectors                VectorParams `json:"vectors"`
	ShardNumber            int          `json:"shard_number"`
	ReplicationFactor      int          `json:"replication_factor"`
	WriteConsistencyFactor int          `json:"write_consistency_factor"`
	OnDiskPayload          bool         `json:"on_disk_payload"`
}

// VectorParams describe the vectors of a collection.
type VectorParams struct {
	Size     int      `json:"size"`
	Distance Distance `json:"distance"`
	OnDisk   bool     `json:"on_disk,omitempty"`
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
			Vectors:     VectorParams{Size: size, Distance: distance},
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
	v := c.Params.Vectors
	if !v.Distance.Valid() {
		return Errorf(KindInvalid, "vectors.distance is missing or unknown, expected one of Cosine, Euclid, Dot, Manhattan")
	}
	ranges := []struct {
		field     string
		value     int
		low, high int
	}{
		{"vectors.size", v.Size, 1, MaxDimension},
		{"shard_number", c.Params.ShardNumber, 1, MaxShards},
		{"replication_factor", c.Params.ReplicationFactor, 1, 64},
		{"write_consistency_factor", c.Params.WriteConsistencyFactor, 1, 64},
		{"hnsw_config.m", c.HNSW.M, 2, 64},
		{"hnsw_config.ef_construct", c.HNSW.EfConstruct, 4, 4096},
		{"hnsw_config.ef_search", c.HNSW.EfSearch, 0, MaxLimit},
		{"hnsw_config.max_layers", c.HNSW.MaxLayers, 1, 16},
		{"hnsw_config.full_scan_threshold", c.HNSW.FullScanThreshold, 0, 1 << 30},
		{"hnsw_config.max_indexing_threads", c.HNSW.MaxIndexingThreads, 0, 1024},
		{"optimizers_config.indexing_threshold", c.Optimizer.IndexingThreshold, 0, 1 << 30},
	}
	for _, r := range ranges {
		if r.value < r.low || r.value > r.high {
			return Errorf(KindUnprocessable, "%s: value %d invalid, must be from %d to %d", r.field, r.value, r.low, r.high)
		}
	}
	if t := c.HNSW.RecallTarget; !(t >= RecallTargetMin && t <= RecallTargetMax) {
		return Errorf(KindUnprocessable, "hnsw_config.recall_target: value %v invalid, must be from %v to %v", t, RecallTargetMin, RecallTargetMax)
	}
	q, err := ParseQuantization(c.Quantization)
	if err != nil {
		return err
	}
	return q.fits(v.Distance)
}

// CollectionStatus tells how far a collection's background work is.
type CollectionStatus string

// The states of a collection.
const (
	StatusGreen  CollectionStatus = "green"  // all points that should be in the graph are
	StatusYellow CollectionStatus = "yellow" // points wait for the graph, or for one of other codes; searches see them all the same
)

// CollectionInfo is a collection's configuration and state.
type CollectionInfo struct {
	Status         CollectionStatus
	Points         int // live points
	IndexedVectors int // of them, in the graph
	Config         CollectionConfig
	Recall         RecallState
	Fields         map[string]FieldInfo // the payload indexes by field; nil or empty: none
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
	EfSearch           *int            `json:"ef_search,omitempty"` // 0: what RecallTarget needs
	RecallTarget       *float64        `json:"recall_target,omitempty"`
	EfConstruct        *int            `json:"ef_construct,omitempty"` // for points indexed from now on
	FullScanThreshold  *int            `json:"full_scan_threshold,omitempty"`
	MaxIndexingThreads *int            `json:"max_indexing_threads,omitempty"`
	IndexingThreshold  *int            `json:"indexing_threshold,omitempty"`
	OnDiskPayload      *bool           `json:"on_disk_payload,omitempty"`
	Quantization       json.RawMessage `json:"quantization,omitempty"` // empty: as it is; else see ParseQuantization
	Metadata           json.RawMessage `json:"metadata,omitempty"`     // merged key by key; a null value removes the key
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
	if i := strings.IndexAny(name, "<>:\"/\\|?*\x00\x1f"); i >= 0 {
		return Errorf(KindUnprocessable, "collection_name: %q contains the forbidden character %q", name, name[i])
	}
	return nil
}
