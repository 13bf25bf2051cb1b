package vectord

// Point is what a client stores: an id, a vector and a payload. Payload is one JSON object as raw bytes, kept as it came
// (numbers are never reformatted); nil means none.
type Point struct {
	ID      PointID
	Vector  []float32
	Payload []byte
}

// Record is a stored point as read back. Version is the index in the log of the operation that wrote it last. Vector and
// Payload are nil where they were not asked for.
type Record struct {
	ID      PointID
	Version uint64
	Vector  []float32
	Payload []byte
}

// Hit is a record found by a query, with its score in the terms of the collection's distance.
type Hit struct {
	Record
	Score float32
}

// Selection says which parts of a point an answer carries.
type Selection struct {
	Vector  bool
	Payload bool
	// Include keeps only these payload paths, Exclude drops these; at most one of them is set. Both empty means all.
	Include []string
	Exclude []string
}

// Query asks for the points nearest to a vector. With neither Vector nor ID it lists points by ascending id with score 0.
type Query struct {
	Vector         []float32 // nearest to this
	ID             *PointID  // nearest to the vector of this point, which is itself left out
	Filter         *Filter
	Limit          int // at least 1
	Offset         int
	ScoreThreshold *float32 // only hits strictly nearer than this score
	Params         SearchParams
	Select         Selection
}

// SearchParams tune one query.
type SearchParams struct {
	HNSWEf      int  // candidates kept during the graph walk; 0 means the collection's own number
	Exact       bool // compare with every point, at full precision
	IndexedOnly bool // leave out points that are not in the graph yet

	Quantization QuantizationParams
}

// QuantizationParams say how far one query trusts the codes of the graph.
type QuantizationParams struct {
	// Ignore has every candidate of the graph walk compared again at full precision, not just the best by the codes.
	Ignore bool
	// ByCodes takes scores from the codes, which are estimates, and compares nothing again. Points that are not in the
	// graph yet are scored exactly as ever.
	ByCodes bool
	// Oversampling is how many candidates are compared again for each hit, from 1 to MaxOversampling; 0 means what the
	// codes need.
	Oversampling float64
}

// ScrollRequest asks for a page of points in ascending order of id, starting at Offset (inclusive) if that is set.
type ScrollRequest struct {
	Offset *PointID
	Limit  int // at least 1
	Filter *Filter
	Select Selection
}

// ScrollPage is one page of a scroll. Next is the id at which the following page begins, nil at the end.
type ScrollPage struct {
	Points []Record
	Next   *PointID
}
