package storage

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/vectord/vectord"
)

var (
	number = vectord.NumberID(0x0102030405060708)
	uuid   = vectord.UUIDID([16]byte{0: 0xa0, 15: 0xaf})
	key16  = [16]byte{0: 0xb0, 15: 0xbf}
)

// The bytes of format 1, as docs/FORMAT.md gives them: a change here is a change of the format.
func TestFormatOfKeys(t *testing.T) {
	f := func(key []byte, want string) {
		t.Helper()
		if got := hex.EncodeToString(key); got != want {
			t.Errorf("%s has the key %s, want %s", keyText(key), got, want)
		}
		if k, ok := parseKey(key); !ok {
			t.Errorf("key %x is not understood: %s", key, k)
		}
	}
	f(appliedKey(0x11121314), "6111121314")
	f(sessionKey(0x11121314, key16), "7311121314b00000000000000000000000000000bf")
	f(expiryKey(0x11121314, 1, key16), "65111213148000000000000001b00000000000000000000000000000bf")
	f(expiryKey(0x11121314, -1, key16), "65111213147fffffffffffffffb00000000000000000000000000000bf")
	f(metaKey("name"), "6d6e616d65")
	f(tableKey('b', []byte("id")), "74626964")
	f(pointKey(0x21222324, number), "6421222324"+"70"+"010102030405060708")
	f(pointKey(0x21222324, uuid), "6421222324"+"70"+"02a00000000000000000000000000000af")
	f(slotKey(0x21222324, 0x31323334), "6421222324"+"73"+"31323334")
	f(vectorKey(VectorSet{0x21222324, 0x5152}, 0x31323334), "6421222324"+"76"+"5152"+"31323334")
	f(changeKey(0x21222324, 0x4142434445464748), "6421222324"+"63"+"4142434445464748")
	f(postingKey(0x21222324, 0x5152, "term", 0x31323334), "6421222324"+"66"+"5152"+"7465726d"+"31323334")
}

func TestFormatOfValues(t *testing.T) {
	f := func(value []byte, want string) {
		t.Helper()
		if got := hex.EncodeToString(value); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(encodePoint(PointRow{Slot: 0x01020304, Vectors: []uint16{0}, Payload: []byte("{}")}), "01"+"04030201"+"00"+"01"+"00"+"7b7d"+"ddf16917")
	f(encodePoint(PointRow{Expires: 300, Vectors: []uint16{1, 128}}), "01"+"00000000"+"ac02"+"02"+"01"+"8001"+"57d80315")
	f(encodePoint(PointRow{}), "01"+"00000000"+"00"+"00"+"a5463dd3")
	f(encodeSlot(SlotRow{ID: number, Version: 0x0a, Vectors: []uint16{0}}), "01"+"0a00000000000000"+"00"+"01"+"00"+"010102030405060708"+"9db5cabb")
	f(encodeSlot(SlotRow{ID: uuid, Version: 0x0a, Expires: 1}), "01"+"0a00000000000000"+"01"+"00"+"02a00000000000000000000000000000af"+"a2785a74")
	f(encodeSparse([]uint32{7, 8}, []float32{1, -2}), "01"+"07000000"+"08000000"+"0000803f"+"000000c0"+"9c2489f8")
	f(encodeVector([]float32{1, -2}), "01"+"0000803f"+"000000c0"+"a8fec569")
	f(encodeChange([]uint32{1, math.MaxUint32}), "01"+"01000000"+"ffffffff"+"f4777fb1")
	f(encodeApplied(Applied{Index: 2, Time: -1}), "01"+"0200000000000000"+"ffffffffffffffff"+"f6ebb2a0")
	f(encodeSession(Session{Time: 3, Fingerprint: 4, Result: []byte{5}}),
		"01"+"0300000000000000"+"0400000000000000"+"05"+"c17d5fcd")
	f(encodeExpiry(), "01"+"52d016a0")
	f(encodePosting(), "01"+"52d016a0")
	f(encodeMeta([]byte("blob")), "01"+"626c6f62"+"085c31d9")
}

// Keys sort as what they stand for.
func TestOrderOfKeys(t *testing.T) {
	keys := [][]byte{
		appliedKey(0), appliedKey(math.MaxUint32),
		changeKey(0, 0), changeKey(0, math.MaxUint64),
		postingKey(0, 1, "a", 0), postingKey(0, 1, "a", 1), postingKey(0, 1, "b", 0), postingKey(0, 2, "a", 0),
		pointKey(0, vectord.NumberID(0)), pointKey(0, vectord.NumberID(255)), pointKey(0, vectord.NumberID(256)),
		pointKey(0, vectord.NumberID(math.MaxUint64)), pointKey(0, vectord.UUIDID([16]byte{})), pointKey(0, uuid),
		slotKey(0, 0), slotKey(0, math.MaxUint32), vectorKey(VectorSet{0, 0}, 0), vectorKey(VectorSet{0, 0}, math.MaxUint32), vectorKey(VectorSet{0, 1}, 0),
		changeKey(1, 0), vectorKey(VectorSet{math.MaxUint32, math.MaxUint16}, math.MaxUint32),
		expiryKey(0, math.MinInt64, key16), expiryKey(0, -1, key16), expiryKey(0, 0, key16), expiryKey(0, math.MaxInt64, key16),
		expiryKey(1, math.MinInt64, key16),
		metaKey("a"), metaKey("a/b"), metaKey("b"), sessionKey(0, key16), sessionKey(1, [16]byte{}),
	}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Errorf("keys are not in order: %x", keys)
	}
}

