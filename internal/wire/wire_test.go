package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"github.com/vectord/vectord"
)

// decoder is a message that is read.
type decoder interface {
	Marshaler
	UnmarshalMsg([]byte) ([]byte, error)
}

var (
	seven   = 7
	third   = float32(1) / 3
	no      = false
	taskID  = TaskID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	aTask   = NewTask{Payload: Raw(`{"a":1}`), Type: "t", Vector: Floats{1, -2.5}, Text: "x", Tags: []string{"gpu"}, AgentID: "a", Priority: &seven, FairnessKey: "f", FairnessWeight: 2, RunAt: 1_700_000_000_123, DelayMS: 5, Deadline: 1, TimeoutSeconds: 3, MaxAttempts: 2, IdempotencyKey: "k", DependsOn: []TaskID{taskID}, OnDependencyFailure: "run", StateRefs: []string{"s"}, Metadata: Raw(`{}`), TraceParent: "p"}
	anError = &Error{Status: 429, Code: "queue_full", Text: "full", RetryAfterMS: 250}
	vectors = Vectors{{Name: "a", Vector: vectord.Dense([]float32{1, 2})}, {Name: "b", Vector: vectord.Sparse([]uint32{3, 70000}, []float32{1, 2})},
		{Name: "c", Vector: vectord.Vector{Kind: vectord.MultiVector, Rows: 2, Values: []float32{1, 2, 3, 4}}}}
)

// messages has one of each, with every field set, and the empty one.
func messages() []decoder {
	full := []decoder{&Hello{APIKey: "k", Client: "c"}, &Welcome{"s", 1, 2, 3}, anError, &Submit{"q", []NewTask{aTask, {}}},
		&SubmittedBatch{[]Submitted{{CodeOK, taskID, "queued", "ok", 1, true, 2, true, "", 0}, {Code: "queue_full", Error: "full", HTTPStatus: 429}}},
		&Lease{"q", "a", 1, 2, 3},
		&LeasedBatch{[]Leased{{taskID, "q", 0xabc, 5, 1, Raw(`1`), "t", []string{"x"}, &seven, "f", 6, 7, 8, 9, []string{"s"}, Raw(`{}`), "p", Raw(`1`), Raw(`2`), &TaskError{"c", "m"}}}},
		&CallBatch{[]Call{{"fail", taskID, 1, Raw(`1`), Nested{0x80}, Nested{0x80}, &TaskError{"c", "m"}, &no, 1, 2, Raw(`3`), Raw(`4`)}}},
		&OutcomeBatch{[]Outcome{{CodeOK, "running", 9, true, []TaskID{taskID}, 0, "", 0}, {Code: "x", Error: "y", HTTPStatus: 409, RetryAfterMS: 3}}},
		&Upsert{"c", "k", []Point{{PointID{vectord.NumberID(math.MaxUint64)}, vectors, Raw(`{}`), 1}, {ID: PointID{vectord.UUIDID(taskID)}, Vector: vectors[:1]}}},
		&Upserted{7}, &Search{"c", Vectors{{Vector: vectord.Dense([]float32{1})}}, "u", Raw(`{}`), 1, 2, &third, 3, true, true, true},
		&Hits{[]Hit{{PointID{vectord.NumberID(1)}, 2, third, vectors, Raw(`{}`), 1}}}}
	for _, m := range full {
		full = append(full, reflect.New(reflect.TypeOf(m).Elem()).Interface().(decoder))
	}
	return full
}

func TestRoundTrip(t *testing.T) {
	for _, m := range messages() {
		b, err := m.MarshalMsg(nil)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		back := reflect.New(reflect.TypeOf(m).Elem()).Interface().(decoder)
		rest, err := back.UnmarshalMsg(b)
		again, _ := back.MarshalMsg(nil)
		if err != nil || len(rest) > 0 || !bytes.Equal(again, b) {
			t.Errorf("%T reads back as %+v, %v, %d bytes left", m, back, err, len(rest))
		}
		for i := range b { // a message that is cut off is never one
			if _, err := back.UnmarshalMsg(b[:i]); err == nil {
				t.Errorf("%T cut off at %d of %d bytes is read", m, i, len(b))
			}
		}
	}
}

