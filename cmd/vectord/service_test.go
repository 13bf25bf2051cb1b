package main

import "testing"

func TestBodiesBytes(t *testing.T) {
	f := func(limit int64, want int) {
		t.Helper()
		if got := bodiesBytes(limit); got != want {
			t.Errorf("of %d bytes bodies may take %d, want %d", limit, got, want)
		}
	}
	f(memoryLimitMin, 65<<20)
	f(1<<30, 128<<20)
	f(1<<40, 512<<20)
}
