package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
)

// The rules by which the server's engine gives slots again and takes deleted nodes out, so that the graph goes through here
// what it goes through there: a share of the slots is left free, any of these is given, and one pass over the links waits
// for a number of deleted nodes.
const (
	churnFreeMin     = 1024 // slots left free at least
	churnFreeShare   = 16   // … or one in this many
	churnUnlinkMin   = 256  // deleted nodes that make a pass due
	churnUnlinkShare = 50   // … or one in this many
)

// Bounds of Churn's fields.
const (
	ChurnRoundsMax = 1000
	ChurnCyclesMax = 1 << 40
)

// churnCycleRows is the number of rows that the report has on the cycles.
const churnCycleRows = 10

// Churn measures what deletes and inserts do to an index in this process: it builds a graph over Base and then, round by
// round, deletes a share of it and inserts as many vectors again. Recall is counted against the vectors that the graph holds
// at the time.
type Churn struct {
	Base, Queries *dataset.Vectors // those of Cosine are normalised in place
	Metric        vectord.Distance
	K             int
	M             int
	EfConstruct   int
	Codec         string // one of Codecs
	Ef            int
	Threads       int     // that build, insert and search, from 1 to ThreadsMax
	Rounds        int     // from 0 to ChurnRoundsMax
	Share         float64 // of the vectors that a round deletes, above 0 and up to 1

	// Replace inserts other vectors than were deleted: the graph begins with one half of Base, drawn by chance, and takes the
	// other half in. A graph built anew of what it holds in the end is measured too. Without Replace each round inserts what
	// it deleted.
	Replace bool

	// Cycles is a number of single deletes, each followed by an insert of the same vector, after the rounds; up to
	// ChurnCyclesMax.
	Cycles int
}

// ChurnReport is what Churn found.
type ChurnReport struct {
	N      int        `json:"n"` // vectors that the graph holds
	Dim    int        `json:"dim"`
	Metric string     `json:"metric"`
	Codec  string     `json:"codec"`
	Ef     int        `json:"ef"`
	K      int        `json:"k"`
	Share  float64    `json:"share"`
	Rows   []ChurnRow `json:"rows"`
}

// ChurnRow is the state after a step.
type ChurnRow struct {
	Step         string  `json:"step"`
	Recall       float64 `json:"recall"`
	Memory       int64   `json:"bytes_in_memory"` // of graph and codes
	Resident     int64   `json:"bytes_resident"`  // of the process, vectors of the data set included; 0 where it cannot be told
	Slots        uint32  `json:"slots"`           // that ever were in use
	Goroutines   int     `json:"goroutines"`
	DeleteMicros float64 `json:"delete_us"` // mean, with the passes that take deleted nodes out of the graph; 0 after a build
	InsertMicros float64 `json:"insert_us"` // mean, of one thread's time
}

func (c *Churn) validate() error {
	switch {
	case !c.Metric.Valid():
		return errors.New("metric: not given")
	case c.Base.Dim != c.Queries.Dim:
		return fmt.Errorf("the queries have %d components, the base vectors %d", c.Queries.Dim, c.Base.Dim)
	case c.Replace && c.Base.Len() < 2:
		return fmt.Errorf("replace: %d vectors have no halves", c.Base.Len())
	case c.K < 1 || c.K > min(c.held(), vectord.MaxLimit):
		return fmt.Errorf("k: %d invalid, must be from 1 to %d", c.K, min(c.held(), vectord.MaxLimit))
	case c.Ef < c.K || c.Ef > vectord.MaxLimit:
		return fmt.Errorf("ef: %d invalid, must be from k = %d to %d", c.Ef, c.K, vectord.MaxLimit)
	case c.Threads < 1 || c.Threads > ThreadsMax:
		return fmt.Errorf("threads: %d invalid, must be from 1 to %d", c.Threads, ThreadsMax)
	case c.Rounds < 0 || c.Rounds > ChurnRoundsMax:
		return fmt.Errorf("rounds: %d invalid, must be from 0 to %d", c.Rounds, ChurnRoundsMax)
	case !(c.Share > 0 && c.Share <= 1):
		return fmt.Errorf("share: %v invalid, must be above 0 and up to 1", c.Share)
	case c.Cycles < 0 || c.Cycles > ChurnCyclesMax:
		return fmt.Errorf("cycles: %d invalid, must be from 0 to %d", c.Cycles, ChurnCyclesMax)
	case c.Rounds == 0 && c.Cycles == 0:
		return errors.New("rounds and cycles: both are 0, there is nothing to measure")
	}
	return checkCodec(c.Codec)
}

