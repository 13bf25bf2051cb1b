package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	stdpath "path"
	"strconv"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/storage"
)

// A checkpoint file keeps a shard's graph, so that a start does not build it again:
//
//	"vdgraph" · format u8 = 2 · shard u32 · number of the vectors u16 · through u64 · CRC32C of the 22 bytes before u32 · the graph's
//	own format
//
// through is the index in the log up to which all changes are in the graph, or wait in the change feed, or are of points
// that the graph does not hold. The file is derived: without it, or when it is damaged, the graph is built again.
const (
	checkpointMagic      = "vdgraph\x02"
	checkpointHeaderSize = len(checkpointMagic) + 4 + 2 + 8 + 4
	checkpointSuffix     = ".graph"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileStore keeps derived files; storage implements it.
type fileStore interface {
	WriteFile(name string, write func(io.Writer) error) error
	OpenFile(name string) (io.ReadCloser, int64, error)
	RemoveFile(name string) error
	// SyncAndTrim makes all commits so far durable and trims the shard's change feed up to an index.
	SyncAndTrim(shard uint32, upTo uint64) error
}

func checkpointName(set storage.VectorSet) string { return derivedName(set, checkpointSuffix) }

// derivedName names a file of the vectors of one name in a shard.
func derivedName(set storage.VectorSet, suffix string) string {
	return fmt.Sprintf("shard-%d-%d%s", set.Shard, set.Number, suffix)
}

// derivedSet returns the vectors that a derived file belongs to.
func derivedSet(name string) (set storage.VectorSet, ok bool) {
	suffix := stdpath.Ext(name)
	shard, number, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(name, "shard-"), suffix), "-")
	s, err := strconv.ParseUint(shard, 10, 32)
	n, err2 := strconv.ParseUint(number, 10, 16)
	set = storage.VectorSet{Shard: uint32(s), Number: uint16(n)}
	return set, err == nil && err2 == nil && (suffix == checkpointSuffix || suffix == recallSuffix) && derivedName(set, suffix) == name
}

// checkpoint writes the graph. The goroutine that inserts and unlinks calls it, so neither happens meanwhile; searches and
// deletes go on.
func (x *vectorIndex) checkpoint() error {
	g := x.graph.Load()
	if g == nil {
		return nil
	}
	start := time.Now()
	x.savedAt.Store(start.UnixMilli())
	// Read before the graph is: a change after this index is replayed from the feed, whether the file has it or not.
	through, unsaved := x.through.Load(), x.unsaved.Load()
	err := x.files.WriteFile(checkpointName(x.set), func(w io.Writer) error {
		header := append([]byte(nil), checkpointMagic...)
		header = binary.LittleEndian.AppendUint32(header, x.set.Shard)
		header = binary.LittleEndian.AppendUint16(header, x.set.Number)
		header = binary.LittleEndian.AppendUint64(header, through)
		header = binary.LittleEndian.AppendUint32(header, crc32.Checksum(header, castagnoli))
		if _, err := w.Write(header); err != nil {
			return err
		}
		if err := g.Save(w); err != nil {
			return err
		}
		// The graph may hold changes that are visible and not yet durable. They must be before the file is: else a
		// power cut would leave codes of vectors that storage never had. What is trimmed is what the file in place
		// covers already.
		return x.files.SyncAndTrim(x.set.Shard, x.feed.spare(math.MaxUint64))
	})
	if err != nil {
		return fmt.Errorf("write checkpoint of %s: %w", x.set, err)
	}
	x.feed.set(x.set.Number, through)
	x.unsaved.Add(-unsaved)
	x.metrics.checkpointSeconds.Observe(time.Since(start).Seconds())
	return nil
}

// errCheckpoint is why a checkpoint could not be used.
type errCheckpoint struct{ why error }

func (e *errCheckpoint) Error() string { return e.why.Error() }
func (e *errCheckpoint) Unwrap() error { return e.why }

