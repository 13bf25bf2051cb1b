package vectord

// Limits of shared states.
const (
	MaxStateBytes    = 64 << 20
	MaxStateKeyBytes = 512
	MaxStateTTL      = 10 * 365 * 24 * 60 * 60 // seconds
)

// MaxContentTypeBytes is the limit of the content type of a state.
const MaxContentTypeBytes = 255

// CheckStateKey returns an error unless key may name a state: 1 to MaxStateKeyBytes bytes of UTF-8 without control
// characters. what is the field it is in.
func CheckStateKey(what, key string) error {
	if key == "" {
		return Errorf(KindUnprocessable, "%s: is empty", what)
	}
	return checkText(what, key, MaxStateKeyBytes)
}

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

// Check returns an error, which names the field and the value, unless a state may be written so.
func (w *StateWrite) Check() error {
	if err := checkText("content_type", w.ContentType, MaxContentTypeBytes); err != nil {
		return err
	}
	return checkRanges("", rangeCheck{"ttl_seconds", w.TTLSeconds, 0, MaxStateTTL})
}
