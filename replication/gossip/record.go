package gossip

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/vectord/vectord"
)

// Limits of what a node publishes. They are checked where it is published and again where it is received.
const (
	RecordBytesMax  = 8 << 10 // a record, encoded
	CounterBytesMax = 8 << 10 // the counters of one node: counterOverhead bytes and the key for each
	IDBytesMax      = 64      // a node's id
	AddressBytesMax = 261     // host:port, the host of 255 bytes at most
	BuildBytesMax   = 64      // Record.Build
	KeyBytesMax     = 128     // the key of a counter

	suspicionsMax = 16 // suspicions in one record
	versionMax    = 1 << 62
)

// Version orders what one node publishes: by its incarnation, which rises whenever the node starts, and within that by a
// sequence number. Both are at least 1; the zero Version is that of a node of which nothing was heard.
type Version struct {
	Incarnation, Sequence uint64
}

// Compare returns -1, 0 or 1 as v is older than, the same as or newer than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Incarnation, w.Incarnation), cmp.Compare(v.Sequence, w.Sequence))
}

func (v Version) valid() bool {
	return v.Incarnation-1 < versionMax && v.Sequence-1 < versionMax
}

// Record is what a node tells about itself: advisory, and out of date by the time that it is read. Its zero value says
// nothing.
type Record struct {
	Addresses Addresses
	Build     string // the program's version
	Commands  Range  // versions of commands that the node can apply
	Load      Load
	Groups    []Group // replication groups with a replica on the node
}

// Addresses are where a node listens, each host:port.
type Addresses struct {
	Gossip string // known to this package; what is given to Publish is ignored
	Raft   string
	HTTP   string
}

// Range is an inclusive range of versions.
type Range struct {
	Min, Max uint32
}

// Load says how busy a node is.
type Load struct {
	CPUMillis   uint32 // thousandths of the processors that it may use
	MemoryBytes uint64 // in use
	MemoryLimit uint64 // bytes; 0: unlimited
	DiskBytes   uint64 // in use on the file system of the data
	DiskLimit   uint64 // bytes of that file system
	Queue       uint32 // writes and tasks that wait
}

// Group is the place of a node in one replication group.
type Group struct {
	ID      uint32
	Role    Role
	Term    uint64
	Applied uint64 // index of the last entry applied
}

// Role is what a replica does in its group.
type Role uint8

// The roles of a replica.
const (
	RoleFollower Role = iota
	RoleCandidate
	RoleLeader
	RoleNonvoter
)

func (r Role) String() string {
	switch r {
	case RoleFollower:
		return "follower"
	case RoleCandidate:
		return "candidate"
	case RoleLeader:
		return "leader"
	case RoleNonvoter:
		return "nonvoter"
	}
	return "unknown"
}

// published is what travels: a node's record, and what this package adds to it.
type published struct {
	Record
	leaving    bool
	suspicions []suspicion
}

// suspicion says that the publisher's probes of a node were not answered. It holds until the node publishes something
// newer than the version that the publisher knew then.
type suspicion struct {
	id      string
	version Version
}

// The fields of an encoded record. Each is a tag, a length and a body. Readers skip tags that they do not know, and what
// follows in a body after the parts that they know, so that fields and parts can be added. Numbers are never reused.
const (
	fieldFlags     = 1 // flagLeaving
	fieldGossip    = 2
	fieldRaft      = 3
	fieldHTTP      = 4
	fieldBuild     = 5
	fieldCommands  = 6 // min, max
	fieldLoad      = 7 // in the order of the struct
	fieldGroup     = 8 // repeated: id, role, term, applied
	fieldSuspicion = 9 // repeated: id, incarnation, sequence

	flagLeaving = 1
)

// appendRecord encodes p. Equal values have equal encodings.
func appendRecord(dst []byte, p published) []byte {
	if p.leaving {
		dst = appendField(dst, fieldFlags, binary.AppendUvarint(nil, flagLeaving))
	}
	for _, f := range []struct {
		tag  uint64
		text string
	}{{fieldGossip, p.Addresses.Gossip}, {fieldRaft, p.Addresses.Raft}, {fieldHTTP, p.Addresses.HTTP}, {fieldBuild, p.Build}} {
		if f.text != "" {
			dst = appendField(dst, f.tag, []byte(f.text))
		}
	}
	var body []byte
	if p.Commands != (Range{}) {
		body = appendUvarints(body[:0], uint64(p.Commands.Min), uint64(p.Commands.Max))
		dst = appendField(dst, fieldCommands, body)
	}
	if l := p.Load; l != (Load{}) {
		body = appendUvarints(body[:0], uint64(l.CPUMillis), l.MemoryBytes, l.MemoryLimit, l.DiskBytes, l.DiskLimit, uint64(l.Queue))
		dst = appendField(dst, fieldLoad, body)
	}
	for _, g := range p.Groups {
		body = appendUvarints(body[:0], uint64(g.ID), uint64(g.Role), g.Term, g.Applied)
		dst = appendField(dst, fieldGroup, body)
	}
	for _, s := range p.suspicions {
		body = appendString(body[:0], s.id)
		body = appendUvarints(body, s.version.Incarnation, s.version.Sequence)
		dst = appendField(dst, fieldSuspicion, body)
	}
	return dst
}

