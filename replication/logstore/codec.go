package logstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// A key is the number of the group, big-endian so that groups and indexes are in order, a kind, and the index of an entry
// or the key of a value.
const (
	kindEntry byte = 1
	kindValue byte = 2
	groupSize      = 4
	keySize        = groupSize + 1
)

func appendKey(dst []byte, group uint32, kind byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, group), kind)
}

func entryKey(group uint32, index uint64) []byte {
	return binary.BigEndian.AppendUint64(appendKey(make([]byte, 0, keySize+8), group, kindEntry), index)
}

func valueKey(group uint32, key []byte) []byte {
	return append(appendKey(make([]byte, 0, keySize+len(key)), group, kindValue), key...)
}

// A row is a version byte, a body, and the CRC-32C of the key and both, so that a row in the place of another is as damaged
// as one with a flipped bit. The numbers in a row are little-endian.
const (
	rowVersion  = 1
	rowOverhead = 1 + crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, row []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, row)
}

// seal appends the checksum to a row that begins with its version.
func seal(key, row []byte) []byte {
	return binary.LittleEndian.AppendUint32(row, checksum(key, row))
}

// unseal returns the body of a row, which it aliases.
func unseal(key, row []byte) ([]byte, error) {
	if len(row) < rowOverhead {
		return nil, fmt.Errorf("%w: %d bytes are too few for a row", ErrDamaged, len(row))
	}
	end := len(row) - crc32.Size
	stored, computed := binary.LittleEndian.Uint32(row[end:]), checksum(key, row[:end])
	if stored != computed {
		return nil, fmt.Errorf("%w: checksum is %08x, expected %08x", ErrDamaged, computed, stored)
	}
	if row[0] != rowVersion {
		return nil, fmt.Errorf("row has version %d, this program reads version %d", row[0], rowVersion)
	}
	return row[1:end], nil
}

func encodeValue(key, value []byte) []byte {
	row := append(make([]byte, 0, rowOverhead+len(value)), rowVersion)
	return seal(key, append(row, value...))
}

// The body of an entry is a header, the extensions and the data. The header is:
//
//	term        8
//	end         8  bytes of the log's rows up to and with this one, counted from some row before or at the first
//	seconds     8  of the time at which the leader appended it, since the Unix epoch
//	nanoseconds 4
//	type        1
//	extensions  4  their size
//
// From the ends of the first and the last row follows what all rows take, without reading those between.
const headerSize = 8 + 8 + 8 + 4 + 1 + 4

// entrySize returns the size of the row of an entry.
func entrySize(log *raft.Log) int {
	return rowOverhead + headerSize + len(log.Extensions) + len(log.Data)
}

func encodeEntry(key []byte, log *raft.Log, end uint64) []byte {
	row := append(make([]byte, 0, entrySize(log)), rowVersion)
	row = binary.LittleEndian.AppendUint64(row, log.Term)
	row = binary.LittleEndian.AppendUint64(row, end)
	row = binary.LittleEndian.AppendUint64(row, uint64(log.AppendedAt.Unix()))
	row = binary.LittleEndian.AppendUint32(row, uint32(log.AppendedAt.Nanosecond()))
	row = append(row, byte(log.Type))
	row = binary.LittleEndian.AppendUint32(row, uint32(len(log.Extensions)))
	row = append(row, log.Extensions...)
	return seal(key, append(row, log.Data...))
}

// decodeEntry reads the row of the entry at index into log, whose Data and Extensions alias it, and returns its end.
func decodeEntry(key []byte, index uint64, row []byte, log *raft.Log) (end uint64, err error) {
	body, err := unseal(key, row)
	if err != nil {
		return 0, err
	}
	if len(body) < headerSize {
		return 0, fmt.Errorf("%w: an entry of %d bytes", ErrDamaged, len(body))
	}
	header, rest := body[:headerSize], body[headerSize:]
	end = binary.LittleEndian.Uint64(header[8:])
	nanoseconds := binary.LittleEndian.Uint32(header[24:])
	extensions := binary.LittleEndian.Uint32(header[29:])
	if end < uint64(len(row)) || nanoseconds >= uint32(time.Second) || uint64(extensions) > uint64(len(rest)) {
		return 0, fmt.Errorf("%w: an entry of %d bytes that ends at %d, with %d ns and %d bytes of extensions",
			ErrDamaged, len(row), end, nanoseconds, extensions)
	}
	*log = raft.Log{
		Index:      index,
		Term:       binary.LittleEndian.Uint64(header),
		Type:       raft.LogType(header[28]),
		Extensions: bytesOrNil(rest[:extensions:extensions]),
		Data:       bytesOrNil(rest[extensions:len(rest):len(rest)]),
		AppendedAt: time.Unix(int64(binary.LittleEndian.Uint64(header[16:])), int64(nanoseconds)).UTC(),
	}
	return end, nil
}

// bytesOrNil keeps an empty slice from holding on to its row.
func bytesOrNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// lastIndex is the greatest index that there can be.
const lastIndex = math.MaxUint64

// keyGroup returns the group of a key.
func keyGroup(key []byte) (uint32, error) {
	if len(key) < keySize {
		return 0, fmt.Errorf("%w: key %x is too short", ErrDamaged, key)
	}
	return binary.BigEndian.Uint32(key), nil
}

// keyIndex returns the index of the entry with a key.
func keyIndex(key []byte) (uint64, error) {
	if len(key) != keySize+8 {
		return 0, fmt.Errorf("%w: key %x is of no entry", ErrDamaged, key)
	}
	return binary.BigEndian.Uint64(key[keySize:]), nil
}
