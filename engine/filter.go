package engine

import (
	"strings"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
)

// matcher is a compiled filter: it decides for one point by its id and payload alone, so that Apply may use it.
type matcher struct {
	source *vectord.Filter
	root   test
	// ids, if not nil, holds every id that can match: the filter's has_id conditions say so.
	ids []vectord.PointID
	// needsPayload is false where the id alone decides.
	needsPayload bool
}

// test is one node of a compiled filter. v is the payload, nil where no test needs it.
type test func(id vectord.PointID, v *fastjson.Value) bool

// compileFilter returns the matcher of f; a nil f gives a nil matcher, which matches everything.
func compileFilter(f *vectord.Filter) (*matcher, error) {
	if f.Empty() {
		return nil, nil
	}
	m := &matcher{source: f}
	root, err := m.compile(f)
	if err != nil {
		return nil, err
	}
	m.root = root
	for _, c := range f.Must {
		if c.HasID != nil && (m.ids == nil || len(*c.HasID) < len(m.ids)) {
			m.ids = append([]vectord.PointID{}, *c.HasID...)
		}
	}
	return m, nil
}

// matches reports whether a point passes. The payload must be what checkPayload accepted.
func (m *matcher) matches(id vectord.PointID, payload []byte) (bool, error) {
	if m == nil {
		return true, nil
	}
	if !m.needsPayload {
		return m.root(id, nil), nil
	}
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return false, err
	}
	return m.root(id, v), nil
}

func (m *matcher) compile(f *vectord.Filter) (test, error) {
	var all []test
	must, err := m.compileList(f.Must)
	if err != nil {
		return nil, err
	}
	all = append(all, must...)
	if len(f.Should) > 0 {
		should, err := m.compileList(f.Should)
		if err != nil {
			return nil, err
		}
		all = append(all, atLeast(1, should))
	}
	not, err := m.compileList(f.MustNot)
	if err != nil {
		return nil, err
	}
	for _, t := range not {
		all = append(all, func(id vectord.PointID, v *fastjson.Value) bool { return !t(id, v) })
	}
	if f.MinShould != nil {
		some, err := m.compileList(f.MinShould.Conditions)
		if err != nil {
			return nil, err
		}
		all = append(all, atLeast(f.MinShould.Count, some))
	}
	return func(id vectord.PointID, v *fastjson.Value) bool {
		for _, t := range all {
			if !t(id, v) {
				return false
			}
		}
		return true
	}, nil
}

func atLeast(n int, tests []test) test {
	return func(id vectord.PointID, v *fastjson.Value) bool {
		held := 0
		for _, t := range tests {
			if t(id, v) {
				held++
				if held == n {
					return true
				}
			}
		}
		return false
	}
}

func (m *matcher) compileList(conditions []vectord.Condition) ([]test, error) {
	tests := make([]test, len(conditions))
	for i := range conditions {
		var err error
		if tests[i], err = m.compileCondition(&conditions[i]); err != nil {
			return nil, err
		}
	}
	return tests, nil
}

func (m *matcher) compileCondition(c *vectord.Condition) (test, error) {
	switch {
	case c.Filter != nil:
		return m.compile(c.Filter)
	case c.HasID != nil:
		ids := make(map[vectord.PointID]struct{}, len(*c.HasID))
		for _, id := range *c.HasID {
			ids[id] = struct{}{}
		}
		return func(id vectord.PointID, _ *fastjson.Value) bool {
			_, ok := ids[id]
			return ok
		}, nil
	case c.IsEmpty != "":
		return m.onPath(c.IsEmpty, isEmpty)
	case c.IsNull != "":
		return m.onPath(c.IsNull, isNull)
	case c.Field != nil:
		return m.compileField(c.Field)
	}
	return nil, vectord.Errorf(vectord.KindInvalid, "filter: a condition is empty")
}

// onPath makes a test of the values at a payload path.
func (m *matcher) onPath(text string, holds func(p path, v *fastjson.Value) bool) (test, error) {
	p, err := parsePath(text)
	if err != nil {
		return nil, err
	}
	m.needsPayload = true
	return func(_ vectord.PointID, v *fastjson.Value) bool { return holds(p, v) }, nil
}

