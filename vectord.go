// Package vectord is the vocabulary of the vectord server: collections, points, payloads, filters, queries, operations
// and the errors that every other package speaks. It imports the standard library only.
package vectord

// Version is the release of this source tree.
const Version = "0.1.0"

// Limits that hold for every request, whatever door it comes in by. They are checked before anything is changed.
const (
	MaxDimension          = 65536  // components of one vector
	MaxCollectionNameSize = 255    // characters
	MaxBatchPoints        = 10_000 // points in one operation
	MaxLimit              = 10_000 // hits or points in one answer
	MaxOversampling       = 1_000  // candidates compared again for each hit
	MaxPayloadBytes       = 16 << 20
	MaxPayloadDepth       = 128 // brackets within brackets of one payload
	MaxFilterDepth        = 32
	MaxFilterConditions   = 1_000    // in the whole filter, list members of has_id and match not counted
	MaxFilterListLength   = 100_000  // members of one has_id, any or except
	MaxMatchTextBytes     = 16 << 10 // of one text, text_any, phrase or prefix
	MaxPolygonPoints      = 10_000   // of all rings of one polygon
	MaxShards             = 64       // of one collection
)