// held returns how many vectors the graph holds.
func (c *Churn) held() int {
	if c.Replace {
		return c.Base.Len() / 2
	}
	return c.Base.Len()
}

// perRound returns how many vectors a round deletes.
func (c *Churn) perRound() int { return max(1, int(c.Share*float64(c.held()))) }

// Run does the measurement. progress is told about each step. When ctx ends, Run returns its error.
func (c *Churn) Run(ctx context.Context, progress func(step string)) (ChurnReport, error) {
	if err := c.validate(); err != nil {
		return ChurnReport{}, err
	}
	if c.Metric == vectord.Cosine {
		c.Base.Normalize()
		c.Queries.Normalize()
	}
	run, err := c.begin()
	if err != nil {
		return ChurnReport{}, err
	}
	defer run.graph.Close()
	err = run.measure(ctx, progress)
	return run.report, err
}

// churnRun is a graph that changes.
type churnRun struct {
	*Churn
	graph  *hnsw.Graph
	random *rand.Rand
	slots  churnSlots
	rows   []int32  // of Base that the graph holds, in no order
	homes  []uint32 // slots of the rows, each at its row's place in rows
	others []int32  // with Replace, the rows to insert next, from the end
	rowOf  []int32  // of each slot
	// blocked are places of rows whose slots deleted nodes still occupy. In the server such vectors wait in the fresh buffer.
	blocked []int
	truth   [][]int32
	report  ChurnReport
}

// begin makes an empty graph and draws the rows that it is to hold.
func (c *Churn) begin() (*churnRun, error) {
	n := c.held()
	r := &churnRun{Churn: c, random: rand.New(rand.NewPCG(3, 4))} // the same choices each time, so that runs can be compared
	for i, row := range r.random.Perm(c.Base.Len()) {
		if i < n {
			r.rows = append(r.rows, int32(row))
		} else {
			r.others = append(r.others, int32(row))
		}
	}
	// A new slot is taken only while no more than a share of those that there are is free.
	slots := n + max(churnFreeMin, n/(churnFreeShare-1)) + 1
	r.homes, r.rowOf = make([]uint32, n), make([]int32, slots)
	r.slots.random = r.random
	r.report = ChurnReport{N: n, Dim: c.Base.Dim, Metric: c.Metric.String(), Codec: c.Codec, Ef: c.Ef, K: c.K, Share: c.Share}
	var err error
	r.graph, err = newGraph(c.Codec, c.Metric, c.Base, r.rows, hnsw.Config{M: c.M, EfConstruction: c.EfConstruct, MaxSlots: uint32(slots)})
	return r, err
}

// measure builds the graph, changes it and reports on each step.
func (r *churnRun) measure(ctx context.Context, progress func(step string)) error {
	progress(fmt.Sprintf("building the graph of %d vectors on %d threads", len(r.rows), r.Threads))
	row := ChurnRow{Step: "built"}
	var err error
	if row.InsertMicros, err = r.insert(ctx, r.allPlaces()); err != nil {
		return err
	}
	if err := r.note(ctx, row, true); err != nil {
		return err
	}
	for round := range r.Rounds {
		progress(fmt.Sprintf("round %d of %d", round+1, r.Rounds))
		row, err := r.round(ctx)
		if err != nil {
			return err
		}
		row.Step = strconv.Itoa(round + 1)
		if err := r.note(ctx, row, r.Replace); err != nil {
			return err
		}
	}
	if r.Replace && r.Rounds > 0 {
		progress(fmt.Sprintf("building a graph of the %d vectors that are held now", len(r.rows)))
		if err := r.anew(ctx); err != nil {
			return err
		}
	}
	for part := range min(churnCycleRows, r.Cycles) {
		first, end := part*r.Cycles/churnCycleRows, (part+1)*r.Cycles/churnCycleRows
		if r.Cycles < churnCycleRows {
			first, end = part, part+1
		}
		progress(fmt.Sprintf("cycles up to %d of %d", end, r.Cycles))
		row, err := r.cycles(ctx, end-first)
		if err != nil {
			return err
		}
		row.Step = fmt.Sprintf("%d cycles", end)
		if err := r.note(ctx, row, false); err != nil {
			return err
		}
	}
	return nil
}

func (r *churnRun) allPlaces() []int {
	places := make([]int, len(r.rows))
	for i := range places {
		places[i] = i
	}
	return places
}

