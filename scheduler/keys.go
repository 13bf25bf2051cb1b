package scheduler

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/vectord/vectord"
)

func taskKey(key []byte) (id vectord.TaskID, err error) {
	if len(key) != len(id) {
		return id, fmt.Errorf("key of a task with %d bytes", len(key))
	}
	copy(id[:], key)
	return id, nil
}

func queueKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func submissionKey(queue uint32, key [16]byte) []byte { return append(queueKey(queue), key[:]...) }

func decisionKey(id vectord.TaskID, attempt int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(nil), id[:]...), uint32(attempt))
}

func sortTasks(tasks []*task) {
	slices.SortFunc(tasks, func(a, b *task) int { return cmp.Compare(a.seq, b.seq) })
}

// newTaskIDs returns n ids of version 7 (RFC 9562) of one moment, rising.
func newTaskIDs(millis int64, n int) []vectord.TaskID {
	ids := make([]vectord.TaskID, n)
	random := make([]byte, 10*n)
	rand.Read(random)                                  // never fails
	counter := binary.BigEndian.Uint16(random) & 0x3ff // of the 12 bits behind the time, so that n more fit mostly
	for i := range ids {
		id := ids[i][:]
		c := counter + uint16(i)
		binary.BigEndian.PutUint64(id, uint64(millis+int64(c>>12))<<16|0x7000|uint64(c&0xfff))
		copy(id[8:], random[10*i:])
		id[8] = id[8]&0x3f | 0x80
	}
	return ids
}

// millis returns a number of milliseconds as a Duration.
func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