func (m *matcher) compileField(f *vectord.FieldCondition) (test, error) {
	var tests []func(p path, v *fastjson.Value) bool
	if f.Match != nil {
		match := compileMatch(f.Match)
		tests = append(tests, func(p path, v *fastjson.Value) bool { return anyElement(p, v, match) })
	}
	if f.Range != nil {
		r := *f.Range
		tests = append(tests, func(p path, v *fastjson.Value) bool {
			return anyElement(p, v, func(e *fastjson.Value) bool {
				x, err := e.Float64()
				return err == nil && r.Contains(vectord.FloatNumber(x))
			})
		})
	}
	if f.ValuesCount != nil {
		r := *f.ValuesCount
		tests = append(tests, func(p path, v *fastjson.Value) bool { return countHolds(p, v, &r) })
	}
	if f.IsEmpty != nil {
		want := *f.IsEmpty
		tests = append(tests, func(p path, v *fastjson.Value) bool { return isEmpty(p, v) == want })
	}
	if f.IsNull != nil {
		want := *f.IsNull
		tests = append(tests, func(p path, v *fastjson.Value) bool { return isNull(p, v) == want })
	}
	return m.onPath(f.Key, func(p path, v *fastjson.Value) bool {
		for _, t := range tests {
			if t(p, v) {
				return true
			}
		}
		return false
	})
}

// anyElement reports whether holds is true of a value at the path or of an element of an array there.
func anyElement(p path, v *fastjson.Value, holds func(*fastjson.Value) bool) bool {
	return !p.each(v, func(found *fastjson.Value) bool {
		if found.Type() != fastjson.TypeArray {
			return !holds(found)
		}
		for _, element := range found.GetArray() {
			if holds(element) {
				return false
			}
		}
		return true
	})
}

// isEmpty holds where every value at the path is missing, null or an empty array.
func isEmpty(p path, v *fastjson.Value) bool {
	return p.each(v, func(found *fastjson.Value) bool {
		return found.Type() == fastjson.TypeNull || found.Type() == fastjson.TypeArray && len(found.GetArray()) == 0
	})
}

// isNull holds where a value at the path is null or an array holding null.
func isNull(p path, v *fastjson.Value) bool {
	return anyElement(p, v, func(e *fastjson.Value) bool { return e.Type() == fastjson.TypeNull })
}

// countHolds tests the number of values: an array counts its elements, null and a missing value count 0.
func countHolds(p path, v *fastjson.Value, r *vectord.CountRange) bool {
	seen := false
	held := !p.each(v, func(found *fastjson.Value) bool {
		seen = true
		count := 1
		switch found.Type() {
		case fastjson.TypeNull:
			count = 0
		case fastjson.TypeArray:
			count = len(found.GetArray())
		}
		return !r.Contains(vectord.Count(count))
	})
	return held || !seen && r.Contains(0)
}

func compileMatch(m *vectord.Match) func(*fastjson.Value) bool {
	switch {
	case m.Value != nil:
		set := newScalarSet([]vectord.Scalar{*m.Value})
		return set.contains
	case m.Any != nil:
		set := newScalarSet(*m.Any)
		return set.contains
	case m.Except != nil:
		set := newScalarSet(*m.Except)
		return func(e *fastjson.Value) bool { return e.Type() != fastjson.TypeNull && !set.contains(e) }
	default:
		text := *m.Text
		return func(e *fastjson.Value) bool {
			s, err := e.StringBytes()
			return err == nil && strings.Contains(string(s), text)
		}
	}
}

// scalarSet holds the values of a match. A JSON number with a fraction or an exponent equals no integer.
type scalarSet struct {
	strings map[string]struct{}
	ints    map[int64]struct{}
	bools   [2]bool
}

func newScalarSet(scalars []vectord.Scalar) *scalarSet {
	s := &scalarSet{strings: map[string]struct{}{}, ints: map[int64]struct{}{}}
	for _, scalar := range scalars {
		switch scalar.Kind {
		case vectord.ScalarString:
			s.strings[scalar.String] = struct{}{}
		case vectord.ScalarInt:
			s.ints[scalar.Int] = struct{}{}
		case vectord.ScalarBool:
			if scalar.Bool {
				s.bools[1] = true
			} else {
				s.bools[0] = true
			}
		}
	}
	return s
}

func (s *scalarSet) contains(e *fastjson.Value) bool {
	ok := false
	switch e.Type() {
	case fastjson.TypeString:
		_, ok = s.strings[string(e.GetStringBytes())]
	case fastjson.TypeNumber:
		n, err := e.Int64()
		if err != nil {
			return false
		}
		_, ok = s.ints[n]
	case fastjson.TypeTrue:
		ok = s.bools[1]
	case fastjson.TypeFalse:
		ok = s.bools[0]
	}
	return ok
}
