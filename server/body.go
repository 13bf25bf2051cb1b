package server

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/wire"
)

// refusedHeader marks a request whose declared length is over the limit, from the moment when its header was read to its
// handler. A client that sends it refuses its own request.
const refusedHeader = "Vectord-Body-Refused"

// What refusedHeader says: why the body was cut off.
const (
	refusedForSize       = "size"
	refusedForCredential = "credential"
)

// headerReceived runs before anything of a body is read or waited for. It cuts the body off a request that is going to be
// refused by its header alone: one without a valid key or token, or with a body over the limit. The handler then says so, a
// missing key first; the connection cannot be used again, as the body is still on the wire.
//
// The permission of the route is looked at by the handler: by then at most fasthttp's read-ahead of 8 KiB has come in.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) (unchanged fasthttp.RequestConfig) {
	n := h.ContentLength()
	if n == 0 || n == noBody {
		return unchanged
	}
	if int64(n) > s.bodyLimit(h) {
		h.Set(refusedHeader, refusedForSize)
	} else if _, err := s.authorizer.Authenticate(credential(h)); err != nil {
		h.Set(refusedHeader, refusedForCredential)
	} else {
		return unchanged
	}
	h.SetContentLength(0)
	h.SetConnectionClose()
	h.Del(fasthttp.HeaderExpect)
	return unchanged
}

// What fasthttp gives as the length of a body that has none.
const (
	chunkedBody = -1
	noBody      = -2
)

// drainable is how much of an unread body fasthttp reads and drops to keep a connection.
const drainable = 64 << 10

// bodyLeftUnread reports whether a refused request leaves so much on the wire that its connection must be closed.
func bodyLeftUnread(ctx *fasthttp.RequestCtx) bool {
	n := ctx.Request.Header.ContentLength()
	return ctx.Request.Header.ConnectionClose() || n == chunkedBody || n > drainable
}

// keptBufferBytes is the size up to which a body's buffer is used again for another body.
const keptBufferBytes = 1 << 20

// firstBufferBytes is the size of a new buffer.
const firstBufferBytes = 16 << 10

// body reads the request's body, decompressed, and as JSON if it is MessagePack. The bytes are valid until the request is
// answered.
func (r *request) body() ([]byte, error) {
	limit := r.server.options.MaxBodyBytes
	body, err := r.bodyUpTo(limit)
	if err != nil || !isMsgpack(r.http.Request.Header.ContentType()) {
		return body, err
	}
	if err := r.reserve(len(body)); err != nil { // about what the JSON takes besides
		return nil, err
	}
	body, err = wire.AppendJSON(nil, body, limit)
	if err != nil {
		return nil, &formError{inBody, err}
	}
	return body, nil
}

// isMsgpack reports whether a content type is MessagePack.
func isMsgpack(contentType []byte) bool {
	mediaType, _, _ := strings.Cut(string(contentType), ";")
	return wire.IsMsgpack(strings.TrimSpace(mediaType))
}

// bodyUpTo is body with a limit of the route's own. It may be called again: what was to be sent to the leader is read before it
// turns out that the leader is this node by now.
func (r *request) bodyUpTo(limit int) ([]byte, error) {
	if r.bodyRead {
		if len(r.buffer) > limit {
			return nil, bodyTooLarge(limit)
		}
		return r.buffer, nil
	}
	h := &r.http.Request.Header
	if n := h.ContentLength(); n > limit {
		return nil, bodyTooLarge(limit)
	}
	stream := r.http.RequestBodyStream()
	if stream == nil {
		return nil, nil
	}
	var decompressors *sync.Pool // nil: it is not compressed
	switch encoding := h.ContentEncoding(); string(encoding) {
	case "", "identity":
	case "gzip":
		decompressors = &gzipReaders
	case "deflate":
		decompressors = &zlibReaders
	case "zstd":
		decompressors = &zstdReaders
		if err := r.reserve(zstdWindowBytes); err != nil {
			return nil, err
		}
	default:
		return nil, vectord.Errorf(vectord.KindUnsupported, "Content-Encoding %s is not offered by this server, only gzip, zstd and deflate",
			excerpt(encoding))
	}
	size := firstBufferBytes
	if n := h.ContentLength(); n > size && decompressors == nil {
		size = n + 1 // one more than the body, so that its end is seen without growing
	}
	if err := r.reserve(size); err != nil {
		return nil, err
	}
	var err error
	if decompressors != nil {
		// An endless stream of empty blocks would never reach the limit on the output.
		r.buffer, err = r.fillFrom(decompressors, r.newBuffer(size), io.LimitReader(stream, int64(limit)), limit)
	} else {
		r.buffer, err = r.fill(r.newBuffer(size), stream, limit)
	}
	if err != nil {
		return nil, readError(err, r.server.options.RequestTimeout.String())
	}
	r.bodyRead = true
	return r.buffer, nil
}

