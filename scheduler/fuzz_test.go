package scheduler

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

// fullTask is a task of which every field is set.
func fullTask() vectord.NewTask {
	return vectord.NewTask{Type: "t", Payload: json.RawMessage(`{"a":1}`), Vector: []float32{1, -0.5}, Tags: []string{"x", "y"}, AgentID: "a",
		Priority: priority(3), FairnessKey: "f", FairnessWeight: 2.5, RunAt: epoch, Deadline: epoch + 1, TimeoutSeconds: 5, MaxAttempts: 7,
		IdempotencyKey: "k", DependsOn: []vectord.TaskID{{1}, {2}}, RunOnDependencyFailure: true, StateRefs: []string{"s"}, Metadata: json.RawMessage(`{}`), TraceParent: "00"}
}

// FuzzBody checks that what is read of a task's body is written as something that reads the same.
func FuzzBody(f *testing.F) {
	n := fullTask()
	f.Add(appendBody(nil, &n))
	f.Add(appendBody(nil, &vectord.NewTask{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeBody(b)
		if err != nil {
			return
		}
		again := appendBody(nil, &n)
		m, err := decodeBody(again)
		if err != nil || !bytes.Equal(appendBody(nil, &m), again) {
			t.Fatalf("%+v, read as %+v (%v)", n, m, err)
		}
	})
}

func FuzzHeader(f *testing.F) {
	h := header{status: vectord.TaskRunning, created: 1, updated: 2, runAt: 3, attempt: 4, series: 5, started: 6, agent: "a", lease: 7, leaseSeconds: 8, leaseExpires: 9,
		cancelBy: 10, preferred: "p", progress: []byte(`1`), inputRequest: []byte(`2`), inputAnswer: []byte(`3`), result: []byte(`4`),
		failure: &vectord.TaskError{Code: "c", Message: "m"}, fingerprint: 11}
	f.Add(appendHeader(nil, 1, 2, &h))
	f.Add(appendHeader(nil, 1, 2, &header{status: vectord.TaskQueued}))
	f.Fuzz(func(t *testing.T, b []byte) {
		queue, seq, h, err := decodeHeader(b)
		if err != nil {
			return
		}
		again := appendHeader(nil, queue, seq, &h)
		queue2, seq2, h2, err := decodeHeader(again)
		if err != nil || queue2 != queue || seq2 != seq || !bytes.Equal(appendHeader(nil, queue2, seq2, &h2), again) {
			t.Fatalf("%+v, read as %+v (%v)", h, h2, err)
		}
		_ = publicTask(vectord.TaskID{}, "q", vectord.NewTask{}, &h)
	})
}

func FuzzSubmit(f *testing.F) {
	n := fullTask()
	c := submit{queue: "q", config: []byte(`{}`), tasks: []submission{{id: [16]byte{1}, key: [16]byte{2}, fingerprint: 3, body: appendBody(nil, &n)}}}
	f.Add(c.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{b: b}
		c := readSubmit(&r)
		if r.end() != nil {
			return
		}
		again := c.append(nil)
		r = reader{b: again}
		d := readSubmit(&r)
		if err := r.end(); err != nil || !bytes.Equal(d.append(nil), again) {
			t.Fatalf("%+v, read as %+v (%v)", c, d, err)
		}
	})
}

func FuzzGrant(f *testing.F) {
	g := grant{agent: "a", leases: []granted{{id: [16]byte{1}, leaseSeconds: 2, decision: []byte(`{}`)}, {}}}
	f.Add(g.append(nil)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{b: b}
		g := readGrant(&r)
		if r.end() != nil {
			return
		}
		again := g.append(nil)[1:]
		r = reader{b: again}
		h := readGrant(&r)
		if err := r.end(); err != nil || !bytes.Equal(h.append(nil)[1:], again) {
			t.Fatalf("%+v, read as %+v (%v)", g, h, err)
		}
	})
}

