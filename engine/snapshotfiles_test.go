package engine

import (
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzSnapshotLocation opens files by locations that lead to, beside and around the directory of snapshots, in which all
// files say that they may be read. DIR in a location stands for the directory.
func FuzzSnapshotLocation(f *testing.F) {
	outside := f.TempDir()
	dir := filepath.Join(outside, "snapshots")
	if err := os.MkdirAll(filepath.Join(dir, "c"), snapshotDirMode); err != nil {
		f.Fatal(err)
	}
	const inside = "may be read"
	for path, text := range map[string]string{"secret": "secret", "snapshots/a.snapshot": inside, "snapshots/c/b.snapshot": inside} {
		if err := os.WriteFile(filepath.Join(outside, path), []byte(text), snapshotFileMode); err != nil {
			f.Fatal(err)
		}
	}
	for link, target := range map[string]string{"up": "..", "c/secret.snapshot": "../../secret", "abs.snapshot": filepath.Join(outside, "secret")} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			f.Fatal(err)
		}
	}
	for _, location := range []string{"file://DIR/a.snapshot", "file://localhostDIR/c/b.snapshot", "file://DIR/../secret", "file://DIR/%2e%2e/secret",
		"file://DIR/up/secret", "file://DIR/c/secret.snapshot", "file://DIR/abs.snapshot", "file://DIR//a.snapshot", "file:DIR/c/../../secret", "file:///etc/passwd"} {
		f.Add(location)
	}
	d := snapshotDir{dir}
	f.Fuzz(func(t *testing.T, location string) {
		u, err := url.Parse(strings.ReplaceAll(location, "DIR", dir))
		if err != nil {
			return
		}
		file, size, err := d.openLocation(u)
		if err != nil {
			return
		}
		defer file.Close()
		if text, err := io.ReadAll(file); err != nil || string(text) != inside || size != int64(len(inside)) {
			t.Errorf("%s was opened: %.80q, %v", u, text, err)
		}
	})
}
