package wire

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/vectord/vectord"
)

// The messages of the benchmarks: a task of 12 fields with a payload of 1 KB, and 100 points with vectors of 768 components.
// bench/peers/codec has the same.
func benchTask() NewTask {
	four := 4
	return NewTask{Payload: Raw(`{"text":"` + string(bytes.Repeat([]byte("lorem ipsum "), 84)) + `"}`), Type: "summarize", Tags: []string{"gpu", "en"},
		AgentID: "agent-7", Priority: &four, FairnessKey: "tenant-42", FairnessWeight: 1.5, DelayMS: 250, TimeoutSeconds: 30, MaxAttempts: 5,
		IdempotencyKey: "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071", TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
}

func benchPoints() Upsert {
	u := Upsert{Collection: "c", Points: make([]Point, 100)}
	for i := range u.Points {
		u.Points[i] = Point{ID: PointID{vectord.NumberID(uint64(i))}, Vector: Vectors{{Vector: vectord.Dense(noise(768))}}, Payload: Raw(`{"title":"a title","lang":"en","source":"somewhere"}`)}
	}
	return u
}

// The same as JSON.
type (
	jsonTask struct {
		Payload        json.RawMessage `json:"payload"`
		Type           string          `json:"type"`
		Tags           []string        `json:"tags"`
		AgentID        string          `json:"agent_id"`
		Priority       *int            `json:"priority"`
		FairnessKey    string          `json:"fairness_key"`
		FairnessWeight float64         `json:"fairness_weight"`
		DelayMS        int64           `json:"delay_ms"`
		TimeoutSeconds int             `json:"timeout_seconds"`
		MaxAttempts    int             `json:"max_attempts"`
		IdempotencyKey string          `json:"idempotency_key"`
		TraceParent    string          `json:"traceparent"`
	}
	jsonPoint struct {
		ID      uint64          `json:"id"`
		Vector  []float32       `json:"vector"`
		Payload json.RawMessage `json:"payload"`
	}
	jsonUpsert struct {
		Points []jsonPoint `json:"points"`
	}
)

func benchJSONTask() jsonTask {
	t := benchTask()
	return jsonTask{json.RawMessage(t.Payload), t.Type, t.Tags, t.AgentID, t.Priority, t.FairnessKey, t.FairnessWeight, t.DelayMS, t.TimeoutSeconds, t.MaxAttempts, t.IdempotencyKey, t.TraceParent}
}

func benchJSONPoints() (out jsonUpsert) {
	for _, p := range benchPoints().Points {
		out.Points = append(out.Points, jsonPoint{p.ID.Number(), p.Vector[0].Values, json.RawMessage(p.Payload)})
	}
	return out
}

// BenchmarkCodec writes and reads messages in MessagePack and in JSON. The payload of a task is copied out of the message, as it is
// for the scheduler.
func BenchmarkCodec(b *testing.B) {
	task, points := benchTask(), benchPoints()
	taskAsJSON, pointsAsJSON := benchJSONTask(), benchJSONPoints()
	for _, m := range []struct {
		name    string
		message Marshaler
		json    any
		read    func([]byte) error
		readAs  func([]byte) error
	}{
		{"task", &task, &taskAsJSON, func(b []byte) error {
			var t NewTask
			_, err := t.UnmarshalMsg(b)
			t.Payload = bytes.Clone(t.Payload)
			return err
		}, unmarshal[jsonTask]},
		{"points", &points, &pointsAsJSON, func(b []byte) error {
			var u Upsert
			_, err := u.UnmarshalMsg(b)
			return err
		}, unmarshal[jsonUpsert]},
	} {
		packed, err := m.message.MarshalMsg(nil)
		if err != nil {
			b.Fatal(err)
		}
		text, err := json.Marshal(m.json)
		if err != nil {
			b.Fatal(err)
		}
		run := func(name string, size int, f func() error) {
			b.Run(m.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(size), "message-bytes")
			})
		}
		buffer := make([]byte, 0, len(packed))
		run("encode/msgpack", len(packed), func() (err error) { buffer, err = m.message.MarshalMsg(buffer[:0]); return err })
		run("encode/encoding-json", len(text), func() error { _, err := json.Marshal(m.json); return err })
		run("decode/msgpack", len(packed), func() error { return m.read(packed) })
		run("decode/encoding-json", len(text), func() error { return m.readAs(text) })
		run("transcode/to-json", len(packed), func() error { _, err := AppendJSON(nil, packed, 1<<24); return err })
		run("transcode/to-msgpack", len(text), func() error { _, err := AppendMsgpack(nil, text); return err })
	}
}

func unmarshal[T any](b []byte) error { return json.Unmarshal(b, new(T)) }
