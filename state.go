package vectord

// Limits of shared states.
const (
	MaxStateBytes    = 64 << 20
	MaxStateKeyBytes = 512
	MaxStateTTL      = 10 * 365 * 24 * 60 * 60 // seconds
)

// State is a value that agents share.
type State struct {
	Key         string
	Value       []byte // shared: nobody changes it
	ContentType string
	Version     uint64 // of the value; rising over all states. It is the ETag.
	UpdatedAt   Timestamp
	ExpiresAt   Timestamp // 0: never
	Refs        int       // tasks that refer to it; while there are any it does not expire
}

// StateWrite says how a state is written. The zero value writes whatever is there.
type StateWrite struct {
	ContentType string
	TTLSeconds  int
	IfVersion   *uint64 // only if the state has this version; 0: only if there is none
}