func TestPrefixEnd(t *testing.T) {
	f := func(prefix, want []byte) {
		t.Helper()
		if got := prefixEnd(prefix); !bytes.Equal(got, want) {
			t.Errorf("prefixEnd(%x) = %x, want %x", prefix, got, want)
		}
	}
	f([]byte{1, 2}, []byte{1, 3})
	f([]byte{1, 0xff, 0xff}, []byte{2})
	f([]byte{0xff}, nil)
	f(nil, nil)
}

// decoders are all decoders of values, each returning what its encoder makes of what it read.
var decoders = map[string]func(value []byte) (again []byte, err error){
	"point": func(value []byte) ([]byte, error) {
		row, err := decodePoint(value)
		return encodePoint(row), err
	},
	"slot": func(value []byte) ([]byte, error) {
		row, err := decodeSlot(value)
		return encodeSlot(row), err
	},
	"vector": func(value []byte) ([]byte, error) {
		v, err := decodeVector(nil, value)
		return encodeVector(v), err
	},
	"change": func(value []byte) ([]byte, error) {
		slots, err := decodeChange(nil, value)
		return encodeChange(slots), err
	},
	"applied": func(value []byte) ([]byte, error) {
		a, err := decodeApplied(value)
		return encodeApplied(a), err
	},
	"session": func(value []byte) ([]byte, error) {
		s, err := decodeSession(value)
		return encodeSession(s), err
	},
	"expiry":  func(value []byte) ([]byte, error) { return encodeExpiry(), decodeExpiry(value) },
	"posting": func(value []byte) ([]byte, error) { return encodePosting(), decodePosting(value) },
	"meta": func(value []byte) ([]byte, error) {
		blob, err := unseal(value)
		return encodeMeta(blob), err
	},
}

// samples holds a value for each decoder.
var samples = map[string][]byte{
	"point":   encodePoint(PointRow{Slot: 7, Payload: []byte(`{"a":1}`)}),
	"slot":    encodeSlot(SlotRow{ID: uuid, Version: 9}),
	"vector":  encodeVector([]float32{1, 2, float32(math.NaN())}),
	"change":  encodeChange([]uint32{1, 2, 3}),
	"applied": encodeApplied(Applied{Index: 1, Time: 2}),
	"session": encodeSession(Session{Time: 1, Fingerprint: 2, Result: []byte("result")}),
	"expiry":  encodeExpiry(),
	"posting": encodePosting(),
	"meta":    encodeMeta([]byte("blob")),
}

