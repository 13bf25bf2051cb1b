package simd

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

func available() []Level {
	// macOS before 13 does not say that it has the dot product instructions. Every Mac with an arm64 processor does.
	if cpu.ARM64.HasASIMDDP || runtime.GOOS == "darwin" {
		return []Level{NEON}
	}
	return nil
}
