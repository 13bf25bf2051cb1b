package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// An archive is the content of a snapshot: "vdsnaps" and the version, then frames to the end.
//
//	kind u8 · encoding u8 · number u32 · stored size u32 · raw size u32 · CRC-32C of those and of what is stored u32 · stored
//
// Frames are numbered from 0. The first is the head; each collection has one and then those of its rows, by ascending shard
// and key; the last one counts what was before it. The file ends there. docs/FORMAT.md has all of it.
//
// An archive may come from anywhere, so the reader believes nothing: what it allocates is bounded by the named sizes, what
// a frame may expand to by the size that is stored of it, and the keys in rows name no shard and no path of the reader's.
const (
	archiveMagic          = "vdsnaps\x01"
	frameHeaderSize       = 1 + 1 + 4 + 4 + 4 + 4
	frameTarget           = 1 << 20  // raw bytes at which a frame of rows is closed
	frameMax              = 64 << 20 // raw bytes; no row and no configuration is longer
	expansionMax          = 256      // raw bytes for each one stored: what compresses further is stored as it is
	archiveStep           = 64       // frames between two looks at the context
	archiveCollectionsMax = 1 << 20  // in one archive
)

type frameKind uint8

const (
	frameHead       frameKind = 1
	frameCollection frameKind = 2
	frameRows       frameKind = 3
	frameEnd        frameKind = 4
)

const (
	frameAsIs = 0
	frameZstd = 1
)

// archiveHead tells what an archive holds.
type archiveHead struct {
	Node        bool            `json:"node"`  // all collections of a node, else one
	Index       uint64          `json:"index"` // in the log, of the last entry that is in it
	Time        int64           `json:"time"`  // of that entry, milliseconds since the Unix epoch
	Collections int             `json:"collections"`
	Aliases     []vectord.Alias `json:"aliases,omitempty"`
}

// archiveTotals are what the last frame counts.
type archiveTotals struct {
	rows, bytes uint64 // bytes: of keys and values
}

// archiveWriter writes an archive to w. Its methods are called in the order of the frames.
type archiveWriter struct {
	w      io.Writer
	zstd   *zstd.Encoder
	number uint32
	rows   []byte // of the frame being filled, with the shard before them; empty if there is none
	shard  uint32
	packed []byte
	totals archiveTotals
}

func newArchiveWriter(w io.Writer, head archiveHead) (*archiveWriter, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	a := &archiveWriter{w: w, zstd: encoder}
	b, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, archiveMagic); err != nil {
		return nil, err
	}
	return a, a.frame(frameHead, b)
}

func (a *archiveWriter) frame(kind frameKind, raw []byte) error {
	if len(raw) > frameMax {
		return fmt.Errorf("archive: a frame of %d bytes, at most %d are possible", len(raw), frameMax)
	}
	a.packed = append(a.packed[:0], make([]byte, frameHeaderSize)...)
	a.packed = a.zstd.EncodeAll(raw, a.packed)
	encoding := byte(frameZstd)
	if n := len(a.packed) - frameHeaderSize; n >= len(raw) || n*expansionMax < len(raw) {
		encoding = frameAsIs
		a.packed = append(a.packed[:frameHeaderSize], raw...)
	}
	h, stored := a.packed[:frameHeaderSize], a.packed[frameHeaderSize:]
	h[0], h[1] = byte(kind), encoding
	binary.LittleEndian.PutUint32(h[2:], a.number)
	binary.LittleEndian.PutUint32(h[6:], uint32(len(stored)))
	binary.LittleEndian.PutUint32(h[10:], uint32(len(raw)))
	binary.LittleEndian.PutUint32(h[14:], frameChecksum(h, stored))
	if a.number == math.MaxUint32 {
		return errors.New("archive: too many frames")
	}
	a.number++
	_, err := a.w.Write(a.packed)
	return err
}

func frameChecksum(header, stored []byte) uint32 {
	return crc32.Update(crc32.Checksum(header[:frameHeaderSize-4], castagnoli), castagnoli, stored)
}

// collection begins a collection, told by its entry in the catalog.
func (a *archiveWriter) collection(meta []byte) error {
	if err := a.flush(); err != nil {
		return err
	}
	return a.frame(frameCollection, meta)
}