// fill appends all of src to dst, up to the limit.
func (r *request) fill(dst []byte, src io.Reader, limit int) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			size := min(2*cap(dst), max(limit+1, cap(dst)+1))
			if err := r.reserve(size - cap(dst)); err != nil {
				return dst, err
			}
			dst = append(make([]byte, 0, size), dst...)
		}
		n, err := src.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > limit:
			return dst, bodyTooLarge(limit)
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst, err
		}
	}
}

// decompressor reads what a reader gives in compressed form.
type decompressor interface {
	io.Reader
	Reset(io.Reader) error
}

// zstdWindowBytes is how far back in its output a zstd body may refer, which is kept beside it: what RFC 8878 has every decoder
// support.
const zstdWindowBytes = 8 << 20

// Decompressors of the encodings of bodies.
var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	zlibReaders = sync.Pool{New: func() any { return new(zlibReader) }}
	zstdReaders = sync.Pool{New: func() any {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindowBytes))
		if err != nil {
			panic(err) // the options above are valid
		}
		return z
	}}
)

// zlibReader reads what HTTP calls deflate.
type zlibReader struct{ io.ReadCloser }

// Reset has z read from src.
func (z *zlibReader) Reset(src io.Reader) (err error) {
	if z.ReadCloser == nil {
		z.ReadCloser, err = zlib.NewReader(src)
		return err
	}
	return z.ReadCloser.(zlib.Resetter).Reset(src, nil)
}

// fillFrom is fill with what src gives in compressed form.
func (r *request) fillFrom(decompressors *sync.Pool, dst []byte, src io.Reader, limit int) ([]byte, error) {
	z := decompressors.Get().(decompressor)
	defer decompressors.Put(z)
	if err := z.Reset(src); err != nil {
		return dst, err
	}
	return r.fill(dst, z, limit)
}

func bodyTooLarge[T int | int64](limit T) error {
	return vectord.Errorf(vectord.KindTooLarge, "the body is larger than %d bytes", limit)
}

// readError says what went wrong while a body was read.
func readError(err error, timeout string) error {
	var own *vectord.Error
	var network net.Error
	switch {
	case errors.As(err, &own):
		return err
	case errors.As(err, &network) && network.Timeout():
		return vectord.Errorf(vectord.KindTimeout, "the body did not arrive within %s", timeout)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return vectord.Errorf(vectord.KindInvalid, "the body is not valid gzip: %v", err)
	case errors.Is(err, zlib.ErrHeader), errors.Is(err, zlib.ErrChecksum):
		return vectord.Errorf(vectord.KindInvalid, "the body is not valid deflate: %v", err)
	case errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, zstd.ErrCRCMismatch), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return vectord.Errorf(vectord.KindInvalid, "the body is not valid zstd: %v", err)
	}
	return vectord.Errorf(vectord.KindInvalid, "the body could not be read: %v", err)
}

// reserve takes n bytes from the server's budget for bodies until the request is answered.
func (r *request) reserve(n int) error {
	if r.server.bodies.Add(int64(n)) > int64(r.server.options.MaxBodiesBytes) {
		r.server.bodies.Add(int64(-n))
		return vectord.Errorf(vectord.KindOverloaded, "the request bodies in memory exceed %d bytes", r.server.options.MaxBodiesBytes)
	}
	r.reserved += n
	return nil
}

func (r *request) newBuffer(size int) []byte {
	if b, ok := r.server.buffers.Get().(*[]byte); ok {
		if cap(*b) >= size {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, size)
}

// release gives back what the body took.
func (r *request) release() {
	r.server.bodies.Add(int64(-r.reserved))
	r.reserved = 0
	if b := r.buffer; b != nil && cap(b) <= keptBufferBytes {
		r.server.buffers.Put(&b)
	}
	r.buffer = nil
}