// decodeRecord reads what appendRecord wrote, in this or a later version of the program. It refuses with KindInvalid.
func decodeRecord(b []byte) (published, error) {
	var p published
	if len(b) > RecordBytesMax {
		return p, vectord.Errorf(vectord.KindInvalid, "gossip record of %d bytes, at most %d are allowed", len(b), RecordBytesMax)
	}
	r := reader{rest: b}
	for len(r.rest) > 0 && !r.bad {
		tag := r.uvarint()
		f := reader{rest: r.bytes(r.uvarint())}
		switch tag {
		case fieldFlags:
			p.leaving = f.uvarint()&flagLeaving != 0
		case fieldGossip:
			p.Addresses.Gossip = f.all(AddressBytesMax)
		case fieldRaft:
			p.Addresses.Raft = f.all(AddressBytesMax)
		case fieldHTTP:
			p.Addresses.HTTP = f.all(AddressBytesMax)
		case fieldBuild:
			p.Build = f.all(BuildBytesMax)
		case fieldCommands:
			p.Commands = Range{Min: f.uint32(), Max: f.uint32()}
		case fieldLoad:
			p.Load = Load{CPUMillis: f.uint32(), MemoryBytes: f.uvarint(), MemoryLimit: f.uvarint(), DiskBytes: f.uvarint(),
				DiskLimit: f.uvarint(), Queue: f.uint32()}
		case fieldGroup:
			p.Groups = append(p.Groups, Group{ID: f.uint32(), Role: f.role(), Term: f.uvarint(), Applied: f.uvarint()})
		case fieldSuspicion:
			s := suspicion{id: f.string(IDBytesMax), version: f.version()}
			f.bad = f.bad || len(p.suspicions) == suspicionsMax
			p.suspicions = append(p.suspicions, s)
		}
		r.bad = r.bad || f.bad
	}
	if r.bad {
		return published{}, vectord.Errorf(vectord.KindInvalid, "gossip record of %d bytes is malformed", len(b))
	}
	return p, nil
}

// check refuses a record that others would refuse.
func (r Record) check() error {
	for _, a := range []struct{ name, text string }{{"raft address", r.Addresses.Raft}, {"HTTP address", r.Addresses.HTTP}} {
		if len(a.text) > AddressBytesMax {
			return vectord.Errorf(vectord.KindInvalid, "gossip record: %s of %d bytes, at most %d are allowed", a.name, len(a.text), AddressBytesMax)
		}
	}
	if len(r.Build) > BuildBytesMax {
		return vectord.Errorf(vectord.KindInvalid, "gossip record: build of %d bytes, at most %d are allowed", len(r.Build), BuildBytesMax)
	}
	return nil
}

// sameIdentity reports whether a and b differ in nothing but load and groups.
func sameIdentity(a, b Record) bool {
	return a.Addresses == b.Addresses && a.Build == b.Build && a.Commands == b.Commands
}

// clone returns a record that shares no memory with r.
func (r Record) clone() Record {
	r.Groups = slices.Clone(r.Groups)
	return r
}

// reader takes values off the front of bytes. After the first that is not there, it is bad and returns zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uvarint()
	if v > 1<<32-1 {
		r.bad = true
		return 0
	}
	return uint32(v)
}

// role reads a role. One that a later version of the program may know is kept as it is.
func (r *reader) role() Role {
	v := r.uvarint()
	if v > 1<<8-1 {
		r.bad = true
		return 0
	}
	return Role(v)
}

func (r *reader) version() Version {
	v := Version{Incarnation: r.uvarint(), Sequence: r.uvarint()}
	r.bad = r.bad || !v.valid()
	return v
}

// bytes returns the next n bytes, which alias the input.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// string returns the next string, of 1 to limit bytes.
func (r *reader) string(limit uint64) string {
	n := r.uvarint()
	if n-1 >= limit {
		r.bad, r.rest = true, nil
		return ""
	}
	return string(r.bytes(n))
}

// all returns what is left as a string of at most limit bytes.
func (r *reader) all(limit int) string {
	r.bad = r.bad || len(r.rest) > limit
	return string(r.rest)
}

func appendField(dst []byte, tag uint64, body []byte) []byte {
	dst = binary.AppendUvarint(dst, tag)
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	return append(dst, body...)
}

func appendUvarints(dst []byte, values ...uint64) []byte {
	for _, v := range values {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
