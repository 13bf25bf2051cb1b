package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/cpu"

	"github.com/vectord/vectord"
)

// Telemetry is what this process tells about itself to whoever asks at GET /telemetry. It is never sent anywhere. How much it
// tells goes by the levels of Qdrant's API: 0 the process and its answers, 1 the machine and a line for each collection, 2
// their settings, 3 and above their shards.
const (
	detailMachine  = 1
	detailSettings = 2
	detailShards   = 3
)

type telemetry struct {
	ID          string               `json:"id"`
	App         appTelemetry         `json:"app"`
	Collections collectionsTelemetry `json:"collections"`
	Cluster     clusterTelemetry     `json:"cluster"`
	Requests    requestsTelemetry    `json:"requests"`
	Memory      *memoryTelemetry     `json:"memory,omitempty"`
	Hardware    *hardwareTelemetry   `json:"hardware,omitempty"`
}

type appTelemetry struct {
	Name     string           `json:"name"`
	Version  string           `json:"version"`
	Features *featureSet      `json:"features,omitempty"`
	System   *systemTelemetry `json:"system,omitempty"`
	JWTRBAC  bool             `json:"jwt_rbac"`
	Startup  time.Time        `json:"startup"`
}

// featureSet has the builds of Qdrant that its clients' tests ask for; vectord is none of them.
type featureSet struct {
	Debug        bool `json:"debug"`
	ServiceDebug bool `json:"service_debug_feature"`
	RecoveryMode bool `json:"recovery_mode"`
	GPU          bool `json:"gpu"`
	RocksDB      bool `json:"rocksdb"`
	Staging      bool `json:"staging"`
}

type systemTelemetry struct {
	Distribution string `json:"distribution"`
	IsDocker     bool   `json:"is_docker"`
	Cores        int    `json:"cores"`
	CPUFlags     string `json:"cpu_flags"` // those that choose between kernels
}

type clusterTelemetry struct {
	Enabled bool `json:"enabled"`
}

type collectionsTelemetry struct {
	Number int   `json:"number_of_collections"`
	List   []any `json:"collections,omitempty"`
}

// collectionSummary describes a collection at detailMachine.
type collectionSummary struct {
	Vectors         int                      `json:"vectors"` // that an index has
	OptimizerStatus any                      `json:"optimizers_status"`
	Params          vectord.CollectionParams `json:"params"`
}

// collectionTelemetry describes a collection from detailSettings on.
type collectionTelemetry struct {
	ID       string                   `json:"id"`
	InitTime *int                     `json:"init_time_ms"` // not measured
	Config   vectord.CollectionConfig `json:"config"`

	Shards     []shardTelemetry `json:"shards,omitzero"`
	Transfers  []any            `json:"transfers,omitzero"`
	Resharding []any            `json:"resharding,omitzero"`
}

type shardTelemetry struct {
	ID              int                 `json:"id"`
	Key             *string             `json:"key"` // shards have none
	Local           localShardTelemetry `json:"local"`
	Remote          []any               `json:"remote"`
	ReplicateStates map[string]string   `json:"replicate_states"`
}

type localShardTelemetry struct {
	Status    vectord.CollectionStatus `json:"status"`
	Points    int                      `json:"num_points"`
	Optimized int                      `json:"total_optimized_points"` // not counted, but clients require it
}

type requestsTelemetry struct {
	REST responsesTelemetry `json:"rest"`
	GRPC responsesTelemetry `json:"grpc"`
}

type responsesTelemetry struct {
	Responses map[string]map[string]answersTelemetry `json:"responses"` // by "METHOD path", then by status
}

type answersTelemetry struct {
	Count         uint64    `json:"count"`
	MeanMicros    float64   `json:"avg_duration_micros"`
	TotalMicros   uint64    `json:"total_duration_micros"`
	LastResponded time.Time `json:"last_responded"`
}

// memoryTelemetry is the memory that Go manages; files that are mapped are not in it.
type memoryTelemetry struct {
	Active    uint64 `json:"active_bytes"`
	Allocated uint64 `json:"allocated_bytes"`
	Metadata  uint64 `json:"metadata_bytes"`
	Resident  uint64 `json:"resident_bytes"`
	Retained  uint64 `json:"retained_bytes"`
}

// hardwareTelemetry would have what each collection cost, which is not counted.
type hardwareTelemetry struct {
	Collections map[string]any `json:"collection_data"`
}

func (s *Server) getTelemetry(r *request) error {
	args := r.http.QueryArgs()
	level := uint64(0)
	if v := args.Peek("details_level"); v != nil {
		var err error
		if level, err = strconv.ParseUint(string(v), 10, 32); err != nil {
			return badParameter("details_level", v, "a non-negative integer")
		}
	}
	anonymize, err := boolParameter(r, "anonymize")
	if err != nil {
		return err
	}
	perCollection, err := boolParameter(r, "per_collection")
	if err != nil {
		return err
	}
	if perCollection {
		return vectord.Errorf(vectord.KindUnsupported, "per_collection: requests are not counted by collection")
	}
	out, err := json.Marshal(s.telemetry(level, anonymize))
	if err != nil {
		return fmt.Errorf("encode telemetry: %w", err)
	}
	r.out = append(r.out, out...)
	return nil
}

