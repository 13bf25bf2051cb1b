// Package replication puts opaque commands in one order and has them applied, on one node or, with further
// implementations of Log, on every replica. It moves bytes: what a command means is the Applier's affair.
package replication

import (
	"context"

	"github.com/vectord/vectord"
)

// Log puts commands in one order. Its methods may be called from any goroutine.
//
// Commands belong to replication groups; each group sees its own commands in the log's order. How many logs carry the
// groups is up to the implementation.
type Log interface {
	// Propose appends a command to the log and returns what applying it gave, once that is durable and visible. The
	// command belongs to the log from then on, whatever Propose returns. Errors by kind (vectord.KindOf):
	//
	//   - KindOverloaded, KindTooLarge, KindClosed: refused, and without effect.
	//   - KindTimeout: ctx ended. The outcome is unknown, as its text says, unless ctx had ended at the start.
	//   - KindInternal: the log has failed; the outcome is unknown.
	//
	// A refusal by the Applier is no error of the log: it is in the Result.
	Propose(ctx context.Context, group uint32, command []byte) (vectord.Result, error)

	// Barrier returns once every entry accepted before the call is applied and durable, with the index of the last.
	Barrier(ctx context.Context) (index uint64, err error)

	// Close refuses new work, finishes what was accepted and returns when that is done.
	Close() error
}

// Applier is the state machine behind a log.
type Applier interface {
	// Apply applies entries in order, all in one atomic commit, and returns one result for each. Their effects are
	// visible on return; durable waits until they survive a power cut. Apply is called by one goroutine; durable by
	// another, in the order of the calls of Apply, and at the same time as later calls. The commands are valid during
	// the call. An error means that the state is not to be trusted any more, and is fatal to the log.
	Apply(entries []vectord.Entry) (results []vectord.Result, durable func() error, err error)
}
