package engine

import (
	"slices"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// matcher is a compiled filter: it decides for one point by what a pointView shows alone, so that Apply may use it. Any
// number of goroutines may use it at once.
type matcher struct {
	source *vectord.Filter
	root   test
	// ids, if not nil, holds every id that can match: the filter's has_id conditions say so.
	ids []vectord.PointID
	// needsPayload is false where the id and the vectors' names decide.
	needsPayload bool
	// fields are the payload indexes of the collection, schema tells them from those at another time.
	fields []*fieldDef
	schema string
}

// pointView is what a filter sees of a point.
type pointView struct {
	id      vectord.PointID
	payload []byte   // what checkPayload accepted
	vectors []uint16 // the numbers of the vectors that it has
}

// viewOf returns what a filter sees of a stored point.
func viewOf(id vectord.PointID, row storage.PointRow) pointView {
	return pointView{id: id, payload: row.Payload, vectors: row.Vectors}
}

// test is one node of a compiled filter. v is the payload, or the element that a nested condition looks at; nil where no
// test needs it. The view goes by value, as through a pointer each call of matches would allocate it.
type test func(p pointView, v *fastjson.Value) bool

// analyzer cuts texts into the tokens of a text index. Those of a stored value and of a query may differ, as where an index
// keeps the beginnings of words.
type analyzer interface {
	Tokens(dst []string, s string) []string
	QueryTokens(dst []string, s string) []string
}

// analyzers returns the analyzer of the text index on a payload path, nil if there is none. Paths within nested conditions
// arrive in full: key a[] and path b as a[].b.
type analyzers func(path string) analyzer

// compileFilter returns the matcher of f; a nil f gives a nil matcher, which matches everything. Nil analyzers say that there
// is no text index; numbers are those of the vectors' names.
func compileFilter(f *vectord.Filter, of analyzers, numbers map[string]uint16) (*matcher, error) {
	if f.Empty() {
		return nil, nil
	}
	if err := f.Check(); err != nil { // not every filter came through ParseFilter
		return nil, err
	}
	c := compiler{analyzers: of, numbers: numbers}
	root, err := c.filter(f, "")
	if err != nil {
		return nil, err
	}
	m := &matcher{source: f, root: root, needsPayload: c.needsPayload}
	for _, c := range f.Must {
		if c.HasID != nil && (m.ids == nil || len(*c.HasID) < len(m.ids)) {
			m.ids = append([]vectord.PointID{}, *c.HasID...)
		}
	}
	return m, nil
}

// matches reports whether a point passes.
func (m *matcher) matches(p pointView) (bool, error) {
	if m == nil {
		return true, nil
	}
	if !m.needsPayload {
		return m.root(p, nil), nil
	}
	parser := parsers.Get().(*payloadParser)
	defer parsers.Put(parser)
	v, err := parser.parse(p.payload)
	if err != nil {
		return false, err
	}
	return m.root(p, v), nil
}

// compiler makes tests of conditions. Its methods take the scope of the conditions: what stands before their paths, which is
// not empty within nested ones.
type compiler struct {
	analyzers    analyzers
	numbers      map[string]uint16
	needsPayload bool
}

func (c *compiler) filter(f *vectord.Filter, scope string) (test, error) {
	all, err := c.list(f.Must, scope)
	if err != nil {
		return nil, err
	}
	if len(f.Should) > 0 {
		should, err := c.list(f.Should, scope)
		if err != nil {
			return nil, err
		}
		all = append(all, atLeast(1, should))
	}
	not, err := c.list(f.MustNot, scope)
	if err != nil {
		return nil, err
	}
	for _, t := range not {
		all = append(all, func(p pointView, v *fastjson.Value) bool { return !t(p, v) })
	}
	if f.MinShould != nil {
		some, err := c.list(f.MinShould.Conditions, scope)
		if err != nil {
			return nil, err
		}
		all = append(all, atLeast(f.MinShould.Count, some))
	}
	return func(p pointView, v *fastjson.Value) bool {
		for _, t := range all {
			if !t(p, v) {
				return false
			}
		}
		return true
	}, nil
}

func atLeast(n int, tests []test) test {
	return func(p pointView, v *fastjson.Value) bool {
		held := 0
		for _, t := range tests {
			if t(p, v) {
				held++
				if held == n {
					return true
				}
			}
		}
		return false
	}
}

func (c *compiler) list(conditions []vectord.Condition, scope string) ([]test, error) {
	tests := make([]test, len(conditions))
	for i := range conditions {
		var err error
		if tests[i], err = c.condition(&conditions[i], scope); err != nil {
			return nil, err
		}
	}
	return tests, nil
}

func (c *compiler) condition(of *vectord.Condition, scope string) (test, error) {
	switch {
	case of.Filter != nil:
		return c.filter(of.Filter, scope)
	case of.HasID != nil:
		ids := make(map[vectord.PointID]struct{}, len(*of.HasID))
		for _, id := range *of.HasID {
			ids[id] = struct{}{}
		}
		return func(p pointView, _ *fastjson.Value) bool {
			_, ok := ids[p.id]
			return ok
		}, nil
	case of.HasVector != nil:
		name := *of.HasVector
		number, ok := c.numbers[name]
		return func(p pointView, _ *fastjson.Value) bool { return ok && slices.Contains(p.vectors, number) }, nil
	case of.Slice != nil:
		total, index := uint64(of.Slice.Total), uint64(of.Slice.Index)
		return func(p pointView, _ *fastjson.Value) bool { return p.id.Hash()%total == index }, nil
	case of.Nested != nil:
		return c.nested(of.Nested, scope)
	case of.IsEmpty != "":
		return c.onPath(of.IsEmpty, isEmpty)
	case of.IsNull != "":
		return c.onPath(of.IsNull, isNull)
	default:
		return c.field(of.Field, scope)
	}
}

// onPath makes a test of the values at a payload path.
func (c *compiler) onPath(text string, holds func(at path, v *fastjson.Value) bool) (test, error) {
	at, err := parsePath(text)
	if err != nil {
		return nil, err
	}
	c.needsPayload = true
	return func(_ pointView, v *fastjson.Value) bool { return holds(at, v) }, nil
}

// nested makes a test that holds where one object in an array passes a filter.
func (c *compiler) nested(n *vectord.Nested, scope string) (test, error) {
	key := strings.TrimSuffix(n.Key, "[]") + "[]"
	at, err := parsePath(key)
	if err != nil {
		return nil, err
	}
	inside, err := c.filter(n.Filter, scope+key+".")
	if err != nil {
		return nil, err
	}
	c.needsPayload = true
	return func(p pointView, v *fastjson.Value) bool {
		return !at.each(v, func(element *fastjson.Value) bool {
			return element.Type() != fastjson.TypeObject || !inside(p, element)
		})
	}, nil
}
