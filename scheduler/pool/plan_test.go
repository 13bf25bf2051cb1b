package pool

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPlan writes agents as letters, number 1 first: s starting, r ready, i ready and idle for long, b busy and full, e busy with room,
// x stopping, o ready of an earlier generation.
func TestPlan(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	f := func(agents string, change func(*view), want string) {
		t.Helper()
		v := view{now: now, minSize: 3, maxSize: 5, warmup: time.Second, idleTimeout: 30 * time.Second, cores: 2, lastStart: now.Add(-time.Second / 4)}
		for i, letter := range agents {
			m := member{number: i + 1, phase: ready, idleSince: now.Add(-10 * time.Second)}
			switch letter {
			case 's':
				m.phase = starting
			case 'i':
				m.idleSince = now.Add(-time.Minute)
			case 'b':
				m.inFlight, m.full = 1, true
			case 'e':
				m.inFlight = 1
			case 'x':
				m.phase = stopping
			case 'o':
				m.old = true
			}
			v.members = append(v.members, m)
		}
		if change != nil {
			change(&v)
		}
		s := plan(v)
		got := []string{fmt.Sprintf("start %d", s.start)}
		for _, n := range s.retire {
			got = append(got, fmt.Sprintf("retire %d %s", n, s.reasons[n]))
		}
		got = append(got, fmt.Sprintf("wake %v", s.wake))
		if g := strings.Join(got, ", "); g != want {
			t.Errorf("%q: %s, want %s", agents, g, want)
		}
	}
	first := func(v *view) { v.lastStart = time.Time{} }
	warm := func(v *view) { v.warmed = true }
	f("", first, "start 1, wake 1s") // the first at once
	f("s", nil, "start 0, wake 750ms")
	f("r", func(v *view) { v.lastStart = now.Add(-time.Second) }, "start 1, wake 1s")
	f("rr", func(v *view) { v.lastStart = now.Add(-time.Second) }, "start 1, wake 1m0s")
	f("b", nil, "start 2, wake 1m0s")  // tasks may wait: one per core
	f("bs", nil, "start 1, wake 1m0s") // of which one starts already
	f("bss", nil, "start 0, wake 1m0s")
	f("rrr", warm, "start 0, wake 1m0s")
	f("rr", warm, "start 1, wake 1m0s") // one has died: replaced at once
	f("rr", func(v *view) { v.warmed, v.notBefore = true, now.Add(5*time.Second) }, "start 0, wake 5s")
	f("bbb", warm, "start 1, wake 1m0s") // a spare
	f("eee", warm, "start 0, wake 1m0s") // there is room
	f("bbbs", warm, "start 0, wake 1m0s")
	f("bbbbb", warm, "start 0, wake 1m0s") // no more than maxSize
	f("rrxxx", warm, "start 0, wake 1m0s") // the stopping ones count
	f("rrrr", warm, "start 0, wake 20s")
	f("rrri", warm, "start 0, retire 4 idle, wake 1m0s")
	f("irrrr", warm, "start 0, wake 20s") // the last ones go first
	f("bbbi", warm, "start 0, wake 1m0s") // it is the spare
	f("bbbb", func(v *view) { v.warmed, v.minSize, v.maxSize = true, 1, 2 }, "start 0, retire 4 scaled, retire 3 scaled, wake 1m0s")
	f("oro", func(v *view) { v.warmed = true }, "start 2, retire 1 replaced, retire 3 replaced, wake 1m0s")
	f("ooooo", first, "start 0, retire 1 replaced, retire 2 replaced, retire 3 replaced, retire 4 replaced, retire 5 replaced, wake 1m0s")
}
