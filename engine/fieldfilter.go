package engine

import (
	"math"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/field"
)

// bounds say of a condition what the payload indexes know: it holds for the slots in sure, it may hold for those in maybe,
// and for no other. sure is a part of maybe. Where they are equal no payload needs to be read. The bitmaps may be shared
// and are never changed.
type bounds struct{ sure, maybe *roaring.Bitmap }

func exactly(b *roaring.Bitmap) bounds { return bounds{b, b} }

// evaluation evaluates a filter by the payload indexes of a shard. fieldIndexes.mu is held meanwhile.
type evaluation struct {
	live    *roaring.Bitmap
	none    *roaring.Bitmap
	indexes map[string]*fieldIndex // those ready, by the path of their definition
}

// evaluate returns bounds of the filter among the live slots, as plain sets: the slots for which it holds, and those whose
// payload must be asked. ok is false if no index would help.
func (f *fieldIndexes) evaluate(m *matcher) (sure slotSet, ask []uint32, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	b, ok := f.boundsOf(m)
	if !ok {
		return sure, nil, false
	}
	unsure := b.maybe.GetCardinality() - b.sure.GetCardinality()
	if unsure > askedAtLeast && unsure*readCost > f.live.GetCardinality() {
		return sure, nil, false
	}
	if !b.sure.IsEmpty() {
		sure.bits = b.sure.ToDense()
	}
	if unsure > 0 {
		ask = roaring.AndNot(b.maybe, b.sure).ToArray()
	}
	return sure, ask, true
}

// candidates returns the slots for which the filter may hold, and how many are in use; ok is false if that is all that is
// known.
func (f *fieldIndexes) candidates(m *matcher) (slots []uint32, live int, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	b, ok := f.boundsOf(m)
	live = int(f.live.GetCardinality())
	if !ok || int(b.maybe.GetCardinality()) == live {
		return nil, live, false
	}
	return b.maybe.ToArray(), live, true
}

// boundsOf evaluates the filter; ok is false if there are no indexes. f.mu is held.
func (f *fieldIndexes) boundsOf(m *matcher) (b bounds, ok bool) {
	e := evaluation{live: &f.live, none: roaring.New(), indexes: map[string]*fieldIndex{}}
	for _, x := range f.indexes {
		// The matcher was compiled for the indexes that there were, on which texts depend.
		if x.ready && (x.def.text == nil || m.knows(x.def.Number)) {
			e.indexes[x.def.key] = x
		}
	}
	if len(e.indexes) == 0 {
		return b, false
	}
	return e.filter(m.source), true
}

const (
	// readCost is how much longer it takes to read a payload by itself than in a scan of all; BenchmarkFilter measures it.
	readCost = 24
	// askedAtLeast payloads are always read rather than all.
	askedAtLeast = 64
)

// knows reports whether the matcher was compiled for an index.
func (m *matcher) knows(number uint16) bool {
	for _, d := range m.fields {
		if d.Number == number {
			return true
		}
	}
	return false
}

func (e *evaluation) unknown() bounds { return bounds{e.none, e.live} }

func (e *evaluation) not(b bounds) bounds {
	return bounds{roaring.AndNot(e.live, b.maybe), roaring.AndNot(e.live, b.sure)}
}

func and(a, b bounds) bounds {
	return bounds{roaring.And(a.sure, b.sure), roaring.And(a.maybe, b.maybe)}
}

func or(a, b bounds) bounds {
	return bounds{roaring.Or(a.sure, b.sure), roaring.Or(a.maybe, b.maybe)}
}

func (e *evaluation) filter(f *vectord.Filter) bounds {
	all := exactly(e.live)
	for i := range f.Must {
		all = and(all, e.condition(&f.Must[i]))
	}
	if len(f.Should) > 0 {
		all = and(all, e.atLeast(1, f.Should))
	}
	for i := range f.MustNot {
		all = and(all, e.not(e.condition(&f.MustNot[i])))
	}
	if f.MinShould != nil {
		all = and(all, e.atLeast(f.MinShould.Count, f.MinShould.Conditions))
	}
	return all
}

