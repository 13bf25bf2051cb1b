package node

import (
	"context"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/embed"
	"github.com/vectord/vectord/storage/storagetest"
)

// TestMemoriesByText stores and finds memories by their texts alone, with the model that fits the collection, over a restart.
func TestMemoriesByText(t *testing.T) {
	disk := storagetest.NewCrashFS(nil)
	open := func() *Node {
		n, err := Open(Config{DataDir: "data", FS: disk, Logger: quiet, Fatal: func(err error) { panic(err) }})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := open()
	config := vectord.DefaultCollectionConfig(embed.StaticDim, vectord.Cosine)
	config.Params.SparseVectors = map[string]vectord.SparseParams{"words": {}}
	if err := n.Engine().CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	texts := []string{"The user drinks green tea in the morning.", "The user's dog is called Bella.", "Deployments run on Fridays."}
	dedup := &vectord.MemoryDedup{Threshold: 0.9}
	var memories []vectord.Memory
	for _, text := range append(texts, texts[1]) {
		memories = append(memories, vectord.Memory{Text: text, Scope: vectord.MemoryScope{UserID: "u"}})
	}
	results, err := n.Engine().StoreMemories(background, "c", memories, dedup, vectord.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if results[2].Outcome != vectord.MemoryCreated || results[3].Outcome != vectord.MemorySkipped || results[3].ID != results[1].ID {
		t.Errorf("%+v", results)
	}
	words := []vectord.Memory{{Text: texts[2], Using: "words", Scope: vectord.MemoryScope{UserID: "v"}}}
	if _, err := n.Engine().StoreMemories(background, "c", words, nil, vectord.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = open()
	defer n.Close()
	f := func(q vectord.MemoryQuery, want string) {
		t.Helper()
		q.Limit, q.Select.Payload = 1, true
		hits, err := n.Engine().SearchMemories(context.Background(), "c", q)
		if err != nil || len(hits) != 1 {
			t.Fatalf("%q: %d hits, %v", q.Text, len(hits), err)
		}
		if m, err := vectord.ParseMemory(hits[0].Payload); err != nil || m.Text != want {
			t.Errorf("%q finds %q (%v), want %q", q.Text, m.Text, err, want)
		}
	}
	f(vectord.MemoryQuery{Text: "what is the name of the pet dog"}, texts[1])
	f(vectord.MemoryQuery{Text: "morning drink tea", Model: embed.StaticModel, Weights: vectord.MemoryWeights{Similarity: 1, Recency: 0.1}}, texts[0])
	f(vectord.MemoryQuery{Text: "fridays", Using: "words"}, texts[2])
	info, err := n.Engine().CollectionInfo("c")
	if err != nil || len(info.Fields) != 4 {
		t.Errorf("payload indexes: %v (%v)", info.Fields, err)
	}
}