// row adds a row, in the form of storage.ExportShard, of the collection's shard at a place in its list.
func (a *archiveWriter) row(shard uint32, key, value []byte) error {
	if len(a.rows) > 0 && (a.shard != shard || len(a.rows) >= frameTarget) {
		if err := a.flush(); err != nil {
			return err
		}
	}
	if len(a.rows) == 0 {
		a.shard = shard
		a.rows = binary.LittleEndian.AppendUint32(a.rows, shard)
	}
	a.rows = appendBytes(appendBytes(a.rows, key), value)
	a.totals.rows++
	a.totals.bytes += uint64(len(key) + len(value))
	return nil
}

func (a *archiveWriter) flush() error {
	if len(a.rows) == 0 {
		return nil
	}
	err := a.frame(frameRows, a.rows)
	a.rows = a.rows[:0]
	return err
}

// end completes the archive.
func (a *archiveWriter) end() error {
	if err := a.flush(); err != nil {
		return err
	}
	b := binary.LittleEndian.AppendUint64(nil, a.totals.rows)
	return a.frame(frameEnd, binary.LittleEndian.AppendUint64(b, a.totals.bytes))
}

// archiveVisitor is told what is in an archive, in its order. Errors end the reading and come back as they are.
type archiveVisitor struct {
	collection func(meta collectionMeta) error
	// row is a row of the last collection's shard at a place in its list. It has been checked by storage.CheckExported, and
	// is valid during the call.
	row func(shard int, key, value []byte) error
}

// damagedArchive is the error for an archive that is not what archiveWriter wrote.
func damagedArchive(format string, args ...any) error {
	return vectord.Errorf(vectord.KindInvalid, "the snapshot is damaged or is none: "+format, args...)
}

// archiveReader reads frames.
type archiveReader struct {
	r      io.Reader
	zstd   *zstd.Decoder
	number uint32
	stored []byte
	raw    []byte
}

// readArchive reads an archive to its end. It returns an error of kind KindInvalid for one that is damaged, and for bytes
// after it; memory is bounded by the size of two frames, whatever the archive says.
func readArchive(ctx context.Context, r io.Reader, v archiveVisitor) (head archiveHead, totals archiveTotals, err error) {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(frameMax), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return head, totals, err
	}
	defer decoder.Close()
	a := &archiveReader{r: r, zstd: decoder}
	magic := make([]byte, len(archiveMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return head, totals, a.readError("its beginning", err)
	}
	switch {
	case string(magic[:len(magic)-1]) != archiveMagic[:len(magic)-1]:
		return head, totals, damagedArchive("it does not begin as one does")
	case magic[len(magic)-1] != archiveMagic[len(magic)-1]:
		return head, totals, vectord.Errorf(vectord.KindInvalid, "the snapshot has version %d, this server reads version %d",
			magic[len(magic)-1], archiveMagic[len(magic)-1])
	}
	kind, raw, err := a.next()
	if err != nil {
		return head, totals, err
	}
	if kind != frameHead {
		return head, totals, damagedArchive("frame 0 is of kind %d", kind)
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return head, totals, damagedArchive("head: %v", err)
	}
	if head.Collections < 0 || head.Collections > archiveCollectionsMax || !head.Node && head.Collections != 1 {
		return head, totals, damagedArchive("it says that it holds %d collections", head.Collections)
	}
	totals, err = a.body(ctx, head, v)
	return head, totals, err
}

// body reads the frames after the head.
func (a *archiveReader) body(ctx context.Context, head archiveHead, v archiveVisitor) (totals archiveTotals, err error) {
	rows := rowReader{visit: v.row}
	for collections := 0; ; {
		if a.number%archiveStep == 0 && ctx.Err() != nil {
			return totals, context.Cause(ctx)
		}
		kind, raw, err := a.next()
		if err != nil {
			return totals, err
		}
		switch kind {
		case frameCollection:
			if collections++; collections > head.Collections {
				return totals, damagedArchive("it has more than the %d collections that it says", head.Collections)
			}
			var meta collectionMeta
			if err := json.Unmarshal(raw, &meta); err != nil {
				return totals, damagedArchive("collection %d: %v", collections, err)
			}
			if err := v.collection(meta); err != nil {
				return totals, err
			}
			rows.begin(len(meta.Shards))
		case frameRows:
			if err := rows.read(raw); err != nil {
				return totals, err
			}
		case frameEnd:
			if collections != head.Collections || len(raw) != 16 || binary.LittleEndian.Uint64(raw) != rows.totals.rows ||
				binary.LittleEndian.Uint64(raw[8:]) != rows.totals.bytes {
				return totals, damagedArchive("its end does not fit what was before it")
			}
			if n, err := io.ReadFull(a.r, a.stored[:1]); n > 0 {
				return totals, damagedArchive("bytes follow its end")
			} else if err != io.EOF {
				return totals, a.readError("its end", err)
			}
			return rows.totals, nil
		default:
			return totals, damagedArchive("frame %d is of kind %d", a.number-1, kind)
		}
	}
}

