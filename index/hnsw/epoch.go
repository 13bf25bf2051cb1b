package hnsw

import (
	"context"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// epochs tells when every reader that had begun by some moment has ended, at the price of two uncontended atomic
// additions for a reader. It is how a freed slot is kept from being overwritten under a search, and an outgrown arena
// from being unmapped.
//
// A reader counts itself in a cell of the current epoch's parity, and out of the same cell when it ends. It looks at the
// epoch again after counting itself in, and starts over if the epoch has moved; so whoever moves the epoch from e to e+1
// knows that each reader of e is counted, and waits until the cells of that parity are empty. Readers that come meanwhile
// use the other parity and are not waited for. A reader never waits.
//
// One counter for each reader in flight would be simpler to read out, but bounds the number of readers or needs a list of
// them that outlives the pooled search states.
type epochs struct {
	current atomic.Uint64
	cells   [2][]cell

	mu sync.Mutex // held by the one that moves current
}

// cell counts readers. It fills two cache lines, since processors fetch lines in pairs.
type cell struct {
	readers atomic.Int64
	_       [120]byte
}

func (c *cell) exit() { c.readers.Add(-1) }

// cellsMax bounds the cells of one parity. More processors than that share cells.
const cellsMax = 64

func newEpochs() *epochs {
	n := min(1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1)), cellsMax)
	return &epochs{cells: [2][]cell{make([]cell, n), make([]cell, n)}}
}

// enter begins a reader, which ends with exit on the cell returned. Readers with different hints tend to use different
// cells.
func (e *epochs) enter(hint uint32) *cell {
	for {
		now := e.current.Load()
		cells := e.cells[now&1]
		c := &cells[int(hint)&(len(cells)-1)]
		c.readers.Add(1)
		if e.current.Load() == now {
			return c
		}
		c.readers.Add(-1)
	}
}

// synchronize waits until every reader that began before the call has ended, or returns the context's error.
func (e *epochs) synchronize(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.current.Load()
	// A call that was given up may have left readers of the epoch before this one, whose parity the next one shares.
	if err := e.drain(ctx, now+1); err != nil {
		return err
	}
	e.current.Store(now + 1)
	return e.drain(ctx, now)
}

// Waiting yields spinsMax times, as most readers end within microseconds, then sleeps pollInterval between looks.
const (
	spinsMax     = 64
	pollInterval = 50 * time.Microsecond
)

// drain waits until the cells of an epoch's parity have been empty, each at some moment of its own.
func (e *epochs) drain(ctx context.Context, epoch uint64) error {
	cells := e.cells[epoch&1]
	for i := range cells {
		for spins := 0; cells[i].readers.Load() != 0; spins++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if spins < spinsMax {
				runtime.Gosched()
			} else {
				time.Sleep(pollInterval)
			}
		}
	}
	return nil
}
