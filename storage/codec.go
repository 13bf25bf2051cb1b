package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/vectord/vectord"
)

// A value is a version byte, a body, and the CRC-32C of both, little-endian like every number in a body.
const (
	valueVersion  = 1
	valueOverhead = 1 + crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// begin returns an empty value with room for a body of the given size.
func begin(bodySize int) []byte {
	return append(make([]byte, 0, bodySize+valueOverhead), valueVersion)
}

// seal appends the checksum to a value that begin began.
func seal(value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, crc32.Checksum(value, castagnoli))
}

// unseal returns the body of a value, which it aliases.
func unseal(value []byte) ([]byte, error) {
	if len(value) < valueOverhead {
		return nil, fmt.Errorf("%w: %d bytes are too few for a value", ErrDamaged, len(value))
	}
	end := len(value) - crc32.Size
	stored, computed := binary.LittleEndian.Uint32(value[end:]), crc32.Checksum(value[:end], castagnoli)
	if stored != computed {
		return nil, fmt.Errorf("%w: checksum is %08x, expected %08x", ErrDamaged, computed, stored)
	}
	if value[0] != valueVersion {
		return nil, fmt.Errorf("value has version %d, this program reads version %d", value[0], valueVersion)
	}
	return value[1:end], nil
}

// wrongSize is the error for a body whose checksum fits and whose size does not.
func wrongSize(what string, size int) error {
	return fmt.Errorf("%w: a %s of %d bytes", ErrDamaged, what, size)
}

// PointRow is what is kept of a point besides its vectors.
type PointRow struct {
	Slot    uint32   // where its vectors are
	Expires int64    // milliseconds since the Unix epoch from which on the point is no more; 0: never
	Vectors []uint16 // the numbers of the vectors that it has, ascending
	Payload []byte   // a JSON object as it came, nil for none
}

const pointHeaderSize = 4

func encodePoint(row PointRow) []byte {
	value := begin(pointHeaderSize + binary.MaxVarintLen64 + 3*len(row.Vectors) + 1 + len(row.Payload))
	value = binary.LittleEndian.AppendUint32(value, row.Slot)
	value = appendHoldings(value, row.Expires, row.Vectors)
	return seal(append(value, row.Payload...))
}

// decodePoint returns a row whose Payload aliases value.
func decodePoint(value []byte) (PointRow, error) {
	body, err := unseal(value)
	if err != nil {
		return PointRow{}, err
	}
	if len(body) < pointHeaderSize {
		return PointRow{}, wrongSize("point", len(body))
	}
	row := PointRow{Slot: binary.LittleEndian.Uint32(body)}
	var payload []byte
	if row.Expires, row.Vectors, payload, err = takeHoldings(body[pointHeaderSize:]); err != nil {
		return PointRow{}, err
	}
	if len(payload) > 0 {
		row.Payload = payload[:len(payload):len(payload)]
	}
	return row, nil
}

// What rows of points and of slots have in common: expires uvarint · count uvarint · numbers of vectors, uvarint each.
func appendHoldings(dst []byte, expires int64, vectors []uint16) []byte {
	dst = binary.AppendUvarint(dst, uint64(expires))
	dst = binary.AppendUvarint(dst, uint64(len(vectors)))
	for _, n := range vectors {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// unnamedOnly are the vectors of most points. Rows share it, so nobody writes to a row's Vectors.
var unnamedOnly = []uint16{0}

func takeHoldings(b []byte) (expires int64, vectors []uint16, rest []byte, err error) {
	take := func() uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			err = wrongSize("row", len(b))
			b = nil
			return 0
		}
		if size > 1 && b[size-1] == 0 { // a longer spelling than appendHoldings writes
			err = fmt.Errorf("%w: %d is written in %d bytes", ErrDamaged, n, size)
			b = nil
			return 0
		}
		b = b[size:]
		return n
	}
	expires = int64(take())
	count := take()
	switch {
	case err != nil:
		return 0, nil, nil, err
	case count == 1 && len(b) > 0 && b[0] == 0:
		return expires, unnamedOnly, b[1:], nil
	case count > uint64(len(b)):
		return 0, nil, nil, wrongSize("row", len(b))
	}
	for range count {
		n := take()
		if n > math.MaxUint16 || len(vectors) > 0 && n <= uint64(vectors[len(vectors)-1]) {
			return 0, nil, nil, fmt.Errorf("%w: vector number %d after %v", ErrDamaged, n, vectors)
		}
		vectors = append(vectors, uint16(n))
	}
	return expires, vectors, b, err
}

// SlotRow is what is kept of a slot in use. A reader of all slots learns which points there are without their payloads.
type SlotRow struct {
	ID      vectord.PointID // the point that the slot belongs to
	Version uint64          // index in the log of the entry that wrote the point last
	Expires int64           // as in the point's row
	Vectors []uint16        // as in the point's row
}

const slotHeaderSize = 8

func encodeSlot(row SlotRow) []byte {
	value := begin(slotHeaderSize + binary.MaxVarintLen64 + 3*len(row.Vectors) + 1 + 17)
	value = binary.LittleEndian.AppendUint64(value, row.Version)
	value = appendHoldings(value, row.Expires, row.Vectors)
	return seal(row.ID.AppendBinary(value))
}

