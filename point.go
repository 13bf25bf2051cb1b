package vectord

// Point is what a client stores: an id, vectors by name and a payload. Payload is one JSON object as raw bytes, kept as it
// came (numbers are never reformatted); nil means none. From Expires on, in milliseconds since the Unix epoch, the point is
// no more; 0 is never.
type Point struct {
	ID      PointID
	Vectors Vectors
	Payload []byte
	Expires int64
}

// Record is a stored point as read back. Version is the index in the log of the operation that wrote it last. Vectors,
// sorted by name, and Payload are nil where they were not asked for.
type Record struct {
	ID      PointID
	Version uint64
	Vectors Vectors
	Payload []byte
	Expires int64       // as in Point
	Order   *OrderValue // what it was ordered by, if the request ordered by a payload value
}

// Hit is a record found by a query, with its score in the terms of the query.
type Hit struct {
	Record
	Score float32
}

// Selection says which parts of a point an answer carries.
type Selection struct {
	Vectors bool
	// VectorNames are the vectors to carry; empty means all.
	VectorNames []string
	Payload     bool
	// Include keeps only these payload paths, Exclude drops these; at most one of them is set. Both empty means all.
	Include []string
	Exclude []string
}

// SearchParams tune one query.
type SearchParams struct {
	HNSWEf      int  // candidates kept during the graph walk; 0 means the collection's own number
	Exact       bool // compare with every point, at full precision
	IndexedOnly bool // leave out points that are not in the graph yet, if there is a graph

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
//
// With OrderBy the page is in that order instead, has no Next, and Offset must not be set.
type ScrollRequest struct {
	Offset  *PointID
	Limit   int // at least 1
	Filter  *Filter
	OrderBy *OrderBy
	Select  Selection
}

// ScrollPage is one page of a scroll. Next is the id at which the following page begins, nil at the end.
type ScrollPage struct {
	Points []Record
	Next   *PointID
}
