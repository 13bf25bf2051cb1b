package simd

import "golang.org/x/sys/cpu"

func available() []Level {
	x := &cpu.X86
	switch {
	case !x.HasAVX2 || !x.HasFMA || !x.HasPOPCNT || !x.HasBMI1 || !x.HasBMI2:
		return nil
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI:
		return []Level{AVX2, AVX512}
	}
	return []Level{AVX2}
}
