package client

import (
	"bufio"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/wire"
)

// The defaults of TCPOptions, and limits that are not options.
const (
	DefaultBatchSize  = 100
	DefaultBatchWait  = 10 * time.Millisecond
	DefaultMaxPending = 10_000

	tcpDialTimeout     = 10 * time.Second
	tcpPingEvery       = 30 * time.Second // below the time after which servers close a silent connection
	tcpReadBufferBytes = 64 << 10
	tcpKeptBufferBytes = 8 << 20 // size up to which a buffer is used again: that of all frames on their way with 1 KB a message
	tcpFramesMax       = 64      // frames on their way, or as many as the server grants if those are fewer
	tcpBatchBytesMax   = 8 << 20 // messages of one batch

	// Where there are several servers, one that has said nothing for tcpQuietAfter is asked to, if it owes an answer, and given up
	// when as much time has passed again. Meanwhile nothing may be on its way out, but for what
	// has been for tcpWriteMax.
	tcpQuietAfter = 2 * time.Second
	tcpWriteMax   = 30 * time.Second
)

// TCPOptions tune a TCP client. The zero value works.
type TCPOptions struct {
	APIKey   string
	TLS      *tls.Config // nil: no TLS
	Compress bool        // batches and answers, by S2
	// Servers are addresses of further servers of the same cluster, which are connected to when another one fails or does not lead.
	Servers []string

	BatchSize  int           // messages in a batch; 0 means DefaultBatchSize
	BatchWait  time.Duration // of a message for others while a batch is on its way; 0 means DefaultBatchWait
	MaxPending int           // messages that wait or are on their way; more wait for room. 0 means DefaultMaxPending
	// Attempts is how often a message is sent that is refused for the moment, and how often in a row each server is dialled. 0 means
	// DefaultAttempts for one server and DefaultClusterAttempts for several.
	Attempts int
}

// DefaultClusterAttempts leaves a cluster about a minute to find a leader.
const DefaultClusterAttempts = 40

// TCP calls one server over its TCP protocol, or one after the other of a cluster. It may be used by any number of goroutines.
//
// Tasks and calls of all goroutines travel in batches, in the order in which they were given: a batch goes off when it is full, when
// its first message has waited for BatchWait, or at once when no batch is on its way. Messages that are refused for the moment are
// sent again when the server says, tasks under the same idempotency key. When the connection breaks another is made, and what had
// no answer is sent again.
type TCP struct {
	servers  []string
	current  int  // place in servers of the one to dial; dial's caller owns it
	leave    bool // the server does not lead; read owns it, and what it calls
	options  TCPOptions
	keys     string // what the idempotency keys of this client begin with
	lastKey  atomic.Uint64
	room     chan struct{} // full of messages that wait or are on their way
	frames   chan struct{} // full of frames on their way, polls for tasks not counted
	closed   chan struct{}
	ended    chan struct{}
	tasks    *batcher[wire.NewTask, vectord.Submitted]
	calls    *batcher[wire.Call, vectord.CallOutcome]
	closeOne sync.Once

	mu       sync.Mutex // guards what is below, and the batchers
	changed  sync.Cond  // of unsent and link
	requests map[uint32]*tcpRequest
	lastID   uint32
	sequence uint64
	unsent   []byte
	link     net.Conn // nil while there is none
	failed   error    // why there is none for good
}

// tcpRequest is a frame that has no answer yet.
type tcpRequest struct {
	sequence uint64
	kind     wire.FrameType
	message  wire.Marshaler
	credit   bool
	done     func(body []byte, err error) // called once, without locks; body is read into again afterwards
}

// ErrClosed is what calls of a closed client return.
var ErrClosed = errors.New("the client is closed")