// Every flipped bit, and every cut, is noticed by every decoder.
func TestDamagedValues(t *testing.T) {
	for name, decode := range decoders {
		value := samples[name]
		if again, err := decode(value); err != nil || !bytes.Equal(again, value) {
			t.Errorf("%s: %x became %x: %v", name, value, again, err)
		}
		for bit := range 8 * len(value) {
			damaged := slices.Clone(value)
			damaged[bit/8] ^= 1 << (bit % 8)
			if _, err := decode(damaged); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s with bit %d flipped: %v", name, bit, err)
			}
		}
		for size := range value {
			if _, err := decode(value[:size]); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s cut to %d bytes: %v", name, size, err)
			}
		}
		newer := slices.Clone(value[:len(value)-4])
		newer[0] = valueVersion + 1
		if _, err := decode(seal(newer)); err == nil || errors.Is(err, ErrDamaged) {
			t.Errorf("%s of a later version: %v, want an error that says so", name, err)
		}
	}
	// A checksum that fits does not make a body of the wrong size right.
	f := func(name string, body []byte) {
		t.Helper()
		if _, err := decoders[name](seal(append(begin(0), body...))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s of %d bytes: %v", name, len(body), err)
		}
	}
	f("point", make([]byte, 3))
	f("point", []byte{0, 0, 0, 0, 0x83, 0, 0}) // an expiry in more bytes than it needs
	f("slot", make([]byte, 7))
	f("slot", make([]byte, 17))
	f("slot", append(make([]byte, 8), append(number.AppendBinary(nil), 0)...))
	f("vector", make([]byte, 5))
	f("change", make([]byte, 5))
	f("applied", make([]byte, 15))
	f("applied", make([]byte, 17))
	f("session", make([]byte, 15))
	f("expiry", make([]byte, 1))
	f("posting", make([]byte, 1))
}

func FuzzDecodeValue(f *testing.F) {
	for _, value := range samples {
		f.Add(value)
		f.Add(value[:len(value)-4])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// As it is, and with a checksum that fits, which lets the fuzzer reach the bodies.
		for _, value := range [][]byte{data, seal(slices.Clone(data))} {
			for name, decode := range decoders {
				if again, err := decode(value); err == nil && !bytes.Equal(again, value) {
					t.Errorf("%s: %x became %x", name, value, again)
				}
			}
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, key := range [][]byte{appliedKey(1), sessionKey(1, key16), expiryKey(1, 2, key16), metaKey("x"),
		pointKey(1, number), pointKey(1, uuid), slotKey(1, 2), vectorKey(VectorSet{1, 3}, 2), postingKey(1, 2, "term", 3), changeKey(1, 2)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		k, ok := parseKey(key)
		if keyText(key) == "" {
			t.Errorf("key %x has no text", key)
		}
		if !ok {
			return
		}
		if again := unparse(k); !bytes.Equal(again, key) {
			t.Errorf("key %x became %x", key, again)
		}
	})
}

// unparse is the inverse of parseKey.
func unparse(k parsedKey) []byte {
	switch {
	case k.kind == kindApplied:
		return appliedKey(k.group)
	case k.kind == kindSession:
		return sessionKey(k.group, k.session)
	case k.kind == kindExpiry:
		return expiryKey(k.group, k.time, k.session)
	case k.kind == kindMeta:
		return metaKey(k.name)
	case k.kind == kindTable:
		return tableKey(k.table, k.tableKey)
	case k.sub == subPoint:
		return pointKey(k.shard, k.id)
	case k.sub == subSlot:
		return slotKey(k.shard, k.slot)
	case k.sub == subVector:
		return vectorKey(VectorSet{k.shard, k.number}, k.slot)
	case k.sub == subPosting:
		return postingKey(k.shard, k.field, string(k.term), k.slot)
	}
	return changeKey(k.shard, k.index)
}

func FuzzParseFormat(f *testing.F) {
	f.Add([]byte("vectord data format 1\n"))
	f.Add([]byte("vectord data format 18446744073709551616\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if version, err := parseFormat(text); err == nil && version == 0 {
			t.Errorf("%q has version 0", text)
		}
	})
}

// Appending to what a decoder returned does not write into the value it came from.
func TestDecodedSlicesAreFull(t *testing.T) {
	row, err := decodePoint(samples["point"])
	if err != nil || cap(row.Payload) != len(row.Payload) {
		t.Errorf("payload of %d bytes has room for %d: %v", len(row.Payload), cap(row.Payload), err)
	}
	session, err := decodeSession(samples["session"])
	if err != nil || cap(session.Result) != len(session.Result) {
		t.Errorf("result of %d bytes has room for %d: %v", len(session.Result), cap(session.Result), err)
	}
}
