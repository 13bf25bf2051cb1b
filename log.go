package vectord

// Entry is one command in its place in the log of its replication group. Every replica applies the same entries in the
// same order.
type Entry struct {
	Group   uint32 // the replication group whose state the command changes
	Index   uint64 // position in the log, from 1, rising
	Time    int64  // milliseconds since the Unix epoch by the proposer's clock, never less than the entry's before
	Command []byte // opaque to the log; valid only during Apply
}

// Result is what the state machine answered to one entry. Err is a refusal (*Error): the entry is in the log and had no
// effect.
type Result struct {
	Index uint64
	Value any
	Err   error
}
