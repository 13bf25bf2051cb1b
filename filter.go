package vectord

import (
	"cmp"
	"math"
)

// Filter selects points: all of Must, at least one of Should (if there are any), none of MustNot, and at least
// MinShould.Count of MinShould.Conditions. A nil or empty filter selects every point.
//
// Its JSON form is the one of the HTTP API, which is also how a command in the log carries it. A condition that this
// server does not know is an error: ignoring it would answer another question.
type Filter struct {
	Must      []Condition
	Should    []Condition
	MustNot   []Condition
	MinShould *MinShould
}

// MinShould asks for at least Count of Conditions to hold.
type MinShould struct {
	Conditions []Condition
	Count      int
}

// Condition is one test of a point. Exactly one of the fields is set.
type Condition struct {
	Filter    *Filter    // a filter within a filter
	HasID     *[]PointID // the point's id is one of these
	HasVector *string    // the point has a vector of this name
	IsEmpty   string     // the value at this payload path is missing, null or []
	IsNull    string     // the value at this payload path is null, or an array holding null
	Nested    *Nested
	Slice     *Slice
	Field     *FieldCondition
}

// Nested holds where one element of the array at a payload path passes a filter by itself: its conditions are tested on
// that one object, whose keys their paths begin with. Elements that are no objects pass nothing. The filter looks at the
// payload only, so it has no HasID, HasVector or Slice.
type Nested struct {
	Key    string // a and a[] are the same
	Filter *Filter
}

// Slice holds for the points whose PointID.Hash modulo Total is Index. The Total slices share no point and have them all.
type Slice struct {
	Total uint32 `json:"total"` // at least 1
	Index uint32 `json:"index"` // below Total
}

// FieldCondition tests the values at a payload path: a scalar there, or any element of an array there. Where several of
// the tests are set, one that holds is enough.
type FieldCondition struct {
	Key         string
	Match       *Match
	Range       *Range         // at most one of Range and Datetime: in JSON, both are "range"
	Datetime    *DatetimeRange // of strings that ParseDatetime reads
	GeoBox      *GeoBox        // GeoBox, GeoRadius, GeoPolygon: of objects {"lon", "lat"}
	GeoRadius   *GeoRadius
	GeoPolygon  *GeoPolygon
	ValuesCount *CountRange // of the number of values at the path; a missing one counts as 0
	IsEmpty     *bool
	IsNull      *bool
}

// Match compares a payload value with given ones. Exactly one of the fields is set. Text, TextAny and Phrase compare as
// written, case and all, unless the path has a text index: then its tokenizer cuts both sides into tokens.
type Match struct {
	Value   *Scalar
	Any     *[]Scalar // one of these; none of an empty list
	Except  *[]Scalar // present, not null and none of these
	Text    *string   // the string contains this; with a text index: all tokens, in any order
	TextAny *string   // it contains one of the pieces between blanks; with a text index: one of the tokens
	Phrase  *string   // it contains this; with a text index: the tokens, one after the other
	Prefix  *string   // it begins with this, byte by byte
}

// Scalar is a string, an integer or a bool: what payload values are matched with. Floats are compared by Range.
type Scalar struct {
	Kind   ScalarKind
	String string
	Int    int64
	Bool   bool
}

// ScalarKind tells which field of a Scalar holds its value.
type ScalarKind uint8

// The kinds of scalar.
const (
	ScalarString ScalarKind = iota + 1
	ScalarInt
	ScalarBool
)

// Bounds hold for x with all of the given bounds: GT < x, GTE <= x, x < LT, x <= LTE.
type Bounds[T interface{ Compare(T) int }] struct {
	GT  *T `json:"gt,omitempty"`
	GTE *T `json:"gte,omitempty"`
	LT  *T `json:"lt,omitempty"`
	LTE *T `json:"lte,omitempty"`
}

type (
	// Range is of numbers.
	Range = Bounds[Number]
	// DatetimeRange is of moments.
	DatetimeRange = Bounds[Datetime]
	// CountRange is of numbers of values.
	CountRange = Bounds[Count]
)

// Count is how many values there are.
type Count uint64

// Compare returns -1, 0 or 1 as n is below, equal to or above other.
func (n Count) Compare(other Count) int { return cmp.Compare(n, other) }

