package engine

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// This file holds the recall of searches at their collections' targets. A node measures its shards one after the other, in
// one goroutine: it takes some queries, finds their nearest points by comparing all, searches for them as clients do, and
// chooses the number of candidates (ef) accordingly. recallpass.go is one such measurement. What is chosen is the replica's
// own and not in the log.
//
// The measuring takes at most one part in recallShare of one core, in pieces of about a millisecond, and less while
// searches are running.

const (
	// recallK is the number of neighbors that recall is counted over.
	recallK = 10

	// recallSample queries are a measurement. Recall near 0.95 varies by some 0.12 between queries, so the mean of so many
	// is known to 0.007.
	recallSample = 300
	// recallQueriesMin queries of clients are enough to measure with them. Before there are as many, vectors of the
	// collection stand in for them.
	recallQueriesMin = 100
	// recallOwnMisses is how much more a client's query is taken to miss than a vector of the collection, which is easier to
	// search for: its own node is on the way and knows its neighbors. It was 1.3 on word vectors and 1.65 on images.
	recallOwnMisses = 1.5
	// recallVectorsMin is the size of graph from which recall is measured. A search of a smaller one compares nearly all.
	recallVectorsMin = 1000

	// An ef is enough for a target if the mean of the sample is recallMargin above it and, less recallDeviations standard
	// deviations of that mean, not below it: 19 times in 20 the recall of all queries is then not below it either.
	recallMargin     = 0.005
	recallDeviations = 1.645

	// efMin and efMax bound what is chosen, of efPerDouble numbers between one and its double.
	efMin       = 16
	efMax       = 1024
	efPerDouble = 6

	// efTooMuch over efEnough is how much more than needed an ef must be to be lowered: what one sample would lower, the
	// next would raise again.
	efTooMuch, efEnough = 3, 2

	// A shard whose points stay is measured again with its newer queries once it has rested recallRest times as long as
	// that took, recallRestMin at least. After a measurement that found other points or chose another ef recallRestMin is
	// enough: the queries may be about to follow.
	recallRest    = 20
	recallRestMin = 30 * time.Second

	recallShare      = 10                    // the measuring rests nine times as long as it has worked
	recallYieldMax   = 20 * time.Millisecond // … and that much longer at most while searches are running
	recallYieldPoll  = time.Millisecond
	sampleBytesMax   = 4 << 20  // bytes of queries kept of one shard
	samplesBytesMax  = 16 << 20 // … and of all shards
	recallSeriesMax  = 100      // collections that have series of their own in the metrics, those with the most points
	settledWaitShare = 10       // a graph has settled when one vector in so many waits for it, or fewer
)

// efLadder has what ef may be chosen from, ascending.
var efLadder = func() (ladder []int) {
	for i := 0; ; i++ {
		ef := int(math.Round(efMin * math.Pow(2, float64(i)/efPerDouble)))
		ladder = append(ladder, ef)
		if ef >= efMax {
			return ladder
		}
	}
}()

// calibrator knows how many candidates searches of a shard need to find the share of neighbors that its collection wants.
type calibrator struct {
	ef       atomic.Int32                // chosen for the target; 0: none so far
	measured atomic.Pointer[measurement] // the last; nil: none so far
	queries  querySample

	last lastPass // the measuring goroutine's own
}

// measurement is the recall at an ef.
type measurement struct {
	ef      int
	ratio   float64
	queries int
}

// lastPass is what the last measurement began with, to tell when another is due.
type lastPass struct {
	ended  time.Time // zero before the first
	took   time.Duration
	failed bool
	// What follows is of the last that succeeded.
	count   uint64 // measurements so far
	state   shardState
	config  vectord.HNSWConfig
	settled bool
	moved   bool // it found other points than the one before, or chose another ef
}

// shardState is how much of a shard there is.
type shardState struct {
	changes int64 // points that came or went so far; one that moved did both
	points  int64
	indexed int
	waiting int
}

func (v *shardVectors) state() shardState {
	x := v.dense
	s := shardState{indexed: x.indexed(), waiting: x.waiting()}
	s.points = int64(s.indexed + s.waiting)
	s.changes = s.points + 2*int64(x.removals.Load())
	return s
}

func (s *shardState) settled() bool { return s.waiting*settledWaitShare <= s.indexed }

// movingShare is how many points there may be for each that came or went during a measurement whose result lasts. During a bulk
// load much is found by scanning what waits for the graph, and the truth is behind the points.
const movingShare = 50

// quiet reports whether the points were at rest while the pass measured.
func (p *recallPass) quiet() bool {
	now := p.vectors.state()
	return p.state.settled() && now.settled() && (now.changes-p.state.changes)*movingShare <= now.points &&
		(now.indexed-p.state.indexed)*movingShare <= now.indexed
}

// efFor returns the candidates of a search that does not say: what the collection fixes, else what was chosen for its
// target.
func (c *calibrator) efFor(h *vectord.HNSWConfig) int {
	if h.EfSearch > 0 {
		return h.EfSearch
	}
	if ef := c.ef.Load(); ef > 0 {
		return int(ef)
	}
	return vectord.UncalibratedEf
}

