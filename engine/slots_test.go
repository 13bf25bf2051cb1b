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

// TestAllocatorLetsSlotsRest checks that most slots have been free for a while when they are given again, and that they are
// given again at all.
func TestAllocatorLetsSlotsRest(t *testing.T) {
	const live, updates, soon = 50_000, 100_000, 300
	a := &allocator{}
	slots := make([]uint32, live)
	for i := range slots {
		slots[i] = a.allocate(uint64(i))
	}
	freed := map[uint32]int{}
	early := 0
	rng := rand.New(rand.NewPCG(1, 2))
	for update := range updates {
		slot := a.allocate(uint64(live + update))
		if at, ok := freed[slot]; ok && update-at < soon {
			early++
		}
		i := rng.IntN(live)
		a.release(slots[i])
		freed[slots[i]] = update
		slots[i] = slot
	}
	if early > updates/5 {
		t.Errorf("%d of %d slots were given again within %d updates", early, updates, soon)
	}
	if most := uint32(live + live/freeSlotsShare + live/100); a.next > most {
		t.Errorf("%d slots for %d points, expected at most %d", a.next, live, most)
	}
}

// TestAllocatorIsAFunctionOfTheLiveSlots compares an allocator that lived through a history with one loaded from what is
// live at its end: a restart must not change which slots come next.
func TestAllocatorIsAFunctionOfTheLiveSlots(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		lived := &allocator{}
		live := map[uint32]bool{}
		for entry := range uint64(6000) {
			if (entry < 3000) == (rng.IntN(8) != 0) {
				slot := lived.allocate(entry)
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
		loaded := &allocator{}
		for slot := range uint32(6000) {
			if live[slot] {
				loaded.load(slot)
			}
		}
		for entry := range uint64(300) {
			if a, b := lived.allocate(entry), loaded.allocate(entry); a != b {
				t.Fatalf("seed %d: %d after the history, %d after loading its end", seed, a, b)
			}
		}
	}
}
