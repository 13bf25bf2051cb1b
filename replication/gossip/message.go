package gossip

import (
	"encoding/binary"

	"github.com/vectord/vectord"
)

// stateBytesMax bounds a message. A full state of originsMax nodes at their limits stays below it.
const stateBytesMax = 12 << 20

// slotsMax bounds the counters in a message, and is what nodes at their limits have together.
const slotsMax = originsMax * (CounterBytesMax / counterOverhead)

// A message is messageFormat, flags, the sender's id, and items: each a kind, a length and a body. Readers skip kinds that
// they do not know. Packets, streams and the full states of memberlist's push-pull all carry messages.
const (
	messageFormat = 1

	flagBulk = 1 // an answer or a full state: what it brings is old news to most

	itemRecord = 1 // hops, origin, incarnation, sequence, the encoded record
	itemSlots  = 2 // hops, origin, incarnation; repeated: key, P, N
	itemDigest = 3 // at most one; repeated: origin, incarnation, sequence (both 0: no record), hash of the counters in 8 bytes
	itemWant   = 4 // origin, what is wanted of it
)

type message struct {
	from    string
	bulk    bool
	records []recordItem
	slots   []slotItem
	digest  []digestEntry
	asks    bool // there is a digest, which may be empty
	wants   []want
}

type recordItem struct {
	hops    uint8 // how often it was passed on, counting this time
	origin  string
	version Version
	raw     []byte // encoded; as it came, with the fields that we do not know
	record  published
}

type slotItem struct {
	hops   uint8
	origin string
	key    string
	slot   Slot
}

type digestEntry struct {
	origin   string
	version  Version // zero: there is no record
	counters uint64  // hash
}

// want asks for parts of what is known of a node.
type want struct {
	origin string
	parts  parts
}

type parts uint8

const (
	partRecord   parts = 1
	partCounters parts = 2
)

func appendHeader(dst []byte, from string, flags byte) []byte {
	return appendString(append(dst, messageFormat, flags), from)
}

func appendRecordItem(dst []byte, it recordItem) []byte {
	body := appendString([]byte{it.hops}, it.origin)
	body = appendUvarints(body, it.version.Incarnation, it.version.Sequence)
	return appendField(dst, itemRecord, append(body, it.raw...))
}

// appendSlotsItem appends counters of one node, all of one incarnation.
func appendSlotsItem(dst []byte, hops uint8, origin string, incarnation uint64, slots map[string]Slot) []byte {
	body := appendString([]byte{hops}, origin)
	body = appendUvarints(body, incarnation)
	for key, s := range slots {
		body = appendUvarints(appendString(body, key), s.P, s.N)
	}
	return appendField(dst, itemSlots, body)
}

func appendDigestItem(dst []byte, digest []digestEntry) []byte {
	var body []byte
	for _, e := range digest {
		body = appendString(body, e.origin)
		body = appendUvarints(body, e.version.Incarnation, e.version.Sequence)
		body = binary.LittleEndian.AppendUint64(body, e.counters)
	}
	return appendField(dst, itemDigest, body)
}

func appendWantItem(dst []byte, w want) []byte {
	return appendField(dst, itemWant, append(appendString(nil, w.origin), byte(w.parts)))
}

// decodeMessage reads a message, whose items alias b, and refuses all of it with KindInvalid when a part is malformed.
func decodeMessage(b []byte) (message, error) {
	var m message
	if len(b) > stateBytesMax {
		return m, vectord.Errorf(vectord.KindInvalid, "gossip message of %d bytes, at most %d are allowed", len(b), stateBytesMax)
	}
	r := reader{rest: b}
	if head := r.bytes(2); r.bad || head[0] != messageFormat {
		return m, vectord.Errorf(vectord.KindInvalid, "gossip message of %d bytes is not of format %d", len(b), messageFormat)
	} else {
		m.bulk = head[1]&flagBulk != 0
	}
	m.from = r.string(IDBytesMax)
	for len(r.rest) > 0 && !r.bad {
		kind := r.uvarint()
		f := reader{rest: r.bytes(r.uvarint())}
		switch kind {
		case itemRecord:
			it := recordItem{hops: f.hops(), origin: f.string(IDBytesMax), version: f.version(), raw: f.rest}
			var err error
			if it.record, err = decodeRecord(it.raw); err != nil {
				return message{}, err
			}
			f.bad = f.bad || len(m.records) == originsMax
			m.records = append(m.records, it)
		case itemSlots:
			it := slotItem{hops: f.hops(), origin: f.string(IDBytesMax), slot: Slot{Incarnation: f.uvarint()}}
			f.bad = f.bad || it.slot.Incarnation-1 >= versionMax
			for len(f.rest) > 0 && !f.bad {
				it.key = f.string(KeyBytesMax)
				it.slot.P, it.slot.N = f.uvarint(), f.uvarint()
				f.bad = f.bad || len(m.slots) == slotsMax
				m.slots = append(m.slots, it)
			}
		case itemDigest:
			f.bad = f.bad || m.asks
			m.asks = true
			for len(f.rest) > 0 && !f.bad {
				e := digestEntry{origin: f.string(IDBytesMax), version: Version{Incarnation: f.uvarint(), Sequence: f.uvarint()}}
				if hash := f.bytes(8); !f.bad {
					e.counters = binary.LittleEndian.Uint64(hash)
				}
				f.bad = f.bad || len(m.digest) == originsMax
				m.digest = append(m.digest, e)
			}
		case itemWant:
			w := want{origin: f.string(IDBytesMax)}
			if b := f.bytes(1); !f.bad {
				w.parts = parts(b[0])
			}
			f.bad = f.bad || len(m.wants) == originsMax
			m.wants = append(m.wants, w)
		}
		r.bad = r.bad || f.bad
	}
	if r.bad {
		return message{}, vectord.Errorf(vectord.KindInvalid, "gossip message of %d bytes is malformed", len(b))
	}
	return m, nil
}

func (r *reader) hops() uint8 {
	b := r.bytes(1)
	if r.bad {
		return 0
	}
	return b[0]
}
