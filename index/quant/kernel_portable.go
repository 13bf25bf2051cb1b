package quant

// KernelName returns the name of the kernels in use: "avx512vnni", "avx2" or "go".
func KernelName() string { return "go" }

// KernelError tells why the kernels that the environment asked for are not in use. It is nil if they are, or if the
// environment does not ask.
func KernelError() error { return nil }

func (s *Scalar) compare(dst []int32, q *Query, rows []byte, slots []uint32) {
	s.comparePortable(dst, q, rows, slots)
}
