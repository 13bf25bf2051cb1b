package engine

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"github.com/vectord/vectord"
)

func someWrite() *write {
	filter, err := vectord.ParseFilter([]byte(`{"must":[{"key":"a","match":{"value":1}}]}`))
	if err != nil {
		panic(err)
	}
	uuid := vectord.UUIDID([16]byte{1, 2, 3, 15: 255})
	return &write{Collection: 3, Shard: 9, Session: [16]byte{7}, Fingerprint: 11, Operations: []vectord.Operation{
		{Kind: vectord.OpUpsert, Points: []vectord.Point{
			{ID: vectord.NumberID(math.MaxUint64), Vectors: vectord.Unnamed([]float32{1, -0, math.MaxFloat32}), Payload: []byte(`{"a":1}`)},
			{ID: uuid, Vectors: vectord.Unnamed([]float32{0.5})},
		}},
		{Kind: vectord.OpUpdateVectors, Points: []vectord.Point{{ID: uuid, Vectors: vectord.Unnamed([]float32{2})}}},
		{Kind: vectord.OpDelete, IDs: []vectord.PointID{uuid, vectord.NumberID(0)}, Filter: filter},
		{Kind: vectord.OpSetPayload, IDs: []vectord.PointID{uuid}, Payload: []byte(`{"b":2}`), Key: "a.b"},
		{Kind: vectord.OpOverwritePayload, IDs: []vectord.PointID{uuid}, Payload: []byte(`{}`)},
		{Kind: vectord.OpDeletePayload, IDs: []vectord.PointID{uuid}, Keys: []string{"a", "b[]"}},
		{Kind: vectord.OpClearPayload, IDs: []vectord.PointID{uuid}},
		{Kind: vectord.OpSetExpiry, IDs: []vectord.PointID{uuid}, Expires: math.MaxInt64},
	}}
}

func TestWriteRoundTrip(t *testing.T) {
	w := someWrite()
	b, err := w.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	kind, body, err := splitCommand(b)
	if err != nil || kind != commandWrite {
		t.Fatalf("kind %d, error %v", kind, err)
	}
	got, err := decodeWrite(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, w) {
		t.Errorf("got  %+v\nwant %+v", got, w)
	}
	for i := range body {
		if _, err := decodeWrite(body[:i]); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", i, len(body))
		}
	}
}

// FuzzDecodeAnsweredWrite checks that no input panics or allocates without bound, and that what is accepted is written back alike.
func FuzzDecodeAnsweredWrite(f *testing.F) {
	w := someWrite()
	w.Answer = []byte(`[{"id":1}]`)
	b, err := w.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[2:])
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := decodeAnsweredWrite(body)
		if err != nil {
			return
		}
		again, err := w.append(nil)
		if err != nil {
			t.Fatalf("%x was decoded and cannot be encoded: %v", body, err)
		}
		kind, rest, err := splitCommand(again)
		if err != nil || kind != commandAnsweredWrite {
			t.Fatalf("%x became a command of kind %d (%v)", body, kind, err)
		}
		if w2, err := decodeAnsweredWrite(rest); err != nil || !bytes.Equal(w2.Answer, w.Answer) {
			t.Fatalf("%x was decoded, its encoding was not: %v", body, err)
		}
	})
}

// FuzzDecodeWrite checks that no input panics or allocates without bound, and that what is accepted is written back alike.
func FuzzDecodeWrite(f *testing.F) {
	b, err := someWrite().append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[2:])
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := decodeWrite(body)
		if err != nil {
			return
		}
		again, err := w.append(nil)
		if err != nil {
			t.Fatalf("%x was decoded and cannot be encoded: %v", body, err)
		}
		w2, err := decodeWrite(again[2:])
		if err != nil {
			t.Fatalf("%x was decoded, its encoding was not: %v", body, err)
		}
		if third, err := w2.append(nil); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("encodings differ: %x and %x (%v)", again, third, err)
		}
	})
}
