package crash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	clients = 8

	// Points of three kinds, told apart by their ids: untouched ones from 1 on, points that one client owns, and points
	// that all clients write.
	ownedBase     = 1 << 32
	ownedEach     = 64 // points of one client
	groups        = 8  // of a client's points, each selected as a whole by filters
	sharedBase    = 1 << 33
	sharedPoints  = 32
	loadBatch     = 500
	restartLimit  = 5 * time.Second // from the start of a process to its being ready
	loadMin       = 20 * time.Millisecond
	loadMax       = 600 * time.Millisecond
	recoveryMax   = 200 * time.Millisecond
	problemsShown = 20
	searchSamples = 16
	searchLimit   = 10
)

// history is everything that the test knows about the points of a data directory, over the lives of many processes.
type history struct {
	random    *rand.Rand // for the test's own choices; each client has one of its own
	untouched int        // points 1 … untouched, all of version 1
	writers   []*writer
	shared    *register
	versions  atomic.Uint64 // the last version given to a write; 1 is the untouched points'
}

// writer is one client.
type writer struct {
	number        int
	random        *rand.Rand
	ledger        *ledger
	lastOperation uint64 // the place in the log of this client's last acknowledged write
	acknowledged  int
}

func newHistory(seed uint64, untouched int) *history {
	h := &history{random: rand.New(rand.NewPCG(seed, clients)), untouched: untouched, shared: newRegister()}
	h.versions.Store(1)
	for i := range clients {
		h.writers = append(h.writers, &writer{
			number: i,
			random: rand.New(rand.NewPCG(seed, uint64(i))),
			ledger: newLedger(),
		})
	}
	return h
}

// fill creates the collection and writes the untouched points, and waits for the graph to have them.
func (h *history) fill(ctx context.Context, a *api) error {
	if err := a.createCollection(ctx); err != nil {
		return err
	}
	for first := 1; first <= h.untouched; first += loadBatch {
		var points []object
		for id := first; id < first+loadBatch && id <= h.untouched; id++ {
			points = append(points, point(uint64(id), 1, nobody, 0))
		}
		if _, err := a.write(ctx, http.MethodPut, "/points", object{"points": points}); err != nil {
			return err
		}
	}
	return a.waitIndexed(ctx)
}

// point is a point as it is sent.
func point(id, version uint64, client, group int) object {
	v := vectorOf(id, version)
	return object{"id": id, "vector": v,
		"payload": payload{Client: client, Group: group, Version: version, Sum: sumOf(id, version, v)}}
}

// load lets all clients write until end has ended the server, and returns how many writes were acknowledged. Unanswered
// requests stay noted.
func (h *history) load(t *testing.T, server *process, end func()) int {
	t.Helper()
	a := newAPI(server.url)
	defer a.client.CloseIdleConnections()
	var ending atomic.Bool
	var group sync.WaitGroup
	before := h.acknowledged()
	for _, w := range h.writers {
		group.Go(func() {
			for {
				err := w.step(t.Context(), a, h)
				switch {
				case err == nil:
				case ending.Load() && !isRefusal(err):
					return // the server is gone, and what became of the request is open
				case isRefusal(err, http.StatusServiceUnavailable) && ending.Load():
					return // the same: it may have been refused before or after it was in the log
				default:
					t.Errorf("client %d: %v", w.number, err)
					return
				}
			}
		})
	}
	time.Sleep(h.between(loadMin, loadMax))
	ending.Store(true)
	end()
	group.Wait()
	return h.acknowledged() - before
}

// between returns a random time from low up to high.
func (h *history) between(low, high time.Duration) time.Duration {
	return low + time.Duration(h.random.Int64N(int64(high-low)))
}

func (h *history) acknowledged() (n int) {
	for _, w := range h.writers {
		n += w.acknowledged
	}
	return n
}

// isRefusal reports whether err is a refusal, with one of the given statuses if there are any.
func isRefusal(err error, statuses ...int) bool {
	var r *refusal
	return errors.As(err, &r) && (len(statuses) == 0 || slices.Contains(statuses, r.status))
}

