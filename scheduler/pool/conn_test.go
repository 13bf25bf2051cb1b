package pool

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

func TestReadLine(t *testing.T) {
	in := bufio.NewReaderSize(strings.NewReader("a\n"+strings.Repeat("b", 100)+"\n\nrest"), 16)
	for _, want := range []string{"a\n", strings.Repeat("b", 100) + "\n", "\n"} {
		if line, err := readLine(in); string(line) != want || err != nil {
			t.Errorf("%q, %v, want %q", line, err, want)
		}
	}
	if _, err := readLine(in); !errors.Is(err, io.EOF) {
		t.Errorf("a line without an end: %v", err)
	}
	if _, err := readLine(bufio.NewReader(strings.NewReader(strings.Repeat("x", lineBytesMax+1)))); !errors.Is(err, errLineTooLong) {
		t.Errorf("a line that is too long: %v", err)
	}
}

// FuzzReceive checks that no line of a process does harm, and that the answer to a call can be told from everything else.
func FuzzReceive(f *testing.F) {
	for _, line := range []string{`{"jsonrpc":"2.0","id":1,"result":null}`, `{"id":"1","result":1}`, `{"id":1,"error":{"code":1,"message":"x","data":[]}}`,
		`{"method":"task/progress","params":{"task_id":"00000000-0000-0000-0000-000000000000","progress":{}}}`, `{"id":2,"method":"ping"}`, `[]`, `{}`, `x`} {
		f.Add([]byte(line))
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c := &conn{process: &process{stdin: null}, calls: map[int64]chan reply{1: make(chan reply, 1)}}
		c.notify = func(method string, params json.RawMessage) {
			workerProtocol{}.progress(method, params)
			mcpProtocol{}.progress(method, params)
		}
		answer := c.calls[1]
		c.receive(line)
		select {
		case r := <-answer:
			for _, p := range []protocol{workerProtocol{}, mcpProtocol{}} {
				if call := p.verdict(r); call.Kind != vectord.CallComplete && call.Error.Code == "" {
					t.Fatalf("%s makes %+v", line, call)
				}
			}
		default:
			if _, waiting := c.calls[1]; !waiting {
				t.Fatalf("%s took the call and did not answer it", line)
			}
		}
	})
}