func FuzzCalls(f *testing.F) {
	n := fullTask()
	calls := []call{
		{TaskCall: vectord.TaskCall{Kind: vectord.CallComplete, ID: vectord.TaskID{1}, LeaseID: 2, Result: []byte(`1`)}, writes: []byte("w"), submits: []submit{{queue: "q", tasks: []submission{{body: appendBody(nil, &n)}}}}},
		{TaskCall: vectord.TaskCall{Kind: vectord.CallFail, Final: true, RetryAfterMS: 3, Error: vectord.TaskError{Code: "c", Message: "m"}}},
		{TaskCall: vectord.TaskCall{Kind: vectord.CallRelease}},
		{TaskCall: vectord.TaskCall{Kind: vectord.CallHeartbeat, Extend: 4, Progress: []byte(`1`)}},
		{TaskCall: vectord.TaskCall{Kind: vectord.CallRequestInput, Request: []byte(`1`)}},
	}
	f.Add(appendCalls(nil, calls)[1:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{b: b}
		calls := readCalls(&r)
		if r.end() != nil {
			return
		}
		again := appendCalls(nil, calls)[1:]
		r = reader{b: again}
		read := readCalls(&r)
		if err := r.end(); err != nil || !bytes.Equal(appendCalls(nil, read)[1:], again) {
			t.Fatalf("%+v, read as %+v (%v)", calls, read, err)
		}
	})
}

func FuzzStateRow(f *testing.F) {
	f.Add((&state{State: vectord.State{Version: 1, UpdatedAt: 2, ExpiresAt: 3, ContentType: "x/y"}, size: 4, chunks: 1}).row())
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := decodeState("k", b)
		if err != nil {
			return
		}
		again, err := decodeState("k", st.row())
		if err != nil || !bytes.Equal(again.row(), st.row()) {
			t.Fatalf("%+v, read as %+v (%v)", st, again, err)
		}
	})
}

// FuzzApply applies any commands: there may be errors, but nothing may break, and a refusal leaves no trace.
func FuzzApply(f *testing.F) {
	n := fullTask()
	n.DependsOn, n.StateRefs = nil, nil
	config, err := json.Marshal(vectord.DefaultQueueConfig())
	if err != nil {
		f.Fatal(err)
	}
	c := submit{queue: "q", config: config, tasks: []submission{{id: [16]byte{1}, body: appendBody(nil, &n)}}}
	f.Add(c.append([]byte{byte(commandSubmit)}), []byte{byte(commandTick)})
	f.Add(encodeJSON(commandPutAgent, putAgent{"a", vectord.AgentConfig{Capacity: 1, Queues: []string{"q"}}, vectord.DefaultQueueConfig()}), (&grant{agent: "a", leases: []granted{{}}}).append(nil))
	f.Add(encodePutState("k", []byte("v"), &vectord.StateWrite{TTLSeconds: 1}), encodeJSON(commandDeleteState, deleteState{Key: "k"}))
	f.Add(encodeJSON(commandPutQueue, putQueue{"q", vectord.DefaultQueueConfig()}), encodeJSON(commandDeleteQueue, deleteQueue{"q", true}))
	f.Add(encodeJSON(commandPurge, purge{Keys: [][]byte{{1}}, Tasks: []vectord.TaskID{{1}}}), encodeJSON(commandRedrive, redrive{"q", []vectord.TaskID{{1}}}))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		store, err := storage.Open(storage.Options{Dir: "data", FS: storagetest.NewCrashFS(nil), Fatal: func(err error) { panic(err) }})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		s, err := Open(store, Options{Now: func() int64 { return epoch }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i, command := range [][]byte{first, second} {
			b := store.NewBatch()
			if _, _, err := s.Apply(b, vectord.Entry{Index: uint64(i + 1), Time: epoch + int64(i)*100_000}, command, nil); err != nil {
				b.Close()
				return
			}
			if err := b.CommitUnsynced(); err != nil {
				return // a key or row that is too long
			}
		}
		again, err := Open(store, Options{Now: func() int64 { return epoch }})
		if err != nil {
			t.Fatalf("after %q and %q: %v", first, second, err)
		}
		again.Close()
	})
}
