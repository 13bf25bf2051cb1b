package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/zeebo/xxh3"

	"github.com/vectord/vectord"
)

// A command is one change in the log:
//
//	version u8 · kind u8 · body
//
// Bodies of catalog commands are JSON. The body of a write is binary, integers as uvarints unless a width is given, all
// fixed widths little-endian; docs/FORMAT.md has it byte by byte. Commands are a format: a kind keeps its meaning for
// ever, and a change of a body takes a new version.
const commandVersion = 1

type commandKind uint8

const (
	commandCreateCollection   commandKind = 1
	commandUpdateCollection   commandKind = 2
	commandDeleteCollection   commandKind = 3
	commandUpdateAliases      commandKind = 4
	commandWrite              commandKind = 5
	commandExpire             commandKind = 6
	commandCreateField        commandKind = 7
	commandDeleteField        commandKind = 8
	commandFillField          commandKind = 9
	commandFieldReady         commandKind = 10
	commandReserveShards      commandKind = 11
	commandReplaceCollections commandKind = 12
	commandCreateVectorName   commandKind = 13
	commandDeleteVectorName   commandKind = 14
	commandMachine            commandKind = 15 // of the Machine, see machine.go
	commandAnsweredWrite      commandKind = 16
)

type createCollection struct {
	Name   string                   `json:"name"`
	Config vectord.CollectionConfig `json:"config"`
}

type updateCollection struct {
	Name   string                   `json:"name"`
	Update vectord.CollectionUpdate `json:"update"`
}

type deleteCollection struct {
	Name string `json:"name"`
}

type updateAliases struct {
	Actions []vectord.AliasAction `json:"actions"`
}

type reserveShards struct {
	Count int `json:"count"`
}

// replaceCollections names collections without their ids, which Apply gives them. The rows of their shards are in storage.
type replaceCollections struct {
	Collections []collectionMeta `json:"collections"`
	Aliases     []vectord.Alias  `json:"aliases,omitempty"`
}

// write changes points of one shard. Session, if it is not zero, is the hash of the client's idempotency key, and
// Fingerprint the hash of what the client asked for under it.
type write struct {
	Collection  uint32
	Shard       uint32
	Session     [16]byte
	Fingerprint uint64
	Operations  []vectord.Operation
	// Answer, if there is one, is kept with the session for who repeats the request. Its meaning is the proposer's.
	Answer []byte
}

func encodeCatalogCommand(kind commandKind, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode command of kind %d: %w", kind, err)
	}
	return append([]byte{commandVersion, byte(kind)}, b...), nil
}

// splitCommand returns a command's kind and body.
func splitCommand(b []byte) (commandKind, []byte, error) {
	if len(b) < 2 {
		return 0, nil, fmt.Errorf("command of %d bytes", len(b))
	}
	if b[0] != commandVersion {
		return 0, nil, fmt.Errorf("command of kind %d and version %d, this server reads version %d", b[1], b[0], commandVersion)
	}
	return commandKind(b[1]), b[2:], nil
}

