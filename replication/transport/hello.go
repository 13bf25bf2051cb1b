package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/vectord/vectord"
)

// version is that of the hello and of all that follows it.
const version = 1

// Kinds of connections.
const (
	kindRaft  = 1 // a stream of the raft.StreamLayer of a group
	kindSmall = 2 // calls with small requests
	kindLarge = 3 // calls with large requests
)

// hello is the first thing on a connection, from the dialler: helloMagic, the version (1 byte), the kind (1), the group (4),
// the lengths of the cluster's id and of the dialler's address (1 each), and those two.
type hello struct {
	version byte
	kind    byte
	group   uint32 // 0 unless kind is kindRaft
	cluster string
	from    string // what the dialler advertises
}

const (
	helloMagic     = "vdtp"
	helloHeadBytes = len(helloMagic) + 1 + 1 + 4 + 1 + 1
	helloBytesMax  = helloHeadBytes + 2*math.MaxUint8
)

// The first byte of the acceptor's answer. A refusal goes on with the length of an error (2 bytes) and the error.
const (
	helloAccepted = 0
	helloRefused  = 1
)

// errNotHello says that the other side speaks something else.
var errNotHello = errors.New("what came first is not a hello of vectord's nodes")

func (h hello) append(dst []byte) []byte {
	dst = append(dst, helloMagic...)
	dst = append(dst, h.version, h.kind)
	dst = binary.BigEndian.AppendUint32(dst, h.group)
	dst = append(dst, byte(len(h.cluster)), byte(len(h.from)))
	dst = append(dst, h.cluster...)
	return append(dst, h.from...)
}

// readHello reads a hello and nothing beyond it. Of another version than ours, nothing but that number is certain.
func readHello(r io.Reader) (hello, error) {
	var buf [helloBytesMax]byte
	head := buf[:helloHeadBytes]
	if _, err := io.ReadFull(r, head); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	if string(head[:4]) != helloMagic {
		return hello{}, errNotHello
	}
	h := hello{version: head[4], kind: head[5], group: binary.BigEndian.Uint32(head[6:])}
	if h.version != version {
		return h, nil
	}
	cluster, from := int(head[10]), int(head[11])
	names := buf[helloHeadBytes : helloHeadBytes+cluster+from]
	if _, err := io.ReadFull(r, names); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	h.cluster, h.from = string(names[:cluster]), string(names[cluster:])
	return h, nil
}

// appendRefusal appends the answer to a hello that is refused because of err.
func appendRefusal(dst []byte, err error) []byte {
	text := appendError(nil, err)
	dst = append(dst, helloRefused)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(text)))
	return append(dst, text...)
}

// readAnswer reads the answer to a hello and nothing beyond it. A refusal is a *vectord.Error.
func readAnswer(r io.Reader) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return fmt.Errorf("answer to hello: %w", err)
	}
	switch head[0] {
	case helloAccepted:
		return nil
	case helloRefused:
	default:
		return fmt.Errorf("answer to hello: %#x is none", head[0])
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("answer to hello: %w", err)
	}
	length := int(binary.BigEndian.Uint16(head[:]))
	if length > errorBytesMax {
		return fmt.Errorf("answer to hello: a reason of %d bytes, at most %d are allowed", length, errorBytesMax)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return fmt.Errorf("answer to hello: %w", err)
	}
	reason, err := parseError(text)
	if err != nil {
		return fmt.Errorf("answer to hello: %w", err)
	}
	return reason
}

// check returns why a node of a cluster cannot serve the connection, whatever its kind, or nil.
func (h hello) check(cluster string) error {
	switch {
	case h.version != version:
		return vectord.Errorf(vectord.KindUnsupported, "protocol version %d is not spoken here, this node has %d", h.version, version)
	case h.cluster != cluster:
		return vectord.Errorf(vectord.KindConflict, "this node belongs to cluster %q and not to %q", cluster, h.cluster)
	case h.kind < kindRaft || h.kind > kindLarge:
		return vectord.Errorf(vectord.KindUnsupported, "connections of kind %d are not served here", h.kind)
	case h.from == "":
		return vectord.Errorf(vectord.KindInvalid, "the hello does not say who dials")
	}
	return nil
}
