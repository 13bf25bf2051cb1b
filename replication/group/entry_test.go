package group

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func (e *entry) encode() []byte {
	b := beginEntry(nil, e.term, e.time, len(e.ops))
	for i := range e.ops {
		b = appendOperation(b, &e.ops[i])
	}
	return sealEntry(b)
}

var sampleEntries = []entry{
	{},
	{term: 7, time: 1_700_000_000_000},
	{term: 1 << 40, time: 1, ops: []operation{
		{origin: math.MaxUint64, number: 1, group: 3, command: []byte("put")},
		{number: math.MaxUint64, group: math.MaxUint32, command: []byte{}},
	}},
}

func TestEntryCodec(t *testing.T) {
	for _, e := range sampleEntries {
		b := e.encode()
		again, err := decodeEntry(b)
		if err != nil || !bytes.Equal(again.encode(), b) {
			t.Errorf("%+v became %+v: %v", e, again, err)
		}
		for bit := range 8 * len(b) {
			damaged := bytes.Clone(b)
			damaged[bit/8] ^= 1 << (bit % 8)
			if _, err := decodeEntry(damaged); !errors.Is(err, errDamaged) {
				t.Errorf("bit %d flipped: %v", bit, err)
			}
		}
		for size := range b {
			if _, err := decodeEntry(b[:size]); !errors.Is(err, errDamaged) {
				t.Errorf("cut to %d bytes: %v", size, err)
			}
		}
	}
	newer := sealEntry([]byte{entryVersion + 1, 0, 0, 0})
	if _, err := decodeEntry(newer); err == nil || errors.Is(err, errDamaged) {
		t.Errorf("a later version: %v, want an error that says so", err)
	}
	for _, body := range [][]byte{
		{entryVersion, 0, 0, 1},                                   // no operation where one is said to be
		{entryVersion, 0, 0, 0, 0},                                // something after the operations
		{entryVersion, 0x80, 0, 0, 0},                             // a number in more bytes than it needs
		append([]byte{entryVersion, 0, 0, 1}, make([]byte, 9)...), // too short an operation
	} {
		if _, err := decodeEntry(sealEntry(body)); !errors.Is(err, errDamaged) {
			t.Errorf("%x: %v", body, err)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range sampleEntries {
		b := e.encode()
		f.Add(b)
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// As it is, and with a checksum that fits, which lets the fuzzer reach the operations.
		for _, b := range [][]byte{data, sealEntry(bytes.Clone(data))} {
			if e, err := decodeEntry(b); err == nil && !bytes.Equal(e.encode(), b) {
				t.Errorf("%x became %x", b, e.encode())
			}
		}
	})
}
