package quant

import (
	"fmt"
	"slices"

	"github.com/vectord/vectord"
)

// Product cuts vectors into short pieces and keeps of each the number of the nearest of 256 centroids: a byte for 1, 2, 4, 8
// or 16 components. It is product quantization (Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search",
// PAMI 2011). It suits vectors whose components go together, which k-means finds and a scale does not, and all distances.
// What it finds must be compared again at full precision, the more of it the longer the pieces.
//
// A query has a table of the distances from each of its pieces to each centroid, so that the distance to a row is a sum of
// entries, a byte of the row choosing each. A row as a query does not: building a graph compares each with a few others only,
// which takes less time by the centroids themselves.
//
// Pieces are equally long but for one component, and padded with zeros to the width of the longest, which adds nothing to any
// distance. Every product and sum is rounded by itself, so a distance is the same on all machines, bit for bit. It is an int32
// in the order of the float32, see orderOf. A Product is immutable and safe for concurrent use.
type Product struct {
	distance    vectord.Distance
	dim         int
	compression int
	width       int // components of a piece, padding included
	rowSize     int
	starts      []int     // where each piece begins in a vector, and at the end the dimension
	low, high   []float32 // of the sample, by component

	// centroids are those of the first piece, then those of the next, of width components each. What is beyond the pieces, as
	// far as the kernels go, is 0. columns are the same the other way round: the first components of the centroids of the
	// first piece, then the second ones, and so on.
	centroids, columns []float32
}

const (
	// productCentroids is the number of centroids of a piece: as many as a byte can tell.
	productCentroids = 256

	// productTables bounds the tables of a query to 4 MiB. Vectors of more pieces are compared by the centroids.
	productTables = 4096

	// productLanes is what the length of a padded vector is a multiple of.
	productLanes = 8

	// productMax bounds a component, of a centroid too, so that no sum overflows. No real data comes near.
	productMax = 0x1p+50
)

// newProduct fills in what follows from the distance, the dimension and the compression.
func newProduct(d vectord.Distance, dim, compression int) *Product {
	p := &Product{distance: d, dim: dim, compression: compression, width: compression / float32Bytes}
	pieces := (dim + p.width - 1) / p.width
	p.starts = make([]int, pieces+1)
	for i := range p.starts {
		p.starts[i] = i * dim / pieces
	}
	p.rowSize = alignRow(pieces)
	p.low, p.high = make([]float32, dim), make([]float32, dim)
	p.centroids = make([]float32, p.padded()*productCentroids)
	p.columns = make([]float32, pieces*p.width*productCentroids)
	return p
}

// padded returns the length of a padded vector.
func (p *Product) padded() int {
	return (p.pieces()*p.width + productLanes - 1) / productLanes * productLanes
}

// setCentroids sets the centroids of a piece , of width components each.
func (p *Product) setCentroids(piece int, centroids []float32) {
	copy(p.centroids[piece*productCentroids*p.width:], centroids)
	transpose(p.of(piece), centroids, p.width)
}

// transpose writes centroids to columns.
func transpose(columns, centroids []float32, width int) {
	for i, x := range centroids {
		columns[i%width*productCentroids+i/width] = x
	}
}

// checkProduct returns an error unless there are product codes for d, dim and compression.
func checkProduct(d vectord.Distance, dim, compression int) error {
	if !slices.Contains(vectord.Compressions(), compression) {
		return fmt.Errorf("compression %d is not one of %v", compression, vectord.Compressions())
	}
	return checkShape(d, dim)
}

// Name returns "product".
func (p *Product) Name() string { return vectord.CodecProduct }

// Compression returns how many times smaller than a vector its codes are: 4, 8, 16, 32 or 64.
func (p *Product) Compression() int { return p.compression }

// Depth returns 3k for codes of at most two components, and for longer ones 10k, 30k or 60k, of k of at least 10: so many keep
// 0.99 of the true nearest ten among vectors of 100 components at 4 to 16 times smaller codes, and 0.98 and 0.93 beyond.
func (p *Product) Depth(k int) int {
	factor := 3
	switch p.width {
	case 4:
		factor = 10
	case 8:
		factor = 30
	case 16:
		factor = 60
	}
	return factor * max(k, 10)
}

// Dim returns the length of the vectors.
func (p *Product) Dim() int { return p.dim }

// Distance returns what the vectors are compared by.
func (p *Product) Distance() vectord.Distance { return p.distance }

// RowSize returns the size of a row in bytes, a multiple of 64.
func (p *Product) RowSize() int { return p.rowSize }

// pieces returns the number of pieces of a vector, which is that of the codes of a row.
func (p *Product) pieces() int { return len(p.starts) - 1 }

// of returns the columns of a piece.
func (p *Product) of(piece int) []float32 {
	size := productCentroids * p.width
	return p.columns[piece*size:][:size]
}

// centroid returns a centroid of a piece.
func (p *Product) centroid(piece, c int) []float32 {
	return p.centroids[(piece*productCentroids+c)*p.width:][:p.width]
}

// Clipped returns how many components of v are beyond those of the sample, which no centroid was chosen for. It panics unless v
// has the Product's dimension.
func (p *Product) Clipped(v []float32) int {
	p.check(v)
	clipped := 0
	for i, x := range v {
		if x < p.low[i] || x > p.high[i] {
			clipped++
		}
	}
	return clipped
}

