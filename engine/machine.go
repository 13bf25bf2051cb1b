package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// Machine is a state machine beside that of the points. Its commands come through the same log and are applied to the same
// batches, so that what it keeps and points can change in one commit.
type Machine interface {
	// Apply applies a command to the batch. write applies what PrepareWrites returned; it refuses, and then has changed
	// nothing, or all of it is in the batch. refusal is the client's error; err is ours, and ends everything.
	Apply(b *storage.Batch, e vectord.Entry, command []byte, write func([]byte) (refusal, err error)) (value any, refusal, err error)
	// Committed is called when the batches of what was applied are visible, and what it returns when they are durable.
	Committed() (durable func())
}

// MachineGroup is the replication group of the Machine's commands. No shard's group comes near it.
const MachineGroup = math.MaxUint32

// MachineCommand returns the command of the log that brings a command to the Machine.
func MachineCommand(command []byte) []byte {
	return append(append(make([]byte, 0, 2+len(command)), commandVersion, byte(commandMachine)), command...)
}

func (a *applier) machine(e vectord.Entry, command []byte) (value any, refusal, err error) {
	if a.db.machine == nil {
		return nil, nil, fmt.Errorf("a command for tasks, which this node does not keep")
	}
	return a.db.machine.Apply(a.batch, e, command, func(writes []byte) (refusal, err error) { return a.writes(e, writes) })
}

// announced tells the machine once a batch is durable.
func announced(durable func() error, tell func()) func() error {
	return func() error {
		err := durable()
		if err == nil {
			tell()
		}
		return err
	}
}

// PrepareWrites checks points to be upserted and makes vectors of their texts. What it returns is for the write of
// Machine.Apply.
func (db *DB) PrepareWrites(ctx context.Context, points map[string][]vectord.Point) (writes []byte, err error) {
	for _, name := range slices.Sorted(maps.Keys(points)) {
		if writes, err = db.prepareWrite(ctx, writes, name, []vectord.Operation{{Kind: vectord.OpUpsert, Points: points[name]}}); err != nil {
			return nil, fmt.Errorf("%w (points.%s)", err, name)
		}
	}
	return writes, nil
}

func (db *DB) prepareWrite(ctx context.Context, writes []byte, name string, ops []vectord.Operation) ([]byte, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return nil, err
	}
	for i := range ops {
		if err := db.checkOperation(col, &ops[i]); err != nil {
			return nil, err
		}
	}
	if err := db.checkStrictWrite(ctx, col, ops); err != nil {
		return nil, err
	}
	if err := db.budget.admit(); err != nil {
		return nil, err
	}
	if err := db.waitForIndex(ctx, col); err != nil {
		return nil, err
	}
	if err := db.embedPoints(ctx, col, ops); err != nil {
		return nil, err
	}
	col.prepare(ops)
	for _, s := range col.shards {
		w := write{Collection: col.id, Shard: s.id}
		for _, op := range ops {
			if mine := part(op, col, s); !mine.empty() {
				w.Operations = append(w.Operations, mine.Operation)
			}
		}
		if len(w.Operations) == 0 {
			continue
		}
		command, err := w.append(nil)
		if err != nil {
			return nil, err
		}
		writes = appendBytes(writes, command)
	}
	return writes, nil
}

// writes applies what PrepareWrites returned, all of it or nothing. It is in the commit of an entry of the Machine's group,
// and counts as that entry for the groups of the shards as well: here all groups share one log.
func (a *applier) writes(e vectord.Entry, b []byte) (refusal, err error) {
	type part struct {
		*write
		collection *collection
		shard      *shard
	}
	var parts []part
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, fmt.Errorf("malformed writes")
		}
		kind, body, err := splitCommand(b[size : size+int(n)])
		if err != nil || kind != commandWrite {
			return nil, fmt.Errorf("command of kind %d among writes: %w", kind, err)
		}
		b = b[size+int(n):]
		w, err := decodeWrite(body)
		if err != nil {
			return nil, err
		}
		p := part{write: w, collection: a.db.catalog.get(w.Collection)}
		if p.collection == nil {
			return vectord.Errorf(vectord.KindNotFound, "the collection was deleted or replaced while the write waited"), nil
		}
		if p.shard = p.collection.shard(w.Shard); p.shard == nil {
			return nil, fmt.Errorf("shard %d is not one of collection %q", w.Shard, p.collection.name)
		}
		for i := range w.Operations {
			for j := range w.Operations[i].Points {
				if refusal := p.collection.checkVectors(w.Operations[i].Points[j].Vectors); refusal != nil {
					return refusal, nil
				}
			}
		}
		parts = append(parts, p)
	}
	for _, p := range parts {
		of := e
		of.Group = p.shard.group
		writer := a.writer(p.collection, p.shard, of)
		for i := range p.Operations {
			refusal, err := writer.operation(&p.Operations[i])
			if err == nil && refusal != nil {
				err = fmt.Errorf("a write was checked, and refused: %w", refusal)
			}
			if err != nil {
				return nil, err
			}
		}
		if err := writer.finish(); err != nil {
			return nil, err
		}
		at := storage.Applied{Index: e.Index, Time: e.Time}
		a.db.applied[p.shard.group] = at
		a.batch.SetApplied(p.shard.group, at)
	}
	return nil, nil
}