// step sends one write and notes its outcome.
func (w *writer) step(ctx context.Context, a *api, h *history) error {
	var (
		method, path string
		body         object
		end          func(done bool)
		selects      = true // whether there is a point that the operation is about
	)
	if w.random.IntN(5) == 0 {
		method, path, body, end = w.sharedChange(h)
	} else {
		var after map[uint64]state
		method, path, body, after = w.ownChange(h)
		selects = len(after) > 0
		w.ledger.begin(after)
		end = w.ledger.end
	}
	operation, err := a.write(ctx, method, path, body)
	if isRefusal(err, http.StatusTooManyRequests) {
		end(false)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	end(true)
	w.acknowledged++
	if operation == 0 && !selects {
		return nil // a filter that matched nothing, for which the log was not troubled
	}
	if operation <= w.lastOperation {
		return fmt.Errorf("%s %s: operation %d is not after %d, which this client was given before", method, path, operation, w.lastOperation)
	}
	w.lastOperation = operation
	return nil
}

// sharedChange makes a change of points that other clients change at the same time.
func (w *writer) sharedChange(h *history) (method, path string, body object, end func(bool)) {
	ids := w.choose(1+w.random.IntN(4), sharedPoints, sharedBase)
	if w.random.IntN(4) == 0 {
		return http.MethodPost, "/points/delete", object{"points": ids}, h.shared.begin(ids, 0)
	}
	version := h.versions.Add(1)
	var points []object
	for _, id := range ids {
		points = append(points, point(id, version, nobody, 0))
	}
	return http.MethodPut, "/points", object{"points": points}, h.shared.begin(ids, version)
}

// ownChange makes a change of the client's own points and says what it will make of them.
func (w *writer) ownChange(h *history) (method, path string, body object, after map[uint64]state) {
	after = map[uint64]state{}
	base := uint64(ownedBase + w.number*ownedEach)
	group := w.random.IntN(groups)
	inGroup := w.ownFilter(group)
	live := w.live()

	// changeLive notes a change of the notes of live points.
	changeLive := func(ids []uint64, note uint64) {
		for _, id := range ids {
			after[id] = state{version: w.ledger.acked[id].version, note: note}
		}
	}
	kind := w.random.IntN(20)
	if len(live) < ownedEach/4 {
		kind = 0 // write points before there are none left to change
	}
	some := func(n int) []uint64 { // n of the live points or all of them
		w.random.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
		return live[:min(n, len(live))]
	}
	switch {
	case kind < 9: // new points and overwritten ones
		version := h.versions.Add(1)
		var points []object
		for _, id := range w.choose(1+w.random.IntN(16), ownedEach, base) {
			points = append(points, point(id, version, w.number, int(id%groups)))
			after[id] = state{version: version}
		}
		return http.MethodPut, "/points", object{"points": points}, after
	case kind < 11: // ids that do not exist among them
		ids := w.choose(1+w.random.IntN(6), ownedEach, base)
		for _, id := range ids {
			after[id] = state{}
		}
		return http.MethodPost, "/points/delete", object{"points": ids}, after
	case kind < 13:
		for _, id := range live {
			if int(id%groups) == group {
				after[id] = state{}
			}
		}
		return http.MethodPost, "/points/delete", object{"filter": inGroup}, after
	case kind < 15:
		note, ids := h.versions.Add(1), some(8)
		changeLive(ids, note)
		return http.MethodPost, "/points/payload", object{"payload": object{"note": note}, "points": ids}, after
	case kind < 17:
		note := h.versions.Add(1)
		changeLive(slices.DeleteFunc(live, func(id uint64) bool { return int(id%groups) != group }), note)
		return http.MethodPost, "/points/payload", object{"payload": object{"note": note}, "filter": inGroup}, after
	case kind < 18:
		ids := some(4)
		changeLive(ids, 0)
		return http.MethodPost, "/points/payload/delete", object{"keys": []string{"note"}, "points": ids}, after
	default: // the whole payload of one point
		note, ids := h.versions.Add(1), some(1)
		changeLive(ids, note)
		version := after[ids[0]].version
		return http.MethodPut, "/points/payload", object{"points": ids, "payload": payload{
			Client: w.number, Group: int(ids[0] % groups), Version: version,
			Sum: sumOf(ids[0], version, vectorOf(ids[0], version)), Note: note}}, after
	}
}

// ownFilter selects one group of the client's points.
func (w *writer) ownFilter(group int) object {
	return object{"must": []object{
		{"key": "client", "match": object{"value": w.number}},
		{"key": "group", "match": object{"value": group}},
	}}
}

// live returns the client's points that exist, in ascending order, so that choices among them depend on the seed only.
func (w *writer) live() []uint64 {
	var ids []uint64
	for id, s := range w.ledger.acked {
		if s.version != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// choose returns n distinct ids of the count that begin at base.
func (w *writer) choose(n, count int, base uint64) []uint64 {
	ids := make([]uint64, n)
	for i, offset := range w.random.Perm(count)[:n] {
		ids[i] = base + uint64(offset)
	}
	return ids
}

// verify reads everything that the server has and returns what is wrong with it. What was open before is settled after.
func (h *history) verify(ctx context.Context, a *api) (problems []string, err error) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	observed := map[uint64]state{}
	untouched, points := 0, 0
	var last uint64
	err = a.scroll(ctx, func(r record) {
		points++
		if _, twice := observed[r.ID]; twice || points > 1 && r.ID <= last {
			complain("point %d comes after point %d: it is there twice, or out of order", r.ID, last)
		}
		last = r.ID
		if err := sound(r); err != nil {
			complain("%v", err)
			return
		}
		observed[r.ID] = state{version: r.Payload.Version, note: r.Payload.Note}
		switch {
		case r.ID <= uint64(h.untouched) && r.ID > 0:
			untouched++
			if r.Payload.Version != 1 || r.Payload.Note != 0 {
				complain("untouched point %d has changed: %+v", r.ID, *r.Payload)
			}
		case !h.known(r.ID):
			complain("point %d was never written", r.ID)
		}
	})
	if err != nil {
		return problems, err
	}
	if untouched != h.untouched {
		complain("%d untouched points are left of %d", untouched, h.untouched)
	}
	if n, err := a.count(ctx); err != nil {
		return problems, err
	} else if n != points {
		complain("count says %d points, scroll found %d", n, points)
	}
	for _, w := range h.writers {
		problems = append(problems, w.ledger.check(observed)...)
	}
	problems = append(problems, h.shared.check(observed)...)

	found, err := h.verifySearch(ctx, a, observed)
	if err != nil {
		return problems, err
	}
	problems = append(problems, found...)

	for _, w := range h.writers {
		w.ledger.settle(observed)
	}
	h.shared.settle(observed)
	return problems, nil
}

// known reports whether any client may have written the point.
func (h *history) known(id uint64) bool {
	return id >= ownedBase && id < ownedBase+clients*ownedEach || id >= sharedBase && id < sharedBase+sharedPoints
}

// verifySearch asks the index about a sample of what the store has: points that are there are found at distance 0, and
// whatever is found is there, once, as the store has it.
func (h *history) verifySearch(ctx context.Context, a *api, observed map[uint64]state) (problems []string, err error) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, w := range h.writers {
		ids := w.choose(searchSamples/2, ownedEach, ownedBase+uint64(w.number*ownedEach))
		ids = append(ids, w.choose(searchSamples/4, sharedPoints, sharedBase)...)
		for _, id := range ids {
			version := observed[id].version
			if version == 0 {
				version = w.ledger.acked[id].version // where the point was, if it was deleted unanswered
			}
			for _, exact := range []bool{true, false} {
				hits, err := a.nearest(ctx, vectorOf(id, version), searchLimit, exact)
				if err != nil {
					return problems, err
				}
				if exact && observed[id].version != 0 && (len(hits) == 0 || hits[0].ID != id || hits[0].Score != 0) {
					complain("point %d is there, but an exact search for its vector does not find it first: %v", id, describe(hits))
				}
				seen := map[uint64]bool{}
				for _, hit := range hits {
					if err := sound(hit); err != nil {
						complain("found by search: %v", err)
					} else if (state{hit.Payload.Version, hit.Payload.Note}) != observed[hit.ID] {
						complain("search found point %d as %+v, the store has it as %v", hit.ID, *hit.Payload, observed[hit.ID])
					}
					if seen[hit.ID] {
						complain("search found point %d twice: %v", hit.ID, describe(hits))
					}
					seen[hit.ID] = true
				}
				if !slices.IsSortedFunc(hits, func(a, b record) int { return cmp.Compare(a.Score, b.Score) }) {
					complain("hits are out of order: %v", describe(hits))
				}
			}
		}
	}
	return problems, nil
}

func describe(hits []record) (s []string) {
	for _, hit := range hits {
		s = append(s, fmt.Sprintf("%d:%g", hit.ID, hit.Score))
	}
	return s
}

// mustVerify fails the test, with everything that is needed to look into it, if anything is wrong.
func (h *history) mustVerify(t *testing.T, server *process) {
	t.Helper()
	a := newAPI(server.url)
	defer a.client.CloseIdleConnections()
	problems, err := h.verify(t.Context(), a)
	for _, p := range problems[:min(len(problems), problemsShown)] {
		t.Error(p)
	}
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	if t.Failed() {
		t.Fatalf("%d problems; the server said:\n%s", len(problems), server.output)
	}
}

// number reads a setting from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, s)
	}
	return n
}

