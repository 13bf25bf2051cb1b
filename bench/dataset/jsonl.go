package dataset

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
)

// LineBytesMax bounds one JSON line: the longest vector at full precision and the largest payload fit.
const LineBytesMax = vectord.MaxPayloadBytes + 32*vectord.MaxDimension

// JSONLReader reads points as JSON lines: {"id": 7, "vector": [0.1, …], "payload": {…}}. Blank lines are skipped; a field
// of another name is an error, for it is more likely a misspelling than something to be left out.
type JSONLReader struct {
	lines   *bufio.Scanner
	options Options
	line    int // number of the current line, from 1
	row     uint64
	vector  []float32
	fields  map[string]json.RawMessage
}

// NewJSONLReader returns a reader of r.
func NewJSONLReader(r io.Reader, o Options) *JSONLReader {
	if o.IDField == "" {
		o.IDField = "id"
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, bufferBytes), LineBytesMax)
	return &JSONLReader{lines: lines, options: o, fields: make(map[string]json.RawMessage)}
}

// Next implements Reader.
func (j *JSONLReader) Next() (vectord.Point, error) {
	for j.lines.Scan() {
		j.line++
		line := bytes.TrimSpace(j.lines.Bytes())
		if len(line) == 0 {
			continue
		}
		p, err := j.parse(line)
		if err != nil {
			return vectord.Point{}, fmt.Errorf("line %d: %w", j.line, err)
		}
		j.row++
		return p, nil
	}
	switch err := j.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return vectord.Point{}, fmt.Errorf("line %d: longer than the limit of %d bytes", j.line+1, LineBytesMax)
	case err != nil:
		return vectord.Point{}, fmt.Errorf("line %d: %w", j.line+1, err)
	}
	return vectord.Point{}, io.EOF
}

func (j *JSONLReader) parse(line []byte) (p vectord.Point, err error) {
	clear(j.fields)
	if err := json.Unmarshal(line, &j.fields); err != nil {
		return p, err
	}
	idGiven := false
	p.ID = vectord.NumberID(j.row)
	for name, value := range j.fields {
		switch name {
		case j.options.IDField:
			if idGiven = true; !j.options.NumberRows {
				err = p.ID.UnmarshalJSON(value)
			}
		case "vector":
			j.vector, err = client.ParseVector(j.vector[:0], value)
			p.Vectors = vectord.Unnamed(j.vector)
		case "payload":
			if value[0] != '{' && string(value) != "null" {
				err = errors.New("expected an object")
			} else if value[0] == '{' {
				p.Payload = value
			}
		default:
			err = fmt.Errorf("unknown field, expected %q, \"vector\" and \"payload\"", j.options.IDField)
		}
		if err != nil {
			return vectord.Point{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	switch {
	case !idGiven && !j.options.NumberRows:
		return vectord.Point{}, fmt.Errorf("%s: missing", j.options.IDField)
	case len(p.Vectors.Unnamed()) == 0:
		return vectord.Point{}, errors.New("vector: missing or empty")
	}
	if err := checkFinite(p.Vectors.Unnamed()); err != nil {
		return vectord.Point{}, fmt.Errorf("vector: %w", err)
	}
	if err := checkDim(int64(len(p.Vectors.Unnamed()))); err != nil {
		return vectord.Point{}, fmt.Errorf("vector: %w", err)
	}
	return p, nil
}

// AppendJSONLine appends p as a JSON line.
func AppendJSONLine(dst []byte, p vectord.Point) []byte {
	return append(client.AppendPoint(dst, p), '\n')
}
