package storage_test

import (
	"fmt"
	"log"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

// A batch is visible once it is committed, and survives a power cut once durable has returned.
func Example() {
	disk := storagetest.NewCrashFS(nil)
	store, err := storage.Open(storage.Options{Dir: "data", FS: disk})
	if err != nil {
		log.Fatal(err)
	}
	batch := store.NewBatch()
	vectors := []uint16{0}
	batch.PutPoint(0, vectord.NumberID(7), storage.PointRow{Slot: 0, Vectors: vectors, Payload: []byte(`{"city":"Berlin"}`)})
	batch.PutSlot(0, 0, storage.SlotRow{ID: vectord.NumberID(7), Version: 1, Vectors: vectors})
	batch.PutVector(storage.VectorSet{}, 0, []float32{0.6, 0.8})
	batch.SetApplied(0, storage.Applied{Index: 1})
	durable, err := batch.Commit()
	if err != nil {
		log.Fatal(err)
	}
	if err := durable(); err != nil {
		log.Fatal(err)
	}

	after, err := storage.Open(storage.Options{Dir: "data", FS: disk.Crash(0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	point, found, err := after.Point(0, vectord.NumberID(7))
	fmt.Println(found, string(point.Payload), err)
	// Output: true {"city":"Berlin"} <nil>
}
