package vectord

import (
	"strings"
	"time"
)

// Snapshot describes a file that holds a collection, or all that a node has, as it was at one moment.
type Snapshot struct {
	Name     string    // of the file
	Created  time.Time // when it was finished
	Size     int64     // bytes
	Checksum string    // SHA-256 of the file in hexadecimal digits, empty if it is not known
}

// SnapshotSource says where a snapshot is to be had.
type SnapshotSource struct {
	Location string // a file: URL below the server's directory of snapshots, or an http: or https: URL that the operator allows
	Checksum string // as in Snapshot; empty: not compared
	APIKey   string // sent along when Location is fetched; empty: none
}

// MaxSnapshotBytes bounds a snapshot that is received.
const MaxSnapshotBytes = 256 << 30

// snapshotSuffix ends the names of snapshots.
const (
	snapshotSuffix      = ".snapshot"
	maxSnapshotNameSize = 240 // bytes
)

// CheckSnapshotName returns an error unless name may name a snapshot: letters, digits, '.', '_' and '-', the first not a
// '.', and ".snapshot" at the end. No such name leads out of the folder in which it is looked up.
func CheckSnapshotName(name string) error {
	valid := len(name) <= maxSnapshotNameSize && strings.HasSuffix(name, snapshotSuffix) && name[0] != '.'
	for i := range len(name) {
		valid = valid && isSnapshotNameByte(name[i])
	}
	if !valid {
		return Errorf(KindUnprocessable, "snapshot_name: %q invalid, must be at most %d of a-z, A-Z, 0-9, '.', '_', '-', the first "+
			"not a '.', and end with %q", name[:min(len(name), maxSnapshotNameSize)], maxSnapshotNameSize, snapshotSuffix)
	}
	return nil
}

func isSnapshotNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// SnapshotName returns the name of a snapshot of a collection, or of the node if that is empty, that is taken at a time. Two
// snapshots of a second differ in distinguish, which is of the characters of names.
func SnapshotName(collection string, at time.Time, distinguish string) string {
	const prefixMax = maxSnapshotNameSize - len("-2006-01-02-15-04-05-") - 16 - len(snapshotSuffix)
	prefix := []byte("full")
	if collection != "" {
		prefix = []byte(collection[:min(len(collection), prefixMax)])
	}
	for i, c := range prefix {
		if !isSnapshotNameByte(c) || i == 0 && c == '.' {
			prefix[i] = '_'
		}
	}
	return string(prefix) + at.UTC().Format("-2006-01-02-15-04-05-") + distinguish + snapshotSuffix
}

// CheckSnapshotChecksum returns an error unless text is empty or 64 hexadecimal digits.
func CheckSnapshotChecksum(text string) error {
	valid := text == "" || len(text) == 64
	for _, c := range text {
		valid = valid && strings.ContainsRune("0123456789abcdefABCDEF", c)
	}
	if !valid {
		return Errorf(KindUnprocessable, "checksum: %.80q invalid, must be the 64 hexadecimal digits of a SHA-256", text)
	}
	return nil
}