// Contains reports whether x is within the bounds.
func (b *Bounds[T]) Contains(x T) bool {
	return (b.GT == nil || x.Compare(*b.GT) > 0) && (b.GTE == nil || x.Compare(*b.GTE) >= 0) &&
		(b.LT == nil || x.Compare(*b.LT) < 0) && (b.LTE == nil || x.Compare(*b.LTE) <= 0)
}

// GeoPoint is a place on earth in degrees: Lon from -180 to 180, Lat from -90 to 90.
type GeoPoint struct {
	Lon float64 `json:"lon"`
	Lat float64 `json:"lat"`
}

// Valid reports whether both coordinates are in their ranges.
func (p GeoPoint) Valid() bool {
	return p.Lon >= -180 && p.Lon <= 180 && p.Lat >= -90 && p.Lat <= 90
}

// GeoBox is what lies between two parallels and two meridians, its borders left out. A box whose left meridian is east of
// its right one goes across the antimeridian; one that is upside down has nothing in it.
type GeoBox struct {
	TopLeft     GeoPoint `json:"top_left"`
	BottomRight GeoPoint `json:"bottom_right"`
}

// GeoRadius is what lies nearer to Center than Radius, in metres along the earth's surface.
type GeoRadius struct {
	Center GeoPoint `json:"center"`
	Radius float64  `json:"radius"`
}

// GeoPolygon is what lies inside Exterior and in none of Interiors, its borders left out. Longitude and latitude are taken
// as plane coordinates: edges are straight lines between them, and none goes across the antimeridian.
type GeoPolygon struct {
	Exterior  GeoRing
	Interiors []GeoRing
}

// GeoRing is a closed line: at least 4 points, of which the last is the first.
type GeoRing []GeoPoint

// Empty reports whether the filter selects every point.
func (f *Filter) Empty() bool {
	return f == nil || len(f.Must) == 0 && len(f.Should) == 0 && len(f.MustNot) == 0 && f.MinShould == nil
}

// Limits of filters beside those of the package.
const (
	// filterBrackets is how deep brackets nest in a filter of MaxFilterDepth: four for each nested condition, and those of
	// the polygon within the last.
	filterBrackets = 4*MaxFilterDepth + 8
	geoRingMin     = 4 // points of a ring, the first and the last counted both
)

// Check reports the first thing in the filter that is beyond its limits or contradicts itself. What ParseFilter returns
// has passed it.
func (f *Filter) Check() error {
	conditions := 0
	return f.check(1, false, &conditions)
}

