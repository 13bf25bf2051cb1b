package storage_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

const (
	crashFile        = "graph-0"
	crashFileEvery   = 9  // batches between two versions of the file
	crashReopenEvery = 14 // batches between two restarts
)

// fileVersion is the content of a version of the derived file; 0 is none.
func fileVersion(n uint64) []byte { return bytes.Repeat(fmt.Appendf(nil, "version %d\n", n), 2000) }

// TestPowerCut cuts the power after every file operation of a random history, keeping none, half and all of what was
// not synced. Whatever is left must open, be consistent, and be the state after a prefix of the history that includes
// every batch whose durable had returned: batches are all or nothing, and acknowledged means durable. The derived file is
// the last one written, or the one being written, whole.
func TestPowerCut(t *testing.T) {
	batches := uint64(30)
	if testing.Short() {
		batches = 15
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newModel()
	states := []string{m.String()}
	var history []func(*storage.Batch)
	for i := range batches {
		history = append(history, m.step(rng, i+1))
		states = append(states, m.String())
	}

	var durable, fileDurable atomic.Uint64 // the last batch and version of the file that must survive
	var operations, crashes atomic.Uint64
	var fs *storagetest.CrashFS
	fs = storagetest.NewCrashFS(func(operation string) {
		n := operations.Add(1)
		if t.Failed() {
			return
		}
		for _, percent := range []int{0, 50, 100} {
			batch, file := durable.Load(), fileDurable.Load()
			err := checkCrash(t, fs.Crash(percent, seed+n), states, batch, file)
			if err != nil {
				t.Errorf("seed %d: power cut after operation %d (%s), %d %% unsynced kept, batch %d durable: %v",
					seed, n, operation, percent, batch, err)
			}
			crashes.Add(1)
		}
	})
	reopen := func() *storage.Store {
		return open(t, storage.Options{FS: fs, Dir: "var/data", MemTableBytes: 64 << 10})
	}
	s := reopen()
	var waiting func() error
	for i, step := range history {
		b := s.NewBatch()
		step(b)
		next, err := b.Commit()
		if err != nil {
			t.Fatal(err)
		}
		// Wait for the batch before the one just committed, as the log does, and at times for both.
		if waiting != nil {
			if err := waiting(); err != nil {
				t.Fatal(err)
			}
			durable.Store(uint64(i))
		}
		if waiting = next; rng.IntN(3) == 0 {
			if err := waiting(); err != nil {
				t.Fatal(err)
			}
			waiting = nil
			durable.Store(uint64(i + 1))
		}
		if i%crashFileEvery == crashFileEvery-1 {
			version := uint64(i/crashFileEvery + 1)
			if err := s.WriteFile(crashFile, func(w io.Writer) error {
				_, err := w.Write(fileVersion(version))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			fileDurable.Store(version)
		}
		if i%crashReopenEvery == crashReopenEvery-1 {
			waiting = nil // Close makes it durable
			closeStore(t, s)
			durable.Store(uint64(i + 1))
			s = reopen()
		}
	}
	closeStore(t, s)
	t.Logf("%d operations, %d power cuts", operations.Load(), crashes.Load())
}

// checkCrash opens what a power cut left and compares it with the states after each batch.
func checkCrash(t *testing.T, fs *storagetest.CrashFS, states []string, batch, file uint64) error {
	var fatal error
	s, err := storage.Open(storage.Options{FS: fs, Dir: "var/data", Logger: quiet, MemTableBytes: 64 << 10,
		Fatal: func(err error) { fatal = err }})
	if err != nil {
		return err
	}
	defer s.Close()
	last, err := s.LastApplied()
	if err != nil {
		return err
	}
	if last.Index < batch || last.Index >= uint64(len(states)) {
		return fmt.Errorf("batch %d is the last, want at least %d", last.Index, batch)
	}
	got, err := dump(s.Reader)
	if err != nil {
		return err
	}
	if want := states[last.Index]; got != want {
		return fmt.Errorf("after batch %d: got\n%s\nwant\n%s", last.Index, got, want)
	}
	report, err := s.Verify(t.Context(), nil)
	if err != nil || report.ProblemCount > 0 {
		return fmt.Errorf("verify: %v, %q", err, report.Problems)
	}
	names, err := s.ListFiles()
	if err != nil {
		return err
	}
	if file == 0 && len(names) == 0 {
		return fatal
	}
	if strings.Join(names, " ") != crashFile {
		return fmt.Errorf("files are %q, want %q", names, crashFile)
	}
	r, size, err := s.OpenFile(crashFile)
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil || int64(len(content)) != size {
		return fmt.Errorf("read %d bytes of %d: %v", len(content), size, err)
	}
	if !bytes.Equal(content, fileVersion(file)) && !bytes.Equal(content, fileVersion(file+1)) {
		return fmt.Errorf("file of %d bytes is neither version %d nor the next", size, file)
	}
	return fatal
}
