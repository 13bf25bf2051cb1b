package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

// standIn is a server that keeps one collection's points in a map and answers what the measurements ask. It searches by
// Euclid, exactly, except that it leaves the nearest point out unless asked for an exact search.
type standIn struct {
	mu      sync.Mutex // guards what follows
	dim     int        // 0: there is no collection
	points  map[vectord.PointID][]float32
	upserts int
	deletes int
	refuse  func(upsert int) int // status to refuse the n-th upsert with, 0 to take it; may be nil
	block   func()               // called before each search without the lock; may be nil
}

func newStandIn(t *testing.T) (*standIn, *httptest.Server) {
	s := &standIn{points: make(map[vectord.PointID][]float32)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if s.block != nil && strings.HasSuffix(r.URL.Path, "/query") {
		s.block()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	refuse := func(status int, text string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":{"error":%q}}`, text)
	}
	switch path := strings.TrimPrefix(r.URL.Path, "/collections/c"); {
	case r.Method == "PUT" && path == "":
		var create struct{ Vectors vectord.VectorParams }
		json.Unmarshal(body, &create)
		s.dim = create.Vectors.Size
		io.WriteString(w, `{"result":true}`)
	case s.dim == 0:
		refuse(404, "Not found: Collection `c` doesn't exist!")
	case r.Method == "GET":
		fmt.Fprintf(w, `{"result":{"points_count":%d,"config":{"params":{"vectors":{"size":%d,"distance":"Euclid"}}}}}`, len(s.points), s.dim)
	case path == "/points":
		s.upserts++
		if s.refuse != nil {
			if status := s.refuse(s.upserts); status != 0 {
				refuse(status, "refused")
				return
			}
		}
		var upsert struct {
			Points []struct {
				ID     vectord.PointID
				Vector []float32
			}
		}
		if err := json.Unmarshal(body, &upsert); err != nil {
			refuse(400, err.Error())
			return
		}
		for _, p := range upsert.Points {
			s.points[p.ID] = p.Vector
		}
		io.WriteString(w, `{"result":{"operation_id":1}}`)
	case path == "/points/delete":
		var remove struct{ Points []vectord.PointID }
		json.Unmarshal(body, &remove)
		for _, id := range remove.Points {
			delete(s.points, id)
		}
		s.deletes++
		io.WriteString(w, `{"result":{"operation_id":1}}`)
	case path == "/points/query":
		var q struct {
			Query  []float32
			Limit  int
			Params struct{ Exact bool }
		}
		json.Unmarshal(body, &q)
		type hit struct {
			ID    vectord.PointID `json:"id"`
			Score float32         `json:"score"`
		}
		var hits []hit
		for id, v := range s.points {
			var sum float32
			for i := range v {
				sum += (v[i] - q.Query[i]) * (v[i] - q.Query[i])
			}
			hits = append(hits, hit{id, sum})
		}
		slices.SortFunc(hits, func(a, b hit) int {
			if a.Score != b.Score {
				return int(a.Score*1000) - int(b.Score*1000)
			}
			return a.ID.Compare(b.ID)
		})
		if !q.Params.Exact {
			hits = hits[1:]
		}
		result, _ := json.Marshal(map[string]any{"result": map[string]any{"points": hits[:min(q.Limit, len(hits))]}})
		w.Write(result)
	default:
		refuse(404, "no such route "+r.Method+" "+r.URL.Path)
	}
}

func newClient(t *testing.T, url string) *client.Client {
	t.Helper()
	c, err := client.New(url, client.Options{Attempts: 2})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rows is a data set of n vectors, the i-th of which is (i, 1).
type rows struct{ next, n int }

func (r *rows) Next() (vectord.Point, error) {
	if r.next == r.n {
		return vectord.Point{}, io.EOF
	}
	i := r.next
	r.next++
	return vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed([]float32{float32(i), 1})}, nil
}

// vectorsOf returns the vectors of rows with the given numbers.
func vectorsOf(numbers ...float32) *dataset.Vectors {
	v := &dataset.Vectors{Dim: 2}
	for _, x := range numbers {
		v.Data = append(v.Data, x, 1)
	}
	return v
}
