package wire

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/vectord/vectord"
)

// MaxVectorComponents bounds one vector, or all rows of one, before it takes memory.
const MaxVectorComponents = vectord.MaxMultiVectorBytes / 4

// timeBytes is the length of a Time in its text form.
const timeBytes = len("2006-01-02T15:04:05.000Z")

// Raw is JSON text, which stays undecoded. It goes as bin and is taken from str too. What is decoded is a slice of the frame.
type Raw []byte

// MarshalMsg implements msgp.Marshaler.
func (r Raw) MarshalMsg(dst []byte) ([]byte, error) {
	if r == nil {
		return msgp.AppendNil(dst), nil
	}
	return msgp.AppendBytes(dst, r), nil
}

// UnmarshalMsg implements msgp.Unmarshaler.
func (r *Raw) UnmarshalMsg(b []byte) (rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.NilType:
		*r = nil
		return b[1:], nil
	case msgp.StrType:
		*r, rest, err = msgp.ReadStringZC(b)
	default:
		*r, rest, err = msgp.ReadBytesZC(b)
	}
	return rest, err
}

// Msgsize implements msgp.Sizer.
func (r Raw) Msgsize() int { return msgp.BytesPrefixSize + len(r) }

// Floats is a dense vector. It goes as bin of little-endian float32s, and is taken from an array of numbers too. What is
// decoded is a copy.
type Floats []float32

// MarshalMsg implements msgp.Marshaler.
func (f Floats) MarshalMsg(dst []byte) ([]byte, error) { return appendFloats(dst, f), nil }

// UnmarshalMsg implements msgp.Unmarshaler.
func (f *Floats) UnmarshalMsg(b []byte) (rest []byte, err error) {
	if msgp.IsNil(b) {
		*f = nil
		return b[1:], nil
	}
	*f, rest, err = readFloats((*f)[:0], b)
	return rest, err
}

// Msgsize implements msgp.Sizer.
func (f Floats) Msgsize() int { return msgp.BytesPrefixSize + 4*len(f) }

func appendFloats(dst []byte, v []float32) []byte {
	dst = msgp.AppendBytesHeader(dst, uint32(4*len(v)))
	n := len(dst)
	dst = append(dst, make([]byte, 4*len(v))...)
	for i, x := range v {
		binary.LittleEndian.PutUint32(dst[n+4*i:], math.Float32bits(x))
	}
	return dst
}

// readFloats appends the components of a vector, in either of its forms, to dst.
func readFloats(dst []float32, b []byte) (_ []float32, rest []byte, err error) {
	if msgp.NextType(b) != msgp.ArrayType {
		raw, rest, err := msgp.ReadBytesZC(b)
		if err != nil {
			return dst, b, err
		}
		if len(raw)%4 != 0 {
			return dst, b, vectord.Errorf(vectord.KindInvalid, "vector: %d bytes are no number of 32-bit floats", len(raw))
		}
		if dst, err = growFloats(dst, len(raw)/4); err != nil {
			return dst, b, err
		}
		return appendFloatBytes(dst, raw), rest, nil
	}
	n, rest, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return dst, b, err
	}
	if int64(n) > int64(len(rest)) { // each takes a byte at least
		return dst, b, msgp.ErrShortBytes
	}
	if dst, err = growFloats(dst, int(n)); err != nil {
		return dst, b, err
	}
	for range n {
		var x float64
		if x, rest, err = readNumber(rest); err != nil {
			return dst, b, err
		}
		dst = append(dst, float32(x))
	}
	return dst, rest, nil
}

func growFloats(dst []float32, n int) ([]float32, error) {
	if len(dst)+n > MaxVectorComponents {
		return dst, vectord.Errorf(vectord.KindUnprocessable, "vector: %d components, at most %d are accepted", len(dst)+n, MaxVectorComponents)
	}
	if cap(dst)-len(dst) < n {
		dst = append(make([]float32, 0, len(dst)+n), dst...)
	}
	return dst, nil
}

// appendFloatBytes appends the floats of raw, whose length is a multiple of 4.
func appendFloatBytes(dst []float32, raw []byte) []float32 {
	for ; len(raw) >= 4; raw = raw[4:] {
		dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(raw)))
	}
	return dst
}

// readNumber reads an integer or a float.
func readNumber(b []byte) (x float64, rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.IntType:
		n, rest, err := msgp.ReadInt64Bytes(b)
		return float64(n), rest, err
	case msgp.UintType:
		n, rest, err := msgp.ReadUint64Bytes(b)
		return float64(n), rest, err
	}
	return msgp.ReadFloat64Bytes(b) // takes 32-bit ones too
}