// TestTaskIsAsSubmitted checks that no field is lost on the way, and that what comes out is a copy.
func TestTaskIsAsSubmitted(t *testing.T) {
	want, err := aTask.NewTask()
	if err != nil {
		t.Fatal(err)
	}
	value := reflect.ValueOf(want)
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			t.Errorf("%s is lost", value.Type().Field(i).Name)
		}
	}
	m := NewTaskOf(&want)
	b, err := m.MarshalMsg(nil)
	if err != nil {
		t.Fatal(err)
	}
	var back NewTask
	if _, err := back.UnmarshalMsg(b); err != nil {
		t.Fatal(err)
	}
	got, err := back.NewTask()
	clear(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestCallWithEffects(t *testing.T) {
	want := vectord.TaskCall{Kind: vectord.CallComplete, ID: vectord.TaskID(taskID), LeaseID: 9, Result: []byte(`[1]`), Effects: vectord.Effects{
		Points: map[string][]vectord.Point{"c": {{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1}), Payload: []byte(`{}`)}}},
		Tasks:  map[string][]vectord.NewTask{"q": {{Payload: []byte(`1`)}, {}}, "r": {}},
	}}
	m, err := CallOf(&want)
	if err != nil {
		t.Fatal(err)
	}
	left := FullBudget()
	got, err := m.TaskCall(&left)
	if err != nil || !reflect.DeepEqual(got, want) || left != (Budget{MaxEffectTasks - 2, MaxEffectPoints - 1}) {
		t.Errorf("got %+v, %v, left %v\nwant %+v", got, err, left, want)
	}
	if _, err := m.TaskCall(&Budget{Tasks: 1, Points: 1}); vectord.KindOf(err) != vectord.KindTooLarge {
		t.Errorf("beyond the budget: %v", err)
	}
}

// TestVectorForms checks the forms in which a vector may come.
func TestVectorForms(t *testing.T) {
	f := func(b []byte, want vectord.Vectors) {
		t.Helper()
		var v Vectors
		if rest, err := v.UnmarshalMsg(b); err != nil || len(rest) > 0 || !reflect.DeepEqual(vectord.Vectors(v), want) {
			t.Errorf("% x is %+v, %v", b, v, err)
		}
	}
	array := msgp.AppendFloat64(msgp.AppendFloat32(msgp.AppendInt(msgp.AppendArrayHeader(nil, 3), -1), 0.5), 2)
	f(array, vectord.Unnamed([]float32{-1, 0.5, 2}))
	f(append(msgp.AppendArrayHeader(nil, 2), append(array, array...)...), vectord.Vectors{{Vector: vectord.Vector{Kind: vectord.MultiVector, Rows: 2, Values: []float32{-1, 0.5, 2, -1, 0.5, 2}}}})
	sparse := msgp.AppendString(msgp.AppendMapHeader(nil, 2), "values")
	sparse = msgp.AppendString(append(sparse, 0x92, 1, 2), "indices")
	f(append(sparse, 0x92, 9, 8), vectord.Vectors{{Vector: vectord.Sparse([]uint32{8, 9}, []float32{2, 1})}})
	f([]byte{0xc0}, nil)
	f([]byte{0xc4, 0}, vectord.Unnamed(nil))
	refused := func(b ...byte) {
		t.Helper()
		var v Vectors
		if _, err := v.UnmarshalMsg(b); err == nil {
			t.Errorf("% x is %+v", b, v)
		}
	}
	refused(0xc4, 3, 1, 2, 3)                       // no number of floats
	refused(0xdd, 0xff, 0xff, 0xff, 0xff)           // an array of four billion
	refused(0xc6, 0xff, 0xff, 0xff, 0xfc)           // a bin of four gigabytes
	refused(0xdf, 0xff, 0xff, 0xff, 0xff)           // a map of four billion
	refused(0x92, 0x91, 1, 0x92, 1, 2)              // ragged rows
	refused(0x82, 0xa1, 'a', 0x90, 0xa1, 'a', 0x90) // a name twice
}

