package engine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/field"
	"github.com/vectord/vectord/storage"
)

// This file reads what filters do not ask of payload indexes: which values there are, and points in the order of them.

// valueCount is a value of a field and how many points have it.
type valueCount struct {
	value vectord.Scalar
	count int
}

// valueCounts returns the values of a field by ascending value, bools before numbers before strings, and how many of the
// points found have each: all of them and exactly, if the caller keeps writers out. found is nil for all points. The values are
// those that a match can name: strings, integers and bools; limits of the answer are the caller's. An error of KindInvalid says
// that there is no index that has them.
func (s *shard) valueCounts(store *storage.Store, d *fieldDef, found *matches) ([]valueCount, error) {
	var among *roaring.Bitmap
	if found != nil {
		among = roaring.FromDense(found.slots.bits, true)
	}
	s.fields.mu.RLock()
	x := s.fields.byNumber(d.Number)
	if x == nil || !x.ready {
		s.fields.mu.RUnlock()
		return nil, noIndex(d.Name, "that lists its values and is ready")
	}
	var counts []valueCount
	var long []uint32 // of strings whose term does not hold all, slots that have them
	for _, r := range []field.Range{field.Bools, field.Numbers, field.Strings, field.UUIDs} {
		x.postings.Ascend(r.From, r.To, func(term string, slots field.Slots) bool {
			n := slots.Count()
			if among != nil {
				n = slots.CountIn(among)
			}
			if n == 0 {
				return true
			}
			value, ok := scalarOf(term)
			if !ok {
				long = slots.AppendTo(long)
			} else if value.Kind != 0 {
				counts = append(counts, valueCount{value, n})
			}
			return true
		})
	}
	s.fields.mu.RUnlock()
	if len(long) > 0 {
		more, err := s.longCounts(store, d, long, found)
		if err != nil {
			return nil, err
		}
		counts = append(counts, more...)
	}
	slices.SortFunc(counts, func(a, b valueCount) int { return compareScalars(a.value, b.value) })
	return counts, nil
}

// longCounts counts the strings of the slots whose terms do not hold all of them, by their payloads.
func (s *shard) longCounts(store *storage.Store, d *fieldDef, slots []uint32, found *matches) ([]valueCount, error) {
	slices.Sort(slots)
	byString := map[string]int{}
	for _, slot := range slices.Compact(slots) {
		p, ok := s.slots.get(slot)
		if !ok || found != nil && !found.slots.bits.Contains(slot) {
			continue
		}
		row, ok, err := store.Point(s.id, p.id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		seen := map[string]bool{}
		if err := eachString(d.path, row.Payload, func(text string) {
			if len(text) > field.StringBytesMax && !seen[text] {
				seen[text] = true
				byString[text]++
			}
		}); err != nil {
			return nil, err
		}
	}
	counts := make([]valueCount, 0, len(byString))
	for text, n := range byString {
		counts = append(counts, valueCount{vectord.Scalar{Kind: vectord.ScalarString, String: text}, n})
	}
	return counts, nil
}

// eachString calls fn with the strings at a path of a payload.
func eachString(at path, payload []byte, fn func(string)) error {
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return err
	}
	anyElement(at, v, func(e *fastjson.Value) bool {
		if e.Type() == fastjson.TypeString {
			fn(string(e.GetStringBytes()))
		}
		return false
	})
	return nil
}

// scalarOf returns the value of a term, of kind 0 if it is none that a match can name; ok is false if the term does not hold
// all of it.
func scalarOf(term string) (s vectord.Scalar, ok bool) {
	if b, ok := field.BoolOf(term); ok {
		return vectord.Scalar{Kind: vectord.ScalarBool, Bool: b}, true
	}
	if n, integer, ok := field.NumberOf(term); ok {
		if i, fits := n.Int64(); integer && fits {
			return vectord.Scalar{Kind: vectord.ScalarInt, Int: i}, true
		}
		return vectord.Scalar{}, true
	}
	text, ok := field.Text(term)
	return vectord.Scalar{Kind: vectord.ScalarString, String: text}, ok
}

