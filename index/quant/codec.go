package quant

import (
	"fmt"

	"github.com/vectord/vectord"
)

// A Codec turns vectors of one dimension into rows of one size and measures distances between them. It is immutable and
// safe for concurrent use.
//
// A distance is an int32 of which the smaller is the nearer. What it measures is the codec's own affair: Float says what
// it stands for. Rows that are equal have equal distances from everything.
type Codec interface {
	// Name returns what users call the codec: "int8", "float32", "binary" or "product".
	Name() string
	// Dim returns the length of the vectors.
	Dim() int
	// Distance returns what the vectors are compared by.
	Distance() vectord.Distance
	// RowSize returns the size of a row in bytes, a multiple of 64.
	RowSize() int

	// EncodeRow writes the row of v to row[:RowSize()]. It panics unless v has the codec's dimension and row is long enough.
	EncodeRow(row []byte, v []float32)
	// Clipped returns how many components of v do not fit what the codec was trained for, so that rows cannot say them.
	Clipped(v []float32) int
	// EncodeQuery prepares v as a query. It panics unless v has the codec's dimension.
	EncodeQuery(q *Query, v []float32)
	// QueryFromRow prepares a stored row as a query. The distances are the same as if rows were compared with each other:
	// those from a to b and from b to a are equal.
	QueryFromRow(q *Query, row []byte)

	// Distances sets dst[i] to the distance from the query to row slots[i] of rows, in which row r begins at r*RowSize().
	// It panics if dst is shorter than slots. That q was encoded by this codec and that every slot lies within rows is the
	// caller's duty: kernels do not check, and read whatever memory they are sent to. A call does best with some ten to a
	// hundred slots. Rows may be written to by other goroutines only in slots that are not asked for.
	Distances(dst []int32, q *Query, rows []byte, slots []uint32)
	// Scan sets dst[i] to the distance from the query to row i of rows, for every row in rows. It panics if dst is shorter.
	Scan(dst []int32, q *Query, rows []byte)
	// Float returns the distance d, approximately, in terms of index.DistanceFunc.
	Float(q *Query, d int32) float32
	// Quantum returns the distance that Float turns into f, as nearly as an int32 can be.
	Quantum(q *Query, f float32) int32

	// Depth returns how many of the nearest by the codes are to be compared again at full precision to find the k nearest
	// among them.
	Depth(k int) int

	// AppendBinary appends the binary form of the codec, which Decode reads, to dst.
	AppendBinary(dst []byte) []byte
}

// The binary form of every codec begins with a byte that says which codec it is and which version of its form.
const (
	scalarVersion  = 4 // 1 had no quantile
	float32Version = 2
	binaryVersion  = 3
	productVersion = 5
)

// Decode reads the form that a codec's AppendBinary writes, all of b. It returns an error that names what is wrong if b is
// not such a form.
func Decode(b []byte) (Codec, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("decode quantizer: empty")
	}
	switch b[0] {
	case scalarVersion:
		return DecodeScalar(b)
	case float32Version:
		return DecodeFloat32(b)
	case binaryVersion:
		return DecodeBinary(b)
	case productVersion:
		return DecodeProduct(b)
	}
	return nil, fmt.Errorf("decode quantizer: version %d is unknown", b[0])
}
