package quant_test

import (
	"fmt"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/quant"
)

func Example() {
	vectors := [][]float32{{0, 0}, {3, 4}, {6, 8}}
	s, err := quant.Train(vectord.Euclid, 2, vectors)
	if err != nil {
		fmt.Println(err)
		return
	}
	rows := make([]byte, len(vectors)*s.RowSize())
	for i, v := range vectors {
		s.EncodeRow(rows[i*s.RowSize():], v)
	}

	var q quant.Query
	s.EncodeQuery(&q, []float32{0, 0})
	slots := []uint32{2, 1, 0}
	distances := make([]int32, len(slots))
	s.Distances(distances, &q, rows, slots)
	for i, slot := range slots {
		fmt.Printf("slot %d: about %.0f\n", slot, s.Float(&q, distances[i]))
	}
	// Output:
	// slot 2: about 100
	// slot 1: about 25
	// slot 0: about 0
}