// DialTCP returns a client of the server at an address such as "127.0.0.1:6335", to which, or to another one of its cluster, it has
// connected.
func DialTCP(ctx context.Context, address string, o TCPOptions) (*TCP, error) {
	if min(o.BatchSize, o.MaxPending, o.Attempts) < 0 || o.BatchWait < 0 || o.BatchSize > vectord.MaxTaskBatch {
		return nil, fmt.Errorf("TCP client: options must not be negative, and batches have at most %d messages", vectord.MaxTaskBatch)
	}
	o.BatchSize, o.BatchWait = cmp.Or(o.BatchSize, DefaultBatchSize), cmp.Or(o.BatchWait, DefaultBatchWait)
	attempts := DefaultAttempts
	if len(o.Servers) > 0 {
		attempts = DefaultClusterAttempts
	}
	o.MaxPending, o.Attempts = cmp.Or(o.MaxPending, DefaultMaxPending), cmp.Or(o.Attempts, attempts)
	c := &TCP{servers: append([]string{address}, o.Servers...), options: o, keys: crand.Text() + "-", room: make(chan struct{}, o.MaxPending),
		closed: make(chan struct{}), ended: make(chan struct{}), requests: map[uint32]*tcpRequest{}}
	c.changed.L = &c.mu
	c.tasks, c.calls = newTaskBatcher(c), newCallBatcher(c)
	link, welcome, err := c.dial(ctx)
	for tried := 1; err != nil && tried < len(c.servers) && ctx.Err() == nil; tried++ {
		c.next()
		link, welcome, err = c.dial(ctx)
	}
	if err != nil {
		return nil, err
	}
	c.frames = make(chan struct{}, max(1, min(welcome.Credits, tcpFramesMax)))
	go c.run(link)
	return c, nil
}

// Close ends the connection. Calls that have no answer return ErrClosed; what became of them is unknown.
func (c *TCP) Close() error {
	c.closeOne.Do(func() {
		close(c.closed)
		c.mu.Lock()
		if c.link != nil {
			_ = c.link.Close() // it is of no use any more
		}
		c.mu.Unlock()
	})
	<-c.ended
	return nil
}

// next has another server be dialled.
func (c *TCP) next() { c.current = (c.current + 1) % len(c.servers) }

// dial connects and says hello.
func (c *TCP) dial(ctx context.Context) (*tcpLink, *wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, tcpDialTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: tcpPingEvery, Interval: tcpPingEvery / 6, Count: 3}}
	nc, err := dialer.DialContext(ctx, "tcp", c.servers[c.current])
	if err != nil {
		return nil, nil, err
	}
	if c.options.TLS != nil {
		nc = tls.Client(nc, c.options.TLS)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Now()) }) // fails if the connection is gone
	link := &tcpLink{Conn: nc, in: bufio.NewReaderSize(nc, tcpReadBufferBytes)}
	welcome, err := c.hello(link)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = nc.Close() // it is of no use any more
		return nil, nil, fmt.Errorf("connect to %s: %w", c.servers[c.current], err)
	}
	return link, welcome, nil
}

func (c *TCP) hello(link *tcpLink) (*wire.Welcome, error) {
	var flags uint16
	if c.options.Compress {
		flags = wire.FlagS2
	}
	b := binary.BigEndian.AppendUint16([]byte(wire.Magic), wire.Version)
	b = binary.BigEndian.AppendUint16(b, flags)
	b, err := wire.AppendFrame(b, wire.FrameHello, 0, 0, &wire.Hello{APIKey: c.options.APIKey, Client: "vectord-go " + vectord.Version})
	if err != nil {
		return nil, err
	}
	if _, err := link.Write(b); err != nil {
		return nil, err
	}
	h, body, err := link.next()
	if err != nil {
		return nil, err
	}
	switch h.Type {
	case wire.FrameResult:
		welcome := new(wire.Welcome)
		_, err := welcome.UnmarshalMsg(body)
		return welcome, err
	case wire.FrameError, wire.FrameGoaway:
		return nil, refusalIn(body)
	}
	return nil, fmt.Errorf("%w: frame %s", errResponse, h.Type)
}

// tcpLink is a connection as it is read. But for its times, in nanoseconds since the Unix epoch, it belongs to one
// goroutine.
type tcpLink struct {
	net.Conn
	heard        atomic.Int64 // when a frame came last
	writingUntil atomic.Int64 // when what is being written should be; 0: nothing is

	in    *bufio.Reader
	body  []byte // of the last frame
	plain []byte // decompressed
}

// next reads a frame. The body is valid until the next one is read.
func (l *tcpLink) next() (h wire.Header, body []byte, err error) {
	var header [wire.HeaderBytes]byte
	if _, err := io.ReadFull(l.in, header[:]); err != nil {
		return h, nil, err
	}
	if h, err = wire.ParseHeader(&header); err != nil {
		return h, nil, err
	}
	if cap(l.body) < h.BodyBytes || cap(l.body) > tcpKeptBufferBytes {
		l.body = make([]byte, h.BodyBytes)
	}
	l.body = l.body[:h.BodyBytes]
	if _, err := io.ReadFull(l.in, l.body); err != nil {
		return h, nil, err
	}
	if h.Flags&(wire.FlagS2|wire.FlagZstd) == 0 {
		return h, l.body, nil
	}
	if cap(l.plain) > tcpKeptBufferBytes {
		l.plain = nil
	}
	l.plain, err = wire.Decompress(l.plain[:0], h.Flags, l.body)
	return h, l.plain, err
}