// due reports whether the vectors are to be measured.
func (v *shardVectors) due(now time.Time) bool {
	if v.dense == nil || v.dense.graph.Load() == nil {
		return false
	}
	state, config, last := v.state(), v.dense.spec.Load().hnsw, &v.recall.last
	rest := recallRestMin
	if !last.moved {
		rest = max(rest, recallRest*last.took)
	}
	rested := now.Sub(last.ended) >= rest
	switch {
	case state.indexed < recallVectorsMin || state.waiting > state.indexed:
		return false // searches compare with most of the points
	case last.ended.IsZero():
		return true
	case last.failed:
		return rested
	case last.retargeted(&config):
		return true
	case !last.settled && state.settled():
		return true
	case last.outdated(&state):
		return true
	}
	return rested && v.recall.queries.fresh.Load() >= uint64(min(recallQueriesMin, sampleSize(v.dense.dim)))
}

// retargeted reports whether the collection wants something else by now.
func (l *lastPass) retargeted(now *vectord.HNSWConfig) bool {
	return l.count > 0 && (now.RecallTarget != l.config.RecallTarget || now.EfSearch != l.config.EfSearch)
}

// outdated reports whether half as many points came and went since as there are, or came into the graph as there were.
func (l *lastPass) outdated(now *shardState) bool {
	return now.changes-l.state.changes >= max(now.points/2, 1) || now.indexed >= l.state.indexed+l.state.indexed/2
}

// sampleSize returns the number of queries of a measurement.
func sampleSize(dim int) int { return max(1, min(recallSample, sampleBytesMax/(4*dim))) }

// stepRecall does a small piece of the measuring, and reports whether there was one to do. Only one goroutine calls it.
func (db *DB) stepRecall(now time.Time) bool {
	if db.pass == nil {
		found, ok := db.vectorsToMeasure(now)
		if !ok {
			return false
		}
		pass, err := db.newPass(found, now)
		if err != nil {
			db.endPass(pass, now, err)
			return true
		}
		db.pass = pass
		return true
	}
	p := db.pass
	done, err := p.step()
	if p.vectors.dense.ended() { // the collection is no more, or the node is closing
		db.pass = nil
		return true
	}
	if done || err != nil {
		db.pass = nil
		db.endPass(p, now, err)
	}
	return true
}

// measurable is what a measurement is of: the vectors of one name in one shard.
type measurable struct {
	collection *collection
	spec       *vectorSpec
	shard      *shard
	vectors    *shardVectors
}

// vectorsToMeasure returns those that have waited longest of those that are due.
func (db *DB) vectorsToMeasure(now time.Time) (found measurable, ok bool) {
	for _, col := range db.catalog.inUse() {
		for _, s := range col.shards {
			for _, v := range *s.vectors.Load() {
				if !v.due(now) || v.dense.ended() {
					continue
				}
				if spec := col.specOf(v.number); spec != nil && (!ok || v.recall.last.ended.Before(found.vectors.recall.last.ended)) {
					found, ok = measurable{col, spec, s, v}, true
				}
			}
		}
	}
	return found, ok
}

// endPass draws the conclusions of a measurement, which may have failed.
func (db *DB) endPass(p *recallPass, now time.Time, err error) {
	c := &p.vectors.recall
	c.last.ended, c.last.took, c.last.failed = now, now.Sub(p.began), err != nil
	if err != nil {
		db.logger.Warn("the recall of searches could not be measured, they go on as before", "collection", p.collection.name,
			"of", p.vectors.dense.set, "error", err)
		return
	}
	c.last.count++
	c.last.state, c.last.config, c.last.settled = p.state, p.config, p.quiet()
	db.metrics.recallMeasurements.Inc()
	before := c.ef.Load()
	ef := p.choose(int(before))
	if in := cmp.Or(int(before), vectord.UncalibratedEf); p.config.EfSearch == 0 && !c.last.settled && ef < in {
		c.last.moved = true // what was measured says too little to lower ef by
		return
	}
	c.last.moved = p.outdated || ef != int(before)
	t := p.tallies[ef]
	c.measured.Store(&measurement{ef: ef, ratio: t.mean(), queries: t.n})
	if p.config.EfSearch > 0 || int(before) == ef {
		return
	}
	c.ef.Store(int32(ef))
	db.logger.Info("searches keep another number of candidates", "collection", p.collection.name, "of", p.vectors.dense.set,
		"ef", ef, "before", before, "recall", t.mean(), "target", p.config.RecallTarget)
	if err := saveEf(p.vectors.dense.files, p.vectors.dense.set, ef); err != nil {
		db.logger.Error("the number of candidates was not saved, a start will measure it again", "of", p.vectors.dense.set, "error", err)
	}
}

