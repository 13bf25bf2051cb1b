package logstore

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestEntryRoundTrip(t *testing.T) {
	f := func(l raft.Log) {
		t.Helper()
		key := entryKey(3, l.Index)
		row := encodeEntry(key, &l, 5000)
		var got raft.Log
		end, err := decodeEntry(key, l.Index, row, &got)
		if err != nil || end != 5000 || len(row) != entrySize(&l) || got.Index != l.Index || line(&got) != line(&l) {
			t.Errorf("got %v, end %d, %v, %d bytes; want %v", got, end, err, len(row), l)
		}
		if got.AppendedAt.IsZero() != l.AppendedAt.IsZero() {
			t.Errorf("appended at %v, want %v", got.AppendedAt, l.AppendedAt)
		}
	}
	f(raft.Log{})
	f(*entry(12345))
	f(raft.Log{Index: math.MaxUint64, Term: math.MaxUint64, Type: 255, Data: make([]byte, 1000)})
	f(raft.Log{Index: 1, Extensions: []byte("extensions"), AppendedAt: time.Now()})
	f(raft.Log{Index: 1, AppendedAt: time.Date(9999, 1, 1, 0, 0, 0, 999999999, time.FixedZone("", 3600))})
}

// The bytes of a row do not change by accident: logs on disk have them.
func TestEntryFormat(t *testing.T) {
	l := raft.Log{Index: 2, Term: 3, Type: raft.LogBarrier, Data: []byte("d"), Extensions: []byte("x"),
		AppendedAt: time.Unix(5, 6)}
	key := entryKey(1, 2)
	wantKey := []byte{0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2}
	want := []byte{1, 3, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 4, 1, 0, 0, 0, 'x', 'd',
		0xdc, 0x9b, 0x1d, 0xb5}
	if row := encodeEntry(key, &l, 300); !bytes.Equal(key, wantKey) || !bytes.Equal(row, want) {
		t.Errorf("got\n%#v under %v, want\n%#v", row, key, want)
	}
}

// A row of a later version is not damaged, and not read.
func TestLaterVersion(t *testing.T) {
	key := entryKey(1, 2)
	row := encodeEntry(key, entry(2), 300)
	row[0]++
	row = seal(key, row[:len(row)-4])
	_, err := decodeEntry(key, 2, row, new(raft.Log))
	if err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
}

// FuzzDecodeEntry decodes any bytes, once as they are and once under a checksum that fits, which is all that can be hoped
// for from a row of a program with a mistake. What is decoded encodes to the same bytes.
func FuzzDecodeEntry(f *testing.F) {
	for _, l := range []*raft.Log{{}, entry(1), entry(12345)} {
		row := encodeEntry(entryKey(1, l.Index), l, 1000)
		f.Add(l.Index, row)
		f.Add(l.Index, row[:len(row)-4])
	}
	f.Fuzz(func(t *testing.T, index uint64, row []byte) {
		key := entryKey(1, index)
		for _, row := range [][]byte{row, seal(key, bytes.Clone(row))} {
			var l raft.Log
			end, err := decodeEntry(key, index, row, &l)
			if err != nil {
				continue
			}
			if again := encodeEntry(key, &l, end); l.Index != index || !bytes.Equal(again, row) {
				t.Errorf("%x decodes to %v, which encodes to %x", row, l, again)
			}
		}
	})
}
