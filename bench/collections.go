package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vectord/vectord"
)

// Collections measures what empty collections cost a node of this process: to create, to start with and to have, and what
// creating and dropping some leaves behind.
type Collections struct {
	Open    func() (CollectionsEngine, io.Closer, error) // opens the node's data directory
	Count   int                                          // collections; those that the node lacks are created
	Dim     int
	Cycles  int           // collections created, filled with a point and dropped, one after the other
	Clients int           // that create at a time
	Idle    time.Duration // for which the idle node is watched
}

// CollectionsEngine is what Collections asks of a node.
type CollectionsEngine interface {
	Collections() []string
	CreateCollection(ctx context.Context, name string, config vectord.CollectionConfig) error
	DeleteCollection(ctx context.Context, name string) (existed bool, err error)
	Write(ctx context.Context, name string, ops []vectord.Operation, o vectord.WriteOptions) ([]vectord.UpdateResult, error)
}

// CollectionsReport is what Collections found. Peak is that of the whole process: a run that creates nothing shows that of
// the start.
type CollectionsReport struct {
	Collections   int     `json:"collections"`
	Created       int     `json:"created"`
	CreateSeconds float64 `json:"create_seconds"`
	BootSeconds   float64 `json:"boot_seconds"`
	ListSeconds   float64 `json:"list_seconds"`
	Resident      int64   `json:"resident_bytes"` // after the start, without garbage
	Peak          int64   `json:"peak_bytes"`
	Goroutines    int     `json:"goroutines"`
	IdleCPU       float64 `json:"idle_cpu_ratio"` // share of one core that the node takes with nothing to do

	Cycles        int     `json:"cycles"`
	CycleSeconds  float64 `json:"cycle_seconds"`
	Before, After struct {
		Goroutines int   `json:"goroutines"`
		Files      int   `json:"open_files"`
		Resident   int64 `json:"resident_bytes"`
	}
}

// Run does the measurement.
func (c *Collections) Run(ctx context.Context, progress func(step string)) (report CollectionsReport, err error) {
	if c.Count < 1 || c.Dim < 1 || c.Dim > vectord.MaxDimension || c.Cycles < 0 || c.Clients < 1 || c.Clients > ThreadsMax {
		return report, fmt.Errorf("%d collections of dimension %d, %d cycles, %d clients: collections must be 1 or more, the dimension from 1 to %d, cycles 0 or more, clients from 1 to %d",
			c.Count, c.Dim, c.Cycles, c.Clients, vectord.MaxDimension, ThreadsMax)
	}
	progress("starting")
	begin := time.Now()
	db, node, err := c.Open()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	if len(db.Collections()) < c.Count {
		if err := c.create(ctx, db, &report, progress); err != nil {
			return report, err
		}
		if err := node.Close(); err != nil {
			return report, err
		}
		progress(fmt.Sprintf("starting with %d collections", c.Count))
		begin = time.Now()
		if db, node, err = c.Open(); err != nil {
			return report, err
		}
	}
	report.BootSeconds = time.Since(begin).Seconds()
	begin = time.Now()
	report.Collections = len(db.Collections())
	report.ListSeconds = time.Since(begin).Seconds()
	if report.Resident, err = resident(); err != nil {
		return report, err
	}
	if report.Peak, err = statusBytes("VmHWM"); err != nil {
		return report, err
	}
	report.Goroutines = runtime.NumGoroutine()
	if c.Idle > 0 {
		progress("watching the idle node")
		before := cpuTime()
		select {
		case <-time.After(c.Idle):
		case <-ctx.Done():
			return report, ctx.Err()
		}
		report.IdleCPU = (cpuTime() - before).Seconds() / c.Idle.Seconds()
	}
	return report, c.cycle(ctx, db, &report, progress)
}

// create makes the collections that the node lacks.
func (c *Collections) create(ctx context.Context, db CollectionsEngine, report *CollectionsReport, progress func(step string)) error {
	have := map[string]bool{}
	for _, name := range db.Collections() {
		have[name] = true
	}
	progress(fmt.Sprintf("creating %d collections", c.Count-len(have)))
	begin := time.Now()
	var next, created atomic.Int64
	errs := make([]error, c.Clients)
	var clients sync.WaitGroup
	for i := range errs {
		clients.Go(func() {
			for errs[i] == nil && ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= c.Count {
					return
				}
				if name := fmt.Sprintf("empty-%06d", n); !have[name] {
					errs[i] = db.CreateCollection(ctx, name, vectord.DefaultCollectionConfig(c.Dim, vectord.Cosine))
					created.Add(1)
				}
			}
		})
	}
	clients.Wait()
	report.Created, report.CreateSeconds = int(created.Load()), time.Since(begin).Seconds()
	return errors.Join(append(errs, ctx.Err())...)
}