func decodeSlot(value []byte) (SlotRow, error) {
	body, err := unseal(value)
	if err != nil {
		return SlotRow{}, err
	}
	if len(body) < slotHeaderSize {
		return SlotRow{}, wrongSize("slot", len(body))
	}
	row := SlotRow{Version: binary.LittleEndian.Uint64(body)}
	var rest []byte
	if row.Expires, row.Vectors, rest, err = takeHoldings(body[slotHeaderSize:]); err != nil {
		return SlotRow{}, err
	}
	if row.ID, rest, err = vectord.DecodePointID(rest); err != nil || len(rest) != 0 {
		return SlotRow{}, wrongSize("slot", len(body))
	}
	return row, nil
}

func encodeVector(v []float32) []byte {
	value := begin(4 * len(v))
	for _, x := range v {
		value = binary.LittleEndian.AppendUint32(value, math.Float32bits(x))
	}
	return seal(value)
}

// decodeVector appends the components to dst. They are the bits that were written, NaNs included.
func decodeVector(dst []float32, value []byte) ([]float32, error) {
	body, err := unseal(value)
	if err != nil {
		return dst, err
	}
	if len(body)%4 != 0 {
		return dst, wrongSize("vector", len(body))
	}
	// One growth and a loop without appends: an exact search spends its time here.
	n := len(dst)
	dst = slices.Grow(dst, len(body)/4)[:n+len(body)/4]
	for i := range dst[n:] {
		dst[n+i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*i : 4*i+4]))
	}
	return dst, nil
}

// A sparse vector is its indices, u32 each, and then its values.
func encodeSparse(indices []uint32, values []float32) []byte {
	value := begin(4 * (len(indices) + len(values)))
	for _, i := range indices {
		value = binary.LittleEndian.AppendUint32(value, i)
	}
	for _, x := range values {
		value = binary.LittleEndian.AppendUint32(value, math.Float32bits(x))
	}
	return seal(value)
}

// decodeSparse appends the indices and the values.
func decodeSparse(indices []uint32, values []float32, value []byte) ([]uint32, []float32, error) {
	body, err := unseal(value)
	if err != nil {
		return indices, values, err
	}
	if len(body)%8 != 0 {
		return indices, values, wrongSize("sparse vector", len(body))
	}
	half := len(body) / 2
	for at := 0; at < half; at += 4 {
		indices = append(indices, binary.LittleEndian.Uint32(body[at:]))
		values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(body[half+at:])))
	}
	return indices, values, nil
}

func encodeChange(slots []uint32) []byte {
	value := begin(4 * len(slots))
	for _, slot := range slots {
		value = binary.LittleEndian.AppendUint32(value, slot)
	}
	return seal(value)
}

// decodeChange appends the slots to dst.
func decodeChange(dst []uint32, value []byte) ([]uint32, error) {
	body, err := unseal(value)
	if err != nil {
		return dst, err
	}
	if len(body)%4 != 0 {
		return dst, wrongSize("change", len(body))
	}
	for ; len(body) >= 4; body = body[4:] {
		dst = append(dst, binary.LittleEndian.Uint32(body))
	}
	return dst, nil
}

// Applied tells how far a replication group's log has been applied.
type Applied struct {
	Index uint64 // of the last entry applied, 0 before the first
	Time  int64  // of that entry, in milliseconds since the Unix epoch
}

const appliedSize = 8 + 8

func encodeApplied(a Applied) []byte {
	value := binary.LittleEndian.AppendUint64(begin(appliedSize), a.Index)
	return seal(binary.LittleEndian.AppendUint64(value, uint64(a.Time)))
}

func decodeApplied(value []byte) (Applied, error) {
	body, err := unseal(value)
	if err != nil {
		return Applied{}, err
	}
	if len(body) != appliedSize {
		return Applied{}, wrongSize("applied index", len(body))
	}
	return Applied{Index: binary.LittleEndian.Uint64(body), Time: int64(binary.LittleEndian.Uint64(body[8:]))}, nil
}

// Session remembers the result of a write under its idempotency key.
type Session struct {
	Time        int64  // of the entry that wrote it, in milliseconds since the Unix epoch
	Fingerprint uint64 // of the operations, to tell a retry from a different write
	Result      []byte // opaque
}

const sessionHeaderSize = 8 + 8

func encodeSession(s Session) []byte {
	value := binary.LittleEndian.AppendUint64(begin(sessionHeaderSize+len(s.Result)), uint64(s.Time))
	value = binary.LittleEndian.AppendUint64(value, s.Fingerprint)
	return seal(append(value, s.Result...))
}

// decodeSession returns a session whose Result aliases value.
func decodeSession(value []byte) (Session, error) {
	body, err := unseal(value)
	if err != nil {
		return Session{}, err
	}
	if len(body) < sessionHeaderSize {
		return Session{}, wrongSize("session", len(body))
	}
	s := Session{Time: int64(binary.LittleEndian.Uint64(body)), Fingerprint: binary.LittleEndian.Uint64(body[8:])}
	if result := body[sessionHeaderSize:]; len(result) > 0 {
		s.Result = result[:len(result):len(result)]
	}
	return s, nil
}

func encodeMeta(blob []byte) []byte { return seal(append(begin(len(blob)), blob...)) }

// The body of an expiry entry is empty: its key says it all.
func encodeExpiry() []byte { return seal(begin(0)) }

func decodeExpiry(value []byte) error { return decodeEmpty("session expiry", value) }

// So is that of a posting.
func encodePosting() []byte { return seal(begin(0)) }

func decodePosting(value []byte) error { return decodeEmpty("posting", value) }

func decodeEmpty(what string, value []byte) error {
	body, err := unseal(value)
	if err == nil && len(body) != 0 {
		err = wrongSize(what, len(body))
	}
	return err
}