// atLeast returns where n of the conditions hold.
func (e *evaluation) atLeast(n int, conditions []vectord.Condition) bounds {
	if n > len(conditions) {
		return exactly(e.none)
	}
	held := make([]bounds, n+1) // held[i]: i of the conditions so far hold
	held[0] = exactly(e.live)
	for i := 1; i <= n; i++ {
		held[i] = exactly(e.none)
	}
	for i := range conditions {
		b := e.condition(&conditions[i])
		for k := min(i+1, n); k >= 1; k-- {
			held[k] = or(held[k], and(held[k-1], b))
		}
	}
	return held[n]
}

func (e *evaluation) condition(c *vectord.Condition) bounds {
	switch {
	case c.Filter != nil:
		return e.filter(c.Filter)
	case c.Nested != nil:
		return e.nested(c.Nested, "")
	case c.IsEmpty != "":
		if x := e.index(c.IsEmpty); x != nil {
			return exactly(roaring.AndNot(e.live, x.filled()))
		}
	case c.IsNull != "":
		if x := e.index(c.IsNull); x != nil {
			return exactly(x.postings.Of(field.Null))
		}
	case c.Field != nil:
		if x := e.index(c.Field.Key); x != nil {
			return e.field(x, c.Field)
		}
	}
	return e.unknown()
}

// index returns the index on a path, nil if there is none.
func (e *evaluation) index(text string) *fieldIndex {
	p, err := parsePath(text)
	if err != nil {
		return nil
	}
	return e.indexes[p.String()]
}

// nested bounds where an element of an array passes a filter from above: each of the conditions that it must pass holds for
// some element, if not for the same. Only conditions that one value decides are of use.
func (e *evaluation) nested(n *vectord.Nested, scope string) bounds {
	scope += strings.TrimSuffix(n.Key, "[]") + "[]."
	all := e.unknown()
	for i := range n.Filter.Must {
		c := &n.Filter.Must[i]
		switch {
		case c.Nested != nil:
			all = and(all, e.nested(c.Nested, scope))
		case c.Field != nil && c.Field.IsEmpty == nil && c.Field.IsNull == nil && c.Field.ValuesCount == nil:
			if x := e.index(scope + c.Field.Key); x != nil {
				all = and(all, bounds{e.none, e.field(x, c.Field).maybe})
			}
		}
	}
	return all
}

// filled returns the slots for which is_empty does not hold.
func (x *fieldIndex) filled() *roaring.Bitmap {
	if x.postings.Count(field.Array) == 0 {
		return x.present
	}
	return roaring.Or(x.present, x.postings.Of(field.Array))
}

// other bounds a condition that only values without a term can pass.
func (e *evaluation) other(x *fieldIndex) bounds { return bounds{e.none, x.postings.Of(field.Other)} }

// field returns where one of the clauses of the condition holds.
func (e *evaluation) field(x *fieldIndex, f *vectord.FieldCondition) bounds {
	some := exactly(e.none)
	add := func(b bounds) { some = or(some, b) }
	if f.Match != nil {
		add(e.match(x, f.Match))
	}
	if f.Range != nil {
		switch x.def.Schema.Type {
		case vectord.FieldInteger, vectord.FieldFloat:
			add(exactly(x.ofRanges(field.NumbersIn(f.Range))))
		default:
			add(e.other(x))
		}
	}
	if f.Datetime != nil {
		switch x.def.Schema.Type {
		case vectord.FieldDatetime:
			add(exactly(x.ofRanges(field.TimesIn(f.Datetime))))
		case vectord.FieldKeyword, vectord.FieldUUID, vectord.FieldText:
			add(bounds{e.none, x.present})
		default:
			add(e.other(x))
		}
	}
	switch geo := x.def.Schema.Type == vectord.FieldGeo; {
	case f.GeoBox == nil && f.GeoRadius == nil && f.GeoPolygon == nil:
	case geo:
		add(e.places(x, f))
	default:
		add(e.other(x))
	}
	if f.ValuesCount != nil {
		add(e.count(x, f.ValuesCount))
	}
	if f.IsEmpty != nil {
		b := exactly(x.filled())
		if *f.IsEmpty {
			b = e.not(b)
		}
		add(b)
	}
	if f.IsNull != nil {
		b := exactly(x.postings.Of(field.Null))
		if !*f.IsNull {
			b = e.not(b)
		}
		add(b)
	}
	return some
}

