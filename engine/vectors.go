package engine

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

// vectorSpec is what a collection says of the vectors of one name. It is immutable.
type vectorSpec struct {
	name     string
	number   uint16 // stands for the name in storage; never given to another name of the collection
	kind     vectord.VectorKind
	dim      int              // of dense vectors and of the rows of multivectors
	distance vectord.Distance // sparse vectors are compared by Dot
	datatype string
	idf      bool // of sparse vectors

	hnsw         vectord.HNSWConfig
	quantization vectord.Quantization
	thresholdKiB int // of vectors, below which no graph is built; 0: never
}

// specsOf returns the vectors of a configuration that is valid, by ascending number.
func specsOf(config *vectord.CollectionConfig, numbers map[string]uint16) ([]*vectorSpec, error) {
	var specs []*vectorSpec
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		s := &vectorSpec{name: name, number: numbers[name]}
		if sparse, ok := config.Params.SparseVectors[name]; ok {
			s.kind, s.distance, s.idf = vectord.SparseVector, vectord.Dot, sparse.Modifier == vectord.ModifierIDF
		} else if v, ok := config.Params.Vectors[name]; ok {
			s.dim, s.distance, s.datatype = v.Size, v.Distance, v.Datatype
			if v.Multi != nil {
				s.kind = vectord.MultiVector
			}
			var err error
			if s.hnsw, err = config.HNSWOf(name); err != nil {
				return nil, err
			}
			if s.quantization, err = config.QuantizationOf(name); err != nil {
				return nil, err
			}
			if s.kind == vectord.DenseVector && s.hnsw.M > 0 {
				s.thresholdKiB = config.Optimizer.IndexingThreshold
			}
		} else {
			return nil, fmt.Errorf("the vector name %q has the number %d and no settings", name, s.number)
		}
		specs = append(specs, s)
	}
	slices.SortFunc(specs, func(a, b *vectorSpec) int { return int(a.number) - int(b.number) })
	return specs, nil
}

// numberNames gives the names of a new collection their numbers.
func numberNames(config *vectord.CollectionConfig) map[string]uint16 {
	numbers := map[string]uint16{}
	names := slices.Concat(slices.Collect(maps.Keys(config.Params.Vectors)), slices.Collect(maps.Keys(config.Params.SparseVectors)))
	slices.Sort(names)
	for i, name := range names {
		numbers[name] = uint16(i)
	}
	return numbers
}

// spec returns the vectors of a name.
func (c *collection) spec(name string) (*vectorSpec, error) {
	for _, s := range c.specs {
		if s.name == name {
			return s, nil
		}
	}
	return nil, vectord.NoVectorName(name)
}

// specOf returns the vectors of a number, nil if their name was dropped.
func (c *collection) specOf(number uint16) *vectorSpec {
	for _, s := range c.specs {
		if s.number == number {
			return s
		}
	}
	return nil
}

// compare returns the function that compares a query with what is stored.
func (s *vectorSpec) compare() func(query, stored []float32) float32 {
	one := index.DistanceFunc(s.distance)
	if s.kind != vectord.MultiVector {
		return one
	}
	return func(query, stored []float32) float32 { return maxSim(one, s.dim, query, stored) }
}

// maxSim adds up, over the rows of the query, the distance to the nearest row of what is stored (Khattab, Zaharia: ColBERT,
// SIGIR 2020).
func maxSim(distance func(a, b []float32) float32, dim int, query, stored []float32) float32 {
	var sum float32
	for q := 0; q < len(query); q += dim {
		row := query[q : q+dim]
		nearest := distance(row, stored[:dim])
		for s := dim; s < len(stored); s += dim {
			nearest = min(nearest, distance(row, stored[s:s+dim]))
		}
		sum += nearest
	}
	return sum
}

// prepare brings a vector that Check accepted into the form in which it is kept and compared: components rounded to the
// datatype, dense ones and rows of a Cosine collection scaled to length 1. It changes v's values in place.
func (s *vectorSpec) prepare(v *vectord.Vector) {
	if s.kind == vectord.SparseVector {
		return
	}
	if s.datatype == vectord.Uint8 {
		vectord.RoundTo(s.datatype, v.Values)
	}
	if s.distance == vectord.Cosine {
		for row := 0; row < len(v.Values); row += s.dim {
			vectord.Normalize(v.Values[row : row+s.dim])
		}
	}
	if s.datatype == vectord.Float16 {
		vectord.RoundTo(s.datatype, v.Values)
	}
}