// refusalIn reads the body of an error frame.
func refusalIn(body []byte) error {
	var e wire.Error
	if _, err := e.UnmarshalMsg(body); err != nil {
		return fmt.Errorf("%w: %w", errResponse, err)
	}
	return refusalOf(&e)
}

func refusalOf(e *wire.Error) *Error {
	return &Error{Status: e.Status, Code: vectord.Code(e.Code), Text: e.Text, RetryAfter: e.RetryAfter()}
}

// run keeps a connection until the client is closed.
func (c *TCP) run(link *tcpLink) {
	defer close(c.ended)
	defer c.fail(ErrClosed)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-c.closed
		cancel()
	}()
	for attempt := 1; ; attempt++ {
		var err error
		if link == nil {
			link, _, err = c.dial(ctx)
		}
		if err == nil {
			begin := time.Now()
			c.serve(link)
			link = nil
			if time.Since(begin) > backoffMax {
				attempt = 1
			}
		} else if attempt >= c.options.Attempts*len(c.servers) || StatusOf(err) != 0 && !retryable(err) {
			c.failRequests(err)
		}
		c.next()
		if wait(ctx, c.pause(attempt, err)) != nil {
			return
		}
	}
}

// pause is how long to wait before the next server is dialled: longer ones come once all have failed.
func (c *TCP) pause(attempt int, err error) time.Duration {
	if attempt%len(c.servers) != 0 {
		return rand.N(hopPause)
	}
	return pause(attempt/len(c.servers), err)
}

// refused is how long to wait before a message goes again that was refused for the moment.
func (c *TCP) refused(attempt int, err error) time.Duration {
	if len(c.servers) > 1 && CodeOf(err) == vectord.CodeNotLeader {
		return backoff(attempt)
	}
	return pause(attempt, err)
}

// serve serves a connection until it ends.
func (c *TCP) serve(link *tcpLink) {
	stop := make(chan struct{})
	var helpers sync.WaitGroup
	c.mu.Lock()
	select {
	case <-c.closed:
		c.mu.Unlock()
		_ = link.Close() // it is of no use any more
		return
	default:
	}
	c.link = link
	c.unsent = c.unsent[:0]
	for _, id := range slices.SortedFunc(maps.Keys(c.requests), func(a, b uint32) int {
		return cmp.Compare(c.requests[a].sequence, c.requests[b].sequence)
	}) {
		c.append(id, c.requests[id])
	}
	c.mu.Unlock()
	helpers.Go(func() { c.write(link, stop) })
	helpers.Go(func() { c.pingIdle(stop) })
	if len(c.servers) > 1 {
		helpers.Go(func() { c.watchSilence(link, stop) })
	}
	c.read(link)
	_ = link.Close() // it is of no use any more
	c.mu.Lock()
	c.link = nil
	close(stop)
	c.changed.Broadcast()
	c.mu.Unlock()
	helpers.Wait()
}

// append appends a request to what is written. mu is held.
func (c *TCP) append(id uint32, r *tcpRequest) {
	var flags uint8
	if c.options.Compress && r.kind != wire.FrameUpsert && r.kind != wire.FrameSearch { // vectors do not shrink
		flags = wire.FlagS2
	}
	var err error
	if c.unsent, err = wire.AppendFrame(c.unsent, r.kind, flags, id, r.message); err != nil {
		delete(c.requests, id)
		go c.finish(r, nil, err) // not under mu
		return
	}
	c.changed.Broadcast()
}

func (c *TCP) write(link *tcpLink, stop <-chan struct{}) {
	var sending []byte
	for {
		c.mu.Lock()
		for len(c.unsent) == 0 && c.link == link {
			c.changed.Wait()
		}
		if c.link != link {
			c.mu.Unlock()
			return
		}
		if cap(sending) > tcpKeptBufferBytes {
			sending = nil
		}
		sending, c.unsent = c.unsent, sending[:0]
		c.mu.Unlock()
		link.writingUntil.Store(time.Now().Add(tcpWriteMax).UnixNano())
		_, err := link.Write(sending)
		link.writingUntil.Store(0)
		if err != nil {
			_ = link.Close() // reading ends
			<-stop
			return
		}
	}
}

