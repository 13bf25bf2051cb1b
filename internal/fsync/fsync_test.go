package fsync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A marker moves only when what is before it in its directory is durable.
func TestMarkersSettle(t *testing.T) {
	l := &logged{FS: vfs.NewMem()}
	fsys := Watch(l, func(err error) { t.Errorf("fsync: %v", err) })
	for range 2 { // the second opening writes a new manifest
		db, err := pebble.Open("db", &pebble.Options{
			FS:     fsys,
			Logger: silent{},
		})
		if err == nil {
			err = errors.Join(db.Set([]byte("key"), nil, pebble.Sync), db.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock() // a file may still be on its way out
	operations := slices.Clone(l.operations)
	l.mu.Unlock()
	creations, removals := 0, 0
	for i, operation := range operations {
		switch operation {
		case "create":
			creations++
		case "remove":
			removals++
		}
		if operation != "sync" && operation != "change" && (i == 0 || operations[i-1] != "sync") {
			t.Errorf("operation %d, %s, comes before the directory is synced", i, operation)
		}
	}
	if creations < 3 || removals < 1 {
		t.Errorf("operations are %q, want markers created and removed", operations)
	}
}

// logged notes the creations and removals of markers, other changes of directories, and their syncs.
type logged struct {
	vfs.FS
	mu         sync.Mutex // guards operations
	operations []string
}

func (l *logged) note(operation, name string) {
	if operation != "sync" && !strings.Contains(name, markerPrefix) {
		operation = "change"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.operations = append(l.operations, operation)
}

func (l *logged) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	l.note("create", name)
	return l.FS.Create(name, category)
}

func (l *logged) Remove(name string) error {
	l.note("remove", name)
	return l.FS.Remove(name)
}

func (l *logged) OpenDir(name string) (vfs.File, error) {
	f, err := l.FS.OpenDir(name)
	return loggedDir{f, l}, err
}

type loggedDir struct {
	vfs.File
	l *logged
}

func (d loggedDir) Sync() error {
	d.l.note("sync", "")
	return d.File.Sync()
}

type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
