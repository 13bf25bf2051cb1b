package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tinylib/msgp/msgp"

	"github.com/vectord/vectord"
)

// MaxTranscodeDepth is how deep values may nest in what is turned into JSON or MessagePack: a payload of the greatest depth
// and what is around it.
const MaxTranscodeDepth = vectord.MaxPayloadDepth + 16

// IsMsgpack reports whether a media type, without its parameters, is MessagePack.
func IsMsgpack(mediaType string) bool {
	switch mediaType {
	case "application/vnd.msgpack", "application/msgpack", "application/x-msgpack":
		return true
	}
	return false
}

// jsonMembers are the members that hold any JSON, in which a bin is the text of it. Below them a bin has no meaning;
// everywhere else it is a vector.
var jsonMembers = map[string]bool{"payload": true, "metadata": true, "result": true, "progress": true, "request": true, "response": true,
	"input_request": true, "input_response": true, "filter": true, "labels": true}

// place says what a bin is at some place of a message.
type place uint8

const (
	outside  place = iota // a vector
	member                // JSON text: the value of one of jsonMembers
	inside                // nothing
	inVector              // a vector, and arrays of numbers are vectors too: the value of "vector"
)

// AppendJSON appends the MessagePack value that b consists of as JSON: the body of a request, to be read as if it had come
// so. A bin is a vector of little-endian float32s, or JSON text where a member can hold any JSON. What is appended is at most
// limit bytes.
func AppendJSON(dst, b []byte, limit int) ([]byte, error) {
	t := toJSON{dst: dst, max: len(dst) + limit, limit: limit}
	rest, err := t.value(b, outside, 0)
	switch {
	case err != nil:
		return dst, notMsgpack(err)
	case len(rest) > 0:
		return dst, vectord.Errorf(vectord.KindInvalid, "MessagePack: %d bytes follow the value", len(rest))
	case len(t.dst) > t.max:
		return dst, t.tooLarge()
	}
	return t.dst, nil
}

func notMsgpack(err error) error {
	var own *vectord.Error
	if errors.As(err, &own) {
		return err
	}
	return vectord.Errorf(vectord.KindInvalid, "MessagePack: %v", err)
}

type toJSON struct {
	dst   []byte
	max   int // length of dst
	limit int
}

func (t *toJSON) tooLarge() error {
	return vectord.Errorf(vectord.KindTooLarge, "MessagePack: larger than %d bytes as JSON", t.limit)
}

// value appends the value that b begins with and returns what follows it.
func (t *toJSON) value(b []byte, at place, depth int) (rest []byte, err error) {
	switch {
	case depth > MaxTranscodeDepth:
		return b, vectord.Errorf(vectord.KindInvalid, "MessagePack: nested deeper than %d", MaxTranscodeDepth)
	case len(t.dst) > t.max:
		return b, t.tooLarge()
	}
	switch msgp.NextType(b) {
	case msgp.NilType:
		t.dst = append(t.dst, "null"...)
		return b[1:], nil
	case msgp.BoolType:
		x, rest, err := msgp.ReadBoolBytes(b)
		t.dst = strconv.AppendBool(t.dst, x)
		return rest, err
	case msgp.IntType:
		x, rest, err := msgp.ReadInt64Bytes(b)
		t.dst = strconv.AppendInt(t.dst, x, 10)
		return rest, err
	case msgp.UintType:
		x, rest, err := msgp.ReadUint64Bytes(b)
		t.dst = strconv.AppendUint(t.dst, x, 10)
		return rest, err
	case msgp.Float32Type:
		x, rest, err := msgp.ReadFloat32Bytes(b)
		if err == nil {
			err = t.float(float64(x), 32)
		}
		return rest, err
	case msgp.Float64Type:
		x, rest, err := msgp.ReadFloat64Bytes(b)
		if err == nil {
			err = t.float(x, 64)
		}
		return rest, err
	case msgp.StrType:
		text, rest, err := msgp.ReadStringZC(b)
		if err == nil {
			err = t.str(text)
		}
		return rest, err
	case msgp.BinType:
		raw, rest, err := msgp.ReadBytesZC(b)
		if err == nil {
			err = t.bin(raw, at)
		}
		return rest, err
	case msgp.ArrayType:
		return t.array(b, at, depth)
	case msgp.MapType:
		return t.object(b, at, depth)
	case msgp.InvalidType:
		if len(b) == 0 {
			return b, msgp.ErrShortBytes
		}
	}
	return b, vectord.Errorf(vectord.KindInvalid, "MessagePack: a value of type %s has no form in JSON", msgp.NextType(b))
}