// readCheckpoint loads the graph of the shard's checkpoint. Without one it returns nil.
func (x *vectorIndex) readCheckpoint() (g *hnsw.Graph, through uint64, err error) {
	f, _, err := x.files.OpenFile(checkpointName(x.set))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, &errCheckpoint{err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	header := make([]byte, checkpointHeaderSize)
	if _, err := io.ReadFull(f, header); err != nil {
		return nil, 0, &errCheckpoint{fmt.Errorf("read header: %w", err)}
	}
	body, sum := header[:checkpointHeaderSize-4], binary.LittleEndian.Uint32(header[checkpointHeaderSize-4:])
	fields := body[len(checkpointMagic):]
	switch {
	case string(body[:len(checkpointMagic)]) != checkpointMagic:
		return nil, 0, &errCheckpoint{fmt.Errorf("header % x is not one of this format", body[:len(checkpointMagic)])}
	case crc32.Checksum(body, castagnoli) != sum:
		return nil, 0, &errCheckpoint{errors.New("header does not fit its checksum")}
	}
	if set := (storage.VectorSet{Shard: binary.LittleEndian.Uint32(fields), Number: binary.LittleEndian.Uint16(fields[4:])}); set != x.set {
		return nil, 0, &errCheckpoint{fmt.Errorf("written for %s", set)}
	}
	if g, err = hnsw.Load(f, hnsw.Limits{}); err != nil {
		return nil, 0, &errCheckpoint{err}
	}
	return g, binary.LittleEndian.Uint64(fields[6:]), nil
}

// load brings the index up at start: the graph from its checkpoint, corrected by the change feed since, and into fresh
// or cold whatever the graph does not have. live are the slots that have a vector, applied the last index that storage has.
func (x *vectorIndex) load(live *roaring.Bitmap, applied uint64) error {
	x.trimmed.Store(applied)
	x.savedAt.Store(time.Now().UnixMilli())
	g, through, err := x.readCheckpoint()
	if err == nil && g != nil && through > applied {
		g.Close()
		g, err = nil, &errCheckpoint{fmt.Errorf("covers the log to %d, storage ends at %d", through, applied)}
	}
	if err == nil && g != nil && (g.Codec().Dim() != x.dim || g.Codec().Distance() != x.distance) {
		g.Close()
		g, err = nil, &errCheckpoint{fmt.Errorf("holds %s vectors of %d dimensions", g.Codec().Distance(), g.Codec().Dim())}
	}
	if unusable := (*errCheckpoint)(nil); errors.As(err, &unusable) {
		x.log.Warn("the graph's checkpoint cannot be used and the graph is built again, searches scan meanwhile",
			"of", x.set, "error", err)
		x.metrics.rebuilds.Inc()
		g = nil
		// It must never be read again: the change feed that would correct it is trimmed from here on.
		if err := x.files.RemoveFile(checkpointName(x.set)); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	missing := live
	if g != nil {
		x.feed.set(x.set.Number, through)
		changed := int64(0)
		err := x.vectors.Changes(x.set.Shard, through, func(_ uint64, slots []uint32) error {
			for _, slot := range slots {
				g.Delete(slot)
				changed++
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the change feed of shard %d: %w", x.set.Shard, err)
		}
		x.unsaved.Store(changed)
		inGraph := roaring.New()
		for _, slot := range g.AppendLive(nil) {
			if live.Contains(slot) {
				inGraph.Add(slot)
			} else {
				g.Delete(slot)
			}
		}
		missing = roaring.AndNot(live, inGraph)
		x.graph.Store(g)
	}
	if n := int(missing.GetCardinality()); n > loadVectorsMax || !x.fitsFresh(n) {
		x.cold.Or(missing)
		return nil
	}
	return x.vectors.Vectors(x.set, missing.ToArray(), func(slot uint32, v []float32) error {
		x.fresh.Add(slot, v)
		return nil
	})
}
