package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// A frame is a head and a payload. The head is the payload's length (4 bytes), the type (1), flags (1) and the id of the
// call (8), all numbers big-endian.
const (
	headBytes = 4 + 1 + 1 + 8
	// chunkBytes is what a frame carries of a body at most. It is how long a small message waits for a large one.
	chunkBytes = 64 << 10
	// payloadBytesMax holds a chunk and the longest thing before it.
	payloadBytesMax = chunkBytes + requestHeadBytes
	// requestHeadBytes are a request's method, timeout and length of body.
	requestHeadBytes = 1 + 8 + 4
	replyHeadBytes   = 4 // the length of the body
)

// Types of frames. A body that is longer than its first frame goes on in chunks; all frames but the last say so.
const (
	frameRequest = 1 // method (1), microseconds left (8; 0: no deadline), length of the body (4), the body's begin
	frameChunk   = 2 // more of the body of a request or a reply
	frameCancel  = 3 // the caller waits no longer
	frameReply   = 4 // length of the body (4), the body's begin
	frameFailed  = 5 // the handler's error
	frameRefused = 6 // an error: the handler has not run and will not
	frameLost    = 7 // an error: the handler may have run
	framePing    = 8 // from the caller's side, for a pong
	framePong    = 9
)

// flagMore says that chunks follow.
const flagMore = 1

type frame struct {
	kind    byte
	more    bool
	id      uint64
	payload []byte // valid until the next frame is read
}

func appendHead(dst []byte, length int, kind, flags byte, id uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(length))
	dst = append(dst, kind, flags)
	return binary.BigEndian.AppendUint64(dst, id)
}

// frames reads frames. It is not safe for use by several goroutines.
type frames struct {
	r       *bufio.Reader
	payload []byte
}

func newFrames(r io.Reader) *frames {
	return &frames{r: bufio.NewReaderSize(r, headBytes+payloadBytesMax)}
}

// next reads one frame. An error is the end of the connection: whoever sends an unsound frame is not to be understood
// after it either.
func (f *frames) next() (frame, error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return frame{}, err
	}
	length, kind, flags := binary.BigEndian.Uint32(head[:]), head[4], head[5]
	switch {
	case length > payloadBytesMax:
		return frame{}, fmt.Errorf("a frame of %d bytes, at most %d are allowed", length, payloadBytesMax)
	case kind < frameRequest || kind > framePong:
		return frame{}, fmt.Errorf("a frame of type %d", kind)
	case flags&^flagMore != 0:
		return frame{}, fmt.Errorf("a frame with flags %#x", flags)
	case flags != 0 && kind != frameRequest && kind != frameReply && kind != frameChunk:
		return frame{}, fmt.Errorf("a frame of type %d that is to be continued", kind)
	}
	if cap(f.payload) < int(length) {
		f.payload = make([]byte, length, max(int(length), 4<<10))
	}
	f.payload = f.payload[:length]
	if _, err := io.ReadFull(f.r, f.payload); err != nil {
		if errors.Is(err, io.EOF) { // there was a head
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	return frame{kind: kind, more: flags != 0, id: binary.BigEndian.Uint64(head[6:]), payload: f.payload}, nil
}

// request is the begin of a request.
type request struct {
	method  byte
	timeout time.Duration // what is left until the caller's deadline; 0: it has none
	length  int           // of the body
	begin   []byte        // of the body
}

func parseRequest(f frame) (request, error) {
	if len(f.payload) < requestHeadBytes {
		return request{}, fmt.Errorf("a request of %d bytes is too short", len(f.payload))
	}
	micros := binary.BigEndian.Uint64(f.payload[1:])
	// A timeout beyond all reason is none.
	timeout := time.Duration(min(micros, uint64(math.MaxInt64/time.Microsecond))) * time.Microsecond
	r := request{method: f.payload[0], timeout: timeout, begin: f.payload[requestHeadBytes:]}
	var err error
	r.length, err = bodyLength(binary.BigEndian.Uint32(f.payload[9:]), r.begin, f.more)
	return r, err
}

// parseReply returns the length of a reply's body and the body's begin.
func parseReply(f frame) (int, []byte, error) {
	if len(f.payload) < replyHeadBytes {
		return 0, nil, fmt.Errorf("a reply of %d bytes is too short", len(f.payload))
	}
	begin := f.payload[replyHeadBytes:]
	length, err := bodyLength(binary.BigEndian.Uint32(f.payload), begin, f.more)
	return length, begin, err
}

// bodyLength checks what the first frame of a body says of its length.
func bodyLength(length uint32, begin []byte, more bool) (int, error) {
	if length > math.MaxInt32 || (uint32(len(begin)) < length) != more || uint32(len(begin)) > length {
		return 0, fmt.Errorf("a body of %d bytes begins with %d, and more follows: %t", length, len(begin), more)
	}
	return int(length), nil
}

// growBytes is what is set aside at first for a body that is longer: what has come is what is believed.
const growBytes = 1 << 20

// grow appends a chunk to a body that is to have length bytes.
func grow(body []byte, length int, f frame) ([]byte, error) {
	n := len(body) + len(f.payload)
	if n > length || (n < length) != f.more || len(f.payload) == 0 {
		return nil, fmt.Errorf("a chunk of %d bytes after %d of a body of %d, and more follows: %t", len(f.payload), len(body), length, f.more)
	}
	if n > cap(body) {
		body = append(make([]byte, 0, min(length, max(n, 2*cap(body)))), body...)
	}
	return append(body, f.payload...), nil
}
