package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

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

// appendVectors appends the vectors of a point: bare, if there is none but the default one, else by name.
func appendVectors(dst []byte, vectors vectord.Vectors) []byte {
	if len(vectors) == 1 && vectors[0].Name == "" {
		return appendAnyVector(dst, &vectors[0].Vector)
	}
	dst = append(dst, '{')
	for i := range vectors {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSON(dst, vectors[i].Name), ':')
		dst = appendAnyVector(dst, &vectors[i].Vector)
	}
	return append(dst, '}')
}

func appendAnyVector(dst []byte, v *vectord.Vector) []byte {
	switch v.Kind {
	case vectord.SparseVector:
		dst = append(dst, `{"indices":[`...)
		for i, index := range v.Indices {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendUint(dst, uint64(index), 10)
		}
		return append(AppendVector(append(dst, `],"values":`...), v.Values), '}')
	case vectord.MultiVector:
		dst = append(dst, '[')
		size := len(v.Values) / max(v.Rows, 1)
		for row := range v.Rows {
			if row > 0 {
				dst = append(dst, ',')
			}
			dst = AppendVector(dst, v.Values[row*size:(row+1)*size])
		}
		return append(dst, ']')
	case vectord.TextVector:
		dst = appendJSON(append(dst, `{"text":`...), v.Text.Text)
		dst = appendJSON(append(dst, `,"model":`...), v.Text.Model)
		if len(v.Text.Options) > 0 {
			dst = append(append(dst, `,"options":`...), v.Text.Options...)
		}
		return append(dst, '}')
	}
	return AppendVector(dst, v.Values)
}

func appendJSON(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always has a form in JSON
	}
	return append(dst, b...)
}

// AppendPoint appends p in the JSON form of the API: {"id": …, "vector": […], "payload": {…}}.
func AppendPoint(dst []byte, p vectord.Point) []byte {
	dst = append(dst, `{"id":`...)
	dst = p.ID.AppendJSON(dst)
	dst = append(dst, `,"vector":`...)
	dst = appendVectors(dst, p.Vectors)
	if p.Expires != 0 {
		dst = strconv.AppendInt(append(dst, `,"expires_at":`...), p.Expires, 10)
	}
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

var errBothPaths = errors.New("selection: include and exclude are both given")

// appendSelection appends the members "with_vector" and "with_payload", with commas before them.
func appendSelection(dst []byte, s vectord.Selection) ([]byte, error) {
	dst = append(dst, `,"with_vector":`...)
	if s.Vectors && len(s.VectorNames) > 0 {
		names, err := json.Marshal(s.VectorNames)
		if err != nil {
			return dst, err
		}
		dst = append(dst, names...)
	} else {
		dst = strconv.AppendBool(dst, s.Vectors)
	}
	dst = append(dst, `,"with_payload":`...)
	var paths any
	switch {
	case len(s.Include) > 0 && len(s.Exclude) > 0:
		return dst, errBothPaths
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

// vectors reads the vectors of a point, bare or by name.
type vectors vectord.Vectors

func (v *vectors) UnmarshalJSON(b []byte) error {
	*v = nil
	switch b = trimSpace(b); {
	case string(b) == "null":
		return nil
	case len(b) > 0 && b[0] == '[':
		one, err := parseAnyVector(b)
		*v = vectors{{Vector: one}}
		return err
	}
	var named map[string]json.RawMessage
	if err := json.Unmarshal(b, &named); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		one, err := parseAnyVector(named[name])
		if err != nil {
			return fmt.Errorf("vector %q: %w", name, err)
		}
		*v = append(*v, vectord.NamedVector{Name: name, Vector: one})
	}
	return nil
}

func parseAnyVector(b []byte) (v vectord.Vector, err error) {
	b = trimSpace(b)
	if len(b) > 0 && b[0] == '{' {
		var sparse struct {
			Indices []uint32  `json:"indices"`
			Values  []float32 `json:"values"`
		}
		err = json.Unmarshal(b, &sparse)
		return vectord.Sparse(sparse.Indices, sparse.Values), err
	}
	if rest := trimSpace(b[min(1, len(b)):]); len(rest) == 0 || rest[0] != '[' {
		v.Values, err = ParseVector(nil, b)
		return v, err
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(b, &rows); err != nil {
		return v, err
	}
	v.Kind, v.Rows = vectord.MultiVector, len(rows)
	for _, row := range rows {
		if v.Values, err = ParseVector(v.Values, row); err != nil {
			return v, err
		}
	}
	return v, nil
}

// record is a Record or Hit as it comes over the wire.
type record struct {
	ID      vectord.PointID `json:"id"`
	Version uint64          `json:"version"`
	Score   float32         `json:"score"`
	Vector  vectors         `json:"vector"`
	Payload json.RawMessage `json:"payload"`
	Expires time.Time       `json:"expires_at"`
}

func (r *record) record() vectord.Record {
	out := vectord.Record{ID: r.ID, Version: r.Version, Vectors: vectord.Vectors(r.Vector)}
	if len(r.Payload) > 0 && r.Payload[0] == '{' {
		out.Payload = r.Payload
	}
	if !r.Expires.IsZero() {
		out.Expires = r.Expires.UnixMilli()
	}
	return out
}
