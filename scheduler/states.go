package scheduler

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/tidwall/btree"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

const (
	// stateChunkBytes is the size of the pieces in which values are stored.
	stateChunkBytes = 1 << 20
	// stateMemoryMax bounds the values that are kept in memory for those who read them.
	stateMemoryMax = 256 << 20
)

// states are the values that agents share. The scheduler's mu guards them.
//
// A value that somebody has read, or whose state a task refers to, is kept in one buffer that nobody changes, and all who
// read it get that buffer. When the last task that refers to it has ended it goes with the next that needs the room.
type states struct {
	byKey  btree.Map[string, *state]
	refs   map[string]int // tasks that refer to a key; a state may be deleted and made again meanwhile
	cached int            // bytes of values in memory
	more   chan struct{}  // closed when some state has changed; nil: nobody waits
}

type state struct {
	vectord.State // Value is nil while it is not in memory
	size          int
	chunks        int
}

func (x *states) init() { x.refs = map[string]int{} }

func (x *states) load(store *storage.Store) error {
	return store.ScanRows(tableState, nil, func(key, row []byte) (bool, error) {
		st, err := decodeState(string(key), row)
		if err != nil {
			return false, err
		}
		x.byKey.Set(st.Key, st)
		return true, nil
	})
}

// decodeState reads what row wrote.
func decodeState(key string, row []byte) (*state, error) {
	r := reader{b: row}
	st := &state{State: vectord.State{Key: key}}
	if v := r.byte(); v != rowVersion {
		return nil, fmt.Errorf("state %q of version %d, this program reads version %d", key, v, rowVersion)
	}
	st.Version, st.UpdatedAt, st.ExpiresAt = r.uint(), vectord.Timestamp(r.int()), vectord.Timestamp(r.int())
	st.size, st.chunks, st.ContentType = int(r.uint()), int(r.uint()), r.string()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("state %q: %w", key, err)
	}
	return st, nil
}

func (st *state) row() []byte {
	b := binary.AppendUvarint([]byte{rowVersion}, st.Version)
	for _, n := range [...]int64{int64(st.UpdatedAt), int64(st.ExpiresAt), int64(st.size), int64(st.chunks)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return appendBytes(b, st.ContentType)
}

func chunkKey(key string, i int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(key), 0), uint32(i))
}

// gone reports whether a state has expired. While a task refers to it, it has not.
func (x *states) gone(st *state, now int64) bool {
	return st.ExpiresAt != 0 && int64(st.ExpiresAt) <= now && x.refs[st.Key] == 0
}

func (x *states) get(key string, now int64) *state {
	st, ok := x.byKey.Get(key)
	if !ok || x.gone(st, now) {
		return nil
	}
	return st
}

// check refuses references to states that there are not.
func (x *states) check(refs []string, now int64) error {
	for i, key := range refs {
		if x.get(key, now) == nil {
			return vectord.Refuse(vectord.KindNotFound, vectord.CodeStateNotFound, "state_refs[%d]: there is no state %q", i, key)
		}
	}
	return nil
}

func (x *states) refer(refs []string) {
	for _, key := range refs {
		x.refs[key]++
	}
}

func (x *states) release(refs []string, now int64) {
	for _, key := range refs {
		if x.refs[key]--; x.refs[key] > 0 {
			continue
		}
		delete(x.refs, key)
		if st, ok := x.byKey.Get(key); ok {
			x.drop(st) // whoever reads it still has the buffer
		}
	}
}

// drop forgets the value in memory.
func (x *states) drop(st *state) {
	x.cached -= len(st.Value)
	st.Value = nil
}

// keep keeps a value in memory, as long as there is room for it.
func (x *states) keep(st *state, value []byte) {
	x.drop(st)
	if x.cached+len(value) > stateMemoryMax {
		x.byKey.Scan(func(_ string, other *state) bool {
			if x.refs[other.Key] == 0 {
				x.drop(other)
			}
			return x.cached+len(value) > stateMemoryMax
		})
	}
	if x.cached+len(value) <= stateMemoryMax {
		st.Value = value
		x.cached += len(value)
	}
}