// begin starts a server on an empty directory, with the untouched points in it. The server has been stopped and started
// once, which leaves a checkpoint of the graph.
func begin(t *testing.T, dir string) (*process, *history) {
	t.Helper()
	seed := number(t, "CRASH_SEED", rand.Uint64())
	points := int(number(t, "CRASH_POINTS", 2000))
	t.Logf("CRASH_SEED=%d CRASH_POINTS=%d", seed, points)
	server := start(t, dir)
	server.waitReady(t)
	h := newHistory(seed, points)
	a := newAPI(server.url)
	defer a.client.CloseIdleConnections()
	if err := h.fill(t.Context(), a); err != nil {
		t.Fatalf("fill the collection: %v\n%s", err, server.output)
	}
	return restart(t, server, dir), h
}

// restart stops the server as it should be stopped and starts it again.
func restart(t *testing.T, server *process, dir string) *process {
	t.Helper()
	server.terminate(t)
	server = start(t, dir)
	server.waitReady(t)
	return server
}

// TestKill kills the server under load, again and again on the same data, now and then once more while it recovers. Now
// and then it is stopped cleanly in between, so that kills find checkpoints of any age.
func TestKill(t *testing.T) {
	rounds := int(number(t, "CRASH_ROUNDS", 30))
	if testing.Short() {
		rounds = min(rounds, 3)
	}
	dir := t.TempDir()
	server, h := begin(t, dir)
	var restarts []time.Duration
	for round := range rounds {
		acknowledged := h.load(t, server, server.kill)
		if h.random.IntN(5) == 0 {
			recovering := start(t, dir)
			time.Sleep(h.between(0, recoveryMax))
			recovering.kill()
		}
		server = start(t, dir)
		took := server.waitReady(t)
		restarts = append(restarts, took)
		if took > restartLimit {
			t.Errorf("round %d: the server took %v to be ready, at most %v is promised", round+1, took, restartLimit)
		}
		h.mustVerify(t, server)
		if (round+1)%10 == 0 {
			t.Logf("round %d: %d writes acknowledged, ready after %v", round+1, acknowledged, took.Round(time.Millisecond))
		}
		if h.random.IntN(5) == 0 {
			server = restart(t, server, dir)
		}
	}
	server.terminate(t)
	slices.Sort(restarts)
	t.Logf("%d kills, %d writes acknowledged, none lost; restart to ready: median %v, longest %v", rounds, h.acknowledged(),
		restarts[len(restarts)/2].Round(time.Millisecond), restarts[len(restarts)-1].Round(time.Millisecond))
}

// TestTerminate asks the server to stop under load: it ends in time, cleanly, and with everything that it acknowledged.
func TestTerminate(t *testing.T) {
	dir := t.TempDir()
	server, h := begin(t, dir)
	var took time.Duration
	acknowledged := h.load(t, server, func() { took = server.terminate(t) })
	t.Logf("stopped in %v under load, %d writes acknowledged", took.Round(time.Millisecond), acknowledged)
	server = start(t, dir)
	server.waitReady(t)
	h.mustVerify(t, server)
	server.terminate(t)
}