// note adds a row to the report. changed says that the graph holds other vectors than at the last row.
func (r *churnRun) note(ctx context.Context, row ChurnRow, changed bool) error {
	if changed {
		held := &dataset.Vectors{Dim: r.Base.Dim, Data: make([]float32, 0, len(r.rows)*r.Base.Dim)}
		for _, row := range r.rows {
			held.Data = append(held.Data, r.Base.At(int(row))...)
		}
		var err error
		if r.truth, err = Truth(ctx, r.Metric, held, r.Queries, r.K); err != nil {
			return err
		}
		for _, places := range r.truth {
			for i, place := range places {
				places[i] = r.rows[place]
			}
		}
	}
	var err error
	if row.Recall, err = r.recall(ctx, r.graph, r.rowOf); err != nil {
		return err
	}
	debug.FreeOSMemory() // what the measurement itself has left behind is not to count as resident
	row.Memory = r.graph.MemoryBytes()
	row.Resident, _ = resident() // 0 where the system does not tell
	row.Slots, row.Goroutines = r.slots.next, runtime.NumGoroutine()
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

// recall searches a graph, whose slots hold the given rows, for all queries.
func (r *churnRun) recall(ctx context.Context, graph *hnsw.Graph, rowOf []int32) (float64, error) {
	distance := index.DistanceFunc(r.Metric)
	params := hnsw.Params{K: r.K, Depth: graph.Codec().Depth(r.K), Ef: r.Ef}
	var right, next atomic.Int64
	var threads sync.WaitGroup
	for range r.Threads {
		threads.Go(func() {
			var found []index.Neighbor
			var top index.Top
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= r.Queries.Len() {
					return
				}
				q := r.Queries.At(i)
				bound := distance(q, r.Base.At(int(r.truth[i][r.K-1])))
				found = graph.Search(found[:0], q, params)
				top.Reset(r.K)
				for _, n := range found {
					top.Offer(index.Neighbor{Slot: n.Slot, Distance: distance(q, r.Base.At(int(rowOf[n.Slot])))})
				}
				found = top.AppendSorted(found[:0])
				for _, n := range found {
					if n.Distance <= bound {
						right.Add(1)
					}
				}
			}
		})
	}
	threads.Wait()
	return float64(right.Load()) / float64(r.K*r.Queries.Len()), ctx.Err()
}

// anew measures a second graph of the vectors that the first one holds.
func (r *churnRun) anew(ctx context.Context) error {
	second := *r
	graph, err := newGraph(r.Codec, r.Metric, r.Base, r.rows, r.graph.Config())
	if err != nil {
		return err
	}
	defer graph.Close()
	second.graph, second.slots, second.blocked = graph, churnSlots{random: r.random}, nil
	second.rowOf, second.homes = make([]int32, len(r.rowOf)), make([]uint32, len(r.homes))
	row := ChurnRow{Step: "anew"}
	if row.InsertMicros, err = second.insert(ctx, r.allPlaces()); err != nil {
		return err
	}
	if err := second.note(ctx, row, false); err != nil {
		return err
	}
	r.report = second.report
	return nil
}

// round deletes a share of the vectors and inserts as many.
func (r *churnRun) round(ctx context.Context) (row ChurnRow, err error) {
	places := r.random.Perm(len(r.rows))[:r.perRound()]
	begin := time.Now()
	for _, place := range places {
		if err := r.remove(ctx, place); err != nil {
			return row, err
		}
	}
	row.DeleteMicros = micros(time.Since(begin)) / float64(len(places))
	if r.Replace {
		for _, place := range places {
			if len(r.others) == 0 {
				break // the halves are swapped: what was deleted comes back
			}
			r.rows[place] = r.others[len(r.others)-1]
			r.others = r.others[:len(r.others)-1]
		}
	}
	row.InsertMicros, err = r.insert(ctx, places)
	return row, err
}

// cycles deletes single vectors and inserts each again at once.
func (r *churnRun) cycles(ctx context.Context, n int) (row ChurnRow, err error) {
	var deleting, inserting time.Duration
	one := make([]int, 1)
	for range n {
		place := r.random.IntN(len(r.rows))
		for slices.Contains(r.blocked, place) { // not in the graph at the moment
			place = r.random.IntN(len(r.rows))
		}
		begin := time.Now()
		if err := r.remove(ctx, place); err != nil {
			return row, err
		}
		middle := time.Now()
		r.home(place)
		if r.graph.Occupied(r.homes[place]) {
			r.blocked = append(r.blocked, place)
			if len(r.blocked) >= min(churnUnlinkMin, len(r.rows)) {
				err = r.unblock(ctx)
			}
		} else {
			one[0] = place
			err = r.insertAll(ctx, one)
		}
		if err != nil {
			return row, err
		}
		deleting += middle.Sub(begin)
		inserting += time.Since(middle)
	}
	row.DeleteMicros, row.InsertMicros = micros(deleting)/float64(n), micros(inserting)/float64(n)
	return row, r.unblock(ctx)
}

