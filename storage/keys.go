package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/vectord/vectord"
)

// Every key begins with the kind of thing it names. Numbers in keys are big-endian, so that keys sort as their numbers.
const (
	kindApplied = 'a' // group → index and time of the last entry applied
	kindShard   = 'd' // shard, one of the sub-kinds below, …; one range deletion drops a shard
	kindExpiry  = 'e' // group, time, session key → nothing: the sessions by age
	kindMeta    = 'm' // name → a blob of the catalog
	kindSession = 's' // group, session key → session
	kindTable   = 't' // table, key → a row of the scheduler's, which knows what is in it

	subChange  = 'c' // index in the log → slots changed by that entry
	subPosting = 'f' // field number, term, slot → nothing: the slot's payload has the term at that field
	subPoint   = 'p' // point id → slot, version, payload
	subSlot    = 's' // slot → point id
	subVector  = 'v' // number of the vectors' name, slot → vector
)

// Sizes of keys and of their parts.
const (
	shardPrefixSize = 1 + 4 + 1      // kind, shard, sub-kind
	sessionKeySize  = 1 + 4 + 16     // kind, group, key
	expiryKeySize   = 1 + 4 + 8 + 16 // kind, group, time, key
	metaKeyMax      = 2048           // bytes of a meta key's name
	tableKeyMax     = 1024           // bytes of a row's key within its table
	postingSizeMin  = 2 + 1 + 4      // field, a term of one byte, slot
)

// TermBytesMax bounds a posting's term, which has at least one byte.
const TermBytesMax = 1024

func kindPrefix(kind byte, number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, number)
}

func shardPrefix(shard uint32, sub byte) []byte {
	key := make([]byte, 0, 32) // room for the longest rest, so that append does not allocate again
	key = binary.BigEndian.AppendUint32(append(key, kindShard), shard)
	return append(key, sub)
}

func pointKey(shard uint32, id vectord.PointID) []byte {
	return id.AppendBinary(shardPrefix(shard, subPoint))
}

func slotKey(shard, slot uint32) []byte {
	return binary.BigEndian.AppendUint32(shardPrefix(shard, subSlot), slot)
}

// VectorSet is the vectors of one name in one shard. Names are numbered by the catalog.
type VectorSet struct {
	Shard  uint32
	Number uint16
}

func (s VectorSet) String() string { return fmt.Sprintf("vectors %d of shard %d", s.Number, s.Shard) }

func (s VectorSet) prefix() []byte {
	return binary.BigEndian.AppendUint16(shardPrefix(s.Shard, subVector), s.Number)
}

func vectorKey(set VectorSet, slot uint32) []byte {
	return binary.BigEndian.AppendUint32(set.prefix(), slot)
}

func changeKey(shard uint32, index uint64) []byte {
	return binary.BigEndian.AppendUint64(shardPrefix(shard, subChange), index)
}

func postingPrefix(shard uint32, field uint16) []byte {
	return binary.BigEndian.AppendUint16(shardPrefix(shard, subPosting), field)
}

func postingKey(shard uint32, field uint16, term string, slot uint32) []byte {
	return binary.BigEndian.AppendUint32(append(postingPrefix(shard, field), term...), slot)
}

func appliedKey(group uint32) []byte { return kindPrefix(kindApplied, group) }

func sessionKey(group uint32, key [16]byte) []byte {
	return append(kindPrefix(kindSession, group), key[:]...)
}

func expiryKey(group uint32, time int64, key [16]byte) []byte {
	return append(expiryPrefix(group, time), key[:]...)
}

// expiryPrefix is where the sessions of this time begin. The flipped sign bit sorts negative times first.
func expiryPrefix(group uint32, time int64) []byte {
	return binary.BigEndian.AppendUint64(kindPrefix(kindExpiry, group), uint64(time)^1<<63)
}

func metaKey(name string) []byte { return append([]byte{kindMeta}, name...) }

func tableKey(table byte, key []byte) []byte {
	return append(append(make([]byte, 0, 2+len(key)), kindTable, table), key...)
}

// prefixEnd returns the first key after all that begin with prefix, nil if there is none.
func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

