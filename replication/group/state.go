package group

import (
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// OpenState returns the stream of a checkpoint's folder, in the form in which nodes send it to each other, and its size in
// bytes. fs nil is the operating system. index is that of the last vectord.Entry in it. The stream goes on if the folder is removed; the caller closes it.
func OpenState(fs vfs.FS, dir string, index uint64) (stream io.ReadCloser, size int64, err error) {
	if fs == nil {
		fs = vfs.Default
	}
	files, err := listFiles(fs, dir)
	if err != nil {
		return nil, 0, err
	}
	s, err := openStream(fs, dir, index, files)
	if err != nil {
		return nil, 0, err
	}
	return s, streamSize(files), nil
}

// ReadState writes the files of a stream into the folder dir, which it creates, and makes them durable. It checks all of it; on
// an error the folder is not of use.
func ReadState(stream io.Reader, fs vfs.FS, dir string) (index uint64, err error) {
	if fs == nil {
		fs = vfs.Default
	}
	return readStream(stream, fs, dir)
}

// StateMagic is what the stream of a state begins with.
const StateMagic = streamMagic