// ofRanges returns the slots that have a term in one of the ranges.
func (x *fieldIndex) ofRanges(ranges ...field.Range) *roaring.Bitmap {
	return x.postings.OfRanges(ranges)
}

// count bounds a condition on the number of values.
func (e *evaluation) count(x *fieldIndex, r *vectord.CountRange) bounds {
	filled := x.filled()
	several := x.postings.Of(field.Several)
	b := bounds{e.none, e.live} // where none is enough, any slot may do: besides its values there may be an empty array
	if !r.Contains(0) {
		b.maybe = filled
		if !r.Contains(1) {
			b.maybe = roaring.And(filled, several)
		}
	}
	if r.Contains(1) {
		b.sure = roaring.AndNot(filled, several)
	}
	return b
}

func (e *evaluation) match(x *fieldIndex, m *vectord.Match) bounds {
	switch {
	case m.Value != nil:
		return e.anyOf(x, []vectord.Scalar{*m.Value})
	case m.Any != nil:
		return e.anyOf(x, *m.Any)
	case m.Except != nil:
		// A slot none of whose values may be excluded has another, and one whose only value is excluded has not.
		excluded := e.anyOf(x, *m.Except)
		single := roaring.AndNot(excluded.sure, x.postings.Of(field.Several))
		return bounds{roaring.AndNot(x.present, excluded.maybe), roaring.AndNot(x.present, single)}
	case m.Prefix != nil:
		return e.prefix(x, *m.Prefix)
	case x.def.text == nil:
		return e.someString(x)
	case m.Text != nil:
		return e.allTokens(x, x.def.text.QueryTokens(nil, *m.Text))
	case m.TextAny != nil:
		tokens := x.def.text.QueryTokens(nil, *m.TextAny)
		for i := range tokens {
			tokens[i] = field.Token(tokens[i])
		}
		return exactly(x.postings.Of(tokens...))
	default:
		tokens := x.def.text.QueryTokens(nil, *m.Phrase)
		b := e.allTokens(x, tokens)
		if len(tokens) > 1 {
			b.sure = e.none // the order is not known
		}
		return b
	}
}

// someString bounds a condition that only strings can pass.
func (e *evaluation) someString(x *fieldIndex) bounds {
	switch x.def.Schema.Type {
	case vectord.FieldKeyword, vectord.FieldUUID, vectord.FieldDatetime, vectord.FieldText:
		return bounds{e.none, x.present}
	}
	return e.other(x)
}

// anyOf bounds where a value equals one of the scalars.
func (e *evaluation) anyOf(x *fieldIndex, scalars []vectord.Scalar) bounds {
	var sure, maybe []string
	rest := false // some are only known to be among the values without a term
	all := bounds{e.none, e.none}
	for _, s := range scalars {
		switch t := x.def.Schema.Type; {
		case t == vectord.FieldKeyword && s.Kind == vectord.ScalarString, t == vectord.FieldUUID && s.Kind == vectord.ScalarString:
			term := field.String(s.String)
			if t == vectord.FieldUUID {
				term = uuidOrString(s.String)
			}
			if len(s.String) > field.StringBytesMax {
				maybe = append(maybe, term) // another string may have the same
			} else {
				sure = append(sure, term)
			}
		case (t == vectord.FieldInteger || t == vectord.FieldFloat) && s.Kind == vectord.ScalarInt:
			sure = append(sure, field.Number(vectord.IntNumber(s.Int), true))
		case t == vectord.FieldBool && s.Kind == vectord.ScalarBool:
			sure = append(sure, field.Bool(s.Bool))
		case t == vectord.FieldDatetime && s.Kind == vectord.ScalarString:
			if moment, ok := vectord.ParseDatetime(s.String); ok {
				maybe = append(maybe, field.Time(moment)) // which can be written in several ways
			} else {
				rest = true
			}
		case t == vectord.FieldText && s.Kind == vectord.ScalarString:
			if tokens := x.def.text.Tokens(nil, s.String); len(tokens) > 0 {
				all = or(all, bounds{e.none, e.allTokens(x, tokens).maybe})
			} else {
				rest = true
			}
		default:
			rest = true
		}
	}
	if rest {
		maybe = append(maybe, field.Other)
	}
	if len(sure) > 0 {
		all = or(all, exactly(x.postings.Of(sure...)))
	}
	if len(maybe) > 0 {
		all = or(all, bounds{e.none, x.postings.Of(maybe...)})
	}
	return all
}

