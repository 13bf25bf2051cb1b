package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/vectord/vectord"
)

// AppendVector appends v as a JSON array of the shortest decimals that read back as the same float32. The components
// must be finite.
func AppendVector(dst []byte, v []float32) []byte {
	dst = append(dst, '[')
	for i, x := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendFloat(dst, float64(x), 'g', -1, 32)
	}
	return append(dst, ']')
}

// ParseVector appends the numbers of the JSON array b to dst. Unlike encoding/json it refuses null components.
func ParseVector(dst []float32, b []byte) ([]float32, error) {
	b = trimSpace(b)
	if len(b) == 0 || b[0] != '[' {
		return dst, errors.New("expected an array of numbers")
	}
	b = trimSpace(b[1:])
	if len(b) > 0 && b[0] == ']' {
		return dst, endOfVector(b[1:])
	}
	for i := 0; ; i++ {
		n := 0
		for n < len(b) && numberByte[b[n]] {
			n++
		}
		x, err := strconv.ParseFloat(string(b[:n]), 32)
		if err != nil || !validNumber(b[:n]) {
			return dst, fmt.Errorf("component %d: expected a number within the range of a 32-bit float before %q", i, b[:min(len(b), 24)])
		}
		dst = append(dst, float32(x))
		b = trimSpace(b[n:])
		switch {
		case len(b) > 0 && b[0] == ',':
			b = trimSpace(b[1:])
		case len(b) > 0 && b[0] == ']':
			return dst, endOfVector(b[1:])
		default:
			return dst, fmt.Errorf("expected a comma or the end of the array after component %d", i)
		}
	}
}

func endOfVector(rest []byte) error {
	if rest = trimSpace(rest); len(rest) > 0 {
		return fmt.Errorf("%q follows the array", rest[:min(len(rest), 24)])
	}
	return nil
}

// numberByte holds the bytes that JSON numbers are made of.
var numberByte = func() (set [256]bool) {
	for _, c := range "0123456789+-.eE" {
		set[c] = true
	}
	return set
}()

// validNumber reports whether b, which strconv could read, is a number in JSON too: strconv takes "+1", "01", ".5" and
// "5." as well.
func validNumber(b []byte) bool {
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) == 0 || b[0] < '0' || b[0] > '9' || len(b) > 1 && b[0] == '0' && b[1] >= '0' && b[1] <= '9' {
		return false
	}
	for i, c := range b {
		if c == '.' && (i+1 == len(b) || b[i+1] < '0' || b[i+1] > '9') {
			return false
		}
	}
	return true
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// AppendPoint appends p in the JSON form of the API: {"id": …, "vector": […], "payload": {…}}.
func AppendPoint(dst []byte, p vectord.Point) []byte {
	dst = append(dst, `{"id":`...)
	dst = p.ID.AppendJSON(dst)
	dst = append(dst, `,"vector":`...)
	dst = AppendVector(dst, p.Vector)
	if p.Payload != nil {
		dst = append(dst, `,"payload":`...)
		dst = append(dst, p.Payload...)
	}
	return append(dst, '}')
}

// appendIDs appends the ids as a JSON array.
func appendIDs(dst []byte, ids []vectord.PointID) []byte {
	dst = append(dst, '[')
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = id.AppendJSON(dst)
	}
	return append(dst, ']')
}

// appendFilter appends f as the member "filter", with a comma before it, unless it selects everything.
func appendFilter(dst []byte, f *vectord.Filter) ([]byte, error) {
	if f.Empty() {
		return dst, nil
	}
	b, err := json.Marshal(f)
	if err != nil {
		return dst, fmt.Errorf("filter: %w", err)
	}
	return append(append(dst, `,"filter":`...), b...), nil
}

// appendSelection appends the members "with_vector" and "with_payload", with commas before them.
func appendSelection(dst []byte, s vectord.Selection) ([]byte, error) {
	dst = append(dst, `,"with_vector":`...)
	dst = strconv.AppendBool(dst, s.Vector)
	dst = append(dst, `,"with_payload":`...)
	var paths any
	switch {
	case len(s.Include) > 0 && len(s.Exclude) > 0:
		return dst, errors.New("selection: include and exclude are both given")
	case !s.Payload || len(s.Include) == 0 && len(s.Exclude) == 0:
		return strconv.AppendBool(dst, s.Payload), nil
	case len(s.Include) > 0:
		paths = map[string][]string{"include": s.Include}
	default:
		paths = map[string][]string{"exclude": s.Exclude}
	}
	b, err := json.Marshal(paths)
	return append(dst, b...), err
}

// vector reads JSON arrays of numbers without reflection.
type vector []float32

func (v *vector) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	w, err := ParseVector((*v)[:0], b)
	*v = w
	return err
}

// record is a Record or Hit as it comes over the wire.
type record struct {
	ID      vectord.PointID `json:"id"`
	Version uint64          `json:"version"`
	Score   float32         `json:"score"`
	Vector  vector          `json:"vector"`
	Payload json.RawMessage `json:"payload"`
}

func (r *record) record() vectord.Record {
	out := vectord.Record{ID: r.ID, Version: r.Version, Vector: r.Vector}
	if len(r.Payload) > 0 && r.Payload[0] == '{' {
		out.Payload = r.Payload
	}
	return out
}
