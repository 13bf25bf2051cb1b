package server

import (
	"compress/gzip"
	"errors"
	"io"
	"net"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
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

// body reads the request's body, decompressed. The bytes are valid until the request is answered.
func (r *request) body() ([]byte, error) { return r.bodyUpTo(r.server.options.MaxBodyBytes) }

// bodyUpTo is body with a limit of the route's own.
func (r *request) bodyUpTo(limit int) ([]byte, error) {
	h := &r.http.Request.Header
	if n := h.ContentLength(); n > limit {
		return nil, bodyTooLarge(limit)
	}
	stream := r.http.RequestBodyStream()
	if stream == nil {
		return nil, nil
	}
	compressed := false
	switch encoding := h.ContentEncoding(); string(encoding) {
	case "", "identity":
	case "gzip":
		compressed = true
	default:
		return nil, vectord.Errorf(vectord.KindUnsupported, "Content-Encoding %s is not offered by this server, only gzip",
			excerpt(encoding))
	}
	size := firstBufferBytes
	if n := h.ContentLength(); n > size && !compressed {
		size = n + 1 // one more than the body, so that its end is seen without growing
	}
	if err := r.reserve(size); err != nil {
		return nil, err
	}
	var err error
	if compressed {
		// An endless stream of empty gzip blocks would never reach the limit on the output.
		r.buffer, err = r.fillFromGzip(r.newBuffer(size), io.LimitReader(stream, int64(limit)), limit)
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

func (r *request) fillFromGzip(dst []byte, src io.Reader, limit int) ([]byte, error) {
	z, _ := r.server.gunzip.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	defer r.server.gunzip.Put(z)
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