// holdRecall measures until the node closes.
func (db *DB) holdRecall() {
	defer db.background.Done()
	timer := time.NewTimer(maintenanceInterval)
	defer timer.Stop()
	wait := func(d time.Duration) bool {
		timer.Reset(d)
		select {
		case <-timer.C:
			return true
		case <-db.stop.Done():
			return false
		}
	}
	for pause := maintenanceInterval; wait(pause); {
		for yielded := time.Duration(0); db.searching.Load() > 0 && yielded < recallYieldMax; yielded += recallYieldPoll {
			if !wait(recallYieldPoll) {
				return
			}
		}
		start := time.Now()
		if !db.stepRecall(start) {
			pause = maintenanceInterval
			continue
		}
		worked := time.Since(start)
		db.metrics.recallSeconds.Add(worked.Seconds())
		pause = (recallShare - 1) * worked
	}
}

// recallState sums up the shards of a collection, for the vectors of a name.
func (c *collection) recallState(spec *vectorSpec) (r vectord.RecallState) {
	var sum float64
	for _, s := range c.shards {
		v := s.vectorsOf(spec.number)
		if v == nil {
			continue
		}
		r.Ef = max(r.Ef, v.recall.efFor(&spec.hnsw))
		if m := v.recall.measured.Load(); m != nil && m.ef == v.recall.efFor(&spec.hnsw) {
			r.Queries += m.queries
			sum += m.ratio * float64(m.queries)
		}
	}
	if r.Queries > 0 {
		ratio := sum / float64(r.Queries)
		r.Ratio = &ratio
	}
	return r
}

// querySample keeps a sample of the queries that clients ask, each equally likely among those since the last take, and of
// older ones where there were not enough.
type querySample struct {
	fresh atomic.Uint64 // queries since the last take

	mu      sync.Mutex  // guards what is below
	vectors [][]float32 // each never written after it was added
	closed  bool
}

// offer considers a query. total counts the bytes of all samples.
func (s *querySample) offer(v []float32, total *atomic.Int64) {
	size := uint64(sampleSize(len(v)))
	n := s.fresh.Add(1)
	place := n - 1
	if place >= size {
		if place = scatter(n) % n; place >= size {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch bytes := int64(4 * len(v)); {
	case s.closed:
	case place < uint64(len(s.vectors)):
		s.vectors[place] = slices.Clone(v)
	case total.Add(bytes) > samplesBytesMax:
		total.Add(-bytes)
	default:
		s.vectors = append(s.vectors, slices.Clone(v))
	}
}

// take returns the sample if it has at least least queries; then the next begins. The vectors must not be changed.
func (s *querySample) take(least int) [][]float32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.vectors) < least {
		return nil
	}
	s.fresh.Store(0)
	return slices.Clone(s.vectors)
}

// close forgets everything for good.
func (s *querySample) close(total *atomic.Int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.vectors {
		total.Add(-int64(4 * len(v)))
	}
	s.vectors, s.closed = nil, true
}

// scatter returns a number that looks random for each n: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
func scatter(n uint64) uint64 {
	n *= 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// The file that keeps what was chosen for a shard, so that searches after a start need not wait for a measurement:
//
//	"vdrecal" · format u8 = 2 · shard u32 · number of the vectors u16 · ef u32 · CRC32C of the 18 bytes before u32
const (
	recallMagic    = "vdrecal\x02"
	recallFileSize = len(recallMagic) + 4 + 2 + 4 + 4
	recallSuffix   = ".recall"
)

func recallName(set storage.VectorSet) string { return derivedName(set, recallSuffix) }

func encodeEf(set storage.VectorSet, ef int) []byte {
	b := append(make([]byte, 0, recallFileSize), recallMagic...)
	b = binary.LittleEndian.AppendUint32(b, set.Shard)
	b = binary.LittleEndian.AppendUint16(b, set.Number)
	b = binary.LittleEndian.AppendUint32(b, uint32(ef))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeEf(b []byte, set storage.VectorSet) (ef int, err error) {
	if len(b) != recallFileSize {
		return 0, fmt.Errorf("%d bytes, want %d", len(b), recallFileSize)
	}
	body, fields := b[:recallFileSize-4], b[len(recallMagic):]
	n := binary.LittleEndian.Uint32(fields[6:])
	of := storage.VectorSet{Shard: binary.LittleEndian.Uint32(fields), Number: binary.LittleEndian.Uint16(fields[4:])}
	switch {
	case string(b[:len(recallMagic)]) != recallMagic:
		return 0, fmt.Errorf("header % x is not one of this format", b[:len(recallMagic)])
	case crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]):
		return 0, errors.New("it does not fit its checksum")
	case of != set:
		return 0, fmt.Errorf("written for %s", of)
	case n < efMin || n > efMax:
		return 0, fmt.Errorf("ef %d is not from %d to %d", n, efMin, efMax)
	}
	return int(n), nil
}

func saveEf(files fileStore, set storage.VectorSet, ef int) error {
	return files.WriteFile(recallName(set), func(w io.Writer) error {
		_, err := w.Write(encodeEf(set, ef))
		return err
	})
}

// loadEf reads what was chosen for a shard before; 0 is nothing.
func loadEf(files fileStore, set storage.VectorSet) (ef int, err error) {
	f, size, err := files.OpenFile(recallName(set))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size != int64(recallFileSize) {
		return 0, fmt.Errorf("%d bytes, want %d", size, recallFileSize)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	return decodeEf(b, set)
}