// Vectors are those of a point: the default one bare, or a map by name. A dense vector is a Floats, a sparse one a map of
// indices (an array) and values (a Floats), a multivector an array of Floats.
type Vectors vectord.Vectors

// MarshalMsg implements msgp.Marshaler.
func (v Vectors) MarshalMsg(dst []byte) ([]byte, error) {
	if len(v) == 1 && v[0].Name == "" {
		return appendVector(dst, &v[0].Vector)
	}
	dst = msgp.AppendMapHeader(dst, uint32(len(v)))
	for i := range v {
		var err error
		if dst, err = appendVector(msgp.AppendString(dst, v[i].Name), &v[i].Vector); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func appendVector(dst []byte, v *vectord.Vector) ([]byte, error) {
	switch v.Kind {
	case vectord.DenseVector:
		return appendFloats(dst, v.Values), nil
	case vectord.SparseVector:
		dst = msgp.AppendMapHeader(dst, 2)
		dst = msgp.AppendArrayHeader(msgp.AppendString(dst, "indices"), uint32(len(v.Indices)))
		for _, i := range v.Indices {
			dst = msgp.AppendUint32(dst, i)
		}
		return appendFloats(msgp.AppendString(dst, "values"), v.Values), nil
	case vectord.MultiVector:
		dst = msgp.AppendArrayHeader(dst, uint32(v.Rows))
		size := len(v.Values) / max(v.Rows, 1)
		for row := range v.Rows {
			dst = appendFloats(dst, v.Values[row*size:(row+1)*size])
		}
		return dst, nil
	}
	return dst, vectord.Errorf(vectord.KindUnsupported, "vector: a %s has no form in MessagePack", v.Kind)
}

// UnmarshalMsg implements msgp.Unmarshaler.
func (v *Vectors) UnmarshalMsg(b []byte) (rest []byte, err error) {
	*v = nil
	if msgp.IsNil(b) {
		return b[1:], nil
	}
	if msgp.NextType(b) != msgp.MapType || isSparse(b) {
		var one vectord.Vector
		rest, err = readVector(&one, b)
		*v = Vectors{{Vector: one}}
		return rest, err
	}
	n, rest, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return b, err
	}
	if n > vectord.MaxVectorNames {
		return b, vectord.Errorf(vectord.KindUnprocessable, "vector: %d names, at most %d are accepted", n, vectord.MaxVectorNames)
	}
	for range n {
		var one vectord.NamedVector
		if one.Name, rest, err = msgp.ReadStringBytes(rest); err != nil {
			return b, err
		}
		if _, twice := vectord.Vectors(*v).Get(one.Name); twice {
			return b, vectord.Errorf(vectord.KindInvalid, "vector: the name %q is given twice", one.Name)
		}
		if rest, err = readVector(&one.Vector, rest); err != nil {
			return b, err
		}
		*v = append(*v, one)
	}
	return rest, nil
}

// isSparse tells a bare sparse vector from vectors by name: those of a sparse one are "indices" and "values", and what
// "indices" holds is an array of numbers or is empty.
func isSparse(b []byte) bool {
	n, rest, err := msgp.ReadMapHeaderBytes(b)
	if err != nil || n != 2 {
		return false
	}
	for range n {
		var name []byte
		if name, rest, err = msgp.ReadMapKeyZC(rest); err != nil || string(name) != "indices" && string(name) != "values" {
			return false
		}
		if rest, err = msgp.Skip(rest); err != nil {
			return false
		}
	}
	return true
}

func readVector(v *vectord.Vector, b []byte) (rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.MapType:
		return readSparse(v, b)
	case msgp.ArrayType:
		n, rows, err := msgp.ReadArrayHeaderBytes(b)
		if err != nil {
			return b, err
		}
		if first := msgp.NextType(rows); n > 0 && (first == msgp.ArrayType || first == msgp.BinType) {
			return readRows(v, int(n), rows)
		}
	}
	v.Values, rest, err = readFloats(nil, b)
	return rest, err
}

func readRows(v *vectord.Vector, n int, b []byte) (rest []byte, err error) {
	if n > vectord.MaxMultiVectorRows {
		return b, vectord.Errorf(vectord.KindUnprocessable, "vector: %d rows, at most %d are accepted", n, vectord.MaxMultiVectorRows)
	}
	v.Kind, v.Rows = vectord.MultiVector, n
	for row := range n {
		before := len(v.Values)
		if v.Values, b, err = readFloats(v.Values, b); err != nil {
			return b, err
		}
		size := len(v.Values) - before
		if size == 0 || row > 0 && size != len(v.Values)/(row+1) {
			return b, vectord.Errorf(vectord.KindInvalid, "vector: row %d has %d components, not as many as the others", row, size)
		}
		if row == 0 {
			if v.Values, err = growFloats(v.Values, min((n-1)*size, MaxVectorComponents-size, len(b)/4+1)); err != nil {
				return b, err
			}
		}
	}
	return b, nil
}