// prefix bounds where a string begins with s.
func (e *evaluation) prefix(x *fieldIndex, s string) bounds {
	switch x.def.Schema.Type {
	case vectord.FieldKeyword:
		found := x.ofRanges(field.StringPrefix(s))
		if len(s) > field.StringBytesMax {
			return bounds{e.none, found}
		}
		return exactly(found)
	case vectord.FieldUUID:
		return bounds{e.none, x.ofRanges(field.StringPrefix(s), field.UUIDs)}
	}
	return e.someString(x)
}

// allTokens bounds where a value has all of the tokens. Without any nothing does.
func (e *evaluation) allTokens(x *fieldIndex, tokens []string) bounds {
	if len(tokens) == 0 {
		return exactly(e.none)
	}
	all := x.postings.Of(field.Token(tokens[0]))
	for _, token := range tokens[1:] {
		all.And(x.postings.Of(field.Token(token)))
	}
	if len(tokens) == 1 {
		return exactly(all)
	}
	// Of several values each may have some of them.
	return bounds{roaring.AndNot(all, x.postings.Of(field.Several)), all}
}

// places bounds where a place is in one of the areas.
func (e *evaluation) places(x *fieldIndex, f *vectord.FieldCondition) bounds {
	some := exactly(e.none)
	add := func(west, south, east, north float64, wholly bool) {
		inside, border := field.Box(west, south, east, north)
		b := exactly(x.ofRanges(inside...))
		if !wholly {
			b.sure = e.none
		}
		some = or(some, or(b, bounds{e.none, x.ofRanges(border...)}))
	}
	if box := f.GeoBox; box != nil {
		west, south, east, north := box.TopLeft.Lon, box.BottomRight.Lat, box.BottomRight.Lon, box.TopLeft.Lat
		if west <= east {
			add(west, south, east, north, true)
		} else {
			add(west, south, 180, north, true)
			add(-180, south, east, north, true)
		}
	}
	if r := f.GeoRadius; r != nil {
		around(r, func(west, south, east, north float64) { add(west, south, east, north, false) })
	}
	if f.GeoPolygon != nil {
		low, high := boxOf(f.GeoPolygon.Exterior)
		add(low.Lon, low.Lat, high.Lon, high.Lat, false)
	}
	return some
}

// around calls box with the boxes that hold every place within the radius.
func around(r *vectord.GeoRadius, box func(west, south, east, north float64)) {
	const degrees = 180 / math.Pi
	const slack = 1e-4 // degrees, far more than the rounding of what follows and of distance
	angle := r.Radius / earthRadius
	south, north := r.Center.Lat-angle*degrees-slack, r.Center.Lat+angle*degrees+slack
	if south <= -90 || north >= 90 { // with a pole all longitudes
		box(-180, max(south, -90), 180, min(north, 90))
		return
	}
	// The meridians that touch the circle.
	width := math.Asin(min(math.Sin(angle)/math.Cos(r.Center.Lat/degrees), 1))*degrees + slack
	west, east := r.Center.Lon-width, r.Center.Lon+width
	switch {
	case width >= 180:
		box(-180, south, 180, north)
	case west < -180:
		box(-180, south, east, north)
		box(west+360, south, 180, north)
	case east > 180:
		box(west, south, 180, north)
		box(-180, south, east-360, north)
	default:
		box(west, south, east, north)
	}
}

// boxOf returns the corners of the box around a ring.
func boxOf(ring vectord.GeoRing) (low, high vectord.GeoPoint) {
	low, high = ring[0], ring[0]
	for _, p := range ring {
		low = vectord.GeoPoint{Lon: min(low.Lon, p.Lon), Lat: min(low.Lat, p.Lat)}
		high = vectord.GeoPoint{Lon: max(high.Lon, p.Lon), Lat: max(high.Lat, p.Lat)}
	}
	return low, high
}