func (f *Filter) check(depth int, nested bool, conditions *int) error {
	if f == nil {
		return nil
	}
	if depth > MaxFilterDepth {
		return Errorf(KindInvalid, "filter: nested deeper than %d filters", MaxFilterDepth)
	}
	lists := [][]Condition{f.Must, f.Should, f.MustNot}
	if f.MinShould != nil {
		if f.MinShould.Count < 1 {
			return Errorf(KindUnprocessable, "filter.min_should.min_count: value %d invalid, must be 1 or larger", f.MinShould.Count)
		}
		lists = append(lists, f.MinShould.Conditions)
	}
	for _, list := range lists {
		*conditions += len(list)
		if *conditions > MaxFilterConditions {
			return Errorf(KindInvalid, "filter: more than %d conditions", MaxFilterConditions)
		}
		for i := range list {
			if err := list[i].check(depth, nested, conditions); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Condition) check(depth int, nested bool, conditions *int) error {
	switch {
	case c.Filter != nil:
		return c.Filter.check(depth+1, nested, conditions)
	case c.Nested != nil:
		if c.Nested.Key == "" {
			return Errorf(KindUnprocessable, "filter.nested.key: is empty")
		}
		if c.Nested.Filter == nil {
			return Errorf(KindInvalid, "filter.nested on %q: filter is missing", c.Nested.Key)
		}
		return c.Nested.Filter.check(depth+1, true, conditions)
	case c.Field != nil:
		return c.Field.check()
	case nested && (c.HasID != nil || c.HasVector != nil || c.Slice != nil):
		return Errorf(KindInvalid, "filter.nested: has_id, has_vector and slice are of the point, not of an element of its payload; put them beside nested")
	case c.HasID != nil:
		return checkLength("filter.has_id", len(*c.HasID))
	case c.Slice != nil && c.Slice.Total < 1:
		return Errorf(KindUnprocessable, "filter.slice.total: value 0 invalid, must be 1 or larger")
	case c.Slice != nil && c.Slice.Index >= c.Slice.Total:
		return Errorf(KindUnprocessable, "filter.slice.index: value %d invalid, must be below total, which is %d", c.Slice.Index, c.Slice.Total)
	case c.Slice == nil && c.HasVector == nil && c.IsEmpty == "" && c.IsNull == "":
		return Errorf(KindInvalid, "filter: a condition is empty")
	}
	return nil
}

func checkLength(what string, n int) error {
	if n > MaxFilterListLength {
		return Errorf(KindInvalid, "%s: %d values, at most %d are accepted", what, n, MaxFilterListLength)
	}
	return nil
}

func (c *FieldCondition) check() error {
	if c.Key == "" {
		return Errorf(KindUnprocessable, "filter condition: key is empty")
	}
	if c.Match == nil && c.Range == nil && c.Datetime == nil && c.GeoBox == nil && c.GeoRadius == nil && c.GeoPolygon == nil &&
		c.ValuesCount == nil && c.IsEmpty == nil && c.IsNull == nil {
		return Errorf(KindUnprocessable, "filter condition on %q: at least one of match, range, geo_bounding_box, geo_radius, "+
			"geo_polygon, values_count, is_empty, is_null must be given", c.Key)
	}
	if c.Range != nil && c.Datetime != nil {
		return Errorf(KindInvalid, "filter condition on %q: a range is of numbers or of dates, not of both", c.Key)
	}
	if c.Match != nil {
		if err := c.Match.check(); err != nil {
			return err
		}
	}
	if c.GeoBox != nil {
		if err := checkGeoPoints("geo_bounding_box", c.GeoBox.TopLeft, c.GeoBox.BottomRight); err != nil {
			return err
		}
	}
	if c.GeoRadius != nil {
		if err := checkGeoPoints("geo_radius.center", c.GeoRadius.Center); err != nil {
			return err
		}
		if r := c.GeoRadius.Radius; !(r >= 0) || math.IsInf(r, 0) {
			return Errorf(KindUnprocessable, "geo_radius.radius: value %v invalid, must be 0 or larger and finite", r)
		}
	}
	if c.GeoPolygon != nil {
		return c.GeoPolygon.check()
	}
	return nil
}

func (m *Match) check() error {
	set := 0
	for _, list := range []*[]Scalar{m.Any, m.Except} {
		if list != nil {
			set++
			if err := checkLength("match", len(*list)); err != nil {
				return err
			}
		}
	}
	for _, text := range []*string{m.Text, m.TextAny, m.Phrase, m.Prefix} {
		if text != nil {
			set++
			if len(*text) > MaxMatchTextBytes {
				return Errorf(KindInvalid, "match: a text of %d bytes, at most %d are accepted", len(*text), MaxMatchTextBytes)
			}
		}
	}
	if m.Value != nil {
		set++
	}
	if set != 1 {
		return Errorf(KindInvalid, "match: exactly one of value, any, except, text, text_any, phrase, prefix must be given, got %d", set)
	}
	return nil
}

func checkGeoPoints(what string, points ...GeoPoint) error {
	for _, p := range points {
		if !p.Valid() {
			return Errorf(KindUnprocessable, "%s: lon %v, lat %v is no place: lon is from -180 to 180, lat from -90 to 90", what, p.Lon, p.Lat)
		}
	}
	return nil
}

func (p *GeoPolygon) check() error {
	points := 0
	for i, ring := range append([]GeoRing{p.Exterior}, p.Interiors...) {
		what := "geo_polygon.exterior"
		if i > 0 {
			what = "geo_polygon.interiors"
		}
		if points += len(ring); points > MaxPolygonPoints {
			return Errorf(KindUnprocessable, "geo_polygon: more than %d points", MaxPolygonPoints)
		}
		if len(ring) < geoRingMin {
			return Errorf(KindUnprocessable, "%s: a ring of %d points, at least %d are needed", what, len(ring), geoRingMin)
		}
		if ring[0] != ring[len(ring)-1] {
			return Errorf(KindUnprocessable, "%s: the ring is not closed: the last point must be the first", what)
		}
		if err := checkGeoPoints(what, ring...); err != nil {
			return err
		}
	}
	return nil
}