func readSparse(v *vectord.Vector, b []byte) (rest []byte, err error) {
	n, rest, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return b, err
	}
	var indices []uint32
	var values []float32
	for range n {
		var name []byte
		if name, rest, err = msgp.ReadMapKeyZC(rest); err != nil {
			return b, err
		}
		switch string(name) {
		case "indices":
			indices, rest, err = readIndices(rest)
		case "values":
			values, rest, err = readFloats(values[:0], rest)
		default:
			err = vectord.Errorf(vectord.KindInvalid, "vector: unknown field %.40q, expected indices and values", name)
		}
		if err != nil {
			return b, err
		}
	}
	if len(indices) != len(values) {
		return b, vectord.Errorf(vectord.KindUnprocessable, "vector: must be the same length as indices, got %d values and %d indices", len(values), len(indices))
	}
	*v = vectord.Sparse(indices, values)
	return rest, nil
}

func readIndices(b []byte) (indices []uint32, rest []byte, err error) {
	n, rest, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return nil, b, err
	}
	if n > vectord.MaxSparseComponents || int64(n) > int64(len(rest)) {
		return nil, b, vectord.Errorf(vectord.KindUnprocessable, "vector: %d indices, at most %d are accepted", n, vectord.MaxSparseComponents)
	}
	indices = make([]uint32, n)
	for i := range indices {
		if indices[i], rest, err = msgp.ReadUint32Bytes(rest); err != nil {
			return nil, b, err
		}
	}
	return indices, rest, nil
}

// Msgsize implements msgp.Sizer.
func (v Vectors) Msgsize() (n int) {
	n = msgp.MapHeaderSize
	for i := range v {
		n += msgp.StringPrefixSize + len(v[i].Name) + 32 + 4*len(v[i].Values) + 5*len(v[i].Indices) + 5*v[i].Rows
	}
	return n
}

// TaskID is the id of a task, which goes as text and is taken from 16 bytes of bin too.
type TaskID vectord.TaskID

// MarshalMsg implements msgp.Marshaler.
func (id TaskID) MarshalMsg(dst []byte) ([]byte, error) {
	var text [36]byte
	hex.Encode(text[:], id[:4])
	text[8] = '-'
	hex.Encode(text[9:], id[4:6])
	text[13] = '-'
	hex.Encode(text[14:], id[6:8])
	text[18] = '-'
	hex.Encode(text[19:], id[8:10])
	text[23] = '-'
	hex.Encode(text[24:], id[10:])
	return msgp.AppendStringFromBytes(dst, text[:]), nil
}

// UnmarshalMsg implements msgp.Unmarshaler.
func (id *TaskID) UnmarshalMsg(b []byte) (rest []byte, err error) {
	if msgp.NextType(b) == msgp.BinType {
		return msgp.ReadExactBytes(b, id[:])
	}
	text, rest, err := msgp.ReadStringZC(b)
	if err != nil {
		return b, err
	}
	if !parseUUID(id, text) {
		return b, vectord.Errorf(vectord.KindInvalid, "%.80q is not the id of a task, which is a UUID", text)
	}
	return rest, nil
}

func parseUUID(id *TaskID, text []byte) bool {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return false
	}
	at := 0
	for _, group := range [...][]byte{text[:8], text[9:13], text[14:18], text[19:23], text[24:]} {
		n, err := hex.Decode(id[at:], group)
		if err != nil {
			return false
		}
		at += n
	}
	return true
}

// Msgsize implements msgp.Sizer.
func (id TaskID) Msgsize() int { return msgp.StringPrefixSize + 36 }

// LeaseID is the id of a lease, which goes as text of 16 hexadecimal digits.
type LeaseID vectord.LeaseID

// MarshalMsg implements msgp.Marshaler.
func (id LeaseID) MarshalMsg(dst []byte) ([]byte, error) {
	var b [8]byte
	var text [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(id))
	hex.Encode(text[:], b[:])
	return msgp.AppendStringFromBytes(dst, text[:]), nil
}

// UnmarshalMsg implements msgp.Unmarshaler.
func (id *LeaseID) UnmarshalMsg(b []byte) (rest []byte, err error) {
	text, rest, err := msgp.ReadStringZC(b)
	if err != nil {
		return b, err
	}
	return rest, (*vectord.LeaseID)(id).UnmarshalText(text)
}