// remove deletes the vector at a place of rows, and takes the deleted nodes out of the graph when there are enough.
func (r *churnRun) remove(ctx context.Context, place int) error {
	slot := r.homes[place]
	if !r.graph.Delete(slot) {
		return fmt.Errorf("slot %d of row %d is not in the graph", slot, r.rows[place])
	}
	r.slots.give(slot)
	if r.graph.Deleted() <= max(churnUnlinkMin, r.graph.Len()/churnUnlinkShare) {
		return nil
	}
	if len(r.blocked) > 0 {
		return r.unblock(ctx)
	}
	_, err := r.graph.Unlink(ctx)
	return err
}

// insert gives the vectors at places of rows slots and puts them into the graph. It returns the mean of a thread's
// microseconds for one.
func (r *churnRun) insert(ctx context.Context, places []int) (float64, error) {
	begin := time.Now()
	for _, place := range places {
		r.home(place)
	}
	var free []int
	for _, place := range places {
		if r.graph.Occupied(r.homes[place]) {
			r.blocked = append(r.blocked, place)
		} else {
			free = append(free, place)
		}
	}
	err := r.insertAll(ctx, free)
	if err == nil {
		err = r.unblock(ctx)
	}
	return micros(time.Since(begin)) * float64(r.Threads) / float64(len(places)), err
}

// home gives the vector at a place of rows a slot.
func (r *churnRun) home(place int) {
	slot := r.slots.take()
	r.homes[place], r.rowOf[slot] = slot, r.rows[place]
}

// unblock takes the deleted nodes out of the graph and inserts the vectors that have waited for that.
func (r *churnRun) unblock(ctx context.Context) error {
	if len(r.blocked) == 0 {
		return nil
	}
	if _, err := r.graph.Unlink(ctx); err != nil {
		return err
	}
	err := r.insertAll(ctx, r.blocked)
	r.blocked = r.blocked[:0]
	return err
}

// insertAll puts the vectors at places of rows into their slots, on all threads.
func (r *churnRun) insertAll(ctx context.Context, places []int) error {
	var next atomic.Int64
	errs := make([]error, r.Threads)
	var threads sync.WaitGroup
	for thread := range r.Threads {
		threads.Go(func() {
			for errs[thread] == nil && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(places) {
					return
				}
				errs[thread] = r.graph.Insert(r.homes[places[i]], r.Base.At(int(r.rows[places[i]])))
			}
		})
	}
	threads.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// churnSlots gives out slots.
type churnSlots struct {
	random *rand.Rand
	free   []uint32
	next   uint32
}

func (s *churnSlots) take() uint32 {
	if len(s.free) > max(churnFreeMin, int(s.next/churnFreeShare)) {
		i, last := s.random.IntN(len(s.free)), len(s.free)-1
		slot := s.free[i]
		s.free[i] = s.free[last]
		s.free = s.free[:last]
		return slot
	}
	s.next++
	return s.next - 1
}

func (s *churnSlots) give(slot uint32) { s.free = append(s.free, slot) }

// WriteTable writes the report for people. Changes are against the first row.
func (r *ChurnReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%d × %d %s · codec %s · k %d · ef %d · %.3g %% in each round\n\n", r.N, r.Dim, r.Metric, r.Codec, r.K, r.Ef, 100*r.Share)
	rows := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		deleted := "-"
		if row.DeleteMicros > 0 {
			deleted = fmt.Sprintf("%.1f", row.DeleteMicros)
		}
		rows[i] = []string{row.Step, fmt.Sprintf("%.4f", row.Recall), fmt.Sprintf("%+.4f", row.Recall-r.Rows[0].Recall),
			fmt.Sprintf("%.1f", float64(row.Memory)/(1<<20)), fmt.Sprintf("%.3f", float64(row.Memory)/float64(r.Rows[0].Memory)),
			fmt.Sprintf("%.0f", float64(row.Resident)/(1<<20)), fmt.Sprint(row.Slots), strconv.Itoa(row.Goroutines), deleted,
			fmt.Sprintf("%.1f", row.InsertMicros)}
	}
	return table(w, []string{"round", "recall", "change", "MiB", "× built", "RSS MiB", "slots", "goroutines", "µs/delete", "µs/insert"}, rows)
}
