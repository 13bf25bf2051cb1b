package model

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vectord/vectord"
)

// subject is what a filter looks at. Within a nested condition the payload is one element.
type subject struct {
	id      vectord.PointID
	vectors []string // names of the point's vectors
	payload map[string]any
}

// matches reports whether a filter holds for a point.
func matches(f *vectord.Filter, s subject) bool {
	if f == nil {
		return true
	}
	held := func(conditions []vectord.Condition) (n int) {
		for i := range conditions {
			if holds(&conditions[i], s) {
				n++
			}
		}
		return n
	}
	return held(f.Must) == len(f.Must) &&
		(len(f.Should) == 0 || held(f.Should) > 0) &&
		held(f.MustNot) == 0 &&
		(f.MinShould == nil || held(f.MinShould.Conditions) >= f.MinShould.Count)
}

func holds(c *vectord.Condition, s subject) bool {
	switch {
	case c.Filter != nil:
		return matches(c.Filter, s)
	case c.HasID != nil:
		return slices.Contains(*c.HasID, s.id)
	case c.HasVector != nil:
		return slices.Contains(s.vectors, *c.HasVector)
	case c.Slice != nil:
		return s.id.Hash()%uint64(c.Slice.Total) == uint64(c.Slice.Index)
	case c.Nested != nil:
		return nestedHolds(c.Nested, s)
	case c.IsEmpty != "":
		return isEmpty(lookUp(s.payload, c.IsEmpty))
	case c.IsNull != "":
		return isNull(lookUp(s.payload, c.IsNull))
	}
	field := c.Field
	values := lookUp(s.payload, field.Key)
	of := func(test func(any) bool) bool { return anyElement(values, test) }
	return field.Match != nil && of(func(v any) bool { return matchesValue(field.Match, v) }) ||
		field.Range != nil && of(func(v any) bool { return inRange(field.Range, v) }) ||
		field.Datetime != nil && of(func(v any) bool { return inDates(field.Datetime, v) }) ||
		field.GeoBox != nil && of(func(v any) bool { return inBox(field.GeoBox, v) }) ||
		field.GeoRadius != nil && of(func(v any) bool { return inRadius(field.GeoRadius, v) }) ||
		field.GeoPolygon != nil && of(func(v any) bool { return inPolygon(field.GeoPolygon, v) }) ||
		field.ValuesCount != nil && countFits(field.ValuesCount, values) ||
		field.IsEmpty != nil && isEmpty(values) == *field.IsEmpty ||
		field.IsNull != nil && isNull(values) == *field.IsNull
}

// nestedHolds tests each object in the arrays at the key by itself.
func nestedHolds(n *vectord.Nested, s subject) bool {
	path, err := parsePath(n.Key)
	if err != nil {
		return false
	}
	if path[len(path)-1].index != all {
		path = append(path, step{index: all})
	}
	return slices.ContainsFunc(valuesAt(s.payload, path), func(v any) bool {
		element, ok := v.(map[string]any)
		return ok && matches(n.Filter, subject{s.id, s.vectors, element})
	})
}

// lookUp returns the values at a payload path, none if the path cannot be read.
func lookUp(payload map[string]any, path string) []any {
	steps, err := parsePath(path)
	if err != nil {
		return nil
	}
	return valuesAt(payload, steps)
}

// anyElement reports whether test holds for one of the values, or of the elements of one that is an array.
func anyElement(values []any, test func(any) bool) bool {
	return slices.ContainsFunc(values, func(v any) bool {
		if array, ok := v.([]any); ok {
			return slices.ContainsFunc(array, test)
		}
		return test(v)
	})
}

