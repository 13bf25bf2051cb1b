package vectord

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// PointID names a point within its collection: an unsigned 64-bit number or a UUID. It is comparable; the zero value is
// the number 0.
type PointID struct {
	uuid   [16]byte
	number uint64
	isUUID bool
}

// NumberID returns the numeric id n.
func NumberID(n uint64) PointID { return PointID{number: n} }

// UUIDID returns the id for the 16 bytes of a UUID.
func UUIDID(b [16]byte) PointID { return PointID{uuid: b, isUUID: true} }

// ParsePointID reads an id as it stands in a URL path: a decimal number, or a UUID in simple, hyphenated or
// urn:uuid: form, in any case.
func ParsePointID(s string) (PointID, error) {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return NumberID(n), nil
	}
	return parseUUID(s)
}

func parseUUID(s string) (PointID, error) {
	h := s
	if len(h) == 45 && strings.EqualFold(h[:9], "urn:uuid:") {
		h = h[9:]
	}
	if len(h) == 36 && h[8] == '-' && h[13] == '-' && h[18] == '-' && h[23] == '-' {
		h = h[:8] + h[9:13] + h[14:18] + h[19:23] + h[24:]
	}
	var b [16]byte
	if len(h) != 32 {
		return PointID{}, invalidID(s)
	}
	if _, err := hex.Decode(b[:], []byte(h)); err != nil {
		return PointID{}, invalidID(s)
	}
	return UUIDID(b), nil
}

func invalidID(s string) error {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return Errorf(KindInvalid, "value %q is not a valid point ID, valid values are either an unsigned integer or a UUID", s)
}

// IsUUID reports whether the id is a UUID; otherwise it is a number.
func (id PointID) IsUUID() bool { return id.isUUID }

// Number returns the number of a numeric id.
func (id PointID) Number() uint64 { return id.number }

// UUID returns the bytes of a UUID id.
func (id PointID) UUID() [16]byte { return id.uuid }

// Compare orders ids: numbers before UUIDs, numbers by value, UUIDs by their bytes.
func (id PointID) Compare(other PointID) int {
	if id.isUUID != other.isUUID {
		if other.isUUID {
			return -1
		}
		return 1
	}
	if id.isUUID {
		return bytes.Compare(id.uuid[:], other.uuid[:])
	}
	return cmp.Compare(id.number, other.number)
}

// Tags of the binary form. They sort numbers before UUIDs.
const (
	idTagNumber = 0x01
	idTagUUID   = 0x02
)

// AppendBinary appends the order-preserving form of the id: a tag byte and 8 or 16 bytes, big-endian.
func (id PointID) AppendBinary(dst []byte) []byte {
	if id.isUUID {
		return append(append(dst, idTagUUID), id.uuid[:]...)
	}
	return binary.BigEndian.AppendUint64(append(dst, idTagNumber), id.number)
}

// DecodePointID reads the form written by AppendBinary from the front of b and returns what follows it.
func DecodePointID(b []byte) (id PointID, rest []byte, err error) {
	switch {
	case len(b) >= 9 && b[0] == idTagNumber:
		return NumberID(binary.BigEndian.Uint64(b[1:])), b[9:], nil
	case len(b) >= 17 && b[0] == idTagUUID:
		return UUIDID([16]byte(b[1:17])), b[17:], nil
	}
	return PointID{}, b, fmt.Errorf("malformed binary point id % x", b[:min(len(b), 17)])
}

// Hash spreads ids evenly over 64 bits. It is part of the storage format: shards are chosen by it.
func (id PointID) Hash() uint64 {
	h := id.number
	if id.isUUID {
		h = mix64(binary.BigEndian.Uint64(id.uuid[:8])) ^ binary.BigEndian.Uint64(id.uuid[8:])
	}
	return mix64(h)
}

// mix64 is the finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
func mix64(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// String returns the decimal number or the lower-case hyphenated UUID.
func (id PointID) String() string {
	if !id.isUUID {
		return strconv.FormatUint(id.number, 10)
	}
	h := hex.EncodeToString(id.uuid[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// AppendJSON appends the id as a JSON number or string.
func (id PointID) AppendJSON(dst []byte) []byte {
	if !id.isUUID {
		return strconv.AppendUint(dst, id.number, 10)
	}
	dst = append(dst, '"')
	dst = append(dst, id.String()...)
	return append(dst, '"')
}

// MarshalJSON implements json.Marshaler.
func (id PointID) MarshalJSON() ([]byte, error) { return id.AppendJSON(nil), nil }

// UnmarshalJSON accepts an unsigned integer up to 2^64-1, never through a float, or a string holding a UUID. A string
// of digits is not an id.
func (id *PointID) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	var err error
	if len(b) >= 2 && b[0] == '"' && b[len(b)-1] == '"' {
		*id, err = parseUUID(string(b[1 : len(b)-1]))
		return err
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return invalidID(string(b))
	}
	*id = NumberID(n)
	return nil
}
