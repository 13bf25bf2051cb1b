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

// PointRow is what is kept of a point besides its vector.
type PointRow struct {
	Slot    uint32 // where its vector is
	Payload []byte // a JSON object as it came, nil for none
}

const pointHeaderSize = 4

func encodePoint(row PointRow) []byte {
	value := begin(pointHeaderSize + len(row.Payload))
	value = binary.LittleEndian.AppendUint32(value, row.Slot)
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
	if payload := body[pointHeaderSize:]; len(payload) > 0 {
		row.Payload = payload[:len(payload):len(payload)]
	}
	return row, nil
}

// SlotRow is what is kept of a slot in use. A reader of all slots learns which points there are without their payloads.
type SlotRow struct {
	ID      vectord.PointID // the point that the slot belongs to
	Version uint64          // index in the log of the entry that wrote the point last
}

const slotHeaderSize = 8

func encodeSlot(row SlotRow) []byte {
	value := begin(slotHeaderSize + 1 + 16)
	value = binary.LittleEndian.AppendUint64(value, row.Version)
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
	id, rest, err := vectord.DecodePointID(body[slotHeaderSize:])
	if err != nil || len(rest) != 0 {
		return SlotRow{}, wrongSize("slot", len(body))
	}
	return SlotRow{ID: id, Version: binary.LittleEndian.Uint64(body)}, nil
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
