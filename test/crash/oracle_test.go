package crash

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

const dimension = 100

// payload is what every point of the test carries. Version names the write that the point came from, and Sum is bound to
// the vector that belongs to it, so that parts of two writes never pass for one point.
type payload struct {
	Client  int    `json:"client"` // who owns the point, or nobody
	Group   int    `json:"group"`  // by which its owner selects it in filters
	Version uint64 `json:"version"`
	Sum     uint32 `json:"sum"`
	Note    uint64 `json:"note,omitempty"` // changed by payload operations, the vector staying as it is
}

// nobody is the client of points that are not owned.
const nobody = -1

// vectorOf returns the vector that a point has after the write of the given version. Components are multiples of 1/8, so
// that they survive JSON exactly.
func vectorOf(id, version uint64) []float32 {
	random := rand.New(rand.NewPCG(id, version))
	v := make([]float32, dimension)
	for i := range v {
		v[i] = float32(random.IntN(256)-128) / 8
	}
	return v
}

// sumOf binds a vector to a point and a version.
func sumOf(id, version uint64, v []float32) uint32 {
	b := binary.LittleEndian.AppendUint64(nil, id)
	b = binary.LittleEndian.AppendUint64(b, version)
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return crc32.ChecksumIEEE(b)
}

// sound returns an error unless the vector and the payload of r come from the same write of this very point.
func sound(r record) error {
	switch {
	case r.Payload == nil:
		return fmt.Errorf("point %d has no payload", r.ID)
	case r.Payload.Version == 0:
		return fmt.Errorf("point %d has a payload without a version: %+v", r.ID, *r.Payload)
	case sumOf(r.ID, r.Payload.Version, r.Vector) != r.Payload.Sum:
		return fmt.Errorf("point %d is torn: its vector does not belong to its payload %+v", r.ID, *r.Payload)
	case !slices.Equal(r.Vector, vectorOf(r.ID, r.Payload.Version)):
		return fmt.Errorf("point %d version %d has a vector that was never written", r.ID, r.Payload.Version)
	}
	return nil
}

// state is what a client can tell of one point: version 0 means that there is none.
type state struct {
	version uint64
	note    uint64
}

func (s state) String() string {
	if s.version == 0 {
		return "absent"
	}
	return fmt.Sprintf("version %d note %d", s.version, s.note)
}

// ledger keeps what one client knows of the points that it alone writes. A client sends one request at a time, so each
// point is as it was last acknowledged, or as the one unanswered request would have it.
type ledger struct {
	acked   map[uint64]state
	pending map[uint64]state // what the unanswered request makes of its points, nil without one
}

func newLedger() *ledger { return &ledger{acked: map[uint64]state{}} }

// begin notes a request that is about to be sent.
func (l *ledger) begin(after map[uint64]state) { l.pending = after }

// end notes the answer: the request was carried out, or refused without effect. A request that gets no answer stays
// pending.
func (l *ledger) end(done bool) {
	if done {
		for id, s := range l.pending {
			l.acked[id] = s
		}
	}
	l.pending = nil
}

// check compares what the server has with what the client knows. Every request of the test is one operation, so the
// pending one must show on all of its points or on none.
func (l *ledger) check(observed map[uint64]state) (problems []string) {
	for id, want := range l.acked {
		got := observed[id]
		if _, open := l.pending[id]; open || got == want {
			continue
		}
		switch {
		case got.version == 0:
			problems = append(problems, fmt.Sprintf("point %d is missing: acknowledged was %v", id, want))
		case want.version == 0:
			problems = append(problems, fmt.Sprintf("point %d is back from the dead: found %v after an acknowledged delete", id, got))
		default:
			problems = append(problems, fmt.Sprintf("point %d: acknowledged was %v, found %v", id, want, got))
		}
	}
	before, after := []uint64{}, []uint64{}
	for id, s := range l.pending {
		switch got := observed[id]; {
		case s == l.acked[id] && got == s: // the request would change nothing here
		case got == s:
			after = append(after, id)
		case got == l.acked[id]:
			before = append(before, id)
		default:
			problems = append(problems, fmt.Sprintf("point %d: acknowledged was %v, unanswered %v, found %v", id, l.acked[id], s, got))
		}
	}
	if len(before) > 0 && len(after) > 0 {
		problems = append(problems, fmt.Sprintf("an operation is half there: points %v have it, points %v do not", after, before))
	}
	return problems
}

// settle takes what was found for the truth from now on.
func (l *ledger) settle(observed map[uint64]state) {
	for id := range l.pending {
		l.acked[id] = observed[id]
	}
	l.pending = nil
}

// register keeps the history of points that all clients write at the same time. It is safe for concurrent use.
type register struct {
	mu     sync.Mutex // guards clock, writes
	clock  uint64
	writes map[uint64][]*sharedWrite
}

// sharedWrite is one write of one shared point, with the times of a logical clock at which it was sent and answered.
type sharedWrite struct {
	version uint64 // 0 deletes
	sent    uint64
	acked   uint64 // unanswered while the answer is out
	refused bool   // answered, and certain to have had no effect
}

const unanswered = math.MaxUint64

func newRegister() *register { return &register{writes: map[uint64][]*sharedWrite{}} }