// next reads a frame. What it returns is valid until the next call.
func (a *archiveReader) next() (frameKind, []byte, error) {
	what := fmt.Sprintf("frame %d", a.number)
	var h [frameHeaderSize]byte
	if _, err := io.ReadFull(a.r, h[:]); err != nil {
		return 0, nil, a.readError(what, err)
	}
	encoding, number := h[1], binary.LittleEndian.Uint32(h[2:])
	stored, raw := binary.LittleEndian.Uint32(h[6:]), binary.LittleEndian.Uint32(h[10:])
	switch {
	case number != a.number:
		return 0, nil, damagedArchive("frame %d says that it is frame %d", a.number, number)
	case stored == 0 || raw == 0 || stored > frameMax || raw > frameMax || uint64(raw) > uint64(stored)*expansionMax:
		return 0, nil, damagedArchive("%s of %d bytes says that it expands to %d", what, stored, raw)
	case encoding > frameZstd || encoding == frameAsIs && stored != raw:
		return 0, nil, damagedArchive("%s has encoding %d", what, encoding)
	}
	a.number++
	var err error
	if a.stored, err = fill(a.r, a.stored, int(stored)); err != nil {
		return 0, nil, a.readError(what, err)
	}
	if frameChecksum(h[:], a.stored) != binary.LittleEndian.Uint32(h[14:]) {
		return 0, nil, damagedArchive("%s does not fit its checksum", what)
	}
	if encoding == frameAsIs {
		return frameKind(h[0]), a.stored, nil
	}
	if cap(a.raw) < int(raw) {
		a.raw = make([]byte, 0, raw)
	}
	unpacked, err := a.zstd.DecodeAll(a.stored, a.raw[:0:raw])
	if err != nil || len(unpacked) != int(raw) {
		return 0, nil, damagedArchive("%s cannot be decompressed to %d bytes: %v", what, raw, err)
	}
	return frameKind(h[0]), unpacked, nil
}

// fill reads n bytes into b's memory. It grows as bytes arrive, so that a size that is not true costs little.
func fill(r io.Reader, b []byte, n int) ([]byte, error) {
	b = b[:0]
	for len(b) < n {
		step := min(n-len(b), max(frameTarget, len(b)))
		b = append(b, make([]byte, step)...)
		if _, err := io.ReadFull(r, b[len(b)-step:]); err != nil {
			return b, err
		}
	}
	return b, nil
}

// readError is the error for an archive that could not be read on, or ended early.
func (a *archiveReader) readError(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damagedArchive("it ends in %s", what)
	}
	return fmt.Errorf("read snapshot: %w", err)
}

// rowReader takes frames of rows apart and checks their order.
type rowReader struct {
	visit   func(shard int, key, value []byte) error
	shards  int    // of the collection
	shard   int    // of the last row, -1 before the first
	lastKey []byte // of that shard
	totals  archiveTotals
}

func (r *rowReader) begin(shards int) { r.shards, r.shard, r.lastKey = shards, -1, nil }

func (r *rowReader) read(raw []byte) error {
	in := reader{b: raw}
	shard := int(in.uint32())
	if in.err != nil || shard >= r.shards || shard < r.shard {
		return damagedArchive("rows of shard %d come after those of shard %d of %d", shard, r.shard, r.shards)
	}
	if shard > r.shard {
		r.shard, r.lastKey = shard, r.lastKey[:0]
	}
	for len(in.b) > 0 {
		key := in.take(in.count(1))
		value := in.take(in.count(1))
		if in.err != nil {
			return damagedArchive("row %d: %v", r.totals.rows, in.err)
		}
		if err := storage.CheckExported(key, value); err != nil {
			return damagedArchive("row %d: %v", r.totals.rows, err)
		}
		if bytes.Compare(key, r.lastKey) <= 0 {
			return damagedArchive("row %d is not in its place", r.totals.rows)
		}
		r.lastKey = append(r.lastKey[:0], key...)
		r.totals.rows++
		r.totals.bytes += uint64(len(key) + len(value))
		if err := r.visit(shard, key, value); err != nil {
			return err
		}
	}
	return nil
}
