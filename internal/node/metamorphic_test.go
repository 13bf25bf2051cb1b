package node

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage/storagetest"
)

// TestEqualSets gives random points and filters to collections that differ in everything but their points: payload indexes or
// none, one shard or three, points written together or one by one. Filters that select the same points by their meaning,
// however they are spelled, must give equal exact answers, and the same before and after restarts, compactions and changes
// of the graph and its codes.
func TestEqualSets(t *testing.T) {
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 31))
	w := &equalSets{t: t, rng: rng, disk: storagetest.NewCrashFS(nil)}
	w.node = open(t, w.disk)
	defer func() {
		if err := w.node.Close(); err != nil {
			t.Error(err)
		}
	}()
	const points, filters = 400, 60
	w.create("plain", 1)
	w.create("parted", 3)
	w.create("indexed", 1)
	w.index("indexed", rng.IntN(2) == 0) // before the points, or after them
	w.fill(points)
	w.index("indexed", true)
	query := w.vector()

	var groups [][]string // filters of one meaning
	for range filters {
		groups = append(groups, w.spellings())
	}
	before := w.answers(query, groups)
	for what, change := range map[string]func(){
		"a restart":    w.restart,
		"a compaction": w.compact,
		"other codes":  func() { w.update(`{"binary":{}}`, 16) },
		"no codes":     func() { w.update(vectord.QuantizationDisabled, 16) },
		"no graph":     func() { w.update(`null`, 0) },
	} {
		change()
		for i, after := range w.answers(query, groups) {
			if after != before[i] {
				t.Fatalf("after %s: %s\nanswers %s\nbefore  %s", what, groups[i][0], after, before[i])
			}
		}
	}
	w.restart()
	w.compact()
	for i, after := range w.answers(query, groups) {
		if after != before[i] {
			t.Fatalf("at the end: %s\nanswers %s\nbefore  %s", groups[i][0], after, before[i])
		}
	}
}

// equalSets is the state of a run of TestEqualSets.
type equalSets struct {
	t    *testing.T
	rng  *rand.Rand
	disk *storagetest.CrashFS
	node *Node
}

var equalCollections = []string{"plain", "parted", "indexed"}

func (w *equalSets) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *equalSets) create(name string, shards int) {
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Params.ShardNumber = shards
	config.Optimizer.IndexingThreshold = 1
	w.must(w.node.Engine().CreateCollection(background, name, config))
}

func (w *equalSets) index(name string, really bool) {
	if !really {
		return
	}
	for field, kind := range map[string]vectord.FieldType{"n": vectord.FieldInteger, "f": vectord.FieldFloat, "s": vectord.FieldKeyword, "b": vectord.FieldBool,
		"at": vectord.FieldDatetime, "place": vectord.FieldGeo, "items[].v": vectord.FieldInteger} {
		_, err := w.node.Engine().CreateFieldIndex(background, name, field, vectord.FieldSchema{Type: kind}, true)
		w.must(err)
	}
}

// vector draws vectors of which no two are equally far from anything: which of equal hits the limit cuts off is left open.
func (w *equalSets) vector() []float32 {
	v := make([]float32, nodeDim)
	for i := range v {
		v[i] = float32(w.rng.NormFloat64())
	}
	return v
}

func (w *equalSets) payload() []byte {
	p := map[string]any{}
	draw := func(key string, value func() any) {
		switch w.rng.IntN(8) {
		case 0: // missing
		case 1:
			p[key] = nil
		case 2:
			p[key] = []any{}
		case 3:
			p[key] = []any{value(), value()}
		default:
			p[key] = value()
		}
	}
	draw("n", func() any { return w.rng.IntN(21) - 10 })
	draw("f", func() any { return float64(w.rng.IntN(41)-20) / 4 })
	draw("s", func() any { return w.word() })
	draw("b", func() any { return w.rng.IntN(2) == 0 })
	draw("at", func() any { return fmt.Sprintf("2026-08-%02dT10:00:00Z", 1+w.rng.IntN(28)) })
	draw("place", func() any {
		return map[string]any{"lon": float64(w.rng.IntN(40) - 20), "lat": float64(w.rng.IntN(40) - 20)}
	})
	draw("items", func() any { return map[string]any{"v": w.rng.IntN(5), "w": w.word()} })
	text, err := json.Marshal(p)
	w.must(err)
	return text
}

func (w *equalSets) word() string {
	return []string{"red", "green", "blue", "", "Red", "redder"}[w.rng.IntN(6)]
}

