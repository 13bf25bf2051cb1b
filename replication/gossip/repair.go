package gossip

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

const (
	// repairMult bounds how often an item goes along with memberlist's gossip: this times ceil(log10(n+1)) for n nodes, to 3
	// nodes at a time. It is memberlist's own default.
	repairMult = 4
	repairMax  = 1024 // items

	// repairOverhead is what memberlist adds to messages that go along with others in one packet.
	repairOverhead = 16
)

// repairs are items that go along with memberlist's gossip, those first that went the fewest times. memberlist's own
// TransmitLimitedQueue, which is made for this, loses items of equal length: it hands out numbers anew when it has emptied
// itself to send, and what is put back takes the place of what has the same number.
type repairs struct {
	mult int

	mu    sync.Mutex // guards what follows; nothing else is locked under it
	items []*repair  // by sent, but for those added since the last take. At most repairMax.
	byKey map[pendingKey]*repair
}

type repair struct {
	key     pendingKey
	message []byte
	sent    int // how often it went
}

// add has a message sent along, in place of one with the same key. When there are too many, one that went often is dropped.
func (q *repairs) add(key pendingKey, message []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.byKey[key]; r != nil {
		r.message, r.sent = message, 0
		return
	}
	if q.byKey == nil {
		q.byKey = map[pendingKey]*repair{}
	}
	if last := len(q.items) - 1; last+1 >= repairMax {
		delete(q.byKey, q.items[last].key)
		q.items = slices.Delete(q.items, last, last+1)
	}
	r := &repair{key: key, message: message}
	q.byKey[key] = r
	q.items = slices.Insert(q.items, 0, r)
}

// take returns messages for one packet in a cluster of some nodes: with overhead for each, no more than limit bytes.
func (q *repairs) take(overhead, limit, nodes int) [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	times := q.mult * int(math.Ceil(math.Log10(float64(nodes+1))))
	slices.SortStableFunc(q.items, func(a, b *repair) int { return cmp.Compare(a.sent, b.sent) })
	var messages [][]byte
	q.items = slices.DeleteFunc(q.items, func(r *repair) bool {
		if size := overhead + len(r.message); size <= limit {
			limit -= size
			messages = append(messages, r.message)
			if r.sent++; r.sent >= times {
				delete(q.byKey, r.key)
				return true
			}
		}
		return false
	})
	return messages
}