// TestLengthsAreBounded checks that a short message cannot make a decoder take much memory.
func TestLengthsAreBounded(t *testing.T) {
	big := []byte{0x82, 0xa5, 'q', 'u', 'e', 'u', 'e', 0xa1, 'q', 0xa5, 't', 'a', 's', 'k', 's', 0xdd, 0xff, 0xff, 0xff, 0xff}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var m Submit
	if _, err := m.UnmarshalMsg(big); err == nil {
		t.Error("four billion tasks are read")
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 1<<20 {
		t.Errorf("refusing a batch of four billion tasks took %d bytes", allocated)
	}
}

func TestErrors(t *testing.T) {
	f := func(err error, status int, code string, retriable bool) {
		t.Helper()
		if e := ErrorOf(err); e.Status != status || e.Code != code || e.Retriable() != retriable {
			t.Errorf("%v is %+v", err, e)
		}
	}
	f(vectord.Errorf(vectord.KindInvalid, "x"), 400, "bad_request", false)
	f(vectord.Refuse(vectord.KindOverloaded, vectord.CodeQueueFull, "x"), 429, "queue_full", true)
	f(vectord.Errorf(vectord.KindClosed, "x"), 503, "draining", true)
	f(json.Unmarshal([]byte("secret"), new(int)), 500, "internal", false)
	if e := ErrorOf(json.Unmarshal([]byte("secret"), new(int))); strings.Contains(e.Text, "s") && strings.Contains(e.Text, "invalid character") {
		t.Errorf("the text of an internal error goes out: %q", e.Text)
	}
	for k := vectord.KindInternal; k <= vectord.KindConflict; k++ {
		if e := ErrorOf(vectord.Errorf(k, "x")); e.Status == 0 || e.Code == "" {
			t.Errorf("%v has no form", k)
		}
	}
}

func TestFrames(t *testing.T) {
	m := &Submit{Queue: "q", Tasks: []NewTask{{Payload: Raw(`"` + strings.Repeat("lorem ipsum ", 1000) + `"`)}}}
	plain, _ := m.MarshalMsg(nil)
	for _, flags := range []uint8{0, FlagS2, FlagZstd, FlagNoReply | FlagS2} {
		b, err := AppendFrame([]byte("before"), FrameSubmitBatch, flags, 77, m)
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		h, err := ParseHeader((*[HeaderBytes]byte)(b))
		body := b[HeaderBytes:]
		if err != nil || h.Type != FrameSubmitBatch || h.Flags != flags || h.ID != 77 || h.BodyBytes != len(body) {
			t.Fatalf("flags %d: %+v, %v, body of %d", flags, h, err, len(body))
		}
		if flags&(FlagS2|FlagZstd) != 0 {
			if len(body) >= len(plain)/2 {
				t.Errorf("flags %d: %d of %d bytes", flags, len(body), len(plain))
			}
			if n, err := BodyBytes(flags, body); n < len(plain) || err != nil {
				t.Errorf("flags %d: said to be %d of %d bytes, %v", flags, n, len(plain), err)
			}
			if body, err = Decompress([]byte("x"), flags, body); err != nil || body[0] != 'x' {
				t.Fatal(err)
			}
			body = body[1:]
		}
		if !bytes.Equal(body, plain) {
			t.Errorf("flags %d: another body comes out", flags)
		}
	}
	small, err := AppendFrame(nil, FramePing, FlagS2, 1, nil)
	if err != nil || len(small) != HeaderBytes || small[5] != 0 {
		t.Errorf("a ping is % x, %v", small, err)
	}
	floats := &Upsert{Points: []Point{{Vector: Vectors{{Vector: vectord.Dense(noise(5000))}}}}}
	if b, _ := AppendFrame(nil, FrameUpsert, FlagS2, 1, floats); b[5] != 0 {
		t.Error("a vector is compressed, which saves nothing")
	}
}

// noise returns numbers without a pattern.
func noise(n int) []float32 {
	v := make([]float32, n)
	x := uint64(1)
	for i := range v {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = float32(x>>40)/(1<<23) - 1
	}
	return v
}

func TestBadFrames(t *testing.T) {
	f := func(length uint32, flags, reserved byte) {
		t.Helper()
		var b [HeaderBytes]byte
		binary.BigEndian.PutUint32(b[:], length)
		b[4], b[5], b[7] = byte(FramePing), flags, reserved
		if h, err := ParseHeader(&b); err == nil {
			t.Errorf("% x is a header: %+v", b, h)
		}
	}
	f(7, 0, 0)
	f(MaxFrameBytes+1, 0, 0)
	f(math.MaxUint32, 0, 0)
	f(8, 16, 0)
	f(8, FlagS2|FlagZstd, 0)
	f(8, 0, 1)
	zeros := &Submit{Tasks: []NewTask{{Payload: make(Raw, MaxFrameBytes-100)}}}
	for _, flags := range []uint8{FlagS2, FlagZstd} { // as large as can be is taken, whatever the frame's own size
		b, err := AppendFrame(nil, FrameSubmitBatch, flags, 1, zeros)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decompress(nil, flags, b[HeaderBytes:]); err != nil {
			t.Error(err)
		}
		if _, err := Decompress(nil, flags, b[HeaderBytes:len(b)-5]); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("cut off: %v", err)
		}
	}
	bomb := zstdEncoder().EncodeAll(make([]byte, 4*MaxFrameBytes), nil)
	if out, err := Decompress(nil, FlagZstd, bomb); vectord.KindOf(err) != vectord.KindInvalid || len(out) > 0 {
		t.Errorf("a bomb of %d bytes: %v", len(bomb), err)
	}
	if _, err := Decompress(nil, FlagS2, binary.AppendUvarint(nil, 1<<31)); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("S2 of 2 GiB: %v", err)
	}
	if _, err := AppendFrame(nil, FrameSubmitBatch, 0, 1, &Submit{Tasks: []NewTask{{Payload: make(Raw, MaxFrameBytes)}}}); vectord.KindOf(err) != vectord.KindTooLarge {
		t.Errorf("a frame that is too large: %v", err)
	}
}

