package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

// LoadConcurrencyMax bounds the number of batches that may be on their way at a time.
const LoadConcurrencyMax = 256

// batchBytesMax closes a batch before its JSON nears the 32 MiB that a server takes in one request.
const batchBytesMax = 16 << 20

// loadAheadMax bounds, as a multiple of the concurrency, the batches that are handed on behind one that is not acknowledged:
// what a load that ends early has written beyond the point where it goes on.
const loadAheadMax = 2

// vectorTextBytes estimates the JSON of one component.
const vectorTextBytes = 13

// Load writes the points of a data set into a collection, in batches, several at a time.
type Load struct {
	Client      *client.Client
	Collection  string
	Dim         int    // of every default vector; 0 takes the first one's
	Batch       int    // points in one request, from 1 to vectord.MaxBatchPoints
	Concurrency int    // requests on their way at a time, from 1 to LoadConcurrencyMax
	Skip        uint64 // points at the beginning that are there already

	// Acknowledged, if not nil, is called with a number of points, counted from the beginning of the data set: all of
	// them are durable. The number rises; calls do not overlap.
	Acknowledged func(points uint64)
}

// LoadReport says how a load went.
type LoadReport struct {
	Points       uint64 // acknowledged ones from the beginning without a gap, skipped ones included
	Batches      int
	Seconds      float64
	BatchLatency Latency // as the client sees it, encoding and retries included
}

// Run reads points from r and returns when the last one is acknowledged, or with the first error. What was on its way
// then may or may not have been written, and the report's number of points tells where to go on.
func (l *Load) Run(ctx context.Context, r dataset.Reader) (LoadReport, error) {
	if l.Batch < 1 || l.Batch > vectord.MaxBatchPoints {
		return LoadReport{}, fmt.Errorf("batch: %d invalid, must be from 1 to %d", l.Batch, vectord.MaxBatchPoints)
	}
	if l.Concurrency < 1 || l.Concurrency > LoadConcurrencyMax {
		return LoadReport{}, fmt.Errorf("concurrency: %d invalid, must be from 1 to %d", l.Concurrency, LoadConcurrencyMax)
	}
	begin := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	state := loadState{acknowledged: l.Acknowledged, histogram: newHistogram(), points: l.Skip, ends: make(map[int]uint64),
		ahead: make(chan struct{}, loadAheadMax*l.Concurrency)}
	batches := make(chan batch)
	var workers sync.WaitGroup
	for range l.Concurrency {
		workers.Go(func() {
			for b := range batches {
				sent := time.Now()
				if _, err := l.Client.Upsert(ctx, l.Collection, b.points, vectord.WriteOptions{}); err != nil {
					cancel(fmt.Errorf("points %d to %d of the data set: %w", b.end-uint64(len(b.points)), b.end-1, err))
					continue // the reader stops, and what it has sent is refused by the context
				}
				state.done(b, time.Since(sent))
			}
		})
	}
	if err := l.read(ctx, r, batches, state.ahead); err != nil {
		cancel(err)
	}
	close(batches)
	workers.Wait()

	report := LoadReport{Points: state.points, Batches: state.batches, Seconds: time.Since(begin).Seconds(),
		BatchLatency: latencyOfHistogram(state.histogram)}
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	return report, nil
}

// batch is a run of points that ends before the given row of the data set.
type batch struct {
	number int
	end    uint64
	points []vectord.Point
}

// read cuts the data set into batches and hands them on, each when there is room in ahead, until ctx ends.
func (l *Load) read(ctx context.Context, r dataset.Reader, out chan<- batch, ahead chan<- struct{}) error {
	dim := l.Dim
	b := batch{}
	size := 0
	row := uint64(0) // of the next point
	send := func() error {
		b.end = row
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case ahead <- struct{}{}:
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case out <- b:
		}
		b = batch{number: b.number + 1, points: make([]vectord.Point, 0, l.Batch)}
		size = 0
		return nil
	}
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if dim == 0 {
			dim = len(p.Vectors.Unnamed())
		}
		if len(p.Vectors.Unnamed()) != dim {
			return fmt.Errorf("point %d of the data set (id %s) has %d components, expected %d", row, p.ID, len(p.Vectors.Unnamed()), dim)
		}
		if row < l.Skip {
			row++
			continue
		}
		pointBytes := len(p.Payload)
		for _, v := range p.Vectors {
			pointBytes += vectorTextBytes * (len(v.Values) + len(v.Indices))
			if v.Text != nil {
				pointBytes += len(v.Text.Text)
			}
		}
		if len(b.points) > 0 && (len(b.points) == l.Batch || size+pointBytes > batchBytesMax) {
			if err := send(); err != nil {
				return err
			}
		}
		row++
		size += pointBytes
		own := vectord.Point{ID: p.ID, Vectors: slices.Clone(p.Vectors), Payload: slices.Clone(p.Payload)}
		for i := range own.Vectors {
			own.Vectors[i].Vector = own.Vectors[i].Clone()
		}
		b.points = append(b.points, own)
	}
	switch {
	case row == 0:
		return errors.New("the data set is empty")
	case row < l.Skip:
		return fmt.Errorf("the data set has %d points, of which %d were to be skipped", row, l.Skip)
	case len(b.points) > 0:
		return send()
	}
	return nil
}

// loadState gathers the acknowledgements, which come in any order.
type loadState struct {
	acknowledged func(points uint64)

	mu        sync.Mutex // guards what follows
	histogram *hdrhistogram.Histogram
	batches   int
	points    uint64         // all points before this one are acknowledged
	next      int            // number of the batch that begins there
	ends      map[int]uint64 // ends of later batches that are acknowledged, by number
	ahead     chan struct{}  // holds one for each batch that was handed on and is not before points
}

func (s *loadState) done(b batch, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record(s.histogram, took)
	s.batches++
	s.ends[b.number] = b.end
	for {
		end, ok := s.ends[s.next]
		if !ok {
			return
		}
		delete(s.ends, s.next)
		<-s.ahead
		s.next++
		s.points = end
		if s.acknowledged != nil {
			s.acknowledged(end)
		}
	}
}