func (w *write) append(dst []byte) ([]byte, error) {
	if len(w.Answer) > 0 {
		dst = appendBytes(append(dst, commandVersion, byte(commandAnsweredWrite)), w.Answer)
	} else {
		dst = append(dst, commandVersion, byte(commandWrite))
	}
	dst = binary.LittleEndian.AppendUint32(dst, w.Collection)
	dst = binary.LittleEndian.AppendUint32(dst, w.Shard)
	dst = append(dst, w.Session[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, w.Fingerprint)
	return appendOperations(dst, w.Operations)
}

func appendOperations(dst []byte, ops []vectord.Operation) ([]byte, error) {
	dst = binary.AppendUvarint(dst, uint64(len(ops)))
	for i := range ops {
		var err error
		if dst, err = appendOperation(dst, &ops[i]); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func appendOperation(dst []byte, op *vectord.Operation) (_ []byte, err error) {
	dst = append(dst, byte(op.Kind))
	if op.Kind == vectord.OpUpsert || op.Kind == vectord.OpUpdateVectors {
		dst = append(dst, byte(op.UpdateMode))
		if dst, err = appendFilter(dst, op.UpdateFilter); err != nil {
			return nil, err
		}
		dst = binary.AppendUvarint(dst, uint64(len(op.Points)))
		for i := range op.Points {
			dst = appendPoint(dst, &op.Points[i])
		}
		return dst, nil
	}
	dst = binary.AppendUvarint(dst, uint64(len(op.IDs)))
	for _, id := range op.IDs {
		dst = id.AppendBinary(dst)
	}
	if dst, err = appendFilter(dst, op.Filter); err != nil {
		return nil, err
	}
	dst = appendBytes(dst, op.Payload)
	dst = appendBytes(dst, []byte(op.Key))
	dst = binary.AppendUvarint(dst, uint64(len(op.Keys)))
	for _, key := range op.Keys {
		dst = appendBytes(dst, []byte(key))
	}
	if op.Kind == vectord.OpSetExpiry {
		dst = binary.AppendUvarint(dst, uint64(op.Expires))
	}
	return dst, nil
}

func appendFilter(dst []byte, f *vectord.Filter) ([]byte, error) {
	var text []byte
	if f != nil {
		var err error
		if text, err = json.Marshal(f); err != nil {
			return nil, fmt.Errorf("encode filter: %w", err)
		}
	}
	return appendBytes(dst, text), nil
}

func appendPoint(dst []byte, p *vectord.Point) []byte {
	dst = p.ID.AppendBinary(dst)
	dst = binary.AppendUvarint(dst, uint64(p.Expires))
	dst = binary.AppendUvarint(dst, uint64(len(p.Vectors)))
	for i := range p.Vectors {
		v := &p.Vectors[i]
		dst = append(appendBytes(dst, []byte(v.Name)), byte(v.Kind))
		switch v.Kind {
		case vectord.TextVector: // in fingerprints alone
			dst = appendBytes(appendBytes(appendBytes(dst, []byte(v.Text.Text)), []byte(v.Text.Model)), v.Text.Options)
		case vectord.MultiVector:
			dst = binary.AppendUvarint(dst, uint64(v.Rows))
		case vectord.SparseVector:
			dst = binary.AppendUvarint(dst, uint64(len(v.Indices)))
			for _, index := range v.Indices {
				dst = binary.LittleEndian.AppendUint32(dst, index)
			}
		}
		dst = binary.AppendUvarint(dst, uint64(len(v.Values)))
		for _, x := range v.Values {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
		}
	}
	return appendBytes(dst, p.Payload)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// decodeWrite reads the body of a write. The result shares no memory with b.
func decodeWrite(b []byte) (*write, error) { return (&reader{b: b}).write(nil) }

// decodeAnsweredWrite reads the body of a write with an answer.
func decodeAnsweredWrite(b []byte) (*write, error) {
	r := reader{b: b}
	answer := r.bytes()
	if r.err == nil && answer == nil {
		r.err = errors.New("there is no answer")
	}
	return r.write(answer)
}

func (r *reader) write(answer []byte) (*write, error) {
	w := &write{Collection: r.uint32(), Shard: r.uint32(), Answer: answer}
	copy(w.Session[:], r.take(16))
	w.Fingerprint = r.uint64()
	n := r.count(1)
	for range n {
		w.Operations = append(w.Operations, r.operation())
		if r.err != nil {
			break
		}
	}
	if err := r.end("write"); err != nil {
		return nil, err
	}
	return w, nil
}

func (x *expire) append(dst []byte) []byte {
	dst = append(dst, commandVersion, byte(commandExpire))
	dst = binary.LittleEndian.AppendUint32(dst, x.Collection)
	dst = binary.LittleEndian.AppendUint32(dst, x.Shard)
	dst = binary.AppendUvarint(dst, uint64(len(x.IDs)))
	for _, id := range x.IDs {
		dst = id.AppendBinary(dst)
	}
	return dst
}

func decodeExpire(b []byte) (*expire, error) {
	r := reader{b: b}
	x := &expire{Collection: r.uint32(), Shard: r.uint32()}
	n := r.count(encodedIDSizeMin)
	for range n {
		x.IDs = append(x.IDs, r.id())
	}
	return x, r.end("expire")
}

// end returns the first error, one for what is left, or nil.
func (r *reader) end(what string) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes after the end", len(r.b))
	}
	if r.err != nil {
		return fmt.Errorf("decode %s: %w", what, r.err)
	}
	return nil
}

// reader takes values off the front of b. After the first error it returns zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && n > len(r.b) {
		r.err = fmt.Errorf("%d bytes expected, %d left", n, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count reads the number of items that follow, each at least itemSize bytes, so that a damaged number cannot make the
// caller allocate more than the input could hold.
func (r *reader) count(itemSize int) int {
	if r.err != nil {
		return 0
	}
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > uint64(len(r.b)-size)/uint64(itemSize) {
		r.err = fmt.Errorf("malformed count")
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

func (r *reader) bytes() []byte {
	b := r.take(r.count(1))
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

func (r *reader) id() vectord.PointID {
	if r.err != nil {
		return vectord.PointID{}
	}
	var id vectord.PointID
	id, r.b, r.err = vectord.DecodePointID(r.b)
	return id
}

const (
	encodedIDSizeMin     = 9
	encodedPointSizeMin  = encodedIDSizeMin + 3
	encodedVectorSizeMin = 3
)

func (r *reader) filter() (f *vectord.Filter) {
	if text := r.bytes(); text != nil && r.err == nil {
		f, r.err = vectord.ParseFilter(text)
	}
	return f
}

func (r *reader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.err = fmt.Errorf("malformed number")
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) point() vectord.Point {
	p := vectord.Point{ID: r.id(), Expires: int64(r.uvarint())}
	n := r.count(encodedVectorSizeMin)
	p.Vectors = make(vectord.Vectors, 0, n)
	for range n {
		p.Vectors = append(p.Vectors, r.vector())
		if r.err != nil {
			break
		}
	}
	p.Payload = r.bytes()
	return p
}

func (r *reader) vector() vectord.NamedVector {
	v := vectord.NamedVector{Name: string(r.bytes())}
	if b := r.take(1); b != nil {
		v.Kind = vectord.VectorKind(b[0])
	}
	switch v.Kind {
	case vectord.DenseVector:
	case vectord.MultiVector:
		v.Rows = int(r.uvarint())
	case vectord.SparseVector:
		raw := r.take(4 * r.count(4))
		v.Indices = make([]uint32, len(raw)/4)
		for i := range v.Indices {
			v.Indices[i] = binary.LittleEndian.Uint32(raw[4*i:])
		}
	default:
		if r.err == nil {
			r.err = fmt.Errorf("vector of unknown kind %d", v.Kind)
		}
	}
	raw := r.take(4 * r.count(4))
	v.Values = make([]float32, len(raw)/4)
	for i := range v.Values {
		v.Values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return v
}

func (r *reader) operation() vectord.Operation {
	var op vectord.Operation
	if b := r.take(1); b != nil {
		op.Kind = vectord.OperationKind(b[0])
	}
	switch op.Kind {
	case vectord.OpUpsert, vectord.OpUpdateVectors:
		if b := r.take(1); b != nil {
			op.UpdateMode = vectord.UpdateMode(b[0])
		}
		op.UpdateFilter = r.filter()
		n := r.count(encodedPointSizeMin)
		op.Points = make([]vectord.Point, 0, n)
		for range n {
			op.Points = append(op.Points, r.point())
			if r.err != nil {
				break
			}
		}
	case vectord.OpDelete, vectord.OpSetPayload, vectord.OpOverwritePayload, vectord.OpDeletePayload, vectord.OpClearPayload,
		vectord.OpDeleteVectors, vectord.OpSetExpiry:
		n := r.count(encodedIDSizeMin)
		op.IDs = make([]vectord.PointID, 0, n)
		for range n {
			op.IDs = append(op.IDs, r.id())
		}
		op.Filter = r.filter()
		op.Payload = r.bytes()
		op.Key = string(r.bytes())
		n = r.count(1)
		for range n {
			op.Keys = append(op.Keys, string(r.bytes()))
		}
		if op.Kind == vectord.OpSetExpiry {
			op.Expires = int64(r.uvarint())
		}
	default:
		if r.err == nil {
			r.err = fmt.Errorf("operation of unknown kind %d", op.Kind)
		}
	}
	return op
}

// sessionKey hashes a client's idempotency key within one collection.
func sessionKey(collection uint32, key string) [16]byte {
	h := xxh3.HashString128Seed(key, uint64(collection))
	return h.Bytes()
}

// fingerprint hashes what a client asked for, so that its key cannot be used for something else.
func fingerprint(ops []vectord.Operation) (uint64, error) {
	b, err := appendOperations(nil, ops)
	return xxh3.Hash(b), err
}