func TestValidJSON(t *testing.T) {
	f := func(text string, want bool) {
		t.Helper()
		if ValidJSON([]byte(text)) != want {
			t.Errorf("%.40q: want %v", text, want)
		}
	}
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	f(`{"a":[1,"x"]}`, true)
	f(nested(vectord.MaxPayloadDepth), true)
	f(nested(vectord.MaxPayloadDepth+1), false)
	f("["+strings.TrimSuffix(strings.Repeat("[],", 200), ",")+"]", true)
	f(`{"a":1,"a":2}`, false)
	f("\"\xff\"", false)
	f(`1 2`, false)
	f(``, false)
}

func FuzzMessages(f *testing.F) {
	for i, m := range messages() {
		b, err := m.MarshalMsg(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		all := messages()
		m := reflect.New(reflect.TypeOf(all[int(which)%len(all)]).Elem()).Interface().(decoder)
		if _, err := m.UnmarshalMsg(b); err != nil {
			return
		}
		left := FullBudget()
		switch m := m.(type) { // must bear what can be decoded
		case *Submit:
			for i := range m.Tasks {
				_, _ = m.Tasks[i].NewTask()
			}
		case *CallBatch:
			for i := range m.Calls {
				_, _ = m.Calls[i].TaskCall(&left)
			}
		case *Search:
			_, _ = m.Query()
		case *Upsert:
			for i := range m.Points {
				_, _ = m.Points[i].Point()
			}
		}
		once, err := m.MarshalMsg(nil)
		if err != nil {
			t.Fatalf("%T was read but cannot be written: %v", m, err)
		}
		if again := reflect.New(reflect.TypeOf(m).Elem()).Interface().(decoder); true {
			if _, err := again.UnmarshalMsg(once); err != nil {
				t.Fatalf("%T was written but cannot be read: %v", m, err)
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	for _, flags := range []uint8{0, FlagS2, FlagZstd} {
		b, _ := AppendFrame(nil, FrameSubmitBatch, flags, 1, &Submit{Tasks: []NewTask{{Payload: make(Raw, 5000)}}})
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderBytes {
			return
		}
		h, err := ParseHeader((*[HeaderBytes]byte)(b))
		if err != nil || h.Flags&(FlagS2|FlagZstd) == 0 {
			return
		}
		n, err := BodyBytes(h.Flags, b[HeaderBytes:])
		if err != nil {
			return
		}
		if out, err := Decompress(nil, h.Flags, b[HeaderBytes:]); err == nil && (len(out) > n || len(out) > MaxFrameBytes) {
			t.Fatalf("%d bytes come out, said to be %d", len(out), n)
		}
	})
}