func (t *toJSON) float(x float64, bits int) error {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return vectord.Errorf(vectord.KindInvalid, "MessagePack: %v is not a finite number", x)
	}
	t.dst = jsontext.AppendFloat(t.dst, x, bits)
	return nil
}

func (t *toJSON) str(text []byte) (err error) {
	if !utf8.Valid(text) {
		return vectord.Errorf(vectord.KindInvalid, "MessagePack: %.40q is not valid UTF-8", text)
	}
	t.dst, err = jsontext.AppendQuote(t.dst, text)
	return err
}

func (t *toJSON) bin(raw []byte, at place) error {
	switch {
	case at == member && ValidJSON(raw):
		t.dst = append(t.dst, raw...)
		return nil
	case at == member:
		return vectord.Errorf(vectord.KindInvalid, "MessagePack: a bin of %d bytes is not valid JSON", len(raw))
	case at == inside:
		return vectord.Errorf(vectord.KindInvalid, "MessagePack: a bin of %d bytes within a payload has no form in JSON", len(raw))
	case len(raw)%4 != 0:
		return vectord.Errorf(vectord.KindInvalid, "MessagePack: a bin of %d bytes is no number of 32-bit floats", len(raw))
	}
	t.dst = append(t.dst, '[')
	for i := 0; i < len(raw); i += 4 {
		if i > 0 {
			t.dst = append(t.dst, ',')
		}
		if err := t.float(float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[i:]))), 32); err != nil {
			return err
		}
		if len(t.dst) > t.max {
			return t.tooLarge()
		}
	}
	t.dst = append(t.dst, ']')
	return nil
}

func (t *toJSON) array(b []byte, at place, depth int) (rest []byte, err error) {
	n, rest, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return b, err
	}
	if at == member {
		at = inside
	}
	t.dst = append(t.dst, '[')
	for i := range n {
		if i > 0 {
			t.dst = append(t.dst, ',')
		}
		if rest, err = t.value(rest, at, depth+1); err != nil {
			return rest, err
		}
	}
	t.dst = append(t.dst, ']')
	return rest, nil
}

func (t *toJSON) object(b []byte, at place, depth int) (rest []byte, err error) {
	n, rest, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return b, err
	}
	t.dst = append(t.dst, '{')
	for i := range n {
		if i > 0 {
			t.dst = append(t.dst, ',')
		}
		var name []byte
		if name, rest, err = msgp.ReadMapKeyZC(rest); err != nil {
			return rest, err
		}
		if err := t.str(name); err != nil {
			return rest, err
		}
		t.dst = append(t.dst, ':')
		if rest, err = t.value(rest, below(at, string(name)), depth+1); err != nil {
			return rest, err
		}
	}
	t.dst = append(t.dst, '}')
	return rest, nil
}

// below returns the place of the value of a member.
func below(at place, name string) place {
	switch {
	case at == member || at == inside:
		return inside
	case jsonMembers[name]:
		return member
	}
	return outside
}

// AppendMsgpack appends the JSON value that text consists of, which is the server's own, as MessagePack: the body of an answer.
// Integers stay integers as far as 64 bits hold them, other numbers become 64-bit floats, and the arrays of numbers of a member
// "vector" that are vectors become bins of little-endian float32s.
func AppendMsgpack(dst, text []byte) ([]byte, error) {
	if depth := vectord.JSONDepth(text); depth > MaxTranscodeDepth {
		return dst, vectord.Errorf(vectord.KindInvalid, "JSON: nested deeper than %d", MaxTranscodeDepth)
	}
	t := toMsgpack{dst: dst, in: jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowDuplicateNames(true))}
	if err := t.value(outside); err != nil {
		return dst, vectord.Errorf(vectord.KindInvalid, "JSON: %v", err)
	}
	if _, err := t.in.ReadToken(); !errors.Is(err, io.EOF) {
		return dst, vectord.Errorf(vectord.KindInvalid, "JSON: something follows the value")
	}
	return t.dst, nil
}

type toMsgpack struct {
	dst  []byte
	in   *jsontext.Decoder
	name []byte // reused
}

