package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// An entry of the Raft log is the operations that a leader put together. Its encoding, all numbers little-endian or varints:
//
//	version 1 byte · term uvarint · time uvarint · count uvarint · operations · CRC-32C of all before, 4 bytes
//
// and that of an operation:
//
//	origin 8 bytes · number uvarint · group uvarint · size uvarint · command
type entry struct {
	term uint64 // in which its leader proposed it
	time int64  // milliseconds since the Unix epoch by the leader's clock
	ops  []operation
}

// An operation is one proposal on its way: the origin that made it recognises it by its number.
type operation struct {
	origin  uint64 // a process, by a number that it drew when it started
	number  uint64
	group   uint32
	command []byte
}

const (
	entryVersion = 1
	// maxOperations bounds an entry, so that the position of an operation within it fits operationBits.
	maxOperations = 1 << operationBits
	operationBits = 12
	// operationOverhead bounds what an operation takes besides its command.
	operationOverhead = 8 + binary.MaxVarintLen64 + 2*binary.MaxVarintLen32
	operationSizeMin  = 8 + 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("damaged log entry")

// beginEntry appends what comes before count operations, which appendOperation appends; sealEntry ends the entry.
func beginEntry(dst []byte, term uint64, time int64, count int) []byte {
	dst = append(dst, entryVersion)
	dst = binary.AppendUvarint(dst, term)
	dst = binary.AppendUvarint(dst, uint64(time))
	return binary.AppendUvarint(dst, uint64(count))
}

func appendOperation(dst []byte, op *operation) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, op.origin)
	dst = binary.AppendUvarint(dst, op.number)
	dst = binary.AppendUvarint(dst, uint64(op.group))
	dst = binary.AppendUvarint(dst, uint64(len(op.command)))
	return append(dst, op.command...)
}

func sealEntry(dst []byte) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst, castagnoli))
}

// decodeEntry returns an entry whose commands alias b.
func decodeEntry(b []byte) (entry, error) {
	if len(b) < 1+crc32.Size {
		return entry{}, fmt.Errorf("%w: %d bytes", errDamaged, len(b))
	}
	end := len(b) - crc32.Size
	if stored, computed := binary.LittleEndian.Uint32(b[end:]), crc32.Checksum(b[:end], castagnoli); stored != computed {
		return entry{}, fmt.Errorf("%w: checksum is %08x, expected %08x", errDamaged, computed, stored)
	}
	if b[0] != entryVersion {
		return entry{}, fmt.Errorf("log entry of version %d, this program reads version %d", b[0], entryVersion)
	}
	r := decoder{b: b[1:end]}
	e := entry{term: r.uvarint(), time: int64(r.uvarint())}
	count := r.uvarint()
	if r.failed || count > maxOperations || count > uint64(len(r.b)/operationSizeMin) {
		return entry{}, fmt.Errorf("%w: of %d operations in %d bytes", errDamaged, count, len(r.b))
	}
	e.ops = make([]operation, count)
	for i := range e.ops {
		e.ops[i] = r.operation()
	}
	if r.failed || len(r.b) > 0 {
		return entry{}, fmt.Errorf("%w: its operations do not fill it", errDamaged)
	}
	return e, nil
}

// decoder takes values off the front of b. After the first that is not there, failed is set and the rest is zero.
type decoder struct {
	b      []byte
	failed bool
}

func (r *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || size > 1 && r.b[size-1] == 0 {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *decoder) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *decoder) uint32() uint32 {
	n := r.uvarint()
	if n > 1<<32-1 {
		r.failed, r.b = true, nil
	}
	return uint32(n)
}

func (r *decoder) operation() operation {
	var op operation
	if b := r.take(8); b != nil {
		op.origin = binary.LittleEndian.Uint64(b)
	}
	op.number = r.uvarint()
	op.group = r.uint32()
	op.command = r.take(r.uvarint())
	return op
}
