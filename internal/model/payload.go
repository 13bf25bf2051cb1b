package model

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/vectord/vectord"
)

// decodePayload reads a JSON object, with its numbers as they are written. Nothing and null give nil.
func decodePayload(b []byte) (map[string]any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var p map[string]any
	if err := d.Decode(&p); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "payload: %v", err)
	}
	return p, nil
}

// encodePayload writes an object with its keys sorted.
func encodePayload(p map[string]any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		panic("model: encode a decoded payload: " + err.Error())
	}
	return bytes.TrimSpace(b.Bytes())
}

// step is one part of a payload path: a key, [number] or [].
type step struct {
	key   string
	index int // of an array's element, or one of the two below
}

const (
	byKey = -1 // the step is a key
	all   = -2 // the step is []
)

func badPath(s string) error {
	return vectord.Errorf(vectord.KindInvalid, "%q is not a valid payload path", s)
}

// parsePath reads a.b, a[].b, a[0].b and "quoted.key".b.
func parsePath(s string) ([]step, error) {
	var path []step
	for i := 0; ; {
		var key string
		if i < len(s) && s[i] == '"' {
			length := bytes.IndexByte([]byte(s[i+1:]), '"')
			if length < 0 {
				return nil, badPath(s)
			}
			key = s[i+1 : i+1+length]
			i += length + 2
		} else {
			start := i
			for i < len(s) && s[i] != '.' && s[i] != '[' && s[i] != ']' && s[i] != '"' {
				i++
			}
			if key = s[start:i]; key == "" {
				return nil, badPath(s)
			}
		}
		path = append(path, step{key, byKey})
		for i < len(s) && s[i] == '[' {
			length := bytes.IndexByte([]byte(s[i:]), ']')
			if length < 0 {
				return nil, badPath(s)
			}
			inside := s[i+1 : i+length]
			i += length + 1
			if inside == "" {
				path = append(path, step{index: all})
				continue
			}
			n, err := strconv.ParseUint(inside, 10, 31)
			if err != nil {
				return nil, badPath(s)
			}
			path = append(path, step{index: int(n)})
		}
		if i == len(s) {
			return path, nil
		}
		if s[i] != '.' {
			return nil, badPath(s)
		}
		i++
	}
}

func parsePaths(list []string) ([][]step, error) {
	out := make([][]step, 0, len(list))
	for _, s := range list {
		path, err := parsePath(s)
		if err != nil {
			return nil, err
		}
		out = append(out, path)
	}
	return out, nil
}

// valuesAt returns the values at the end of a path; [] leads to every element of an array.
func valuesAt(v any, path []step) []any {
	if len(path) == 0 {
		return []any{v}
	}
	switch s := path[0]; s.index {
	case byKey:
		if object, ok := v.(map[string]any); ok {
			if inner, ok := object[s.key]; ok {
				return valuesAt(inner, path[1:])
			}
		}
	case all:
		var out []any
		if array, ok := v.([]any); ok {
			for _, element := range array {
				out = append(out, valuesAt(element, path[1:])...)
			}
		}
		return out
	default:
		if array, ok := v.([]any); ok && s.index < len(array) {
			return valuesAt(array[s.index], path[1:])
		}
	}
	return nil
}

// merge returns base with the keys of update; a null removes its key.
func merge(base, update map[string]any) map[string]any {
	out := maps.Clone(base)
	if out == nil {
		out = map[string]any{}
	}
	for key, v := range update {
		if v == nil {
			delete(out, key)
		} else {
			out[key] = v
		}
	}
	return out
}

// setAt returns payload with update merged into the object at path. What is missing on the way, or is not an object
// where a key is asked for, becomes an object; elements of arrays are never added.
func setAt(payload map[string]any, path []step, update map[string]any) map[string]any {
	out, _ := mergeAt(payload, path, update).(map[string]any)
	return out
}

func mergeAt(v any, path []step, update map[string]any) any {
	if len(path) == 0 {
		object, _ := v.(map[string]any)
		return merge(object, update)
	}
	s := path[0]
	if s.index == byKey {
		object, _ := v.(map[string]any)
		out := maps.Clone(object)
		if out == nil {
			out = map[string]any{}
		}
		out[s.key] = mergeAt(out[s.key], path[1:], update)
		return out
	}
	array, ok := v.([]any)
	if !ok {
		array = []any{}
	}
	array = slices.Clone(array)
	for i := range array {
		if s.index == all || s.index == i {
			array[i] = mergeAt(array[i], path[1:], update)
		}
	}
	return array
}

// removeAll returns payload without the values at paths. A path that ends in [] empties the array; one that ends in
// [number] changes nothing, as a second removal would take another element.
func removeAll(payload map[string]any, paths [][]step) map[string]any {
	var v any = payload
	for _, path := range paths {
		v = removeAt(v, path)
	}
	out, _ := v.(map[string]any)
	return out
}

func removeAt(v any, path []step) any {
	s, last := path[0], len(path) == 1
	switch v := v.(type) {
	case map[string]any:
		inner, ok := v[s.key]
		if s.index != byKey || !ok {
			return v
		}
		v = maps.Clone(v)
		if last {
			delete(v, s.key)
		} else {
			v[s.key] = removeAt(inner, path[1:])
		}
		return v
	case []any:
		if last && s.index == all {
			return []any{}
		}
		if last || s.index == byKey {
			return v
		}
		v = slices.Clone(v)
		for i := range v {
			if s.index == all || s.index == i {
				v[i] = removeAt(v[i], path[1:])
			}
		}
		return v
	}
	return v
}

// keepAll returns what of payload the paths lead to, in its place: objects keep those keys and arrays those elements.
func keepAll(payload map[string]any, paths [][]step) map[string]any {
	out, _ := keep(payload, paths)
	object, _ := out.(map[string]any)
	if object == nil {
		object = map[string]any{}
	}
	return object
}

func keep(v any, paths [][]step) (kept any, found bool) {
	for _, path := range paths {
		if len(path) == 0 {
			return v, true
		}
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, inner := range v {
			rest := after(paths, func(s step) bool { return s.index == byKey && s.key == key })
			if kept, found := keep(inner, rest); found {
				out[key] = kept
			}
		}
		return out, len(out) > 0
	case []any:
		out := []any{}
		for i, inner := range v {
			rest := after(paths, func(s step) bool { return s.index == all || s.index == i })
			if kept, found := keep(inner, rest); found {
				out = append(out, kept)
			}
		}
		return out, len(out) > 0
	}
	return nil, false
}

// after returns the rest of those paths whose first step is fit.
func after(paths [][]step, fit func(step) bool) [][]step {
	var out [][]step
	for _, path := range paths {
		if len(path) > 0 && fit(path[0]) {
			out = append(out, path[1:])
		}
	}
	return out
}
