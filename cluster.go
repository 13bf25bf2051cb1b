package vectord

// Peer is a node of a cluster.
type Peer struct {
	ID      uint64 `json:"id"`      // for ever
	Address string `json:"address"` // of its port for other nodes
	Version string `json:"version"` // empty if it did not answer
	Voter   bool   `json:"voter"`   // false: it is catching up and does not count for a majority yet
	Leader  bool   `json:"leader"`
	Alive   bool   `json:"alive"`   // it answered
	Applied uint64 `json:"applied"` // position in the Raft log of what it has applied
	Term    uint64 `json:"term"`    // that it is in
	// What has been heard of it: alive, suspect, left or dead, since when, and the memory that its runtime has.
	State       string    `json:"state,omitempty"`
	StateSince  Timestamp `json:"state_since,omitempty"`
	MemoryBytes uint64    `json:"memory_bytes,omitempty"`
}
