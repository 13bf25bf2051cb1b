// Package codec measures other JSON libraries on the messages of internal/wire's BenchmarkCodec.
package codec

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bytedance/sonic"
	goccy "github.com/goccy/go-json"
)

type (
	task struct {
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
	point struct {
		ID      uint64          `json:"id"`
		Vector  []float32       `json:"vector"`
		Payload json.RawMessage `json:"payload"`
	}
	upsert struct {
		Points []point `json:"points"`
	}
)

func aTask() *task {
	four := 4
	return &task{Payload: json.RawMessage(`{"text":"` + strings.Repeat("lorem ipsum ", 84) + `"}`), Type: "summarize", Tags: []string{"gpu", "en"},
		AgentID: "agent-7", Priority: &four, FairnessKey: "tenant-42", FairnessWeight: 1.5, DelayMS: 250, TimeoutSeconds: 30, MaxAttempts: 5,
		IdempotencyKey: "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071", TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
}

func points() *upsert {
	u := &upsert{Points: make([]point, 100)}
	x := uint64(1)
	for i := range u.Points {
		v := make([]float32, 768)
		for j := range v {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			v[j] = float32(x>>40)/(1<<23) - 1
		}
		u.Points[i] = point{uint64(i), v, json.RawMessage(`{"title":"a title","lang":"en","source":"somewhere"}`)}
	}
	return u
}

func BenchmarkCodec(b *testing.B) {
	for _, library := range []struct {
		name   string
		encode func(any) ([]byte, error)
		decode func([]byte, any) error
	}{
		{"encoding-json", json.Marshal, json.Unmarshal},
		{"goccy", goccy.Marshal, goccy.Unmarshal},
		{"sonic", sonic.Marshal, sonic.Unmarshal},
	} {
		for _, m := range []struct {
			name    string
			message any
			empty   func() any
		}{{"task", aTask(), func() any { return new(task) }}, {"points", points(), func() any { return new(upsert) }}} {
			text, err := library.encode(m.message)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(m.name+"/encode/"+library.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := library.encode(m.message); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(m.name+"/decode/"+library.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := library.decode(text, m.empty()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
