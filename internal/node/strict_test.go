package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage/storagetest"
)

// TestStrictMode holds each limit against a request at it, which passes, and one beyond it, which is refused with the limit
// and the value before anything changes.
func TestStrictMode(t *testing.T) {
	node := open(t, storagetest.NewCrashFS(nil))
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(2, vectord.Dot)
	config.Params.ShardNumber = 2
	config.Params.Vectors["multi"] = vectord.VectorParams{Size: 2, Distance: vectord.Dot, Multi: &vectord.MultiParams{Comparator: vectord.MaxSim}}
	config.Params.SparseVectors = map[string]vectord.SparseParams{"sparse": {}}
	filter := func(text string) *vectord.Filter {
		f, err := vectord.ParseFilter([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	write := func(op vectord.Operation) error {
		_, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{})
		return err
	}
	points := func(first, n int, payload string) vectord.Operation {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for i := range n {
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(first + i)), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: []byte(payload)})
		}
		return op
	}
	search := func(q vectord.Query) error {
		q.Nearest = vectord.Near([]float32{1, 1})
		if q.Limit == 0 {
			q.Limit = 1
		}
		_, err := db.Search(background, "c", q)
		return err
	}
	// check makes a collection of five points with the limits; at must pass and beyond be refused with all of the texts.
	check := func(limits string, at, beyond func() error, texts ...string) {
		t.Helper()
		if _, err := db.DeleteCollection(background, "c"); err != nil {
			t.Fatal(err)
		}
		if err := db.CreateCollection(background, "c", config); err != nil {
			t.Fatal(err)
		}
		if err := write(points(0, 5, `{"a":1,"s":"x"}`)); err != nil {
			t.Fatal(err)
		}
		for field, kind := range map[string]vectord.FieldType{"a": vectord.FieldInteger, "n[].v": vectord.FieldInteger} {
			if _, err := db.CreateFieldIndex(background, "c", field, vectord.FieldSchema{Type: kind}, true); err != nil {
				t.Fatal(err)
			}
		}
		set := func(limits string) {
			t.Helper()
			if err := db.UpdateCollection(background, "c", vectord.CollectionUpdate{StrictMode: json.RawMessage(limits)}); err != nil {
				t.Fatal(err)
			}
		}
		set(limits)
		if err := beyond(); err != nil {
			t.Errorf("%s is in force without enabled: %v", limits, err)
		}
		if _, err := db.Write(background, "c", []vectord.Operation{{Kind: vectord.OpDelete, Filter: filter(`{"must_not":{"has_id":[0,1,2,3,4]}}`)}}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		set(`{"enabled":true}`)
		if err := at(); err != nil {
			t.Errorf("%s refuses what is allowed: %v", limits, err)
		}
		before, err := db.CollectionInfo("c")
		if err != nil {
			t.Fatal(err)
		}
		err = beyond()
		if kind := vectord.KindOf(err); kind != vectord.KindLimited {
			t.Errorf("%s: error %v, want KindLimited", limits, err)
			return
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: error %q does not name %q", limits, err, text)
			}
		}
		after, err := db.CollectionInfo("c")
		if err != nil || before.Points != after.Points || len(before.Fields) != len(after.Fields) {
			t.Errorf("%s: a refused request changed something (%v)", limits, err)
		}
	}
	query := func(q vectord.Query) func() error { return func() error { return search(q) } }
	check(`{"max_query_limit":3}`, query(vectord.Query{Limit: 3}), query(vectord.Query{Limit: 4}), "4 > 3", `"limit"`, "max_query_limit")
	check(`{"max_query_limit":3}`, query(vectord.Query{}), query(vectord.Query{Prefetch: []vectord.Query{{Nearest: vectord.Near([]float32{1, 1}), Limit: 4}}}), "4 > 3")
	check(`{"max_query_limit":3}`, func() error { return nil }, func() error {
		_, err := db.Scroll(background, "c", vectord.ScrollRequest{Limit: 4})
		return err
	}, "4 > 3")
	check(`{"search_max_hnsw_ef":8}`, query(vectord.Query{Params: vectord.SearchParams{HNSWEf: 8}}), query(vectord.Query{Params: vectord.SearchParams{HNSWEf: 9}}), "9 > 8", "hnsw_ef")
	check(`{"search_allow_exact":false}`, query(vectord.Query{}), query(vectord.Query{Params: vectord.SearchParams{Exact: true}}), "exact")
	oversampled := func(by float64) func() error {
		var q vectord.Query
		q.Params.Quantization.Oversampling = by
		return query(q)
	}
	check(`{"search_max_oversampling":2}`, oversampled(2), oversampled(2.5), "2.5 > 2", "oversampling")
	filtered := func(text string) func() error { return query(vectord.Query{Filter: filter(text)}) }
	check(`{"filter_max_conditions":2}`, filtered(`{"must":[{"key":"a","match":{"value":1}},{"has_id":[1]}]}`),
		filtered(`{"must":[{"should":[{"key":"a","match":{"value":1}},{"has_id":[1]}]},{"nested":{"key":"n","filter":{"must":{"key":"v","match":{"value":1}}}}}]}`), "3 > 2", "filter_max_conditions")
	check(`{"condition_max_size":2}`, filtered(`{"must":{"has_id":[1,2]}}`), filtered(`{"must":{"key":"a","match":{"any":[1,2,3]}}}`), "3 > 2", "condition_max_size")
	check(`{"unindexed_filtering_retrieve":false}`, filtered(`{"must":[{"key":"a","range":{"gt":0}},{"nested":{"key":"n","filter":{"must":{"key":"v","match":{"value":1}}}}}]}`),
		filtered(`{"must":{"key":"s","match":{"value":"x"}}}`), `"s"`, "keyword", "unindexed_filtering_retrieve")
	check(`{"unindexed_filtering_retrieve":false}`, func() error {
		_, err := db.Count(background, "c", filter(`{"must":{"is_empty":{"key":"a"}}}`))
		return err
	}, func() error {
		_, err := db.Count(background, "c", filter(`{"must":{"key":"a","match":{"value":"text"}}}`)) // an index of another type
		return err
	}, `"a"`)
	deletion := func(text string) func() error {
		return func() error { return write(vectord.Operation{Kind: vectord.OpDelete, Filter: filter(text)}) }
	}
	check(`{"unindexed_filtering_update":false}`, deletion(`{"must":{"key":"a","match":{"value":7}}}`), deletion(`{"must":{"key":"s","match":{"value":"y"}}}`), `"s"`, "unindexed_filtering_update")
	upserted := func(first, n int, payload string) func() error {
		return func() error { return write(points(first, n, payload)) }
	}
	check(`{"upsert_max_batchsize":3}`, upserted(0, 3, ``), upserted(0, 4, ``), "4 > 3", "upsert")
	check(`{"max_points_count":6}`, upserted(0, 6, ``), upserted(1, 6, ``), "7 > 6", "max_points_count")
	batch := func(n int) func() error {
		return func() error {
			queries := make([]vectord.Query, n)
			for i := range queries {
				queries[i] = vectord.Query{Nearest: vectord.Near([]float32{1, 1}), Limit: 1}
			}
			_, err := db.SearchBatch(background, "c", queries)
			return err
		}
	}
	check(`{"search_max_batchsize":2}`, batch(2), batch(3), "3 > 2", "search_max_batchsize")
	within := func(seconds int) func() error {
		return func() error {
			_, err := db.Scroll(vectord.WithRequestedTimeout(background, seconds), "c", vectord.ScrollRequest{Limit: 1})
			return err
		}
	}
	check(`{"max_timeout":9}`, within(9), within(10), "10 > 9", "timeout")
	created := func(fields ...string) func() error {
		return func() (err error) {
			for _, field := range fields {
				_, one := db.CreateFieldIndex(background, "c", field, vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
				err = errors.Join(err, one)
			}
			return err
		}
	}
	check(`{"max_payload_index_count":3}`, created("s", "s"), func() error {
		err := created("q")()
		if err == nil { // and so that the next may be refused
			_, err = db.DeleteFieldIndex(background, "c", "q")
		}
		return err
	}, "4 > 3", "max_payload_index_count")
	vectors := func(name string, v vectord.Vector) func() error {
		return func() error {
			return write(vectord.Operation{Kind: vectord.OpUpdateVectors, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Vectors{{Name: name, Vector: v.Clone()}}}}})
		}
	}
	multi := func(rows int) vectord.Vector {
		return vectord.Vector{Kind: vectord.MultiVector, Rows: rows, Values: make([]float32, 2*rows)}
	}
	check(`{"multivector_config":{"multi":{"max_vectors":2}}}`, vectors("multi", multi(2)), vectors("multi", multi(3)), "3 > 2", "max_vectors")
	check(`{"sparse_config":{"sparse":{"max_length":2}}}`, vectors("sparse", vectord.Sparse([]uint32{1, 2}, []float32{1, 1})),
		vectors("sparse", vectord.Sparse([]uint32{1, 2, 3}, []float32{1, 1, 1})), "3 > 2", "max_length")
	// Five points have 40 bytes of vectors and 75 of payloads.
	check(`{"max_collection_vector_size_bytes":41}`, upserted(5, 1, ``), upserted(6, 1, ``), "41", "48", "max_collection_vector_size_bytes")
	check(`{"max_collection_payload_size_bytes":76}`, upserted(5, 1, `{"a":1}`), upserted(6, 1, ``), "76", "82", "max_collection_payload_size_bytes")
	check(`{"write_rate_limit":2}`, upserted(1, 1, ``), func() error {
		_, err := db.Write(background, "c", []vectord.Operation{points(0, 1, ``), points(1, 1, ``), points(2, 1, ``)}, vectord.WriteOptions{})
		return err
	}, "3 operations", "write_rate_limit", "2")

	// What is too often, and not too much, may come again later.
	for _, limit := range []string{"read", "write"} {
		if err := db.UpdateCollection(background, "c", vectord.CollectionUpdate{StrictMode: fmt.Appendf(nil, `{"enabled":true,"%s_rate_limit":3}`, limit)}); err != nil {
			t.Fatal(err)
		}
		var err error
		for i := 0; i < 4 && err == nil; i++ {
			if limit == "read" {
				_, err = db.Retrieve(background, "c", nil, vectord.Selection{})
			} else {
				err = upserted(1, 1, ``)()
			}
		}
		var e *vectord.Error
		if !errors.As(err, &e) || e.Kind != vectord.KindOverloaded || e.RetryAfter <= 0 || !strings.Contains(e.Text, limit+"_rate_limit is 3") {
			t.Errorf("the fourth %s within a minute: %v", limit, err)
		}
	}

	for _, wrong := range []string{`{"max_query_limit":0}`, `{"max_timeout":0}`, `{"read_rate_limit":0}`, `{"write_rate_limit":-1}`, `{"max_points_count":0}`, `{"filter_max_conditions":-1}`,
		`{"search_max_oversampling":-1}`, `{"multivector_config":{"multi":{"max_vectors":0}}}`, `{"sparse_config":{"sparse":{"max_length":0}}}`} {
		if err := db.UpdateCollection(background, "c", vectord.CollectionUpdate{StrictMode: json.RawMessage(wrong)}); vectord.KindOf(err) != vectord.KindUnprocessable {
			t.Errorf("%s: %v, want KindUnprocessable", wrong, err)
		}
	}
}