func (t *toMsgpack) value(at place) error {
	switch t.in.PeekKind() {
	case '{':
		return t.object(at)
	case '[':
		return t.array(at)
	case '"':
		raw, err := t.in.ReadValue()
		if err != nil {
			return err
		}
		return t.str(raw)
	case '0':
		raw, err := t.in.ReadValue()
		if err != nil {
			return err
		}
		return t.number(raw)
	}
	token, err := t.in.ReadToken()
	switch {
	case err != nil:
		return err
	case token.Kind() == 'n':
		t.dst = msgp.AppendNil(t.dst)
	default:
		t.dst = msgp.AppendBool(t.dst, token.Bool())
	}
	return nil
}

func (t *toMsgpack) str(raw jsontext.Value) (err error) {
	if t.name, err = jsontext.AppendUnquote(t.name[:0], raw); err == nil {
		t.dst = msgp.AppendStringFromBytes(t.dst, t.name)
	}
	return err
}

func (t *toMsgpack) number(raw []byte) error {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		t.dst = msgp.AppendInt64(t.dst, n)
		return nil
	}
	if n, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
		t.dst = msgp.AppendUint64(t.dst, n)
		return nil
	}
	x, err := strconv.ParseFloat(string(raw), 64)
	t.dst = msgp.AppendFloat64(t.dst, x)
	return err
}

func (t *toMsgpack) object(at place) error {
	if _, err := t.in.ReadToken(); err != nil {
		return err
	}
	header := len(t.dst)
	t.dst = append(t.dst, 0)
	n := 0
	for ; t.in.PeekKind() != '}'; n++ {
		raw, err := t.in.ReadValue()
		if err != nil {
			return err
		}
		if err := t.str(raw); err != nil {
			return err
		}
		next := inside
		switch name := string(t.name); {
		case at == outside && name == "vector", at == inVector && name != "indices":
			next = inVector
		case at == outside && !jsonMembers[name], at == outside && depthOfEnvelope(t.in, name):
			next = outside
		}
		if err := t.value(next); err != nil {
			return err
		}
	}
	t.header(header, n, 0x80, 0xde, 0xdf)
	_, err := t.in.ReadToken()
	return err
}

// depthOfEnvelope reports whether a member is the "result" of an answer's envelope, which is no task's result.
func depthOfEnvelope(in *jsontext.Decoder, name string) bool {
	return name == "result" && in.StackDepth() == 1
}

func (t *toMsgpack) array(at place) error {
	if _, err := t.in.ReadToken(); err != nil {
		return err
	}
	header := len(t.dst)
	t.dst = append(t.dst, 0)
	if at == inVector && t.in.PeekKind() == '0' {
		return t.vector(header)
	}
	n := 0
	for ; t.in.PeekKind() != ']'; n++ {
		if err := t.value(at); err != nil {
			return err
		}
	}
	t.header(header, n, 0x90, 0xdc, 0xdd)
	_, err := t.in.ReadToken()
	return err
}

// vector appends the numbers of an array that has begun, in place of the header, as a bin.
func (t *toMsgpack) vector(header int) error {
	t.dst = append(t.dst[:header], 0xc6, 0, 0, 0, 0) // bin 32
	begin := len(t.dst)
	for t.in.PeekKind() != ']' {
		raw, err := t.in.ReadValue()
		if err != nil {
			return err
		}
		x, err := strconv.ParseFloat(string(raw), 32)
		if err != nil {
			return err
		}
		t.dst = binary.LittleEndian.AppendUint32(t.dst, math.Float32bits(float32(x)))
	}
	binary.BigEndian.PutUint32(t.dst[begin-4:], uint32(len(t.dst)-begin))
	_, err := t.in.ReadToken()
	return err
}

// header writes the header of n members or elements, the place of whose shortest form was kept free at from.
func (t *toMsgpack) header(from, n int, short, of16, of32 byte) {
	switch {
	case n < 16:
		t.dst[from] = short | byte(n)
	case n < 1<<16:
		t.dst = append(t.dst, 0, 0)
		copy(t.dst[from+3:], t.dst[from+1:])
		t.dst[from] = of16
		binary.BigEndian.PutUint16(t.dst[from+1:], uint16(n))
	default:
		t.dst = append(t.dst, 0, 0, 0, 0)
		copy(t.dst[from+5:], t.dst[from+1:])
		t.dst[from] = of32
		binary.BigEndian.PutUint32(t.dst[from+1:], uint32(n))
	}
}
