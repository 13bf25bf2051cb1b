package simd

import (
	"os"
	"testing"
)

func TestChoose(t *testing.T) {
	f := func(name string, available []Level, want Level, ok bool) {
		t.Helper()
		got, err := choose(name, available)
		if got != want || (err == nil) != ok {
			t.Errorf("choose(%q, %s) = %s, %v; want %s, ok %v", name, available, got, err, want, ok)
		}
	}
	amd64, old, arm64 := []Level{Go, AVX2, AVX512}, []Level{Go}, []Level{Go, NEON}
	f("", old, Go, true)
	f("", amd64, AVX512, true)
	f("", arm64, NEON, true)
	f("go", amd64, Go, true)
	f("avx2", amd64, AVX2, true)
	f("avx2", amd64[:2], AVX2, true)
	f("avx2", old, Go, false)
	f("avx2", arm64, NEON, false)
	f("avx512vnni", amd64[:2], AVX2, false)
	f("neon", amd64, AVX512, false)
	f("sse", amd64, AVX512, false)
	f("AVX2", amd64, AVX512, false)
}

func TestAvailableBeginsWithGo(t *testing.T) {
	levels := Available()
	if levels[0] != Go {
		t.Errorf("the levels are %s, expected Go first", levels)
	}
	for _, l := range All() {
		t.Logf("%s", l)
	}
}

// TestEnv fails where the environment names a level that is not there. Runs that are to test one level name it.
func TestEnv(t *testing.T) {
	if name := os.Getenv(Env); name != "" && Chosen.String() != name {
		t.Errorf("%s=%s, but %s is in use: %v", Env, name, Chosen, Err())
	}
}
