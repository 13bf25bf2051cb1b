package vectord

// OperationKind says what an Operation does. The numbers are part of the log's format.
type OperationKind uint8

// The kinds of operation.
const (
	OpUpsert           OperationKind = 1 // write Points whole, replacing those that exist
	OpDelete           OperationKind = 2 // remove the selected points
	OpSetPayload       OperationKind = 3 // merge Payload into the selected points, at the top level or under Key
	OpOverwritePayload OperationKind = 4 // replace the payload of the selected points
	OpDeletePayload    OperationKind = 5 // remove the payload paths Keys from the selected points
	OpClearPayload     OperationKind = 6 // remove the payload of the selected points
	OpUpdateVectors    OperationKind = 7 // set the vectors that existing Points carry; other vectors and payloads stay
	OpDeleteVectors    OperationKind = 8 // remove the vectors called Keys from the selected points
	OpSetExpiry        OperationKind = 9 // have the selected points expire at Expires
)

// Operation is one change of a collection's points. Upsert and update-vectors carry Points; the others select points by
// IDs or by Filter, exactly one of which is set.
type Operation struct {
	Kind    OperationKind
	Points  []Point
	IDs     []PointID
	Filter  *Filter
	Payload []byte   // a JSON object
	Key     string   // with OpSetPayload: the path under which to merge; "" is the top level
	Keys    []string // with OpDeletePayload: paths; with OpDeleteVectors: names
	Expires int64    // with OpSetExpiry: as in Point
	// UpdateFilter, of an operation that carries Points, has those that exist and do not match stay as they are.
	UpdateFilter *Filter
	UpdateMode   UpdateMode // of OpUpsert
}

// UpdateMode says which points an upsert writes. The numbers are part of the log's format.
type UpdateMode uint8

// The modes of an upsert.
const (
	WriteAll    UpdateMode = 0
	WriteNew    UpdateMode = 1 // points that exist stay as they are
	WriteExists UpdateMode = 2 // no point is made
)

// UpdateResult answers one acknowledged operation: it is durable, and every later read sees it. OperationID is its index
// in the log, 0 where there was nothing to change. Pending says that more is done in the background: a payload index is
// still being built.
type UpdateResult struct {
	OperationID uint64
	Pending     bool
}

// WriteOptions go with a write.
type WriteOptions struct {
	// IdempotencyKey, if not empty, makes a retry under the same key return the first attempt's result without a second
	// effect, for 24 hours. The same key with other operations is refused.
	IdempotencyKey string
}

// AliasAction is one step of an atomic change of aliases. Exactly one of the fields is set. Its JSON form is part of the
// log's format.
type AliasAction struct {
	Create *Alias       `json:"create,omitempty"`
	Delete string       `json:"delete,omitempty"` // alias name
	Rename *AliasRename `json:"rename,omitempty"`
}

// Alias is a second name of a collection.
type Alias struct {
	Name       string `json:"name"`
	Collection string `json:"collection"`
}

// AliasRename gives an alias another name.
type AliasRename struct {
	Old string `json:"old"`
	New string `json:"new"`
}
