package engine

import (
	"strconv"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
)

// path is a parsed payload path: a.b descends objects, a[].b every element of an array, a[0].b one element, and a key
// that holds dots or brackets stands in double quotes.
type path []segment

type segment struct {
	kind  segmentKind
	key   string // with keySegment
	index int    // with indexSegment
}

type segmentKind uint8

const (
	keySegment segmentKind = iota
	indexSegment
	eachSegment
)

// pathSegmentsMax bounds how deep a path may reach.
const pathSegmentsMax = 64

func parsePath(s string) (path, error) {
	bad := func(why string) (path, error) {
		return nil, vectord.Errorf(vectord.KindInvalid, "payload path %q: %s", s, why)
	}
	var p path
	rest := s
	for first := true; first || rest != ""; first = false {
		if !first {
			if rest[0] != '.' {
				return bad("expected a dot before " + strconv.Quote(rest))
			}
			rest = rest[1:]
		}
		var key string
		if strings.HasPrefix(rest, `"`) {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return bad("a quote is not closed")
			}
			key, rest = rest[1:1+end], rest[end+2:]
		} else {
			end := strings.IndexAny(rest, `.[]"`)
			if end < 0 {
				end = len(rest)
			}
			key, rest = rest[:end], rest[end:]
		}
		if key == "" {
			return bad("a key is empty")
		}
		p = append(p, segment{kind: keySegment, key: key})
		for strings.HasPrefix(rest, "[") {
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return bad("a bracket is not closed")
			}
			inside := rest[1:end]
			rest = rest[end+1:]
			if inside == "" {
				p = append(p, segment{kind: eachSegment})
				continue
			}
			n, err := strconv.ParseUint(inside, 10, 31)
			if err != nil {
				return bad("[" + inside + "] is not an array index")
			}
			p = append(p, segment{kind: indexSegment, index: int(n)})
		}
		if len(p) > pathSegmentsMax {
			return bad("more than 64 segments")
		}
	}
	return p, nil
}

// each calls fn with every value that the path reaches in v until fn returns false.
func (p path) each(v *fastjson.Value, fn func(*fastjson.Value) bool) bool {
	for i, s := range p {
		switch s.kind {
		case keySegment:
			object, err := v.Object()
			if err != nil {
				return true
			}
			v = object.Get(s.key)
		case indexSegment:
			array, err := v.Array()
			if err != nil || s.index >= len(array) {
				return true
			}
			v = array[s.index]
		case eachSegment:
			array, err := v.Array()
			if err != nil {
				return true
			}
			for _, element := range array {
				if !p[i+1:].each(element, fn) {
					return false
				}
			}
			return true
		}
		if v == nil {
			return true
		}
	}
	return fn(v)
}

// remove deletes the values that the path reaches in v. A single array element stays: to remove it again, as a client
// that repeats a request does, would remove another one.
func (p path) remove(v *fastjson.Value) {
	p[:len(p)-1].each(v, func(parent *fastjson.Value) bool {
		switch last := p[len(p)-1]; last.kind {
		case keySegment:
			if object, err := parent.Object(); err == nil {
				object.Del(last.key)
			}
		case eachSegment:
			if array, err := parent.Array(); err == nil {
				for i := len(array) - 1; i >= 0; i-- {
					parent.Del(strconv.Itoa(i))
				}
			}
		}
		return true
	})
}

// mergeAt merges the object from into the objects that the path reaches in v. Where a key of the path is missing or does
// not hold what the path needs, it is created; array elements are not.
func (p path) mergeAt(a *fastjson.Arena, v, from *fastjson.Value) {
	if len(p) == 0 {
		merge(v, from)
		return
	}
	next := func(child *fastjson.Value) *fastjson.Value {
		wantArray := len(p) > 1 && p[1].kind != keySegment
		switch {
		case child != nil && wantArray == (child.Type() == fastjson.TypeArray) && wantArray == (child.Type() != fastjson.TypeObject):
			return child
		case wantArray:
			return a.NewArray()
		default:
			return a.NewObject()
		}
	}
	switch s := p[0]; s.kind {
	case keySegment:
		object, err := v.Object()
		if err != nil {
			return
		}
		child := next(object.Get(s.key))
		object.Set(s.key, child)
		p[1:].mergeAt(a, child, from)
	case indexSegment, eachSegment:
		array, err := v.Array()
		if err != nil {
			return
		}
		for i, element := range array {
			if s.kind == eachSegment || i == s.index {
				child := next(element)
				array[i] = child
				p[1:].mergeAt(a, child, from)
			}
		}
	}
}

// merge sets every key of from in v; a null value removes the key.
func merge(v, from *fastjson.Value) {
	object, err := v.Object()
	if err != nil {
		return
	}
	from.GetObject().Visit(func(key []byte, value *fastjson.Value) {
		if value.Type() == fastjson.TypeNull {
			object.Del(string(key))
			return
		}
		object.Set(string(key), value)
	})
}