// pingIdle keeps the server from taking the client for gone.
func (c *TCP) pingIdle(stop <-chan struct{}) {
	t := time.NewTicker(tcpPingEvery)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			_ = c.send(wire.FramePing, nil, false, func([]byte, error) {}) // fails when the client is closed
		}
	}
}

// watchSilence ends a connection whose server owes an answer and gives no sign of life.
func (c *TCP) watchSilence(link *tcpLink, stop <-chan struct{}) {
	t := time.NewTicker(tcpQuietAfter)
	defer t.Stop()
	asked := false
	for {
		select {
		case <-stop:
			return
		case now := <-t.C:
			if now.Sub(time.Unix(0, link.heard.Load())) < tcpQuietAfter || now.UnixNano() < link.writingUntil.Load() {
				asked = false
				continue
			}
		}
		c.mu.Lock()
		owes := len(c.requests) > 0
		c.mu.Unlock()
		if owes && asked {
			_ = link.Close() // reading ends
			<-stop
			return
		}
		if asked = owes; asked {
			_ = c.send(wire.FramePing, nil, false, func([]byte, error) {}) // fails when the client is closed
		}
	}
}

// read reads answers until the connection ends, or a server of several says that it does not lead.
func (c *TCP) read(link *tcpLink) {
	for c.leave = false; !c.leave || len(c.servers) == 1; {
		h, body, err := link.next()
		if err != nil {
			return
		}
		link.heard.Store(time.Now().UnixNano())
		if h.Type == wire.FrameGoaway {
			continue // answers to what the server has read still come; the rest is sent again
		}
		c.mu.Lock()
		r := c.requests[h.ID]
		delete(c.requests, h.ID)
		c.mu.Unlock()
		switch {
		case r == nil: // its caller may have given up
		case h.Type == wire.FrameError:
			refusal := refusalIn(body)
			c.leave = c.leave || CodeOf(refusal) == vectord.CodeNotLeader
			c.finish(r, nil, refusal)
		default:
			c.finish(r, body, nil)
		}
	}
}

func (c *TCP) finish(r *tcpRequest, body []byte, err error) {
	if r.credit {
		<-c.frames
	}
	r.done(body, err)
	if r.credit {
		c.mu.Lock()
		if c.failed == nil {
			c.tasks.flush()
			c.calls.flush()
		}
		c.mu.Unlock()
	}
}

// send sends a request. The caller holds a credit of frames if credit is set.
func (c *TCP) send(t wire.FrameType, m wire.Marshaler, credit bool, done func([]byte, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return c.failed
	}
	c.sendLocked(t, m, credit, done)
	return nil
}

// sendLocked is send where the client has not failed and mu is held.
func (c *TCP) sendLocked(t wire.FrameType, m wire.Marshaler, credit bool, done func([]byte, error)) {
	for c.lastID++; c.requests[c.lastID] != nil || c.lastID == 0; c.lastID++ { // ids come round
	}
	c.sequence++
	r := &tcpRequest{sequence: c.sequence, kind: t, message: m, credit: credit, done: done}
	c.requests[c.lastID] = r
	if c.link != nil {
		c.append(c.lastID, r)
	}
}

// fail ends everything.
func (c *TCP) fail(err error) {
	c.mu.Lock()
	c.failed = err
	c.mu.Unlock()
	c.failRequests(err)
}

// failRequests has everything that waits for an answer fail.
func (c *TCP) failRequests(err error) {
	c.mu.Lock()
	requests := c.requests
	c.requests = map[uint32]*tcpRequest{}
	tasks, calls := c.tasks.takeAll(), c.calls.takeAll()
	c.mu.Unlock()
	for _, r := range requests {
		c.finish(r, nil, err)
	}
	for i := range tasks {
		c.tasks.deliver(&tasks[i], vectord.Submitted{}, err)
	}
	for i := range calls {
		c.calls.deliver(&calls[i], vectord.CallOutcome{}, err)
	}
}

