package pool

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vectord/vectord"
)

const (
	// writeWithin is conn.patience but in tests.
	writeWithin = 10 * time.Second

	// noiseLinesMax are the lines on stdout that are no messages, over the life of a process.
	noiseLinesMax = 100
)

// JSON-RPC's numbers of errors.
const (
	rpcMethodNotFound = -32601
	rpcInvalidParams  = -32602
)

// errGone is what calls get that the process can no longer answer.
var errGone = errors.New("the process is gone")

// rpcError is the error that a process answers with.
type rpcError struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

func (e *rpcError) Error() string { return fmt.Sprintf("error %d: %s", e.Code, e.Message) }

// outgoing is a message to a process. The order of the fields is part of the interface: a shell script finds them with sed.
type outgoing struct {
	JSONRPC string    `json:"jsonrpc"`
	ID      any       `json:"id,omitempty"`
	Method  string    `json:"method,omitempty"`
	Params  any       `json:"params,omitempty"`
	Result  any       `json:"result,omitempty"`
	Error   *rpcError `json:"error,omitempty"`
}

// incoming is a message of a process: a request, a notification or an answer.
type incoming struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *rpcError       `json:"error"`
}

// reply is the answer to a call.
type reply struct {
	result json.RawMessage
	err    error // an *rpcError if the process answered with an error
}

// conn speaks JSON-RPC 2.0 with a process, one message a line. Its methods may be called at the same time.
type conn struct {
	process *process
	notify  func(method string, params json.RawMessage) // called by the reading goroutine
	gone    chan struct{}                               // closed when the process is gone and all that it wrote has been read

	writing  sync.Mutex    // held while a line is written
	patience time.Duration // guarded by writing: how long the process may leave its stdin full

	mu     sync.Mutex
	calls  map[int64]chan reply // guarded by mu: those without an answer; nil when gone
	lastID int64                // guarded by mu
}

// newConn begins to read. It ends, and closes stdout, when the process does.
func newConn(p *process, notify func(string, json.RawMessage)) *conn {
	c := &conn{process: p, notify: notify, gone: make(chan struct{}), patience: writeWithin, calls: map[int64]chan reply{}}
	go c.read()
	return c
}

// send writes a request. Its answer comes on the channel, which has room for it.
func (c *conn) send(method string, params any) (id int64, answer chan reply, err error) {
	answer = make(chan reply, 1)
	c.mu.Lock()
	if c.calls == nil {
		c.mu.Unlock()
		return 0, nil, errGone
	}
	c.lastID++
	id = c.lastID
	c.calls[id] = answer
	c.mu.Unlock()
	if err := c.write(&outgoing{ID: id, Method: method, Params: params}); err != nil {
		c.forget(id)
		return 0, nil, err
	}
	return id, answer, nil
}

// forget lets the answer to a call be dropped when it comes.
func (c *conn) forget(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

// call sends a request and waits for its answer, which is decoded into result.
func (c *conn) call(ctx context.Context, method string, params, result any) error {
	id, answer, err := c.send(method, params)
	if err != nil {
		return err
	}
	select {
	case r := <-answer:
		if r.err != nil {
			return r.err
		}
		if err := json.Unmarshal(r.result, result); err != nil {
			return vectord.Errorf(vectord.KindInvalid, "answer to %s: %v", method, err)
		}
		return nil
	case <-ctx.Done():
		c.forget(id)
		return fmt.Errorf("no answer to %s: %w", method, ctx.Err())
	}
}

// tell writes a notification.
func (c *conn) tell(method string, params any) error {
	return c.write(&outgoing{Method: method, Params: params})
}

// write writes one line. A process that does not read is killed, for it would block everything.
func (c *conn) write(m *outgoing) error {
	m.JSONRPC = "2.0"
	c.writing.Lock()
	defer c.writing.Unlock()
	line, err := encode(m)
	if err != nil {
		return vectord.Errorf(vectord.KindInvalid, "%s cannot be encoded: %v", m.Method, err)
	}
	_ = c.process.stdin.SetWriteDeadline(time.Now().Add(c.patience))
	if _, err := c.process.stdin.Write(line); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.process.kill(deathStuck)
		}
		return errGone
	}
	return nil
}

// encode returns a line of JSON. Unlike json.Marshal it leaves <, > and & as they are: shell scripts read it too.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// read hands on every message until stdout ends.
func (c *conn) read() {
	in := bufio.NewReaderSize(c.process.stdout, 64<<10)
	noise := 0
	for {
		line, err := readLine(in)
		if err == nil && !c.receive(line) {
			noise++
		}
		if errors.Is(err, errLineTooLong) || noise > noiseLinesMax {
			c.process.kill(deathOutput)
			_, _ = io.Copy(io.Discard, in)
		}
		if err != nil || noise > noiseLinesMax {
			break
		}
	}
	// A process that closes its stdout and lives on is of no use.
	if !c.process.endsWithin(silentWithin, nil) {
		c.process.kill(deathOutput)
		<-c.process.ended
	}
	c.process.stdout.Close()
	c.mu.Lock()
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, answer := range calls {
		answer <- reply{err: errGone}
	}
	close(c.gone)
}

var errLineTooLong = fmt.Errorf("a line is longer than %d bytes", lineBytesMax)

// readLine returns the next line, which is the caller's to keep.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := in.ReadSlice('\n')
		if len(line)+len(piece) > lineBytesMax {
			return nil, errLineTooLong
		}
		line = append(line, piece...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// receive deals with one line, and reports whether it was a message.
func (c *conn) receive(line []byte) bool {
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return true
	}
	var m incoming
	if err := json.Unmarshal(line, &m); err != nil {
		return false
	}
	switch hasID := len(m.ID) > 0 && string(m.ID) != "null"; {
	case m.Method != "" && !hasID:
		c.notify(m.Method, m.Params)
	case m.Method == "ping":
		_ = c.write(&outgoing{ID: m.ID, Result: struct{}{}}) // if that fails, reading ends as well
	case m.Method != "":
		_ = c.write(&outgoing{ID: m.ID, Error: &rpcError{Code: rpcMethodNotFound, Message: "not offered: " + m.Method}})
	case hasID && (m.Result != nil || m.Error != nil):
		var id int64
		if json.Unmarshal(m.ID, &id) != nil {
			return false
		}
		c.mu.Lock()
		answer := c.calls[id]
		delete(c.calls, id)
		c.mu.Unlock()
		if answer == nil {
			return true // to a call that was given up
		}
		r := reply{result: m.Result}
		if m.Error != nil {
			r = reply{err: m.Error}
		}
		answer <- r
	default:
		return false
	}
	return true
}
