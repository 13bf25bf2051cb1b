package wire

import (
	"encoding/binary"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/vectord/vectord"
)

// The handshake: the client sends Magic, Version as a u16 and flags as a u16, which are the one of FlagS2 and FlagZstd that
// answers may be compressed with, or 0. Numbers are big-endian, as those of frames.
const (
	Magic          = "VDBP"
	Version        = 1
	HandshakeBytes = len(Magic) + 4
)

// Limits of frames.
const (
	MaxFrameBytes = 16 << 20 // what follows the length, and a body when it is decompressed
	HeaderBytes   = 12       // length u32, type u8, flags u8, reserved u16, request id u32
	lengthBytes   = 4        // of the length, which doesn't count itself

	// CompressFrom is the size of a body from which it is compressed. It stays as it is unless a tenth is saved.
	CompressFrom = 1 << 10
)

// FrameType says what a frame is about.
type FrameType uint8

// The types of frames.
const (
	FrameHello          FrameType = iota + 1 // Hello; answered by a Welcome
	FramePing                                // answered by a result without a body
	FrameSubmitBatch                         // Submit; answered by a SubmittedBatch
	FrameLease                               // Lease; answered by FrameLeased
	FrameLeased                              // LeasedBatch, of a poll that is over
	FrameAckBatch                            // CallBatch; answered by an OutcomeBatch
	FrameHeartbeatBatch                      // CallBatch of heartbeats alone
	FrameUpsert                              // Upsert; answered by Upserted
	FrameSearch                              // Search; answered by Hits
	FrameResult                              // what answers
	FrameError                               // Error
	FrameGoaway                              // Error: the server takes no more requests here, and ends when all are answered
)

func (t FrameType) String() string {
	names := [...]string{"", "hello", "ping", "submit_batch", "lease", "leased", "ack_batch", "heartbeat_batch", "upsert", "search",
		"result", "error", "goaway"}
	if t > 0 && int(t) < len(names) {
		return names[t]
	}
	return "unknown"
}

// The flags of frames.
const (
	FlagS2      = 1 // the body is a block of S2
	FlagZstd    = 2 // the body is zstd
	FlagLast    = 4 // of a stream of answers to one request
	FlagNoReply = 8 // the client wants no answer, but for an error

	knownFlags = FlagS2 | FlagZstd | FlagLast | FlagNoReply
)

// Header is the header of a frame.
type Header struct {
	Type      FrameType
	Flags     uint8
	ID        uint32 // which request it is, or answers
	BodyBytes int    // as it was sent
}

// ParseHeader reads a header. An error means that the connection cannot go on.
func ParseHeader(b *[HeaderBytes]byte) (h Header, err error) {
	n := binary.BigEndian.Uint32(b[:])
	h = Header{Type: FrameType(b[4]), Flags: b[5], ID: binary.BigEndian.Uint32(b[8:])}
	switch {
	case n < HeaderBytes-lengthBytes || n > MaxFrameBytes:
		return h, vectord.Errorf(vectord.KindTooLarge, "frame: length %d, must be from %d to %d", n, HeaderBytes-lengthBytes, MaxFrameBytes)
	case h.Flags&^knownFlags != 0 || h.Flags&(FlagS2|FlagZstd) == FlagS2|FlagZstd || b[6]|b[7] != 0:
		return h, vectord.Errorf(vectord.KindInvalid, "frame: flags %#x and reserved bits %x are not of version %d", h.Flags, b[6:8], Version)
	}
	h.BodyBytes = int(n) - (HeaderBytes - lengthBytes)
	return h, nil
}

// Marshaler is a message.
type Marshaler interface {
	MarshalMsg(dst []byte) ([]byte, error)
}

// AppendFrame appends a frame with a message, nil for none, compressed as one of FlagS2 and FlagZstd says.
func AppendFrame(dst []byte, t FrameType, flags uint8, id uint32, message Marshaler) (_ []byte, err error) {
	start := len(dst)
	var header [HeaderBytes]byte
	dst = append(dst, header[:]...)
	body := len(dst)
	if message != nil {
		if dst, err = message.MarshalMsg(dst); err != nil {
			return dst[:start], err
		}
	}
	if flags&(FlagS2|FlagZstd) != 0 {
		var smaller bool
		if dst, smaller = compress(dst, body, flags); !smaller {
			flags &^= FlagS2 | FlagZstd
		}
	}
	n := len(dst) - start - lengthBytes
	if n > MaxFrameBytes {
		return dst[:start], vectord.Errorf(vectord.KindTooLarge, "frame: %d bytes, at most %d fit", n, MaxFrameBytes)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(n))
	dst[start+4], dst[start+5] = byte(t), flags
	binary.BigEndian.PutUint32(dst[start+8:], id)
	return dst, nil
}

var (
	scratch sync.Pool // of *[]byte

	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err) // the options above are valid
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MaxFrameBytes), zstd.WithDecoderConcurrency(0))
		if err != nil {
			panic(err) // the options above are valid
		}
		return d
	})
)

// compress replaces dst[from:] by its compressed form if that is worth it.
func compress(dst []byte, from int, flags uint8) (_ []byte, smaller bool) {
	body := dst[from:]
	if len(body) < CompressFrom || len(body) > MaxFrameBytes {
		return dst, false
	}
	kept, _ := scratch.Get().(*[]byte)
	if kept == nil {
		kept = new([]byte)
	}
	defer scratch.Put(kept)
	if flags&FlagS2 != 0 {
		*kept = s2.Encode((*kept)[:cap(*kept)], body)
	} else {
		*kept = zstdEncoder().EncodeAll(body, (*kept)[:0])
	}
	if len(*kept) > len(body)/10*9 {
		return dst, false
	}
	return append(dst[:from], *kept...), true
}

// BodyBytes returns how many bytes a body has when it is decompressed, or a bound on it.
func BodyBytes(flags uint8, body []byte) (int, error) {
	switch {
	case flags&FlagS2 != 0:
		n, err := s2.DecodedLen(body)
		if err != nil || n > MaxFrameBytes {
			return 0, vectord.Errorf(vectord.KindInvalid, "frame: not S2 of at most %d bytes", MaxFrameBytes)
		}
		return n, nil
	case flags&FlagZstd != 0:
		var h zstd.Header
		if err := h.Decode(body); err == nil && h.HasFCS && h.FrameContentSize <= MaxFrameBytes {
			return int(h.FrameContentSize), nil
		}
		return MaxFrameBytes, nil
	}
	return len(body), nil
}

// Decompress appends a body, as it was before it was compressed, to dst.
func Decompress(dst []byte, flags uint8, body []byte) ([]byte, error) {
	if flags&FlagS2 != 0 {
		n, err := BodyBytes(flags, body)
		if err != nil {
			return dst, err
		}
		start := len(dst)
		dst = append(dst, make([]byte, n)...)
		if _, err := s2.Decode(dst[start:], body); err != nil {
			return dst[:start], vectord.Errorf(vectord.KindInvalid, "frame: not S2: %v", err)
		}
		return dst, nil
	}
	out, err := zstdDecoder().DecodeAll(body, dst)
	if err != nil || len(out)-len(dst) > MaxFrameBytes {
		return dst, vectord.Errorf(vectord.KindInvalid, "frame: not zstd of at most %d bytes: %v", MaxFrameBytes, err)
	}
	return out, nil
}