// request sends a frame and waits for its answer, which decode reads. A refusal for the moment is sent again.
func (c *TCP) request(ctx context.Context, t wire.FrameType, m wire.Marshaler, decode func([]byte) error) error {
	for attempt := 1; ; attempt++ {
		err := c.requestOnce(ctx, t, m, decode)
		if err == nil {
			return nil
		}
		if StatusOf(err) == 0 || attempt == c.options.Attempts || !retryable(err) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		if waitErr := wait(ctx, c.refused(attempt, err)); waitErr != nil {
			return fmt.Errorf("%s: %w (last answer: %w)", t, waitErr, err)
		}
	}
}

func (c *TCP) requestOnce(ctx context.Context, t wire.FrameType, m wire.Marshaler, decode func([]byte) error) error {
	credit := t != wire.FrameLease && t != wire.FramePing
	if credit {
		select {
		case c.frames <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.closed:
			return ErrClosed
		}
	}
	answered := make(chan error, 1)
	var gone atomic.Bool // what decode fills is the caller's again
	err := c.send(t, m, credit, func(body []byte, err error) {
		if err == nil && gone.CompareAndSwap(false, true) {
			if err = decode(body); err != nil {
				err = fmt.Errorf("%w: %w", errResponse, err)
			}
		}
		answered <- err
	})
	if err != nil {
		if credit {
			<-c.frames
		}
		return err
	}
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		if gone.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return <-answered
	}
}

// Ping returns when the server has answered.
func (c *TCP) Ping(ctx context.Context) error {
	return c.request(ctx, wire.FramePing, nil, func([]byte) error { return nil })
}

// Lease asks for tasks; there are none if the wait is over. From then on the agent lives as long as this client does: when
// its connection has been gone for a while, the agent's leases end.
func (c *TCP) Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error) {
	m := &wire.Lease{Queue: r.Queue, AgentID: r.AgentID, MaxTasks: r.MaxTasks, WaitMS: r.WaitMS, LeaseSeconds: r.LeaseSeconds}
	var tasks []vectord.Task
	err := c.request(ctx, wire.FrameLease, m, func(body []byte) error {
		var leased wire.LeasedBatch
		if _, err := leased.UnmarshalMsg(body); err != nil {
			return err
		}
		tasks = make([]vectord.Task, len(leased.Tasks))
		for i := range tasks {
			tasks[i] = leased.Tasks[i].Task()
		}
		return nil
	})
	return tasks, err
}

// Upsert writes points, and returns when they are durable.
func (c *TCP) Upsert(ctx context.Context, collection string, points []vectord.Point) (vectord.UpdateResult, error) {
	m := &wire.Upsert{Collection: collection, IdempotencyKey: c.newKey(), Points: make([]wire.Point, len(points))}
	for i := range points {
		m.Points[i] = wire.PointOf(&points[i])
	}
	var upserted wire.Upserted
	err := c.request(ctx, wire.FrameUpsert, m, func(body []byte) error {
		_, err := upserted.UnmarshalMsg(body)
		return err
	})
	return vectord.UpdateResult{OperationID: upserted.OperationID}, err
}

// Search returns the points nearest to a vector. Of q it knows Nearest (a vector), Using, Filter, Limit, Offset, ScoreThreshold,
// HNSWEf and Exact of Params, and whether payloads and vectors are wanted.
func (c *TCP) Search(ctx context.Context, collection string, q vectord.Query) ([]vectord.Hit, error) {
	if q.Nearest == nil || q.Nearest.ID != nil {
		return nil, errors.New("search: only the nearest points of a vector can be asked for over TCP")
	}
	m := &wire.Search{Collection: collection, Vector: wire.Vectors{{Vector: q.Nearest.Vector}}, Using: q.Using, Limit: q.Limit, Offset: q.Offset,
		ScoreThreshold: q.ScoreThreshold, HNSWEf: q.Params.HNSWEf, Exact: q.Params.Exact, WithPayload: q.Select.Payload, WithVector: q.Select.Vectors}
	if !q.Filter.Empty() {
		filter, err := q.Filter.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("search: filter: %w", err)
		}
		m.Filter = filter
	}
	var hits []vectord.Hit
	err := c.request(ctx, wire.FrameSearch, m, func(body []byte) error {
		var found wire.Hits
		if _, err := found.UnmarshalMsg(body); err != nil {
			return err
		}
		hits = found.Hits()
		return nil
	})
	return hits, err
}

// newKey returns an idempotency key that no other message has.
func (c *TCP) newKey() string { return c.keys + strconv.FormatUint(c.lastKey.Add(1), 36) }