func matchesValue(m *vectord.Match, v any) bool {
	equal := func(s vectord.Scalar) bool { return equals(s, v) }
	text, isText := v.(string)
	switch {
	case m.Value != nil:
		return equals(*m.Value, v)
	case m.Any != nil:
		return slices.ContainsFunc(*m.Any, equal)
	case m.Except != nil:
		return v != nil && !slices.ContainsFunc(*m.Except, equal)
	case m.Text != nil:
		return isText && strings.Contains(text, *m.Text)
	case m.Phrase != nil:
		return isText && strings.Contains(text, *m.Phrase)
	case m.Prefix != nil:
		return isText && strings.HasPrefix(text, *m.Prefix)
	case m.TextAny != nil:
		return isText && slices.ContainsFunc(strings.Fields(*m.TextAny), func(piece string) bool { return strings.Contains(text, piece) })
	}
	return false
}

// equals compares a payload value with a scalar. Only a number written as an integer equals one: 1.0 is not 1.
func equals(s vectord.Scalar, v any) bool {
	switch s.Kind {
	case vectord.ScalarString:
		return v == s.String
	case vectord.ScalarBool:
		return v == s.Bool
	case vectord.ScalarInt:
		n, ok := v.(json.Number)
		if !ok {
			return false
		}
		i, err := strconv.ParseInt(string(n), 10, 64)
		return err == nil && i == s.Int
	}
	return false
}

// rational returns a payload's number: exactly if it is written as an integer of 64 bits, else the nearest float64.
func rational(v any) (*big.Rat, bool) {
	text, ok := v.(json.Number)
	if !ok {
		return nil, false
	}
	if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		return new(big.Rat).SetInt64(n), true
	}
	x, err := text.Float64()
	if err != nil {
		return nil, false
	}
	return new(big.Rat).SetFloat64(x), true
}

func inRange(r *vectord.Range, v any) bool {
	x, ok := rational(v)
	if !ok {
		return false
	}
	// compare returns how x compares with the bound, or fallback if there is none.
	compare := func(bound *vectord.Number, fallback int) int {
		if bound == nil {
			return fallback
		}
		b := new(big.Rat)
		if n, ok := bound.Int64(); ok {
			b.SetInt64(n)
		} else {
			b.SetFloat64(bound.Float64())
		}
		return x.Cmp(b)
	}
	return compare(r.GT, 1) > 0 && compare(r.GTE, 1) >= 0 && compare(r.LT, -1) < 0 && compare(r.LTE, -1) <= 0
}