// Msgsize implements msgp.Sizer.
func (id LeaseID) Msgsize() int { return msgp.StringPrefixSize + 16 }

// Time is a moment, which goes as text and is taken from a number of milliseconds since the Unix epoch too.
type Time vectord.Timestamp

// MarshalMsg implements msgp.Marshaler.
func (t Time) MarshalMsg(dst []byte) ([]byte, error) {
	var text [timeBytes]byte
	return msgp.AppendStringFromBytes(dst, appendTime(text[:0], t)), nil
}

func appendTime(dst []byte, t Time) []byte {
	at := time.UnixMilli(int64(t)).UTC()
	dst = at.AppendFormat(dst, time.RFC3339) // for which package time has a quick way, as it has none for three digits
	ms := at.Nanosecond() / int(time.Millisecond)
	return append(dst[:len(dst)-1], '.', '0'+byte(ms/100), '0'+byte(ms/10%10), '0'+byte(ms%10), 'Z')
}

// UnmarshalMsg implements msgp.Unmarshaler.
func (t *Time) UnmarshalMsg(b []byte) (rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.NilType:
		*t = 0
		return b[1:], nil
	case msgp.StrType:
		text, rest, err := msgp.ReadStringZC(b)
		if err != nil {
			return b, err
		}
		return rest, (*vectord.Timestamp)(t).UnmarshalText(text)
	}
	n, rest, err := msgp.ReadInt64Bytes(b)
	if err == nil && (n < 0 || n > maxTime) {
		err = vectord.Errorf(vectord.KindInvalid, "%d is not a time from 1970 to 9999 in milliseconds", n)
	}
	*t = Time(n)
	return rest, err
}

// maxTime is the last millisecond of the year 9999.
const maxTime = 253402300799999

// Msgsize implements msgp.Sizer.
func (t Time) Msgsize() int { return msgp.StringPrefixSize + timeBytes }

// PointID is the id of a point: a number, or a UUID as text.
type PointID struct{ vectord.PointID }

// MarshalMsg implements msgp.Marshaler.
func (id PointID) MarshalMsg(dst []byte) ([]byte, error) {
	if id.IsUUID() {
		return TaskID(id.UUID()).MarshalMsg(dst)
	}
	return msgp.AppendUint64(dst, id.Number()), nil
}

// UnmarshalMsg implements msgp.Unmarshaler.
func (id *PointID) UnmarshalMsg(b []byte) (rest []byte, err error) {
	if msgp.NextType(b) == msgp.StrType {
		text, rest, err := msgp.ReadStringZC(b)
		if err != nil {
			return b, err
		}
		id.PointID, err = vectord.ParsePointID(string(text))
		if err == nil && !id.IsUUID() {
			err = vectord.Errorf(vectord.KindInvalid, "value %q is not a valid point ID, numbers are not given as text", text)
		}
		return rest, err
	}
	n, rest, err := msgp.ReadUint64Bytes(b)
	id.PointID = vectord.NumberID(n)
	return rest, err
}

// Msgsize implements msgp.Sizer.
func (id PointID) Msgsize() int { return msgp.StringPrefixSize + 36 }

// Nested is MessagePack within MessagePack, undecoded: a slice of the frame.
type Nested []byte

// MarshalMsg implements msgp.Marshaler.
func (n Nested) MarshalMsg(dst []byte) ([]byte, error) { return append(dst, n...), nil }

// UnmarshalMsg implements msgp.Unmarshaler.
func (n *Nested) UnmarshalMsg(b []byte) (rest []byte, err error) {
	if rest, err = msgp.Skip(b); err == nil {
		*n = Nested(b[:len(b)-len(rest)])
	}
	return rest, err
}

// Msgsize implements msgp.Sizer.
func (n Nested) Msgsize() int { return len(n) }

// What is left out of a message when it says nothing.

// IsZero reports whether there is no text.
func (r Raw) IsZero() bool { return r == nil }

// IsZero reports whether there is nothing.
func (n Nested) IsZero() bool { return len(n) == 0 }

// IsZero reports whether there is no vector.
func (f Floats) IsZero() bool { return f == nil }

// IsZero reports whether there are no vectors.
func (v Vectors) IsZero() bool { return v == nil }

// IsZero reports whether it names none.
func (id TaskID) IsZero() bool { return id == TaskID{} }

// IsZero reports whether it names none.
func (id LeaseID) IsZero() bool { return id == 0 }

// IsZero reports whether it stands for none.
func (t Time) IsZero() bool { return t == 0 }
