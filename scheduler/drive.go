package scheduler

import (
	"context"
	"time"

	"github.com/vectord/vectord"
)

const (
	// driveAtLeast is how often the driver looks at the timers, whatever it was told.
	driveAtLeast = time.Second
	// retryProposal is how long it waits after a command that was not taken.
	retryProposal = 100 * time.Millisecond
	// sweepEvery is how often what has been kept long enough is looked for, and sweepBatch how much of it one command drops.
	sweepEvery = 10 * time.Second
	sweepBatch = 1_000
)

// drive has happen what is due: by a command that brings the time, or in memory.
func (s *Scheduler) drive(l *leadership) {
	for l.stop.Err() == nil {
		if r, err := s.log.Propose(l.stop, []byte{byte(commandElected)}); err == nil && r.Err == nil {
			close(l.elected)
			break
		}
		s.pause(l, retryProposal)
	}
	for l.stop.Err() == nil {
		s.mu.Lock()
		now := s.now()
		_, due := s.timers.next()
		_, volatile := s.volatile.timers.next()
		s.driven, s.volatile.driven = due, volatile
		s.mu.Unlock()
		if volatile != 0 && volatile <= now {
			s.inMemory(func(x *tx) {
				if err := x.advance(&s.volatile.timers); err != nil {
					s.o.Logger.Error("tasks that are in memory only", "error", err)
				}
			})
			continue
		}
		if due != 0 && due <= now {
			if _, err := s.propose(l.stop, []byte{byte(commandTick)}); err != nil {
				s.pause(l, retryProposal)
			}
			continue
		}
		wait := driveAtLeast
		for _, at := range [...]int64{due, volatile} {
			if at != 0 {
				wait = min(wait, millis(at-now))
			}
		}
		s.pause(l, wait)
	}
}

// wakeDriver has the driver look at the timers.
func (s *Scheduler) wakeDriver() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pause waits until it is time, the timers have changed, or the leadership ends.
func (s *Scheduler) pause(l *leadership, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.wake:
	case <-l.stop.Done():
	}
}

// sweep drops what has been kept long enough.
func (s *Scheduler) sweep(l *leadership) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	next := int64(0) // before which nothing can have become old enough
	for {
		select {
		case <-tick.C:
			now := s.now()
			if err := s.sweepStates(l.stop, now); err != nil {
				s.o.Logger.Warn("states that have expired are dropped later", "error", err)
			}
			if now < next {
				continue
			}
			var err error
			if next, err = s.sweepTasks(l.stop, now); err != nil {
				s.o.Logger.Warn("tasks that have been kept long enough are dropped later", "error", err)
			}
		case <-l.stop.Done():
			return
		}
	}
}

func (s *Scheduler) sweepStates(ctx context.Context, now int64) error {
	s.mu.Lock()
	keys := s.states.expired(now, sweepBatch)
	s.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	_, err := s.propose(ctx, encodeJSON(commandPurge, purge{States: keys}))
	return err
}

// sweepTasks drops terminal tasks and idempotency keys, and returns when there may be more.
func (s *Scheduler) sweepTasks(ctx context.Context, now int64) (next int64, err error) {
	next = now + int64(time.Hour/time.Millisecond)
	var p purge
	flush := func(atLeast int) error {
		if len(p.Tasks)+len(p.Keys) < atLeast {
			return nil
		}
		_, err := s.propose(ctx, encodeJSON(commandPurge, p))
		p = purge{}
		return err
	}
	err = s.store.ScanRows(tableHeader, nil, func(key, row []byte) (bool, error) {
		if len(row) < 2 || !vectord.TaskStatus(row[1]).Terminal() {
			return true, flush(sweepBatch)
		}
		id, err := taskKey(key)
		if err != nil {
			return false, err
		}
		number, _, h, err := decodeHeader(row)
		if err != nil {
			return false, err
		}
		expires := h.updated + int64(s.resultTTL(number))*1000
		if expires <= now {
			p.Tasks = append(p.Tasks, id)
		} else {
			next = min(next, expires)
		}
		return true, flush(sweepBatch)
	})
	if err != nil {
		return 0, err
	}
	err = s.store.ScanRows(tableKey, nil, func(key, row []byte) (bool, error) {
		e, err := decodeSubmitted(row)
		if err != nil {
			return false, err
		}
		s.mu.Lock()
		expired := s.keyExpired(key, e, now)
		s.mu.Unlock()
		if expired {
			p.Keys = append(p.Keys, append([]byte(nil), key...))
		}
		return true, flush(sweepBatch)
	})
	if err != nil {
		return 0, err
	}
	return min(next, now+s.shortestTTL()), flush(1)
}

func (s *Scheduler) resultTTL(queue uint32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queueByID[queue]; q != nil {
		return q.config.ResultTTLSeconds
	}
	return vectord.DefaultQueueConfig().ResultTTLSeconds
}

// shortestTTL returns for how long anything is kept at least that has come to its end, in milliseconds.
func (s *Scheduler) shortestTTL() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	shortest := vectord.DefaultQueueConfig().ResultTTLSeconds
	for _, q := range s.queues {
		shortest = min(shortest, q.config.ResultTTLSeconds, q.config.IdempotencyWindowSeconds)
	}
	return int64(shortest) * 1000
}
