package vectord_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

func TestSnapshotNames(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	f := func(collection, want string) {
		t.Helper()
		name := vectord.SnapshotName(collection, at, "0123456789abcdef")
		if name != want {
			t.Errorf("a snapshot of %q is called %s, want %s", collection, name, want)
		}
		if err := vectord.CheckSnapshotName(name); err != nil {
			t.Error(err)
		}
	}
	f("c", "c-2026-03-04-04-06-07-0123456789abcdef.snapshot")
	f("", "full-2026-03-04-04-06-07-0123456789abcdef.snapshot")
	f("..", "_.-2026-03-04-04-06-07-0123456789abcdef.snapshot")
	f("a b/\u00fc~", "a_b____-2026-03-04-04-06-07-0123456789abcdef.snapshot")
	f(strings.Repeat("\u9577", 255), strings.Repeat("_", 194)+"-2026-03-04-04-06-07-0123456789abcdef.snapshot")
	for _, bad := range []string{"", "snapshot", ".snapshot", "a/b.snapshot", "a\\b.snapshot", "..", "~a.snapshot", "a.snapshot.sha256",
		"\u00fc.snapshot", strings.Repeat("a", 232) + ".snapshot"} {
		if err := vectord.CheckSnapshotName(bad); vectord.KindOf(err) != vectord.KindUnprocessable {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCheckSnapshotChecksum(t *testing.T) {
	f := func(text string, valid bool) {
		t.Helper()
		if err := vectord.CheckSnapshotChecksum(text); (err == nil) != valid {
			t.Errorf("%q: %v", text, err)
		}
	}
	f("", true)
	f(strings.Repeat("0aF9", 16), true)
	f(strings.Repeat("0", 63), false)
	f(strings.Repeat("0", 65), false)
	f(strings.Repeat("g", 64), false)
}