// read returns the vector at a slot.
func (s *vectorSpec) read(r storage.Reader, shard, slot uint32) (v vectord.Vector, ok bool, err error) {
	set := storage.VectorSet{Shard: shard, Number: s.number}
	v.Kind = s.kind
	if s.kind == vectord.SparseVector {
		v.Indices, v.Values, ok, err = r.Sparse(set, slot)
		return v, ok, err
	}
	if v.Values, ok, err = r.Vector(set, slot, nil); s.kind == vectord.MultiVector {
		v.Rows = len(v.Values) / s.dim
	}
	return v, ok, err
}

// put writes the vector of a slot.
func (s *vectorSpec) put(b *storage.Batch, shard, slot uint32, v *vectord.Vector) {
	set := storage.VectorSet{Shard: shard, Number: s.number}
	if s.kind == vectord.SparseVector {
		b.PutSparse(set, slot, v.Indices, v.Values)
		return
	}
	b.PutVector(set, slot, v.Values)
}

// shardVectors are the vectors of one name in one shard, with what finds them.
type shardVectors struct {
	number uint16
	dense  *vectorIndex // of dense vectors and multivectors, else nil
	sparse *sparseIndex // of sparse vectors, else nil
	recall calibrator   // of dense vectors
	size   vectorSize
}

func (db *DB) newShardVectors(s *shard, spec *vectorSpec) *shardVectors {
	v := &shardVectors{number: spec.number}
	if spec.kind == vectord.SparseVector {
		v.sparse = newSparseIndex()
	} else {
		v.dense = db.newVectorIndex(s, spec)
	}
	return v
}

// add takes in the vector that a slot was given. Only Apply calls it.
func (v *shardVectors) add(slot uint32, vector *vectord.Vector) {
	v.size.add(vector)
	if v.sparse != nil {
		v.sparse.Add(slot, sparseOf(vector))
		return
	}
	v.dense.add(slot, vector.Values)
}

// remove forgets the vector of a slot that was freed. Only Apply calls it.
func (v *shardVectors) remove(slot uint32) {
	v.size.remove()
	if v.sparse != nil {
		v.sparse.remove(slot)
		return
	}
	v.dense.remove(slot)
}

// removals counts the slots freed so far, see vectorIndex.
func (v *shardVectors) removals() uint64 {
	if v.sparse != nil {
		return v.sparse.removals.Load()
	}
	return v.dense.removals.Load()
}

func (v *shardVectors) kick() {
	if v.dense != nil {
		v.dense.kick()
	}
}

// vectorsOf returns the vectors of a number, nil if their name was dropped.
func (s *shard) vectorsOf(number uint16) *shardVectors {
	for _, v := range *s.vectors.Load() {
		if v.number == number {
			return v
		}
	}
	return nil
}

// indexes returns the indexes of dense vectors and multivectors.
func (s *shard) indexes() []*vectorIndex {
	var all []*vectorIndex
	for _, v := range *s.vectors.Load() {
		if v.dense != nil {
			all = append(all, v.dense)
		}
	}
	return all
}

// close frees what the indexes of dense vectors hold outside of the Go heap.
func (s *shard) close() {
	for _, x := range s.indexes() {
		x.close()
	}
}

// feedMarks tells up to where the change feed of a shard is not needed any more. An index that has a graph needs what came
// after the checkpoint in place, or after the graph was made; others need nothing of the feed.
type feedMarks struct {
	mu    sync.Mutex
	marks map[uint16]uint64 // by number of the vectors
}

func (m *feedMarks) set(number uint16, through uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.marks == nil {
		m.marks = map[uint16]uint64{}
	}
	m.marks[number] = through
}

func (m *feedMarks) drop(number uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.marks, number)
}

// spare returns the index in the log up to which nobody needs the feed, at most upTo.
func (m *feedMarks) spare(upTo uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mark := range m.marks {
		upTo = min(upTo, mark)
	}
	return upTo
}