// fill writes points to all collections, to one of them one by one, changes some and deletes others.
func (w *equalSets) fill(points int) {
	var ops []vectord.Operation
	add := func(id uint64) {
		ops = append(ops, vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(id), Vectors: vectord.Unnamed(w.vector()), Payload: w.payload()}}})
	}
	for id := range uint64(points) {
		add(id)
	}
	for range points / 3 {
		id := w.rng.Uint64N(uint64(points))
		switch w.rng.IntN(4) {
		case 0:
			ops = append(ops, vectord.Operation{Kind: vectord.OpDelete, IDs: []vectord.PointID{vectord.NumberID(id)}})
		case 1:
			add(id)
		default:
			add(id) // so that it is there
			ops = append(ops, vectord.Operation{Kind: vectord.OpSetPayload, IDs: []vectord.PointID{vectord.NumberID(id)}, Payload: w.payload()})
		}
	}
	db := w.node.Engine()
	for _, name := range equalCollections {
		if name != "plain" {
			_, err := db.Write(background, name, clones(ops), vectord.WriteOptions{})
			w.must(err)
			continue
		}
		for _, op := range clones(ops) {
			_, err := db.Write(background, name, []vectord.Operation{op}, vectord.WriteOptions{})
			w.must(err)
		}
	}
}

func clones(ops []vectord.Operation) []vectord.Operation {
	all := make([]vectord.Operation, len(ops))
	for i, op := range ops {
		op.Points = append([]vectord.Point(nil), op.Points...)
		for j := range op.Points {
			op.Points[j].Vectors = vectord.Unnamed(append([]float32(nil), op.Points[j].Vectors.Unnamed()...))
		}
		all[i] = op
	}
	return all
}

// condition draws a condition and other spellings of it.
func (w *equalSets) condition() []string {
	lists := func(from, to int) string {
		var all []string
		for n := from; n <= to; n++ {
			all = append(all, fmt.Sprint(n))
		}
		return strings.Join(all, ",")
	}
	switch w.rng.IntN(9) {
	case 0, 1: // a range and the set of what is in it
		from := w.rng.IntN(21) - 10
		to := from + w.rng.IntN(8)
		var each []string
		for n := from; n <= to; n++ {
			each = append(each, fmt.Sprintf(`{"key":"n","match":{"value":%d}}`, n))
		}
		return []string{fmt.Sprintf(`{"key":"n","range":{"gte":%d,"lte":%d}}`, from, to), fmt.Sprintf(`{"key":"n","range":{"gt":%d,"lt":%d}}`, from-1, to+1),
			fmt.Sprintf(`{"key":"n","match":{"any":[%s]}}`, lists(from, to)), `{"should":[` + strings.Join(each, ",") + `]}`}
	case 2:
		a, b := w.word(), w.word()
		return []string{fmt.Sprintf(`{"key":"s","match":{"any":[%q,%q]}}`, a, b),
			fmt.Sprintf(`{"should":[{"key":"s","match":{"value":%q}},{"key":"s","match":{"value":%q}}]}`, a, b),
			fmt.Sprintf(`{"min_should":{"min_count":1,"conditions":[{"key":"s","match":{"value":%q}},{"key":"s","match":{"value":%q}}]}}`, b, a)}
	case 3:
		return []string{`{"is_empty":{"key":"s"}}`, `{"key":"s","is_empty":true}`, `{"must_not":[{"key":"s","is_empty":false}]}`}
	case 4:
		day := 1 + w.rng.IntN(20)
		return []string{fmt.Sprintf(`{"key":"at","range":{"gte":"2026-08-%02d","lt":"2026-08-%02d"}}`, day, day+5),
			fmt.Sprintf(`{"key":"at","range":{"gt":"2026-08-%02dT09:59:59Z","lte":"2026-08-%02dT12:00:00+02:00"}}`, day, day+4)}
	case 5:
		half := float64(w.rng.IntN(20)-10) / 2
		return []string{fmt.Sprintf(`{"key":"f","range":{"gt":%v}}`, half), fmt.Sprintf(`{"key":"f","range":{"gte":%v}}`, half+0.25)}
	case 6:
		return []string{`{"key":"place","geo_bounding_box":{"top_left":{"lon":-10.5,"lat":10.5},"bottom_right":{"lon":10.5,"lat":-10.5}}}`,
			`{"key":"place","geo_polygon":{"exterior":{"points":[{"lon":-10.5,"lat":-10.5},{"lon":10.5,"lat":-10.5},{"lon":10.5,"lat":10.5},{"lon":-10.5,"lat":10.5},{"lon":-10.5,"lat":-10.5}]}}}`}
	case 7:
		v := w.rng.IntN(5)
		return []string{fmt.Sprintf(`{"key":"items[].v","match":{"value":%d}}`, v), fmt.Sprintf(`{"nested":{"key":"items","filter":{"must":[{"key":"v","match":{"value":%d}}]}}}`, v)}
	default:
		b := w.rng.IntN(2) == 0
		return []string{fmt.Sprintf(`{"key":"b","match":{"value":%v}}`, b)}
	}
}

