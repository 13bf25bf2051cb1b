package hnsw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync/atomic"

	"github.com/vectord/vectord/index/quant"
)

// A checkpoint is the magic number and then frames, each of a length, a checksum and that many bytes, which the checksum
// covers. Numbers are little-endian.
//
//	magic    8 bytes "vdhnsw02"
//	frame    u32 length, u32 CRC32C of the payload, payload
//	header   u32 M, u32 ef of construction, u32 layers at most, u32 slots, u64 entry point, f64 exponent of growth, u64 nodes
//	         that have told about it, the codec's binary form
//	nodes    u32 first slot, u32 count, u8 state of each, then of each that is not free: its code, 2M u32 links on layer
//	         0, and M u32 links on each higher layer that it reaches
//	trailer  u64 live nodes, u64 deleted nodes
//
// Frames of nodes follow the header until all slots are there, in order. A state is 0 for a free slot, 1 for a live node, 2
// for a deleted one. A row of links ends with the first 0xFFFFFFFF and is filled with it. The entry point is layer<<32 | slot,
// or all ones if there is no node. The number of layers that a node reaches follows from its slot, M and the layers at most.
const checkpointMagic = "vdhnsw02"

const (
	frameHeaderBytes = 8
	headerBytesMin   = 4*4 + 3*8
	trailerBytes     = 2 * 8

	// frameBytes is the size at which a frame of nodes is full, and frameSlotsMax the number of slots.
	frameBytes    = 1 << 20
	frameSlotsMax = 1 << 16

	// frameBytesMax bounds what a reader takes for a frame of nodes, a full one and the largest node, and headerBytesMax for
	// the first frame, which has the codec.
	frameBytesMax  = 2 << 20
	headerBytesMax = headerBytesMin + quant.FormBytesMax
)