func (x *states) changed() {
	if x.more != nil {
		close(x.more)
		x.more = nil
	}
}

// putState is: key, content type, how long it lives in milliseconds (0: for ever), 1 and the version that it must have or 0,
// the value.
func encodePutState(key string, value []byte, w *vectord.StateWrite) []byte {
	b := make([]byte, 0, len(value)+len(key)+len(w.ContentType)+40)
	b = appendBytes(appendBytes(append(b, byte(commandPutState)), key), w.ContentType)
	b = binary.AppendUvarint(b, uint64(w.TTLSeconds)*1000)
	if w.IfVersion != nil {
		b = binary.AppendUvarint(append(b, 1), *w.IfVersion)
	} else {
		b = append(b, 0)
	}
	return appendBytes(b, value)
}

func (x *tx) putState(body []byte) (value any, refusal, err error) {
	r := reader{b: body}
	st := &state{State: vectord.State{Key: r.string(), ContentType: r.string(), UpdatedAt: vectord.Timestamp(x.now)}, chunks: 0}
	if ttl := r.int(); ttl > 0 {
		st.ExpiresAt = vectord.Timestamp(x.now + ttl)
	}
	var want *uint64
	if r.byte() == 1 {
		v := r.uint()
		want = &v
	}
	content := r.bytes()
	if err := r.end(); err != nil {
		return nil, nil, err
	}
	all := &x.s.states
	if refusal := all.match(st.Key, want, x.now); refusal != nil {
		return nil, refusal, nil
	}
	old, existed := all.byKey.Get(st.Key)
	if existed {
		all.drop(old)
	}
	st.Version, st.size = x.number(), len(content)
	for at := 0; at < len(content); at += stateChunkBytes {
		x.batch.PutRow(tableValue, chunkKey(st.Key, st.chunks), content[at:min(at+stateChunkBytes, len(content))])
		st.chunks++
	}
	if existed {
		for i := st.chunks; i < old.chunks; i++ {
			x.batch.DeleteRow(tableValue, chunkKey(st.Key, i))
		}
	}
	x.batch.PutRow(tableState, []byte(st.Key), st.row())
	all.byKey.Set(st.Key, st)
	if all.refs[st.Key] > 0 {
		all.keep(st, bytes.Clone(content))
	}
	all.changed()
	return all.public(st), nil, nil
}

// match refuses a change of a state that has not the version that it should have; 0: that there should not be.
func (x *states) match(key string, want *uint64, now int64) error {
	if want == nil {
		return nil
	}
	have := uint64(0)
	if st := x.get(key, now); st != nil {
		have = st.Version
	}
	if have != *want {
		return vectord.Refuse(vectord.KindConflict, vectord.CodeVersionConflict, "state %q has version %d, not %d", key, have, *want)
	}
	return nil
}

func (x *tx) deleteState(c deleteState) (value any, refusal, err error) {
	all := &x.s.states
	if refusal := all.match(c.Key, c.IfVersion, x.now); refusal != nil {
		return nil, refusal, nil
	}
	st, ok := all.byKey.Get(c.Key)
	if !ok {
		return false, nil, nil
	}
	existed := !all.gone(st, x.now)
	all.remove(x.batch, st)
	return existed, nil, nil
}

func (x *states) remove(b *storage.Batch, st *state) {
	b.DeleteRow(tableState, []byte(st.Key))
	for i := range st.chunks {
		b.DeleteRow(tableValue, chunkKey(st.Key, i))
	}
	x.drop(st)
	x.byKey.Delete(st.Key)
	x.changed()
}

// expire removes a state whose time has passed and to which no task refers.
func (x *states) expire(b *storage.Batch, key string, now int64) {
	if st, ok := x.byKey.Get(key); ok && x.gone(st, now) {
		x.remove(b, st)
	}
}

// expired returns the keys of states to be removed, at most limit.
func (x *states) expired(now int64, limit int) (keys []string) {
	x.byKey.Scan(func(key string, st *state) bool {
		if x.gone(st, now) {
			keys = append(keys, key)
		}
		return len(keys) < limit
	})
	return keys
}