var dateForm = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?(?:[Zz]|([+-]\d\d):?(\d\d)?)?)?)?$`)

// moment returns the time that a string says, to the microsecond.
func moment(v any) (time.Time, bool) {
	s, _ := v.(string)
	parts := dateForm.FindStringSubmatch(s)
	if parts == nil {
		return time.Time{}, false
	}
	clock := parts[2]
	if clock == "" {
		clock = "00:00"
	}
	seconds := parts[3]
	if seconds == "" {
		seconds = "00"
	}
	hours, minutes := parts[5], parts[6]
	if hours == "" {
		hours = "+00"
	}
	if minutes == "" {
		minutes = "00"
	}
	if strings.HasSuffix(s, ":") || hours[1:] > "23" || minutes > "59" {
		return time.Time{}, false
	}
	t, err := time.Parse("2006-01-02 15:04:05 -07:00", parts[1]+" "+clock+":"+seconds+" "+hours+":"+minutes)
	if err != nil || t.UTC().Year() < 0 || t.UTC().Year() > 9999 {
		return time.Time{}, false
	}
	micros, err := strconv.Atoi((parts[4] + "000000")[:6])
	return t.Add(time.Duration(micros) * time.Microsecond), err == nil
}

func inDates(r *vectord.DatetimeRange, v any) bool {
	t, ok := moment(v)
	if !ok {
		return false
	}
	compare := func(bound *vectord.Datetime, fallback int) int {
		if bound == nil {
			return fallback
		}
		return t.Compare(time.UnixMicro(int64(*bound)))
	}
	return compare(r.GT, 1) > 0 && compare(r.GTE, 1) >= 0 && compare(r.LT, -1) < 0 && compare(r.LTE, -1) <= 0
}

// place returns the coordinates of an object {"lon", "lat"}.
func place(v any) (lon, lat float64, ok bool) {
	object, _ := v.(map[string]any)
	number := func(key string, limit float64) float64 {
		n, isNumber := object[key].(json.Number)
		x, err := n.Float64()
		ok = ok && isNumber && err == nil && math.Abs(x) <= limit
		return x
	}
	ok = true
	lon, lat = number("lon", 180), number("lat", 90)
	return lon, lat, ok
}

func inBox(b *vectord.GeoBox, v any) bool {
	lon, lat, ok := place(v)
	if !ok || lat <= b.BottomRight.Lat || lat >= b.TopLeft.Lat {
		return false
	}
	width := b.BottomRight.Lon - b.TopLeft.Lon
	east := lon - b.TopLeft.Lon // of the left border
	if width < 0 {
		// Around the back of the earth, where 180 and -180 are both inside.
		return east > 0 || lon < b.BottomRight.Lon
	}
	return east > 0 && east < width
}

func inRadius(r *vectord.GeoRadius, v any) bool {
	lon, lat, ok := place(v)
	return ok && metres(lon, lat, r.Center.Lon, r.Center.Lat) < r.Radius
}

// metres measures the straight line through the earth and makes an arc of it.
func metres(lonA, latA, lonB, latB float64) float64 {
	direction := func(lon, lat float64) [3]float64 {
		lon, lat = lon*math.Pi/180, lat*math.Pi/180
		return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
	}
	a, b := direction(lonA, latA), direction(lonB, latB)
	chord := math.Hypot(math.Hypot(a[0]-b[0], a[1]-b[1]), a[2]-b[2])
	return 2 * 6_371_008.8 * math.Asin(min(chord/2, 1))
}

// inPolygon counts, with exact fractions, how many edges lie north of the place.
func inPolygon(polygon *vectord.GeoPolygon, v any) bool {
	lon, lat, ok := place(v)
	if !ok {
		return false
	}
	rat := func(x float64) *big.Rat { return new(big.Rat).SetFloat64(x) }
	within := func(ring vectord.GeoRing) (inside, border bool) {
		for i := 1; i < len(ring); i++ {
			a, b := ring[i-1], ring[i]
			if a.Lon > b.Lon {
				a, b = b, a
			}
			if a.Lon == b.Lon {
				border = border || lon == a.Lon && lat >= min(a.Lat, b.Lat) && lat <= max(a.Lat, b.Lat)
				continue
			}
			if lon < a.Lon || lon > b.Lon {
				continue
			}
			share := new(big.Rat).Quo(rat(0).Sub(rat(lon), rat(a.Lon)), rat(0).Sub(rat(b.Lon), rat(a.Lon)))
			edge := rat(0).Add(rat(a.Lat), share.Mul(share, rat(0).Sub(rat(b.Lat), rat(a.Lat))))
			switch edge.Cmp(rat(lat)) {
			case 0:
				border = true
			case 1:
				inside = inside != (lon < b.Lon)
			}
		}
		return inside && !border, border
	}
	if inside, _ := within(polygon.Exterior); !inside {
		return false
	}
	return !slices.ContainsFunc(polygon.Interiors, func(ring vectord.GeoRing) bool {
		inside, border := within(ring)
		return inside || border
	})
}

// countFits tests how many values there are: the elements of an array, 1 for a scalar, 0 for null and for none.
func countFits(r *vectord.CountRange, values []any) bool {
	if len(values) == 0 {
		return r.Contains(0)
	}
	return slices.ContainsFunc(values, func(v any) bool {
		switch v := v.(type) {
		case nil:
			return r.Contains(0)
		case []any:
			return r.Contains(vectord.Count(len(v)))
		}
		return r.Contains(1)
	})
}

func isEmpty(values []any) bool {
	return !slices.ContainsFunc(values, func(v any) bool {
		array, ok := v.([]any)
		return v != nil && (!ok || len(array) > 0)
	})
}

func isNull(values []any) bool {
	return slices.ContainsFunc(values, func(v any) bool {
		array, ok := v.([]any)
		return v == nil || ok && slices.Contains(array, nil)
	})
}