func compareScalars(a, b vectord.Scalar) int {
	order := map[vectord.ScalarKind]int{vectord.ScalarBool: 0, vectord.ScalarInt: 1, vectord.ScalarString: 2}
	rank := func(s vectord.Scalar) int {
		if s.Bool {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(order[a.Kind], order[b.Kind]), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Int, b.Int), cmp.Compare(a.String, b.String))
}

func noIndex(name, which string) error {
	return vectord.Errorf(vectord.KindInvalid, "there is no payload index on %q %s", name, which)
}

// orderedSlot is a slot and one of its values in the order of an index.
type orderedSlot struct {
	slot  uint32
	value vectord.Number // of a moment its microseconds
}

// inOrder returns the first of the slots that match, by the values of a field, ascending or descending, and slots of one
// value by ascending slot: those of the first limit values at least, so that the caller can put points of one value into
// another order. A slot with several values comes with each. from, if not nil, is the value to begin at. found is nil for all
// points. An error of KindInvalid says that there is no index with an order.
func (s *shard) inOrder(d *fieldDef, found *matches, descending bool, from *vectord.Number, limit int) ([]orderedSlot, error) {
	all := field.Numbers
	bound := func(n vectord.Number) field.Range { // the terms of n itself
		return field.NumbersIn(&vectord.Range{GTE: &n, LTE: &n})
	}
	switch d.Schema.Type {
	case vectord.FieldInteger, vectord.FieldFloat:
	case vectord.FieldDatetime:
		all = field.Times
		bound = func(n vectord.Number) field.Range {
			micros, ok := n.Int64()
			if !ok {
				micros = int64(n.Float64()) // beyond all moments either way
			}
			moment := vectord.Datetime(micros)
			return field.TimesIn(&vectord.DatetimeRange{GTE: &moment, LTE: &moment})
		}
	default:
		return nil, noIndex(d.Name, "of type integer, float or datetime")
	}
	if from != nil && descending {
		all.To = bound(*from).To
	} else if from != nil {
		all.From = bound(*from).From
	}
	s.fields.mu.RLock()
	defer s.fields.mu.RUnlock()
	x := s.fields.byNumber(d.Number)
	if x == nil || !x.ready {
		return nil, noIndex(d.Name, "that is ready")
	}
	var ordered []orderedSlot
	var slots []uint32
	var last vectord.Number
	first := 0 // of the last value
	each := func(term string, of field.Slots) bool {
		value, err := numberOfTerm(term)
		if err != nil {
			panic(err) // the ranges hold no other terms
		}
		again := value == last // 1 and 1.0 are one value of two terms
		if !again {
			if len(ordered) >= limit {
				return false
			}
			last, first = value, len(ordered)
		}
		slots = of.AppendTo(slots[:0])
		for _, slot := range slots {
			if found == nil || found.slots.bits.Contains(slot) {
				ordered = append(ordered, orderedSlot{slot, value})
			}
		}
		if again {
			slices.SortFunc(ordered[first:], func(a, b orderedSlot) int { return cmp.Compare(a.slot, b.slot) })
			ordered = ordered[:first+len(slices.Compact(ordered[first:]))]
		}
		return true
	}
	if descending {
		x.postings.Descend(all.From, all.To, each)
	} else {
		x.postings.Ascend(all.From, all.To, each)
	}
	return ordered, nil
}

func numberOfTerm(term string) (vectord.Number, error) {
	if n, _, ok := field.NumberOf(term); ok {
		return n, nil
	}
	if moment, ok := field.TimeOf(term); ok {
		return vectord.IntNumber(int64(moment)), nil
	}
	return vectord.Number{}, fmt.Errorf("term %q is of no number and no moment", term)
}