func (p *Product) check(v []float32) {
	if len(v) != p.dim {
		panic(fmt.Sprintf("quant: vector of length %d for dimension %d", len(v), p.dim))
	}
}

// pad sets q.vector to the pieces of v, each of the same width.
func (p *Product) pad(q *Query, v []float32) {
	p.check(v)
	q.vector = slices.Grow(q.vector[:0], p.padded())[:p.padded()]
	clear(q.vector)
	for i := range p.pieces() {
		piece := q.vector[i*p.width:][:p.width]
		for j, x := range v[p.starts[i]:p.starts[i+1]] {
			piece[j] = clamp(x, productMax)
		}
	}
}

// EncodeRow writes the row of v to row[:RowSize()]. NaN counts as 0. It panics unless v has the Product's dimension and row
// is long enough.
func (p *Product) EncodeRow(row []byte, v []float32) {
	row = row[:p.rowSize]
	q := scratch.Get().(*Query)
	defer scratch.Put(q)
	p.pad(q, v)
	for i := range p.pieces() {
		row[i], _ = nearest(q.vector[i*p.width:][:p.width], p.of(i))
	}
	clear(row[p.pieces():])
}

// EncodeQuery prepares v as a query. It panics unless v has the Product's dimension.
func (p *Product) EncodeQuery(q *Query, v []float32) {
	p.pad(q, v)
	q.tables = q.tables[:0]
	if p.pieces() > productTables {
		return
	}
	size := p.pieces() * productCentroids
	q.tables = slices.Grow(q.tables, size)[:size]
	for i := range p.pieces() {
		table := (*[productCentroids]float32)(q.tables[i*productCentroids:])
		tabulate(p.distance, table, q.vector[i*p.width:][:p.width], p.of(i))
	}
}

// QueryFromRow prepares a stored row as a query, whose distances are those of the rows. It panics if row is too short.
func (p *Product) QueryFromRow(q *Query, row []byte) {
	q.tables = q.tables[:0]
	q.vector = slices.Grow(q.vector[:0], p.padded())[:p.padded()]
	vector, centroids := q.vector, p.centroids
	for _, code := range row[:p.rowSize][:p.pieces()] {
		from := int(code) * p.width
		switch p.width { // short pieces without the cost of a call
		case 1:
			vector[0] = centroids[from]
		case 2:
			*(*[2]float32)(vector) = *(*[2]float32)(centroids[from:])
		case 4:
			*(*[4]float32)(vector) = *(*[4]float32)(centroids[from:])
		default:
			copy(vector, centroids[from:][:p.width])
		}
		vector, centroids = vector[p.width:], centroids[productCentroids*p.width:]
	}
	clear(q.vector[p.pieces()*p.width:])
}

// Distances sets dst[i] to the distance from the query to row slots[i] of rows, as Codec says.
func (p *Product) Distances(dst []int32, q *Query, rows []byte, slots []uint32) {
	dst = dst[:len(slots)]
	for n := p.callRows(); len(slots) > 0; {
		n = min(n, len(slots))
		p.measure(dst[:n], q, rows, slots[:n])
		dst, slots = dst[n:], slots[n:]
	}
}

// Scan sets dst[i] to the distance from the query to row i of rows, as Codec says.
func (p *Product) Scan(dst []int32, q *Query, rows []byte) {
	dst = dst[:len(rows)/p.rowSize]
	for n := min(p.callRows(), len(ascending)); len(dst) > 0; {
		n = min(n, len(dst))
		p.measure(dst[:n], q, rows, ascending[:n])
		dst, rows = dst[n:], rows[n*p.rowSize:]
	}
}

// callRows returns how many rows one call of a kernel may compare, at least 1.
func (p *Product) callRows() int { return max(callBytes/(float32Bytes*p.padded()), 1) }

// measure sets dst to the distances of some rows.
func (p *Product) measure(dst []int32, q *Query, rows []byte, slots []uint32) {
	sums := measured(dst)
	if len(q.tables) == 0 {
		p.compare(sums, q.vector, rows, slots)
	} else {
		for i, slot := range slots {
			sums[i] = sumEntries(q.tables, rows[int(slot)*p.rowSize:][:p.pieces()])
		}
	}
	toOrder(dst)
}

// Float returns the distance that d stands for, in terms of index.DistanceFunc.
func (p *Product) Float(_ *Query, d int32) float32 { return floatOf(d) }

// Quantum is the inverse of Float.
func (p *Product) Quantum(_ *Query, f float32) int32 { return orderOf(f) }

// sumEntries adds up the entries of tables that the codes choose, in four sums of which none waits for another.
func sumEntries(tables []float32, codes []byte) float32 {
	var a, b, c, d float32
	for len(codes) >= 4 {
		t := (*[4 * productCentroids]float32)(tables)
		a += t[codes[0]]
		b += t[productCentroids+int(codes[1])]
		c += t[2*productCentroids+int(codes[2])]
		d += t[3*productCentroids+int(codes[3])]
		tables, codes = tables[len(t):], codes[4:]
	}
	for _, code := range codes {
		a += tables[code]
		tables = tables[productCentroids:]
	}
	return (a + b) + (c + d)
}

// nearest returns the number of the centroid that is nearest to a piece, the first of equals, and the square of its distance.
func nearest(piece, columns []float32) (code byte, square float32) {
	var table [productCentroids]float32
	tabulate(vectord.Euclid, &table, piece, columns)
	code = leastOf(&table)
	return code, table[code]
}