const (
	savedFree = iota
	savedLive
	savedDeleted
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt is wrapped by the errors of Load that tell of a checkpoint which is damaged, cut short, or not one.
var ErrCorrupt = errors.New("corrupt checkpoint")

// Save writes the graph in a form that Load reads. Insert and Unlink wait until it has ended; searches and deletes go on,
// and a delete meanwhile may be in the checkpoint or not. It returns the first error of w, or that the graph is closed.
func (g *Graph) Save(w io.Writer) error {
	g.unlinking.Lock()
	defer g.unlinking.Unlock()
	g.writers.Lock()
	defer g.writers.Unlock()
	if g.closed.Load() {
		return errClosed
	}
	out := frameWriter{w: w}
	out.write([]byte(checkpointMagic))
	high := g.high.Load()
	out.begin()
	out.u32(uint32(g.cfg.M))
	out.u32(uint32(g.efConstruction.Load()))
	out.u32(uint32(g.cfg.MaxLayers))
	out.u32(high)
	out.u64(g.entry.Load())
	out.u64(g.growth.bits.Load())
	out.u64(uint64(g.growth.count.Load()))
	out.buf = g.codec.AppendBinary(out.buf)
	out.end()
	var counts [3]uint64
	for first := uint32(0); first < high && out.err == nil; {
		first = g.saveNodes(&out, first, high, &counts)
	}
	out.begin()
	out.u64(counts[savedLive])
	out.u64(counts[savedDeleted])
	out.end()
	if out.err != nil {
		return fmt.Errorf("hnsw: save: %w", out.err)
	}
	return nil
}

// saveNodes writes one frame of nodes and returns the slot after the last in it.
func (g *Graph) saveNodes(out *frameWriter, first, high uint32, counts *[3]uint64) uint32 {
	a := g.arena.Load()
	states := make([]byte, 0, frameSlotsMax)
	size := 0
	for slot := first; slot < high && size < frameBytes && len(states) < frameSlotsMax; slot++ {
		saved := savedFree
		switch atomic.LoadUint32(&a.states[slot]) & (linked | dead) {
		case linked:
			saved = savedLive
		case linked | dead:
			saved = savedDeleted
		}
		if saved != savedFree {
			size += g.nodeBytes(slot)
		}
		states = append(states, byte(saved))
		counts[saved]++
	}
	out.begin()
	out.u32(first)
	out.u32(uint32(len(states)))
	out.buf = append(out.buf, states...)
	for i, saved := range states {
		if saved == savedFree {
			continue
		}
		slot := first + uint32(i)
		out.buf = append(out.buf, a.code(slot)...)
		for l := range g.level(slot) + 1 {
			for _, link := range a.links(slot, l) {
				out.u32(link)
			}
		}
	}
	out.end()
	return first + uint32(len(states))
}

// nodeBytes returns the size of a node in a checkpoint, its state aside.
func (g *Graph) nodeBytes(slot uint32) int {
	return g.codec.RowSize() + (2+g.level(slot))*g.cfg.M*4
}

// frameWriter writes frames until the first error, which it keeps.
type frameWriter struct {
	w   io.Writer
	buf []byte // the frame begun
	err error
}

func (f *frameWriter) begin()       { f.buf = append(f.buf[:0], make([]byte, frameHeaderBytes)...) }
func (f *frameWriter) u32(v uint32) { f.buf = binary.LittleEndian.AppendUint32(f.buf, v) }
func (f *frameWriter) u64(v uint64) { f.buf = binary.LittleEndian.AppendUint64(f.buf, v) }

func (f *frameWriter) end() {
	payload := f.buf[frameHeaderBytes:]
	binary.LittleEndian.PutUint32(f.buf, uint32(len(payload)))
	binary.LittleEndian.PutUint32(f.buf[4:], crc32.Checksum(payload, castagnoli))
	f.write(f.buf)
}

func (f *frameWriter) write(b []byte) {
	if f.err == nil {
		_, f.err = f.w.Write(b)
	}
}

// Limits bounds what Load accepts.
type Limits struct {
	// MaxSlots becomes the graph's, as in Config; a checkpoint with more slots is refused. 0 means 2^27.
	MaxSlots uint32
}

// Load reads a graph that Save has written, and reads no further than its end. Every checksum, length and link is verified,
// so that no file, whoever made it, leads the graph astray later; memory is taken as nodes are read, not as the header
// announces them. The error wraps ErrCorrupt and says where unless r itself failed or memory is short.
func Load(r io.Reader, limits Limits) (*Graph, error) {
	if _, err := (Config{MaxSlots: limits.MaxSlots}).withDefaults(); err != nil {
		return nil, err
	}
	in := frameReader{r: r}
	g, err := in.graph(limits)
	if err != nil {
		return nil, fmt.Errorf("hnsw: load: %w", err)
	}
	return g, nil
}

// frameReader reads frames, one at a time.
type frameReader struct {
	r      io.Reader
	offset int64 // bytes read
	buf    []byte
}

func (f *frameReader) graph(limits Limits) (*Graph, error) {
	magic, err := f.bytes(len(checkpointMagic))
	if err != nil {
		return nil, err
	}
	if string(magic) != checkpointMagic {
		return nil, corrupt("begins with %q, expected %q", magic, checkpointMagic)
	}
	g, high, entry, err := f.header(limits)
	if err != nil {
		return nil, err
	}
	if err := f.body(g, high, entry); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// header reads the header and returns an empty graph, the number of slots to come and the entry point.
func (f *frameReader) header(limits Limits) (g *Graph, high uint32, entry uint64, err error) {
	header, err := f.frame(headerBytesMax)
	if err != nil {
		return nil, 0, 0, err
	}
	if len(header) < headerBytesMin {
		return nil, 0, 0, corrupt("header of %d bytes, expected at least %d", len(header), headerBytesMin)
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(header[4*i:]) }
	for i, name := range [...]string{"M", "ef of construction", "number of layers"} {
		if word(i) == 0 || word(i) > math.MaxInt32 {
			return nil, 0, 0, corrupt("%s is %d", name, word(i))
		}
	}
	codec, err := quant.Decode(header[headerBytesMin:])
	if err != nil {
		return nil, 0, 0, corrupt("codec: %v", err)
	}
	g, err = New(codec, Config{M: int(word(0)), EfConstruction: int(word(1)), MaxLayers: int(word(2)), MaxSlots: limits.MaxSlots})
	if err != nil {
		return nil, 0, 0, corrupt("header: %v", err)
	}
	high = word(3)
	if high > g.cfg.MaxSlots {
		return nil, 0, 0, corrupt("%d slots, at most %d allowed", high, g.cfg.MaxSlots)
	}
	long := func(i int) uint64 { return binary.LittleEndian.Uint64(header[4*4+8*i:]) }
	if err := g.growth.restore(math.Float64frombits(long(1)), long(2)); err != nil {
		return nil, 0, 0, corrupt("header: %v", err)
	}
	return g, high, long(0), nil
}

// body fills the graph with what follows the header.
func (f *frameReader) body(g *Graph, high uint32, entry uint64) error {
	for next := uint32(0); next < high; {
		at := f.offset
		frame, err := f.frame(frameBytesMax)
		if err != nil {
			return err
		}
		if next, err = g.loadNodes(frame, next, high); err != nil {
			return fmt.Errorf("frame at byte %d: %w", at, err)
		}
	}
	trailer, err := f.frame(frameBytesMax)
	if err != nil {
		return err
	}
	if len(trailer) != trailerBytes {
		return corrupt("trailer of %d bytes, expected %d", len(trailer), trailerBytes)
	}
	live, deleted := binary.LittleEndian.Uint64(trailer), binary.LittleEndian.Uint64(trailer[8:])
	if live != uint64(g.live.Load()) || deleted != uint64(g.deleted.Load()) {
		return corrupt("trailer counts %d live and %d deleted nodes, found %d and %d", live, deleted, g.live.Load(), g.deleted.Load())
	}
	g.entry.Store(entry)
	return g.validate()
}

// loadNodes takes a frame of nodes into the graph and returns the slot after the last in it.
func (g *Graph) loadNodes(frame []byte, first, high uint32) (uint32, error) {
	if len(frame) < 8 {
		return 0, corrupt("%d bytes, expected at least 8", len(frame))
	}
	begin, count := binary.LittleEndian.Uint32(frame), binary.LittleEndian.Uint32(frame[4:])
	frame = frame[8:]
	if begin != first || count == 0 || count > frameSlotsMax || count > high-first || int(count) > len(frame) {
		return 0, corrupt("%d nodes from slot %d in %d bytes, expected 1 to %d from slot %d", count, begin, len(frame), min(frameSlotsMax, high-first), first)
	}
	states, rows := frame[:count], frame[count:]
	last := first + count - 1
	if a := g.arena.Load(); a == nil || last >= a.slots {
		if err := g.grow(last); err != nil {
			return 0, err
		}
	}
	a := g.arena.Load()
	for i, saved := range states {
		slot := first + uint32(i)
		switch saved {
		case savedFree:
			continue
		case savedLive:
			a.states[slot] = occupied | linked
			g.live.Add(1)
		case savedDeleted:
			a.states[slot] = occupied | linked | dead
			a.dead[slot/64] |= 1 << (slot % 64)
			g.deleted.Add(1)
		default:
			return 0, corrupt("slot %d: unknown state %d", slot, saved)
		}
		size := g.nodeBytes(slot)
		if size > len(rows) {
			return 0, corrupt("slot %d: %d bytes left of %d", slot, len(rows), size)
		}
		if err := g.takeTower(a, slot, g.level(slot)); err != nil {
			return 0, err
		}
		links := rows[copy(a.code(slot), rows):size]
		for l := range g.level(slot) + 1 {
			row := a.links(slot, l)
			for j := range row {
				row[j] = binary.LittleEndian.Uint32(links[4*j:])
			}
			links = links[4*len(row):]
		}
		rows = rows[size:]
	}
	if len(rows) != 0 {
		return 0, corrupt("%d bytes after slot %d", len(rows), last)
	}
	g.raiseHigh(a, last+1)
	return last + 1, nil
}

// validate returns an error if some link or the entry point of a graph that nobody else uses yet does not lead to a node
// that is on its layer, or if there are nodes and no entry point.
func (g *Graph) validate() error {
	a := g.arena.Load()
	high := g.high.Load()
	isOn := func(slot uint32, layer int) bool {
		return slot < high && a.states[slot]&linked != 0 && g.level(slot) >= layer
	}
	for slot := range high {
		if !isOn(slot, 0) {
			continue
		}
		for l := range g.level(slot) + 1 {
			ended := false
			for _, link := range a.links(slot, l) {
				switch {
				case link == none:
					ended = true
				case ended:
					return corrupt("slot %d layer %d: link to %d after the end", slot, l, link)
				case link == slot || !isOn(link, l):
					return corrupt("slot %d layer %d: link to %d, which is no other node of that layer", slot, l, link)
				}
			}
		}
	}
	entry := g.entry.Load()
	switch nodes := g.live.Load() + g.deleted.Load(); {
	case entry == noEntry && nodes == 0:
		return nil
	case entry == noEntry:
		return corrupt("no entry point to %d nodes", nodes)
	case entry>>32 >= layersMax || !isOn(uint32(entry), 0) || g.level(uint32(entry)) != int(entry>>32):
		return corrupt("entry point %d on layer %d, which is not the top layer of a node", uint32(entry), entry>>32)
	}
	return nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// frame returns the payload of the next frame, of at most as many bytes, which is valid until the next call.
func (f *frameReader) frame(most uint32) ([]byte, error) {
	at := f.offset
	header, err := f.bytes(frameHeaderBytes)
	if err != nil {
		return nil, err
	}
	size, sum := binary.LittleEndian.Uint32(header), binary.LittleEndian.Uint32(header[4:])
	if size > most {
		return nil, corrupt("frame at byte %d: length %d, at most %d allowed", at, size, most)
	}
	payload, err := f.bytes(int(size))
	if err != nil {
		return nil, err
	}
	if got := crc32.Checksum(payload, castagnoli); got != sum {
		return nil, corrupt("frame at byte %d: checksum %#08x, expected %#08x", at, got, sum)
	}
	return payload, nil
}

// bytes reads n bytes, valid until the next call.
func (f *frameReader) bytes(n int) ([]byte, error) {
	if n > cap(f.buf) {
		f.buf = make([]byte, n)
	}
	f.buf = f.buf[:n]
	read, err := io.ReadFull(f.r, f.buf)
	f.offset += int64(read)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, corrupt("ends at byte %d, in the middle", f.offset)
	}
	if err != nil {
		return nil, fmt.Errorf("read at byte %d: %w", f.offset, err)
	}
	return f.buf, nil
}