func (x *states) public(st *state) vectord.State {
	p := st.State
	p.Refs = x.refs[st.Key]
	return p
}

// PutState implements the server's Scheduler.
func (s *Scheduler) PutState(ctx context.Context, key string, value []byte, w vectord.StateWrite) (vectord.State, error) {
	if err := vectord.CheckStateKey("key", key); err != nil {
		return vectord.State{}, err
	}
	if len(value) > vectord.MaxStateBytes {
		return vectord.State{}, vectord.Errorf(vectord.KindTooLarge, "value: %d bytes, at most %d are accepted", len(value), vectord.MaxStateBytes)
	}
	if err := w.Check(); err != nil {
		return vectord.State{}, err
	}
	v, err := s.propose(ctx, encodePutState(key, value, &w))
	if err != nil {
		return vectord.State{}, err
	}
	st := v.(vectord.State)
	st.Value = value
	return st, nil
}

// State implements the server's Scheduler.
func (s *Scheduler) State(ctx context.Context, key string, since uint64) (vectord.State, error) {
	if err := vectord.CheckStateKey("key", key); err != nil {
		return vectord.State{}, err
	}
	for {
		s.mu.Lock()
		st := s.states.get(key, s.now())
		if since == 0 || st != nil && st.Version > since || ctx.Err() != nil || s.stop.Err() != nil {
			if st == nil {
				s.mu.Unlock()
				return vectord.State{}, vectord.Refuse(vectord.KindNotFound, vectord.CodeStateNotFound, "there is no state %q", key)
			}
			p, chunks := s.states.public(st), st.chunks
			s.mu.Unlock()
			if p.Value != nil || st.size == 0 {
				return p, nil
			}
			return s.stateValue(p, chunks)
		}
		if s.states.more == nil {
			s.states.more = make(chan struct{})
		}
		more := s.states.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		case <-s.stop.Done():
		}
	}
}

// stateValue reads a value from its rows, and keeps it in memory.
func (s *Scheduler) stateValue(p vectord.State, chunks int) (vectord.State, error) {
	snapshot := s.store.NewSnapshot()
	defer snapshot.Close()
	row, ok, err := snapshot.Row(tableState, []byte(p.Key))
	r := reader{b: row}
	r.byte()
	if err == nil && (!ok || r.uint() != p.Version) {
		return s.State(context.Background(), p.Key, 0) // it was changed in the meantime
	}
	var value []byte
	for i := 0; i < chunks && err == nil; i++ {
		var chunk []byte
		if chunk, ok, err = snapshot.Row(tableValue, chunkKey(p.Key, i)); err == nil && !ok {
			err = fmt.Errorf("piece %d of state %q is not there", i, p.Key)
		}
		value = append(value, chunk...)
	}
	if err != nil {
		return vectord.State{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.states.byKey.Get(p.Key)
	switch {
	case ok && st.Version == p.Version && st.Value != nil: // somebody was faster
		value = st.Value
	case ok && st.Version == p.Version:
		s.states.keep(st, value)
	}
	p.Value = value
	return p, nil
}

// DeleteState implements the server's Scheduler.
func (s *Scheduler) DeleteState(ctx context.Context, key string, ifVersion *uint64) (existed bool, err error) {
	if err := vectord.CheckStateKey("key", key); err != nil {
		return false, err
	}
	v, err := s.propose(ctx, encodeJSON(commandDeleteState, deleteState{key, ifVersion}))
	existed, _ = v.(bool)
	return existed, err
}

// States implements the server's Scheduler.
func (s *Scheduler) States(prefix, after string, limit int) ([]vectord.State, error) {
	if limit < 1 || limit > vectord.MaxTaskBatch {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", limit, vectord.MaxTaskBatch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	list := []vectord.State{}
	s.states.byKey.Ascend(max(prefix, after), func(key string, st *state) bool {
		switch {
		case key == after:
			return true
		case !strings.HasPrefix(key, prefix):
			return false
		}
		if !s.states.gone(st, now) {
			p := s.states.public(st)
			p.Value = nil
			list = append(list, p)
		}
		return len(list) < limit
	})
	return list, nil
}