// begin notes a request that is about to be sent, and returns what notes its answer.
func (r *register) begin(ids []uint64, version uint64) (end func(done bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	begun := make([]*sharedWrite, len(ids))
	for i, id := range ids {
		begun[i] = &sharedWrite{version: version, sent: r.clock, acked: unanswered}
		r.writes[id] = append(r.writes[id], begun[i])
	}
	return func(done bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.clock++
		for _, w := range begun {
			w.acked, w.refused = r.clock, !done
		}
	}
}

// check reports every shared point whose value no order of its writes can explain: one that nobody wrote, or one that had
// been replaced by a later write when that was acknowledged.
func (r *register) check(observed map[uint64]state) (problems []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, writes := range r.writes {
		writes = append([]*sharedWrite{{}}, writes...) // before all others, the point was absent
		possible := func(w *sharedWrite) bool {
			replaced := func(later *sharedWrite) bool {
				return later.acked != unanswered && !later.refused && later.sent > w.acked
			}
			return !w.refused && w.version == observed[id].version && !slices.ContainsFunc(writes, replaced)
		}
		if !slices.ContainsFunc(writes, possible) {
			problems = append(problems, fmt.Sprintf("shared point %d: no order of its %d writes leaves it %v",
				id, len(writes)-1, observed[id]))
		}
	}
	return problems
}

// settle forgets the history and takes what was found for the truth from now on.
func (r *register) settle(observed map[uint64]state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.writes {
		r.clock++
		r.writes[id] = []*sharedWrite{{version: observed[id].version, sent: r.clock, acked: r.clock}}
	}
}

// TestLedger checks that the ledger accepts what a crash may leave and nothing else.
func TestLedger(t *testing.T) {
	type states = map[uint64]state
	f := func(acked, pending, observed states, problems int) {
		t.Helper()
		l := &ledger{acked: acked, pending: pending}
		if got := l.check(observed); len(got) != problems {
			t.Errorf("acknowledged %v, unanswered %v, found %v: got problems %q, want %d", acked, pending, observed, got, problems)
		}
	}
	one, two, three := state{version: 1}, state{version: 2}, state{version: 3}
	gone := state{}
	f(states{7: one}, nil, states{7: one}, 0)
	f(states{7: one}, nil, states{}, 1)                          // an acknowledged write is missing
	f(states{7: gone}, nil, states{7: one}, 1)                   // a delete is revived
	f(states{7: two}, nil, states{7: one}, 1)                    // an overwrite is lost
	f(states{7: {1, 5}}, nil, states{7: one}, 1)                 // a payload change is lost
	f(states{7: one}, states{7: two}, states{7: one}, 0)         // the unanswered request may have had no effect
	f(states{7: one}, states{7: two}, states{7: two}, 0)         // or its whole effect
	f(states{7: one}, states{7: two}, states{7: three}, 1)       // but no other
	f(states{7: one}, states{7: gone}, states{}, 0)              // the same for a delete
	f(states{7: one}, states{8: two}, states{8: two}, 1)         // a pending request excuses its own points only
	f(states{}, states{7: two, 8: two}, states{}, 0)             // none of a batch
	f(states{}, states{7: two, 8: two}, states{7: two}, 1)       // half of it
	f(states{7: two}, states{7: two, 8: two}, states{7: two}, 0) // a point that it would not change says nothing
}

// TestRegister checks that the register accepts the outcomes of concurrent writes and nothing else.
func TestRegister(t *testing.T) {
	const id = 7
	f := func(writes []*sharedWrite, version uint64, ok bool) {
		t.Helper()
		r := newRegister()
		r.writes[id] = writes
		if got := r.check(map[uint64]state{id: {version: version}}); (len(got) == 0) != ok {
			t.Errorf("found version %d: got problems %q", version, got)
		}
	}
	write := func(version, sent, acked uint64) *sharedWrite {
		return &sharedWrite{version: version, sent: sent, acked: acked}
	}
	f(nil, 0, true)
	f(nil, 1, false)
	one := []*sharedWrite{write(1, 1, 2)}
	f(one, 1, true)
	f(one, 0, false) // acknowledged and missing
	overlapping := []*sharedWrite{write(1, 1, 4), write(2, 2, 3)}
	f(overlapping, 1, true)
	f(overlapping, 2, true)
	ordered := []*sharedWrite{write(1, 1, 2), write(2, 3, 4)}
	f(ordered, 2, true)
	f(ordered, 1, false) // the later of two acknowledged writes is lost
	deleted := []*sharedWrite{write(1, 1, 2), write(0, 3, 4)}
	f(deleted, 0, true)
	f(deleted, 1, false) // revived
	open := []*sharedWrite{write(1, 1, 2), write(2, 3, unanswered)}
	f(open, 1, true)
	f(open, 2, true)
	refused := []*sharedWrite{write(1, 1, 2), {version: 2, sent: 3, acked: 4, refused: true}}
	f(refused, 1, true)
	f(refused, 2, false) // carried out all the same
}

// TestSound checks that parts of two writes do not pass for a point.
func TestSound(t *testing.T) {
	f := func(r record, ok bool) {
		t.Helper()
		if err := sound(r); (err == nil) != ok {
			t.Errorf("point %d: got %v", r.ID, err)
		}
	}
	whole := func(id, version uint64) record {
		v := vectorOf(id, version)
		return record{ID: id, Vector: v, Payload: &payload{Version: version, Sum: sumOf(id, version, v)}}
	}
	f(whole(7, 1), true)
	torn := whole(7, 2)
	torn.Vector = vectorOf(7, 1)
	f(torn, false)
	moved := whole(7, 2)
	moved.ID = 8
	f(moved, false)
	bare := whole(7, 2)
	bare.Payload = nil
	f(bare, false)
}
