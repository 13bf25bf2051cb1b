package engine

import (
	"encoding/json"
	"slices"
	"sync"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
)

// parsers are shared by everything that looks into payloads. A parsed value lives until its parser parses again.
var parsers = sync.Pool{New: func() any { return new(payloadParser) }}

type payloadParser struct {
	payload fastjson.Parser
	second  fastjson.Parser
	arena   fastjson.Arena
}

var emptyObject = []byte("{}")

// parse returns the payload as a value tree; no payload is an empty object.
func (p *payloadParser) parse(payload []byte) (*fastjson.Value, error) {
	if len(payload) == 0 {
		payload = emptyObject
	}
	return p.payload.ParseBytes(payload)
}

// checkPayload returns an error unless payload is absent or one JSON object that later reads can look into.
func checkPayload(what string, payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	if len(payload) > vectord.MaxPayloadBytes {
		return vectord.Errorf(vectord.KindTooLarge, "%s: %d bytes, at most %d are accepted", what, len(payload), vectord.MaxPayloadBytes)
	}
	if depth := vectord.JSONDepth(payload); depth > vectord.MaxPayloadDepth {
		return vectord.Errorf(vectord.KindUnprocessable, "%s: nested %d deep, at most %d are accepted", what, depth, vectord.MaxPayloadDepth)
	}
	if !json.Valid(payload) { // the parser below is more lenient, and what it reads must be JSON for clients too
		return vectord.Errorf(vectord.KindInvalid, "%s: not valid JSON", what)
	}
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.payload.ParseBytes(payload)
	if err != nil {
		return vectord.Errorf(vectord.KindInvalid, "%s: %v", what, err)
	}
	if v.Type() != fastjson.TypeObject {
		return vectord.Errorf(vectord.KindInvalid, "%s: expected an object, got %s", what, v.Type())
	}
	return nil
}

// setPayload returns payload with the object given merged in at the path (nil: at the top).
func setPayload(payload, given []byte, at path) ([]byte, error) {
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return nil, err
	}
	from, err := p.second.ParseBytes(given)
	if err != nil {
		return nil, err
	}
	p.arena.Reset()
	at.mergeAt(&p.arena, v, from)
	return v.MarshalTo(nil), nil
}

// deletePayload returns payload without the values at the paths.
func deletePayload(payload []byte, paths []path) ([]byte, error) {
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return nil, err
	}
	for _, at := range paths {
		at.remove(v)
	}
	return v.MarshalTo(nil), nil
}

// selection is a vectord.Selection whose paths were parsed.
type selection struct {
	vectors, payload bool
	names            []string // of the vectors to carry; empty: all
	include, exclude []path
}

func (s *selection) wantsVector(name string) bool {
	return len(s.names) == 0 || slices.Contains(s.names, name)
}

func (c *collection) compileSelection(s vectord.Selection) (selection, error) {
	if _, err := c.numbersOf(s.VectorNames); err != nil {
		return selection{}, err
	}
	compiled := selection{vectors: s.Vectors, names: s.VectorNames, payload: s.Payload}
	var err error
	if compiled.include, err = parsePaths(s.Include); err != nil {
		return compiled, err
	}
	compiled.exclude, err = parsePaths(s.Exclude)
	return compiled, err
}

func parsePaths(texts []string) ([]path, error) {
	paths := make([]path, len(texts))
	for i, text := range texts {
		var err error
		if paths[i], err = parsePath(text); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// project returns the selected parts of payload, which is kept by the result where nothing is cut away.
func (s *selection) project(payload []byte) ([]byte, error) {
	if len(payload) == 0 {
		payload = emptyObject
	}
	if len(s.include) == 0 && len(s.exclude) == 0 {
		return payload, nil
	}
	if len(s.include) == 0 {
		return deletePayload(payload, s.exclude)
	}
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return nil, err
	}
	p.arena.Reset()
	kept := included(&p.arena, v, s.include)
	if kept == nil {
		return emptyObject, nil
	}
	return kept.MarshalTo(nil), nil
}

// included returns the part of v that the paths reach, in v's own nesting, or nil if they reach nothing.
func included(a *fastjson.Arena, v *fastjson.Value, paths []path) *fastjson.Value {
	for _, p := range paths {
		if len(p) == 0 {
			return v
		}
	}
	switch v.Type() {
	case fastjson.TypeObject:
		var kept *fastjson.Value
		v.GetObject().Visit(func(key []byte, child *fastjson.Value) {
			var tails []path
			for _, p := range paths {
				if p[0].kind == keySegment && p[0].key == string(key) {
					tails = append(tails, p[1:])
				}
			}
			if len(tails) == 0 {
				return
			}
			if part := included(a, child, tails); part != nil {
				if kept == nil {
					kept = a.NewObject()
				}
				kept.Set(string(key), part)
			}
		})
		return kept
	case fastjson.TypeArray:
		var kept *fastjson.Value
		n := 0
		for i, child := range v.GetArray() {
			var tails []path
			for _, p := range paths {
				if p[0].kind == eachSegment || p[0].kind == indexSegment && p[0].index == i {
					tails = append(tails, p[1:])
				}
			}
			if len(tails) == 0 {
				continue
			}
			if part := included(a, child, tails); part != nil {
				if kept == nil {
					kept = a.NewArray()
				}
				kept.SetArrayItem(n, part)
				n++
			}
		}
		return kept
	}
	return nil
}