// spellings draws a filter and other spellings of it.
func (w *equalSets) spellings() []string {
	not := func(c string) string { return `{"must_not":[` + c + `]}` }
	a, b := w.condition(), w.condition()
	other := func(list []string) string { return list[w.rng.IntN(len(list))] }
	var all []string
	switch w.rng.IntN(4) {
	case 0:
		for _, c := range a {
			all = append(all, `{"must":[`+c+`]}`, not(not(c)), `{"should":[`+c+`]}`)
		}
	case 1:
		all = append(all, `{"must":[`+a[0]+`,`+b[0]+`]}`, `{"must":[`+other(b)+`,`+other(a)+`]}`, not(`{"should":[`+not(other(a))+`,`+not(other(b))+`]}`),
			`{"min_should":{"min_count":2,"conditions":[`+other(a)+`,`+other(b)+`]}}`, `{"must":[`+other(a)+`],"should":[`+other(b)+`]}`)
	case 2:
		all = append(all, `{"should":[`+a[0]+`,`+b[0]+`]}`, `{"should":[`+other(b)+`,`+other(a)+`]}`, not(`{"must":[`+not(other(a))+`,`+not(other(b))+`]}`),
			`{"must_not":[{"must_not":[`+other(a)+`,`+other(b)+`],"must":[`+not(other(a))+`]}]}`)
	default:
		all = append(all, `{"must":[`+a[0]+`],"must_not":[`+b[0]+`]}`, `{"must":[`+other(a)+`,`+not(other(b))+`]}`, not(`{"should":[`+other(b)+`,`+not(other(a))+`]}`))
	}
	return all
}

// answers returns an exact answer to each group, after it has seen that all spellings and collections, and a batch of them, give
// the same.
func (w *equalSets) answers(query []float32, groups [][]string) []string {
	w.t.Helper()
	db := w.node.Engine()
	answers := make([]string, len(groups))
	for i, group := range groups {
		for _, name := range equalCollections {
			var batch []vectord.Query
			var single []string
			for _, text := range group {
				f, err := vectord.ParseFilter([]byte(text))
				if err != nil {
					w.t.Fatalf("%s: %v", text, err)
				}
				q := vectord.Query{Nearest: vectord.Near(query), Filter: f, Limit: 25, Params: vectord.SearchParams{Exact: true}}
				batch = append(batch, q)
				hits, err := db.Search(background, name, q)
				w.must(err)
				count, err := db.Count(background, name, f)
				w.must(err)
				page, err := db.Scroll(background, name, vectord.ScrollRequest{Filter: f, Limit: vectord.MaxLimit})
				w.must(err)
				var b strings.Builder
				for _, r := range page.Points {
					fmt.Fprintf(&b, " %s", r.ID)
				}
				got := fmt.Sprintf("%d points%s, hits%s", count, b.String(), hitsText(hits))
				if count != len(page.Points) || len(hits) != min(count, 25) {
					w.t.Fatalf("%s in %s: %d points are counted, %d listed, %d found", text, name, count, len(page.Points), len(hits))
				}
				if answers[i] == "" {
					answers[i] = got
				}
				if got != answers[i] {
					w.t.Fatalf("%s in %s: %s\n%s: %s", text, name, got, group[0], answers[i])
				}
				single = append(single, hitsText(hits))
			}
			together, err := db.SearchBatch(background, name, batch)
			w.must(err)
			for j, hits := range together {
				if got := hitsText(hits); got != single[j] {
					w.t.Fatalf("%s in %s: in a batch%s, alone%s", group[j], name, got, single[j])
				}
			}
		}
	}
	return answers
}

func hitsText(hits []vectord.Hit) string {
	var b strings.Builder
	for _, h := range hits {
		fmt.Fprintf(&b, " %s:%v", h.ID, h.Score)
	}
	return b.String()
}

func (w *equalSets) restart() {
	w.must(w.node.Close())
	w.node = open(w.t, w.disk)
}

func (w *equalSets) compact() { w.must(w.node.store.Compact(background)) }

// update changes the codes and links of all graphs and waits until that is done.
func (w *equalSets) update(quantization string, m int) {
	db := w.node.Engine()
	for _, name := range equalCollections {
		w.must(db.UpdateCollection(background, name, vectord.CollectionUpdate{Quantization: json.RawMessage(quantization), HNSW: fmt.Appendf(nil, `{"m":%d}`, m)}))
	}
	for _, name := range equalCollections {
		for {
			info, err := db.CollectionInfo(name)
			w.must(err)
			if info.Status == vectord.StatusGreen {
				break
			}
			yield()
		}
	}
}
