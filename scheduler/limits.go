package scheduler

import (
	"slices"

	"golang.org/x/time/rate"

	"github.com/vectord/vectord"
)

// limiter limits how fast tasks are leased. The zero value limits nothing.
type limiter struct{ rate *rate.Limiter }

func newLimiter(l vectord.RateLimit) limiter {
	if l.PerSecond <= 0 {
		return limiter{}
	}
	return limiter{rate.NewLimiter(rate.Limit(l.PerSecond), max(l.Burst, 1))}
}

func (l limiter) full(now int64) bool {
	return l.rate != nil && l.rate.TokensAt(vectord.Timestamp(now).Time()) < 1
}

func (l limiter) spend(now int64) {
	if l.rate != nil {
		l.rate.AllowN(vectord.Timestamp(now).Time(), 1)
	}
}

// keyLimit is what the tasks of one fairness key take of a queue.
type keyLimit struct {
	inFlight int
	limiter  limiter
}

// keysMax bounds the fairness keys whose rates are remembered while they have no leases.
const keysMax = 10_000

// follow makes what the queue's configuration asks for.
func (q *queue) follow() {
	q.limiter = newLimiter(q.config.RateLimit)
	for _, k := range q.keys {
		k.limiter = newLimiter(q.config.Fairness.RateLimitPerKey)
	}
}

func (q *queue) key(name string) *keyLimit {
	k := q.keys[name]
	if k == nil {
		if len(q.keys) >= keysMax {
			for other, l := range q.keys {
				if l.inFlight == 0 {
					delete(q.keys, other)
				}
			}
		}
		k = &keyLimit{limiter: newLimiter(q.config.Fairness.RateLimitPerKey)}
		q.keys[name] = k
	}
	return k
}

// limitsKeys reports whether fairness keys are limited.
func (q *queue) limitsKeys() bool {
	return q.config.Fairness.MaxInFlightPerKey > 0 || q.config.Fairness.RateLimitPerKey.PerSecond > 0
}

// hold and letGo count leases; reserved ones count from the reservation on.
// They are counted while nothing is limited too, as there may be a limit by the time at which they end.
func (q *queue) hold(t *task) { q.key(t.new.FairnessKey).inFlight++ }

func (q *queue) letGo(t *task) {
	k := q.keys[t.new.FairnessKey]
	if k.inFlight--; k.inFlight == 0 && !q.limitsKeys() {
		delete(q.keys, t.new.FairnessKey)
	}
}

// limited says whether a limit of the queue keeps all of its tasks, or the limit of a key this one.
func (q *queue) limited(t *task, reserved int, now int64) (all, this bool) {
	if most := q.config.MaxInFlight; most > 0 && q.counts[vectord.TaskRunning]+reserved >= most {
		return true, true
	}
	if q.limiter.full(now) {
		return true, true
	}
	if !q.limitsKeys() {
		return false, false
	}
	k := q.key(t.new.FairnessKey)
	most := q.config.Fairness.MaxInFlightPerKey
	return false, most > 0 && k.inFlight >= most || k.limiter.full(now)
}

// runTimesKept is of how many attempts the median run time is taken.
const runTimesKept = 101

// runTimes are the last run times of a queue's tasks, in milliseconds.
type runTimes struct {
	last   []int64
	at     int
	median float64
	since  int // additions since the median was taken
}

func (r *runTimes) add(millis int64) {
	if len(r.last) < runTimesKept {
		r.last = append(r.last, millis)
	} else {
		r.last[r.at] = millis
		r.at = (r.at + 1) % runTimesKept
	}
	if r.since++; r.since >= len(r.last)/8+1 {
		r.since = 0
		sorted := slices.Sorted(slices.Values(r.last))
		r.median = float64(sorted[len(sorted)/2])
	}
}

// reference returns what counts as a long run time in a queue, in milliseconds; 0: that is not known.
func (q *queue) reference() float64 {
	if ms := q.config.Routing.LatencyReferenceMS; ms > 0 {
		return float64(ms)
	}
	return q.runTimes.median
}
