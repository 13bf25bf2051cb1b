package grpcserver

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// payloadJSON returns a payload as one JSON object, nil for an empty one. Its keys are sorted: a message has them in no
// order, and a retry of a write must have the same bytes.
func payloadJSON(field string, payload map[string]*qdrant.Value) ([]byte, error) {
	if len(payload) == 0 {
		return nil, nil
	}
	out, err := appendObject(nil, payload, 1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return out, nil
}

func appendObject(dst []byte, fields map[string]*qdrant.Value, depth int) (_ []byte, err error) {
	if depth > vectord.MaxPayloadDepth {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "nested deeper than %d, which is what is accepted", vectord.MaxPayloadDepth)
	}
	dst = append(dst, '{')
	for i, key := range slices.Sorted(maps.Keys(fields)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, key), ':')
		if dst, err = appendValue(dst, fields[key], depth); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// appendValue appends the JSON of a value. Integers keep their digits; a double is the shortest decimal that reads back as
// itself, and has a point or an exponent by which it differs from an integer.
func appendValue(dst []byte, v *qdrant.Value, depth int) (_ []byte, err error) {
	switch kind := v.GetKind().(type) {
	case nil, *qdrant.Value_NullValue:
		return append(dst, "null"...), nil
	case *qdrant.Value_BoolValue:
		return strconv.AppendBool(dst, kind.BoolValue), nil
	case *qdrant.Value_IntegerValue:
		return strconv.AppendInt(dst, kind.IntegerValue, 10), nil
	case *qdrant.Value_DoubleValue:
		return appendDouble(dst, kind.DoubleValue)
	case *qdrant.Value_StringValue:
		return appendString(dst, kind.StringValue), nil
	case *qdrant.Value_StructValue:
		return appendObject(dst, kind.StructValue.GetFields(), depth+1)
	case *qdrant.Value_ListValue:
		if depth++; depth > vectord.MaxPayloadDepth {
			return nil, vectord.Errorf(vectord.KindUnprocessable, "nested deeper than %d, which is what is accepted", vectord.MaxPayloadDepth)
		}
		dst = append(dst, '[')
		for i, element := range kind.ListValue.GetValues() {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendValue(dst, element, depth); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	default:
		return nil, fmt.Errorf("a value of type %T", kind)
	}
}

func appendDouble(dst []byte, x float64) ([]byte, error) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil, vectord.Errorf(vectord.KindInvalid, "%v is no number that JSON has", x)
	}
	const plainMin, plainMax = 1e-5, 1e16 // outside of which an exponent is shorter
	if a := math.Abs(x); a != 0 && (a < plainMin || a >= plainMax) {
		return strconv.AppendFloat(dst, x, 'e', -1, 64), nil
	}
	begin := len(dst)
	if dst = strconv.AppendFloat(dst, x, 'f', -1, 64); !bytes.Contains(dst[begin:], []byte{'.'}) {
		dst = append(dst, ".0"...)
	}
	return dst, nil
}

func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, strings.ToValidUTF8(s, "\uFFFD")) // fails on invalid UTF-8 only
	return dst
}

// payloadValues returns the values of a stored payload.
func payloadValues(payload []byte) (map[string]*qdrant.Value, error) {
	if len(payload) == 0 {
		return nil, nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(payload))
	value, err := readValue(d)
	if err != nil {
		return nil, fmt.Errorf("a stored payload: %w", err)
	}
	object := value.GetStructValue()
	if object == nil {
		return nil, fmt.Errorf("a stored payload is no object: %.60s", payload)
	}
	return object.GetFields(), nil
}

// readValue reads one JSON value. A number is an integer if it is written as one and an int64 has room for it, else a
// double.
func readValue(d *jsontext.Decoder) (*qdrant.Value, error) {
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case 'n':
		return qdrant.NewValueNull(), nil
	case 't', 'f':
		return qdrant.NewValueBool(token.Bool()), nil
	case '"':
		return qdrant.NewValueString(token.String()), nil
	case '0':
		text := token.String()
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && text != "-0" {
			return qdrant.NewValueInt(n), nil
		}
		x, _ := strconv.ParseFloat(text, 64) // beyond the range it is infinite
		return qdrant.NewValueDouble(x), nil
	case '[':
		list := &qdrant.ListValue{}
		for d.PeekKind() != ']' {
			element, err := readValue(d)
			if err != nil {
				return nil, err
			}
			list.Values = append(list.Values, element)
		}
		_, err := d.ReadToken()
		return qdrant.NewValueList(list), err
	default:
		fields := map[string]*qdrant.Value{}
		for d.PeekKind() != '}' {
			key, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			name := key.String() // before the next token: the decoder's memory is used again
			if fields[name], err = readValue(d); err != nil {
				return nil, err
			}
		}
		_, err := d.ReadToken()
		return qdrant.NewValueFromFields(fields), err
	}
}

func idOf(field string, id *qdrant.PointId) (out vectord.PointID, err error) {
	switch id := id.GetPointIdOptions().(type) {
	case *qdrant.PointId_Num:
		return vectord.NumberID(id.Num), nil
	case *qdrant.PointId_Uuid:
		// In JSON a string is a UUID always, never a number.
		if err := out.UnmarshalJSON([]byte(`"` + id.Uuid + `"`)); err != nil {
			return out, fmt.Errorf("%s: %w", field, err)
		}
		return out, nil
	}
	return out, missing(field)
}

func idsOf(field string, ids []*qdrant.PointId) ([]vectord.PointID, error) {
	out := make([]vectord.PointID, len(ids))
	for i, id := range ids {
		var err error
		if out[i], err = idOf(fmt.Sprintf("%s[%d]", field, i), id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func pointID(id vectord.PointID) *qdrant.PointId {
	if id.IsUUID() {
		return qdrant.NewIDUUID(id.String())
	}
	return qdrant.NewIDNum(id.Number())
}
