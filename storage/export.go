package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	importTableBytes = 64 << 20 // of rows in one table of an import
	importLevel      = 6        // the lowest level, where tables of an import belong: nothing is below or above their keys
	exportStep       = 1 << 12  // rows between two looks at the context
	shardKeySize     = 1 + 4    // kind and shard, which exported keys lack
)

// ExportShard calls fn for every row of a shard but those of its change feed, by ascending key, until fn returns an error.
// A key is what follows the shard in the row's key, so that the row can be imported under another shard; the value is as
// it is stored, its checksum, which is checked, included. Both are valid during fn.
func (r Reader) ExportShard(ctx context.Context, shard uint32, fn func(key, value []byte) error) error {
	prefix := kindPrefix(kindShard, shard)
	it, err := r.r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return fmt.Errorf("export shard %d: %w", shard, err)
	}
	n := 0
	for valid := it.First(); valid && err == nil; {
		if n%exportStep == 0 && ctx.Err() != nil {
			err = fmt.Errorf("export shard %d: %w", shard, context.Cause(ctx))
			break
		}
		n++
		key := it.Key()
		if len(key) > shardKeySize && key[shardKeySize] == subChange {
			valid = it.SeekGE(prefixEnd(shardPrefix(shard, subChange)))
			continue
		}
		value, valueErr := it.ValueAndErr()
		if valueErr == nil {
			valueErr = CheckExported(key[shardKeySize:], value)
		}
		if valueErr != nil {
			err = fmt.Errorf("read %s: %w", keyText(key), valueErr)
			break
		}
		err = fn(key[shardKeySize:], value)
		valid = it.Next()
	}
	return closeIter(it, err)
}

// CheckExported returns an error unless key and value are such as ExportShard gives: a key of this program's, outside of
// the change feed, and a value that fits its checksum.
func CheckExported(key, value []byte) error {
	var k parsedKey
	if !k.parseShard(key) || k.sub == subChange {
		return fmt.Errorf("%w: key % x is not one of a shard's rows", ErrDamaged, key[:min(len(key), 64)])
	}
	_, err := unseal(value)
	return err
}

// ShardsWithRows calls fn for every shard that has a row, ascending. It costs a seek for each.
func (r Reader) ShardsWithRows(fn func(shard uint32) error) (err error) {
	prefix := []byte{kindShard}
	it, err := r.r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return fmt.Errorf("list shards: %w", err)
	}
	defer func() { err = closeIter(it, err) }()
	for valid := it.First(); valid; {
		key := it.Key()
		if len(key) < shardKeySize {
			return fmt.Errorf("list shards: %s: %w", keyText(key), ErrDamaged)
		}
		shard := binary.BigEndian.Uint32(key[1:])
		if err := fn(shard); err != nil {
			return err
		}
		end := prefixEnd(kindPrefix(kindShard, shard))
		valid = it.SeekGE(end)
	}
	return nil
}

// Sync returns when everything that was committed before the call survives a power cut.
func (s *Store) Sync() error {
	err := s.failure()
	if err == nil {
		err = s.db.LogData(nil, pebble.Sync)
	}
	if err == nil {
		err = s.failure()
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// DiskAvailable returns how many bytes the disk of a directory of the operating system has left for this process, and
// false where it cannot be told.
func DiskAvailable(dir string) (bytes uint64, ok bool) { return available(vfs.Default, dir) }

// DiskAvailable returns how many bytes the disk of the data directory has left, and false where it cannot be told.
func (s *Store) DiskAvailable() (bytes uint64, ok bool) { return available(s.fs, s.dir) }

func available(fsys vfs.FS, dir string) (bytes uint64, ok bool) {
	usage, err := fsys.GetDiskUsage(dir)
	return usage.AvailBytes, err == nil
}

// Import gathers rows of new shards beside the live data and adds them all at once. It writes tables, which Commit links
// into the database, so that its rows pass neither the write-ahead log nor the memory tables, and hold up no commit. It
// belongs to one goroutine.
type Import struct {
	store      *Store
	versionMax uint64
	tables     []string // temporary files, finished but for the last while writer is set
	writer     *sstable.Writer
	written    int    // bytes of rows in writer
	last       []byte // the key added last
	rows       uint64
}

// NewImport begins an import. Versions of slots above versionMax are lowered to it: a version is an index of this store's
// log, and entries to come must have greater ones than any row. The caller closes the import.
func (s *Store) NewImport(versionMax uint64) *Import {
	return &Import{store: s, versionMax: versionMax}
}

// Add adds a row in the form of ExportShard. Rows come by ascending shard and key, and the shards have none yet.
func (i *Import) Add(shard uint32, key, value []byte) error {
	if err := CheckExported(key, value); err != nil {
		return fmt.Errorf("import into shard %d: %w", shard, err)
	}
	full := append(kindPrefix(kindShard, shard), key...)
	if bytes.Compare(full, i.last) <= 0 {
		return fmt.Errorf("import %s: %w: it does not follow %s", keyText(full), ErrDamaged, keyText(i.last))
	}
	i.last = full
	if key[0] == subSlot {
		row, err := decodeSlot(value)
		if err != nil {
			return fmt.Errorf("import %s: %w", keyText(full), err)
		}
		if row.Version > i.versionMax {
			row.Version = i.versionMax
			value = encodeSlot(row)
		}
	}
	if i.written >= importTableBytes {
		if err := i.finishTable(); err != nil {
			return err
		}
	}
	if i.writer == nil {
		if err := i.beginTable(); err != nil {
			return err
		}
	}
	i.written += len(full) + len(value)
	i.rows++
	if err := i.writer.Set(full, value); err != nil {
		return fmt.Errorf("import %s: %w", keyText(full), err)
	}
	return nil
}

func (i *Import) beginTable() error {
	s := i.store
	if err := s.failure(); err != nil {
		return err
	}
	path := s.path(fmt.Sprintf("%s%d-import.sst", tempPrefix, s.tempFiles.Add(1)))
	file, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create table of import: %w", err)
	}
	i.tables = append(i.tables, path)
	file = vfs.NewSyncingFile(file, vfs.SyncingFileOptions{BytesPerSync: fileSyncBytes})
	options := s.options.MakeWriterOptions(importLevel, s.db.TableFormat())
	i.writer = sstable.NewWriter(objstorageprovider.NewFileWritable(file), options)
	return nil
}

// finishTable completes the table being written, synced.
func (i *Import) finishTable() error {
	if i.writer == nil {
		return nil
	}
	err := i.writer.Close()
	i.writer, i.written = nil, 0
	if err != nil {
		return fmt.Errorf("write table of import: %w", err)
	}
	return nil
}

// Commit adds the rows: on return all of them are there and survive a power cut. After an error or a crash all or none
// are.
func (i *Import) Commit() error {
	if err := i.finishTable(); err != nil {
		return err
	}
	if err := i.store.failure(); err != nil {
		return err
	}
	if len(i.tables) == 0 {
		return nil
	}
	// Pebble links the files into its folder and removes these names; Close removes what an error left.
	if err := i.store.db.Ingest(context.Background(), i.tables); err != nil {
		return fmt.Errorf("import %d rows: %w", i.rows, err)
	}
	return i.store.failure()
}

// Close discards the import unless it was committed.
func (i *Import) Close() error {
	err := i.finishTable()
	for _, path := range i.tables {
		if removeErr := i.store.fs.Remove(path); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	i.tables = nil
	return err
}