// parsedKey is a key taken apart. Which fields are set depends on kind and sub.
type parsedKey struct {
	kind, sub byte
	shard     uint32
	group     uint32
	slot      uint32
	field     uint16
	term      []byte // part of the key that was parsed
	number    uint16 // of a vector's name
	index     uint64
	time      int64
	id        vectord.PointID
	session   [16]byte
	name      string
	table     byte
	tableKey  []byte // part of the key that was parsed
}

// parseKey takes a key apart; ok is false if no version of this program wrote it.
func parseKey(key []byte) (k parsedKey, ok bool) {
	if len(key) == 0 {
		return k, false
	}
	k.kind = key[0]
	rest := key[1:]
	if k.kind == kindMeta {
		k.name = string(rest)
		return k, len(rest) >= 1 && len(rest) <= metaKeyMax
	}
	if k.kind == kindTable {
		if len(rest) < 2 || len(rest) > 1+tableKeyMax {
			return k, false
		}
		k.table, k.tableKey = rest[0], rest[1:]
		return k, true
	}
	if len(rest) < 4 {
		return k, false
	}
	number := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	switch k.kind {
	case kindApplied:
		k.group = number
		return k, len(rest) == 0
	case kindSession:
		k.group = number
		return k, len(rest) == copy(k.session[:], rest) && len(key) == sessionKeySize
	case kindExpiry:
		k.group = number
		if len(key) != expiryKeySize {
			return k, false
		}
		k.time = int64(binary.BigEndian.Uint64(rest) ^ 1<<63)
		copy(k.session[:], rest[8:])
		return k, true
	case kindShard:
		k.shard = number
		return k, k.parseShard(rest)
	}
	return k, false
}

func (k *parsedKey) parseShard(rest []byte) bool {
	if len(rest) == 0 {
		return false
	}
	k.sub = rest[0]
	rest = rest[1:]
	switch k.sub {
	case subPoint:
		var err error
		k.id, rest, err = vectord.DecodePointID(rest)
		return err == nil && len(rest) == 0
	case subVector:
		if len(rest) != 2+4 {
			return false
		}
		k.number, k.slot = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint32(rest[2:])
		return true
	case subSlot:
		if len(rest) != 4 {
			return false
		}
		k.slot = binary.BigEndian.Uint32(rest)
		return true
	case subPosting:
		if len(rest) < postingSizeMin || len(rest) > postingSizeMin-1+TermBytesMax {
			return false
		}
		end := len(rest) - 4
		k.field, k.term, k.slot = binary.BigEndian.Uint16(rest), rest[2:end], binary.BigEndian.Uint32(rest[end:])
		return true
	case subChange:
		if len(rest) != 8 {
			return false
		}
		k.index = binary.BigEndian.Uint64(rest)
		return true
	}
	return false
}

// String says what the key stands for, in words for an operator.
func (k parsedKey) String() string {
	switch {
	case k.kind == kindApplied:
		return fmt.Sprintf("applied index of group %d", k.group)
	case k.kind == kindSession:
		return fmt.Sprintf("session %x of group %d", k.session, k.group)
	case k.kind == kindExpiry:
		return fmt.Sprintf("expiry at %d of session %x of group %d", k.time, k.session, k.group)
	case k.kind == kindMeta:
		return fmt.Sprintf("meta entry %q", k.name)
	case k.kind == kindTable:
		return fmt.Sprintf("row %.64q of table %q", k.tableKey, k.table)
	case k.sub == subPoint:
		return fmt.Sprintf("point %s of shard %d", k.id, k.shard)
	case k.sub == subSlot:
		return fmt.Sprintf("slot %d of shard %d", k.slot, k.shard)
	case k.sub == subPosting:
		return fmt.Sprintf("posting of slot %d, field %d and term %q of shard %d", k.slot, k.field, k.term, k.shard)
	case k.sub == subVector:
		return fmt.Sprintf("vector %d at slot %d of shard %d", k.number, k.slot, k.shard)
	default:
		return fmt.Sprintf("change %d of shard %d", k.index, k.shard)
	}
}

// keyText names a key in an error.
func keyText(key []byte) string {
	if k, ok := parseKey(key); ok {
		return k.String()
	}
	return fmt.Sprintf("unknown key % x", key[:min(len(key), 64)])
}