// cycle creates and drops collections. What it compares with is the node after a tenth of the cycles, when its pools and
// buffers are filled.
func (c *Collections) cycle(ctx context.Context, db CollectionsEngine, report *CollectionsReport, progress func(step string)) (err error) {
	if c.Cycles == 0 {
		return nil
	}
	measure := func() (goroutines, files int, bytes int64, err error) {
		time.Sleep(time.Second) // what a drop frees in the background
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0, 0, 0, fmt.Errorf("count open files: %w", err)
		}
		bytes, err = resident()
		return runtime.NumGoroutine(), len(entries), bytes, err
	}
	progress(fmt.Sprintf("creating and dropping %d collections", c.Cycles))
	config := vectord.DefaultCollectionConfig(c.Dim, vectord.Cosine)
	vector := make([]float32, c.Dim)
	vector[0] = 1
	var begin time.Time
	for i := range c.Cycles + c.Cycles/10 {
		if i == c.Cycles/10 {
			if report.Before.Goroutines, report.Before.Files, report.Before.Resident, err = measure(); err != nil {
				return err
			}
			begin = time.Now()
		}
		name := fmt.Sprintf("cycle-%d", i)
		if err := db.CreateCollection(ctx, name, config); err != nil {
			return err
		}
		point := vectord.Point{ID: vectord.NumberID(1), Vectors: vectord.Vectors{{Vector: vectord.Dense(append([]float32(nil), vector...))}}}
		if _, err := db.Write(ctx, name, []vectord.Operation{{Kind: vectord.OpUpsert, Points: []vectord.Point{point}}}, vectord.WriteOptions{}); err != nil {
			return err
		}
		if _, err := db.DeleteCollection(ctx, name); err != nil {
			return err
		}
	}
	report.Cycles, report.CycleSeconds = c.Cycles, time.Since(begin).Seconds()
	report.After.Goroutines, report.After.Files, report.After.Resident, err = measure()
	return err
}

// cpuTime returns the processor time that this process has taken.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// statusBytes returns a size from what the system says of this process.
func statusBytes(name string) (int64, error) { return processBytes("self", name) }

// processBytes returns a size that the system tells of a process.
func processBytes(process, name string) (int64, error) {
	status, err := os.ReadFile("/proc/" + process + "/status")
	if err != nil {
		return 0, fmt.Errorf("measure memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, name+": %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("measure memory: no %s in /proc/%s/status", name, process)
}

// WriteTable writes the report for people.
func (r *CollectionsReport) WriteTable(w io.Writer) error {
	if r.Created > 0 {
		fmt.Fprintf(w, "created %d collections in %.1f s (%.0f/s)\n\n", r.Created, r.CreateSeconds, float64(r.Created)/r.CreateSeconds)
	}
	megabytes := func(b int64) string { return fmt.Sprintf("%.1f", float64(b)/1e6) }
	err := table(w, []string{"collections", "boot s", "list ms", "MB resident", "MB peak", "goroutines", "idle CPU"},
		[][]string{{fmt.Sprint(r.Collections), fmt.Sprintf("%.2f", r.BootSeconds), fmt.Sprintf("%.1f", 1e3*r.ListSeconds), megabytes(r.Resident),
			megabytes(r.Peak), fmt.Sprint(r.Goroutines), fmt.Sprintf("%.1f %%", 100*r.IdleCPU)}})
	if err != nil || r.Cycles == 0 {
		return err
	}
	fmt.Fprintf(w, "\n%d collections created, written to and dropped in %.1f s (%.0f/s)\n\n", r.Cycles, r.CycleSeconds, float64(r.Cycles)/r.CycleSeconds)
	return table(w, []string{"", "goroutines", "open files", "MB resident"}, [][]string{
		{"before", fmt.Sprint(r.Before.Goroutines), fmt.Sprint(r.Before.Files), megabytes(r.Before.Resident)},
		{"after", fmt.Sprint(r.After.Goroutines), fmt.Sprint(r.After.Files), megabytes(r.After.Resident)}})
}
