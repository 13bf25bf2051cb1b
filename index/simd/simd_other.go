//go:build !amd64

package simd

func available() []Level { return nil }