// boolParameter returns a query parameter that is true or false, false if it is absent.
func boolParameter(r *request, name string) (bool, error) {
	v := r.http.QueryArgs().Peek(name)
	switch string(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	if v == nil {
		return false, nil
	}
	return false, badParameter(name, v, "true or false")
}

func (s *Server) telemetry(level uint64, anonymize bool) telemetry {
	names := s.engine.Collections()
	t := telemetry{
		ID:          s.id,
		App:         appTelemetry{Name: "vectord", Version: s.options.Version, JWTRBAC: s.options.JWTRBAC, Startup: s.started.UTC().Truncate(time.Second)},
		Collections: collectionsTelemetry{Number: len(names)},
		Requests:    requestsTelemetry{REST: s.responses(), GRPC: responsesTelemetry{map[string]map[string]answersTelemetry{}}},
	}
	if level < detailMachine {
		return t
	}
	t.App.Features, t.App.System = &featureSet{}, system()
	t.Memory, t.Hardware = memory(), &hardwareTelemetry{map[string]any{}}
	for _, name := range names {
		info, err := s.engine.CollectionInfo(name)
		if err != nil {
			continue // deleted a moment ago
		}
		if anonymize {
			name = anonymous(name)
			info.Config.Metadata = nil
			info.Config.Params.Vectors = anonymousKeys(info.Config.Params.Vectors)
			info.Config.Params.SparseVectors = anonymousKeys(info.Config.Params.SparseVectors)
		}
		t.Collections.List = append(t.Collections.List, describeCollection(level, name, &info))
	}
	return t
}

func describeCollection(level uint64, name string, info *vectord.CollectionInfo) any {
	if level < detailSettings {
		return collectionSummary{info.IndexedVectors, optimizerStatus(info.Problem), info.Config.Params}
	}
	config := info.Config
	config.Quantization = quantizationInEffect(config.Quantization)
	c := collectionTelemetry{ID: name, Config: config}
	if level < detailShards {
		return c
	}
	c.Shards, c.Transfers, c.Resharding = []shardTelemetry{}, []any{}, []any{}
	for i, points := range info.ShardPoints {
		c.Shards = append(c.Shards, shardTelemetry{ID: i, Local: localShardTelemetry{Status: info.Status, Points: points}, Remote: []any{},
			ReplicateStates: map[string]string{strconv.Itoa(alonePeerID): "Active"}})
	}
	return c
}

// responses returns what was answered since the start.
func (s *Server) responses() responsesTelemetry {
	out := responsesTelemetry{map[string]map[string]answersTelemetry{}}
	for _, m := range s.routeMetrics {
		m.answers.Range(func(status, counted any) bool {
			a := counted.(*answers)
			key, n := m.route.method+" "+m.route.path, a.count.Load()
			if out.Responses[key] == nil {
				out.Responses[key] = map[string]answersTelemetry{}
			}
			out.Responses[key][strconv.Itoa(status.(int))] = answersTelemetry{n, float64(a.micros.Load()) / float64(max(n, 1)), a.micros.Load(),
				time.UnixMilli(a.last.Load()).UTC()}
			return true
		})
	}
	return out
}

func system() *systemTelemetry {
	_, err := os.Stat("/.dockerenv")
	var flags []string
	for _, f := range []struct {
		has  bool
		name string
	}{{cpu.X86.HasAVX2, "avx2"}, {cpu.X86.HasFMA, "fma"}, {cpu.X86.HasAVX512F, "avx512f"}, {cpu.ARM64.HasASIMD, "neon"}} {
		if f.has {
			flags = append(flags, f.name)
		}
	}
	return &systemTelemetry{Distribution: runtime.GOOS, IsDocker: err == nil, Cores: runtime.NumCPU(), CPUFlags: strings.Join(flags, ",")}
}

func memory() *memoryTelemetry {
	const objects, unused, total, released = 0, 1, 2, 3
	samples := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/metadata/mcache/inuse:bytes"}, {Name: "/memory/classes/metadata/mspan/inuse:bytes"},
		{Name: "/memory/classes/metadata/other:bytes"}}
	runtimemetrics.Read(samples)
	v := func(i int) uint64 { return samples[i].Value.Uint64() }
	return &memoryTelemetry{Active: v(objects) + v(unused), Allocated: v(objects), Metadata: v(4) + v(5) + v(6),
		Resident: v(total) - v(released), Retained: v(total)}
}

// anonymous returns what stands for a name: the same each time, and not the name.
func anonymous(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// anonymousKeys keeps the default vector, whose name says nothing.
func anonymousKeys[M ~map[string]V, V any](m M) M {
	out := make(M, len(m))
	for name, v := range m {
		if name == "" {
			out[name] = v
		} else {
			out[anonymous(name)] = v
		}
	}
	return out
}
