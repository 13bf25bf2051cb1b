package engine

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

func TestSlotTable(t *testing.T) {
	var table slotTable
	if p, ok := table.get(0); ok {
		t.Fatalf("an empty table holds %v", p)
	}
	for slot, p := range map[uint32]slotPoint{
		0:    {vectord.NumberID(0), 1},
		4095: {vectord.NumberID(1<<64 - 1), 2},
		4096: {vectord.UUIDID([16]byte{1, 15: 2}), 1 << 40},
		9000: {vectord.UUIDID([16]byte{}), 3},
	} {
		table.set(slot, p)
		if got, ok := table.get(slot); !ok || got != p {
			t.Errorf("slot %d holds %v, %v; want %v", slot, got, ok, p)
		}
	}
	table.clear(4095)
	if p, ok := table.get(4095); ok {
		t.Errorf("a cleared slot holds %v", p)
	}
	if p, ok := table.get(5000); ok {
		t.Errorf("a slot never set holds %v", p)
	}
}

// TestAllocatorIsAFunctionOfTheLiveSlots compares an allocator that lived through a history with one loaded from what is
// live at its end: a restart must not change which slots come next.
func TestAllocatorIsAFunctionOfTheLiveSlots(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		lived := newAllocator()
		live := map[uint32]bool{}
		for range 500 {
			if rng.IntN(2) == 0 {
				slot := lived.allocate()
				if live[slot] {
					t.Fatalf("seed %d: slot %d was given twice", seed, slot)
				}
				live[slot] = true
				continue
			}
			for slot := range live {
				lived.release(slot)
				delete(live, slot)
				break
			}
		}
		loaded := newAllocator()
		for slot := range uint32(600) {
			if live[slot] {
				loaded.load(slot)
			}
		}
		for range 300 {
			if a, b := lived.allocate(), loaded.allocate(); a != b {
				t.Fatalf("seed %d: %d after the history, %d after loading its end", seed, a, b)
			}
		}
	}
}
