package engine

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

func TestZZProfile(t *testing.T) {
	runtime.MemProfileRate = 512
	x := &testing.T{}
	_ = x
	var m0, m1 runtime.MemStats
	store := openStore(t)
	db, _ := Open(store, Options{Logger: quiet})
	_ = db
	runtime.GC()
	runtime.ReadMemStats(&m0)
	begin := time.Now()
	var keep []*collection
	for i := range 20000 {
		config := vectord.DefaultCollectionConfig(384, vectord.Cosine)
		m := collectionMeta{ID: uint32(i + 1), Name: fmt.Sprint("c", i), Config: config, Shards: []shardMeta{{ID: uint32(i + 1), Group: uint32(i + 1)}}, Numbers: map[string]uint16{"": 0}, NextNumber: 1}
		c, err := db.newCollection(m)
		if err != nil {
			t.Fatal(err)
		}
		keep = append(keep, c)
	}
	fmt.Println(time.Since(begin))
	runtime.GC()
	runtime.ReadMemStats(&m1)
	fmt.Println("bytes each", (m1.HeapAlloc-m0.HeapAlloc)/20000, "objects each", (m1.HeapObjects-m0.HeapObjects)/20000)
	f, _ := os.Create(os.Getenv("HEAP"))
	pprof.WriteHeapProfile(f)
	f.Close()
	runtime.KeepAlive(keep)
}
