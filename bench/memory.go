package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/index/quant"
)

// Memory measures what an index takes of this process's memory, and how fast it comes back from a checkpoint. The vectors
// are generated one by one and kept by nobody.
type Memory struct {
	Points, Dim int
	Metric      vectord.Distance
	M           int
	EfConstruct int
	Codec       string // one of Codecs
	Threads     int
	Dir         string // where the checkpoint goes, which is removed
}

// MemoryReport is what Memory found. Resident sizes are the growth of the process since before the index.
type MemoryReport struct {
	Points       int     `json:"points"`
	Dim          int     `json:"dim"`
	Metric       string  `json:"metric"`
	Codec        string  `json:"codec"`
	BuildSeconds float64 `json:"build_seconds"`
	Resident     int64   `json:"resident_bytes"`           // when built
	Counted      int64   `json:"counted_bytes"`            // as the index itself counts
	Checkpoint   int64   `json:"checkpoint_bytes"`         // on disk
	LoadSeconds  float64 `json:"load_seconds"`             // of the checkpoint, from the page cache
	LoadResident int64   `json:"resident_bytes_of_a_load"` // when loaded
}

// memoryBatch is how many vectors the builders take at a time.
const memoryBatch = 256

// Run does the measurement. It returns an error where the system does not tell what is resident.
func (m *Memory) Run(ctx context.Context, progress func(step string)) (MemoryReport, error) {
	if m.Points < 1 || m.Dim < 1 || m.Dim > vectord.MaxDimension || m.Threads < 1 || m.Threads > ThreadsMax {
		return MemoryReport{}, fmt.Errorf("%d points of dimension %d on %d threads: points must be 1 or more, the dimension from 1 to %d, threads from 1 to %d",
			m.Points, m.Dim, m.Threads, vectord.MaxDimension, ThreadsMax)
	}
	if err := checkCodec(m.Codec); err != nil {
		return MemoryReport{}, err
	}
	codec, err := m.train()
	if err != nil {
		return MemoryReport{}, err
	}
	before, err := resident()
	if err != nil {
		return MemoryReport{}, err
	}
	progress(fmt.Sprintf("building the graph of %d generated vectors of dimension %d", m.Points, m.Dim))
	begin := time.Now()
	graph, err := m.build(ctx, codec)
	if err != nil {
		return MemoryReport{}, err
	}
	defer graph.Close()
	report := MemoryReport{Points: m.Points, Dim: m.Dim, Metric: m.Metric.String(), Codec: codecName(codec),
		BuildSeconds: time.Since(begin).Seconds(), Counted: graph.MemoryBytes()}
	after, err := resident()
	if err != nil {
		return MemoryReport{}, err
	}
	report.Resident = after - before

	progress("writing and loading the checkpoint")
	file, err := m.save(graph)
	if err != nil {
		return MemoryReport{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if report.Checkpoint, err = file.Seek(0, io.SeekEnd); err != nil {
		return MemoryReport{}, err
	}
	graph.Close()
	if before, err = resident(); err != nil {
		return MemoryReport{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return MemoryReport{}, err
	}
	begin = time.Now()
	loaded, err := hnsw.Load(file, hnsw.Limits{})
	if err != nil {
		return MemoryReport{}, err
	}
	defer loaded.Close()
	report.LoadSeconds = time.Since(begin).Seconds()
	if after, err = resident(); err != nil {
		return MemoryReport{}, err
	}
	report.LoadResident = after - before
	return report, nil
}

// vectors returns the data set from its beginning.
func (m *Memory) vectors() *dataset.Clustered { return dataset.NewClustered(1, m.Points, m.Dim) }

// next copies the next vector of a reader into dst, as a collection of the metric keeps it.
func (m *Memory) next(r *dataset.Clustered, dst []float32) error {
	p, err := r.Next()
	if err != nil {
		return err
	}
	copy(dst, p.Vectors.Unnamed())
	if m.Metric == vectord.Cosine {
		vectord.Normalize(dst)
	}
	return nil
}

func (m *Memory) train() (quant.Codec, error) {
	r := m.vectors()
	sample := make([][]float32, min(m.Points, trainSample))
	for i := range sample {
		sample[i] = make([]float32, m.Dim)
		if err := m.next(r, sample[i]); err != nil {
			return nil, err
		}
	}
	return trainCodec(m.Codec, m.Metric, m.Dim, sample)
}

func (m *Memory) build(ctx context.Context, codec quant.Codec) (*hnsw.Graph, error) {
	graph, err := hnsw.New(codec, hnsw.Config{M: m.M, EfConstruction: m.EfConstruct})
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards r and slot
	r, slot := m.vectors(), 0
	errs := make([]error, m.Threads)
	var builders sync.WaitGroup
	for thread := range m.Threads {
		builders.Go(func() {
			batch := make([]float32, memoryBatch*m.Dim)
			for errs[thread] == nil && ctx.Err() == nil {
				mu.Lock()
				first, n := slot, 0
				for n < memoryBatch && m.next(r, batch[n*m.Dim:(n+1)*m.Dim]) == nil {
					n++
				}
				slot += n
				mu.Unlock()
				if n == 0 {
					return
				}
				for i := range n {
					errs[thread] = errors.Join(errs[thread], graph.Insert(uint32(first+i), batch[i*m.Dim:(i+1)*m.Dim]))
				}
			}
		})
	}
	builders.Wait()
	if err := errors.Join(append(slices.Clone(errs), ctx.Err())...); err != nil {
		graph.Close()
		return nil, err
	}
	return graph, nil
}

// save writes the graph's checkpoint to a new file.
func (m *Memory) save(graph *hnsw.Graph) (*os.File, error) {
	file, err := os.CreateTemp(m.Dir, "vectord-bench-*.graph")
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(file, 1<<20)
	if err := errors.Join(graph.Save(w), w.Flush()); err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return file, nil
}

// resident returns the resident memory of this process in bytes, with no garbage in it.
func resident() (int64, error) {
	debug.FreeOSMemory()
	return statusBytes("VmRSS")
}

// WriteTable writes the report for people.
func (r *MemoryReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%d × %d %s · codec %s · built in %.1f s (%.0f/s)\n\n",
		r.Points, r.Dim, r.Metric, r.Codec, r.BuildSeconds, float64(r.Points)/r.BuildSeconds)
	megabytes := func(b int64) string { return fmt.Sprintf("%.1f", float64(b)/1e6) }
	return table(w, []string{"MB resident", "counted", "bytes a vector", "MB checkpoint", "load s", "MB resident after load"},
		[][]string{{megabytes(r.Resident), megabytes(r.Counted), fmt.Sprintf("%.1f", float64(r.Resident)/float64(r.Points)),
			megabytes(r.Checkpoint), fmt.Sprintf("%.2f", r.LoadSeconds), megabytes(r.LoadResident)}})
}
