package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/valyala/fastjson"
	"pgregory.net/rapid"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/field"
	"github.com/vectord/vectord/storage"
)

var fieldTypes = []vectord.FieldType{vectord.FieldKeyword, vectord.FieldInteger, vectord.FieldFloat, vectord.FieldBool,
	vectord.FieldDatetime, vectord.FieldUUID, vectord.FieldGeo, vectord.FieldText}

func mustField(t interface{ Fatal(...any) }, m fieldMeta) *fieldDef {
	d, err := newFieldDef(m)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestFieldBounds compares what payload indexes say of random filters with what the payloads say: who is sure matches, and
// who matches is sure or asked.
func TestFieldBounds(t *testing.T) {
	exact := 0
	rapid.Check(t, func(t *rapid.T) {
		c := &collection{shape: &shape{}}
		for _, name := range rapid.SliceOfNDistinct(pathsDrawn, 1, 8, func(s string) string { return strings.ReplaceAll(s, `"`, "") }).Draw(t, "fields") {
			m := fieldMeta{Number: uint16(len(c.fields)), Name: name, Ready: true}
			m.Schema.Type = rapid.SampledFrom(fieldTypes).Draw(t, "type")
			if m.Schema.Type == vectord.FieldText {
				m.Schema.Params = []byte(rapid.SampledFrom([]string{``, `{"tokenizer":"prefix"}`, `{"tokenizer":"whitespace","min_token_len":2}`}).Draw(t, "params"))
				if len(m.Schema.Params) == 0 {
					m.Schema.Params = nil
				}
			}
			c.fields = append(c.fields, mustField(t, m))
		}
		f := &fieldIndexes{}
		f.follow(c.fields)
		f.release()
		var payloads []string
		for slot := range uint32(rapid.IntRange(1, 12).Draw(t, "points")) {
			payload := randomObject(t, 3)
			payloads = append(payloads, payload)
			terms, err := termsOf(c.fields, &storage.PointRow{Slot: slot, Payload: []byte(payload)})
			if err != nil {
				t.Fatal(err)
			}
			f.live.Add(slot)
			for i, d := range c.fields {
				f.step(&fieldStep{number: d.Number, slot: slot, added: terms[i], present: hasValue(terms[i])})
			}
		}
		for range 4 {
			text := randomFilter(t, 2, false)
			if rapid.IntRange(0, 3).Draw(t, "tokens") == 0 {
				text = fmt.Sprintf(`{"must":{"key":%q,"match":%s}}`, strings.ReplaceAll(pathsDrawn.Draw(t, "path"), `"`, ""),
					rapid.SampledFrom([]string{`{"text":"y x"}`, `{"phrase":"x y"}`, `{"text":"x y z"}`, `{"any":["x y",true]}`, `{"except":["x","2026-08-04"]}`}).Draw(t, "match"))
			}
			filter, err := vectord.ParseFilter([]byte(text))
			if err != nil {
				t.Fatalf("filter %s: %v", text, err)
			}
			m, err := c.compileFilter(filter)
			if err != nil {
				t.Fatalf("filter %s: %v", text, err)
			}
			if m == nil {
				continue
			}
			sure, ask, ok := f.evaluate(m)
			if !ok {
				t.Fatalf("filter %s: no bounds", text)
			}
			if len(ask) == 0 {
				exact++
			}
			for slot, payload := range payloads {
				want, err := m.matches(pointView{id: vectord.NumberID(uint64(slot)), payload: []byte(payload), vectors: []uint16{0}})
				if err != nil {
					t.Fatal(err)
				}
				isSure, isAsked := sure.bits.Contains(uint32(slot)), slices.Contains(ask, uint32(slot))
				if isSure && !want || want && !isSure && !isAsked {
					var fields []string
					for _, d := range c.fields {
						fields = append(fields, fmt.Sprintf("%s %s %s", d.Name, d.Schema.Type, d.Schema.Params))
					}
					t.Fatalf("%s on %s is %v; by indexes on %q it is sure: %v, asked: %v", text, payload, want, fields, isSure, isAsked)
				}
			}
		}
	})
	if exact == 0 {
		t.Error("no filter was decided by indexes alone")
	}
}

// TestExactBounds: these filters are decided without a look at a payload.
func TestExactBounds(t *testing.T) {
	c := &collection{shape: &shape{}}
	for i, m := range []fieldMeta{{Name: "k", Schema: vectord.FieldSchema{Type: vectord.FieldKeyword}}, {Name: "n", Schema: vectord.FieldSchema{Type: vectord.FieldInteger}},
		{Name: "t", Schema: vectord.FieldSchema{Type: vectord.FieldText}}, {Name: "d", Schema: vectord.FieldSchema{Type: vectord.FieldDatetime}},
		{Name: "b", Schema: vectord.FieldSchema{Type: vectord.FieldBool}}, {Name: "u", Schema: vectord.FieldSchema{Type: vectord.FieldUUID}}} {
		m.Number, m.Ready = uint16(i), true
		c.fields = append(c.fields, mustField(t, m))
	}
	f := &fieldIndexes{}
	f.follow(c.fields)
	f.release()
	for slot := range uint32(1000) {
		payload := fmt.Appendf(nil, `{"k":"k%d","n":%d,"t":"all %d words","d":"2026-01-%02d","b":%v,"u":"00000000-0000-0000-0000-%012d"}`,
			slot%10, slot, slot, 1+slot%28, slot%2 == 0, slot)
		terms, err := termsOf(c.fields, &storage.PointRow{Slot: slot, Payload: payload})
		if err != nil {
			t.Fatal(err)
		}
		f.live.Add(slot)
		for i, d := range c.fields {
			f.step(&fieldStep{number: d.Number, slot: slot, added: terms[i], present: hasValue(terms[i])})
		}
	}
	check := func(text string, want int) {
		t.Helper()
		filter, err := vectord.ParseFilter([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		m, err := c.compileFilter(filter)
		if err != nil {
			t.Fatal(err)
		}
		sure, ask, ok := f.evaluate(m)
		if got := sure.bits.Count(); got != want || len(ask) > 0 || !ok {
			t.Errorf("%s: %d are sure and %d are asked, want %d sure", text, got, len(ask), want)
		}
	}
	check(`{"must":{"key":"k","match":{"value":"k3"}}}`, 100)
	check(`{"must":{"key":"\"k\"","match":{"any":["k3","k4","none"]}}}`, 200)
	check(`{"must":{"key":"k","match":{"except":["k3"]}}}`, 900)
	check(`{"must":{"key":"k","match":{"prefix":"k"}}}`, 1000)
	check(`{"must_not":{"key":"k","match":{"value":"k3"}}}`, 900)
	check(`{"must":{"key":"k","match":{"value":3}}}`, 0)
	check(`{"must":{"key":"n","range":{"gte":10,"lt":20.5}}}`, 11)
	check(`{"must":[{"key":"n","match":{"value":13}},{"key":"k","match":{"value":"k3"}}]}`, 1)
	check(`{"should":[{"key":"n","range":{"lt":10}},{"key":"k","match":{"value":"k3"}}]}`, 109)
	check(`{"min_should":{"min_count":2,"conditions":[{"key":"n","range":{"lt":100}},{"key":"k","match":{"value":"k3"}},{"key":"b","match":{"value":true}}]}}`, 60-10+10)
	check(`{"must":{"key":"t","match":{"text":"all 77"}}}`, 1)
	check(`{"must":{"key":"t","match":{"text_any":"77 78"}}}`, 2)
	check(`{"must":{"key":"t","match":{"phrase":"77"}}}`, 1)
	check(`{"must":{"key":"d","range":{"gt":"2026-01-27"}}}`, 35)
	check(`{"must":{"key":"u","match":{"value":"00000000-0000-0000-0000-000000000500"}}}`, 1)
	check(`{"must":{"key":"u","match":{"any":["00000000-0000-0000-0000-000000000500","no uuid"]}}}`, 1)
	check(`{"must":{"is_empty":{"key":"k"}}}`, 0)
	check(`{"must":{"is_null":{"key":"n"}}}`, 0)
	check(`{"must":{"key":"k","values_count":{"gte":1}}}`, 1000)
}

// TestPlaceBounds compares what an index on places says of areas with what the places say, also across the antimeridian
// and at the poles, where circles are odd boxes.
func TestPlaceBounds(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	c := &collection{shape: &shape{}, fields: []*fieldDef{mustField(t, fieldMeta{Name: "p", Schema: vectord.FieldSchema{Type: vectord.FieldGeo}, Ready: true})}}
	f := &fieldIndexes{}
	f.follow(c.fields)
	f.release()
	somewhere := func() vectord.GeoPoint {
		centers := []vectord.GeoPoint{{Lon: 0, Lat: 0}, {Lon: 180, Lat: 10}, {Lon: -179.9, Lat: -80}, {Lon: 13.4, Lat: 52.5}, {Lon: 30, Lat: 89.9}, {Lon: -70, Lat: -89.9}}
		p := centers[rng.IntN(len(centers))]
		scale := []float64{0.0001, 0.1, 10, 60}[rng.IntN(4)]
		p.Lon, p.Lat = p.Lon+rng.NormFloat64()*scale, p.Lat+rng.NormFloat64()*scale
		if p.Lon > 180 {
			p.Lon -= 360
		}
		if p.Lon < -180 {
			p.Lon += 360
		}
		return vectord.GeoPoint{Lon: min(max(p.Lon, -180), 180), Lat: min(max(p.Lat, -90), 90)}
	}
	places := make([]vectord.GeoPoint, 3000)
	for slot := range places {
		p := somewhere()
		places[slot] = p
		f.live.Add(uint32(slot))
		f.step(&fieldStep{slot: uint32(slot), added: []string{field.Place(p.Lon, p.Lat)}, present: true})
	}
	found := 0
	for range 500 {
		var holds func(vectord.GeoPoint) bool
		condition := &vectord.FieldCondition{Key: "p"}
		switch a, b := somewhere(), somewhere(); rng.IntN(3) {
		case 0:
			condition.GeoBox = &vectord.GeoBox{TopLeft: vectord.GeoPoint{Lon: a.Lon, Lat: max(a.Lat, b.Lat)}, BottomRight: vectord.GeoPoint{Lon: b.Lon, Lat: min(a.Lat, b.Lat)}}
			holds = inBox(*condition.GeoBox)
		case 1:
			condition.GeoRadius = &vectord.GeoRadius{Center: a, Radius: []float64{10, 1e4, 1e6, 1e7, 2.1e7}[rng.IntN(5)] * rng.Float64()}
			holds = inRadius(*condition.GeoRadius)
		default:
			condition.GeoPolygon = &vectord.GeoPolygon{Exterior: vectord.GeoRing{a, b, somewhere(), somewhere(), a}}
			holds = inPolygon(*condition.GeoPolygon)
		}
		e := evaluation{live: &f.live, none: roaring.New()}
		got := e.field(f.indexes[0], condition)
		for slot, p := range places {
			want := holds(p)
			if want {
				found++
			}
			if sure, maybe := got.sure.Contains(uint32(slot)), got.maybe.Contains(uint32(slot)); sure && !want || want && !maybe {
				t.Fatalf("seed %d: place %v in %+v %+v %+v: %v, by the index sure %v, maybe %v", seed, p, condition.GeoBox, condition.GeoRadius,
					condition.GeoPolygon, want, sure, maybe)
			}
		}
	}
	if found == 0 {
		t.Errorf("seed %d: no place was in an area", seed)
	}
}

// fieldLog applies proposals one after the other, whoever makes them.
type fieldLog struct {
	mu     sync.Mutex // guards what is below
	r      *replica
	last   uint64
	closed bool
}

func (l *fieldLog) Propose(_ context.Context, group uint32, command []byte) (vectord.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return vectord.Result{}, vectord.Errorf(vectord.KindClosed, "closed")
	}
	l.last++
	return l.r.apply(vectord.Entry{Group: group, Index: l.last, Time: int64(l.last), Command: command})[0], nil
}

// fieldBench is an engine that a test restarts.
type fieldBench struct {
	*replica
	log *fieldLog
}

func newFieldBench(t testing.TB, shards int) *fieldBench {
	b := &fieldBench{replica: newReplica(t)}
	b.start()
	config := vectord.DefaultCollectionConfig(2, vectord.Euclid)
	config.Params.ShardNumber = shards
	if err := b.db.CreateCollection(context.Background(), "c", config); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *fieldBench) start() {
	b.t.Helper()
	last, _, err := b.db.LastApplied()
	if err != nil {
		b.t.Fatal(err)
	}
	b.log = &fieldLog{r: b.replica, last: last}
	b.db.Start(b.log)
}

func (b *fieldBench) stop() {
	b.log.mu.Lock()
	b.log.closed = true
	b.log.mu.Unlock()
	b.replica.close()
}

func (b *fieldBench) restart() {
	b.stop()
	b.open()
	b.start()
}

// cut goes on with what was synced and a share of what was not.
func (b *fieldBench) cut(percent int, seed uint64) {
	disk := b.disk.Crash(percent, seed)
	b.stop()
	b.disk = disk
	b.open()
	b.start()
}

func (b *fieldBench) write(ops ...vectord.Operation) {
	if _, err := b.db.Write(context.Background(), "c", ops, vectord.WriteOptions{}); err != nil {
		b.t.Error(err)
	}
}

func (b *fieldBench) index(name string, schema vectord.FieldSchema, wait bool) {
	b.t.Helper()
	r, err := b.db.CreateFieldIndex(context.Background(), "c", name, schema, wait)
	if err != nil || wait && r.Pending {
		b.t.Fatalf("index on %s: pending %v: %v", name, r.Pending, err)
	}
}

func (b *fieldBench) collection() *collection {
	b.t.Helper()
	c, err := b.db.catalog.resolve("c")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// check compares the postings of the ready indexes, in storage and in memory, with the payloads, and storage with itself.
func (b *fieldBench) check(what string) {
	b.t.Helper()
	b.log.mu.Lock() // nothing changes meanwhile
	defer b.log.mu.Unlock()
	c := b.collection()
	for _, s := range c.shards {
		var used []uint32
		if err := b.store.ScanSlots(s.id, func(slot uint32, _ storage.SlotRow) error {
			used = append(used, slot)
			return nil
		}); err != nil {
			b.t.Fatal(err)
		}
		s.fields.mu.RLock()
		live := s.fields.live.ToArray()
		s.fields.mu.RUnlock()
		if !slices.Equal(live, used) {
			b.t.Fatalf("%s: live slots %v, in use are %v", what, live, used)
		}
		for _, d := range c.fields {
			if !d.Ready {
				continue
			}
			want := map[string][]uint32{}
			present := 0
			err := b.store.ScanSlots(s.id, func(slot uint32, row storage.SlotRow) error {
				point, ok, err := b.store.Point(s.id, row.ID)
				if err != nil || !ok || point.Slot != slot {
					return errors.Join(err, fmt.Errorf("slot %d", slot))
				}
				terms, err := termsOf([]*fieldDef{d}, &point)
				for _, term := range terms[0] {
					want[term] = append(want[term], slot)
				}
				if hasValue(terms[0]) {
					present++
				}
				return err
			})
			if err != nil {
				b.t.Fatal(err)
			}
			rows := map[string][]uint32{}
			err = b.store.ScanPostings(s.id, d.Number, func(term []byte, slot uint32) error {
				rows[string(term)] = append(rows[string(term)], slot)
				return nil
			})
			if err != nil {
				b.t.Fatal(err)
			}
			memory := map[string][]uint32{}
			s.fields.mu.RLock()
			x := s.fields.byNumber(d.Number)
			x.postings.Ascend("", "", func(term string, slots field.Slots) bool {
				memory[term] = slots.AppendTo(nil)
				return true
			})
			if n := int(x.present.GetCardinality()); n != present {
				b.t.Errorf("%s: index on %s: %d points have a value, want %d", what, d.Name, n, present)
			}
			s.fields.mu.RUnlock()
			if fmt.Sprint(rows) != fmt.Sprint(want) || fmt.Sprint(memory) != fmt.Sprint(want) {
				b.t.Fatalf("%s: index on %s of shard %d:\nrows   %v\nmemory %v\nwant   %v", what, d.Name, s.id, rows, memory, want)
			}
		}
	}
	if report, err := b.store.Verify(context.Background(), nil); err != nil || report.ProblemCount > 0 {
		b.t.Fatalf("%s: %v %q", what, err, report.Problems)
	}
}

var fieldPayloads = []string{``, `{}`, `{"k":"red","n":1,"tags":["a","b"]}`, `{"k":"blue","n":2.5,"tags":["b"]}`, `{"k":["red","green"],"n":null,"tags":[]}`,
	`{"n":[1,2,3],"k":null,"tags":"c d"}`, `{"k":"red","n":9007199254740993,"tags":[null]}`}

func randomPayload(rng *rand.Rand) []byte { return []byte(fieldPayloads[rng.IntN(len(fieldPayloads))]) }

func (b *fieldBench) randomWrite(rng *rand.Rand, ids int) {
	op := vectord.Operation{Kind: vectord.OperationKind(1 + rng.IntN(7))}
	for _, n := range rng.Perm(ids)[:1+rng.IntN(8)] {
		id := vectord.NumberID(uint64(n))
		switch op.Kind {
		case vectord.OpUpsert:
			op.Points = append(op.Points, vectord.Point{ID: id, Vectors: vectord.Unnamed([]float32{rng.Float32(), 1}), Payload: randomPayload(rng)})
		case vectord.OpUpdateVectors:
			if _, ok, _ := b.store.Point(b.collection().shardOf(id).id, id); ok {
				op.Points = append(op.Points, vectord.Point{ID: id, Vectors: vectord.Unnamed([]float32{rng.Float32(), 1})})
			}
		default:
			if _, ok, _ := b.store.Point(b.collection().shardOf(id).id, id); ok {
				op.IDs = append(op.IDs, id)
			}
		}
	}
	if len(op.IDs)+len(op.Points) == 0 {
		return
	}
	switch op.Kind {
	case vectord.OpSetPayload:
		op.Payload = []byte(`{"k":"set","n":7}`)
	case vectord.OpOverwritePayload:
		if op.Payload = randomPayload(rng); len(op.Payload) == 0 {
			op.Payload = []byte(`{}`)
		}
	case vectord.OpDeletePayload:
		op.Keys = []string{"k", "tags[]"}
	}
	b.write(op)
}

// TestFieldIndexesFollow gives random histories of writes, indexes made and dropped, restarts and power cuts to an engine,
// and compares its postings with its payloads.
func TestFieldIndexesFollow(t *testing.T) {
	for range 4 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 1))
		b := newFieldBench(t, 1+rng.IntN(2))
		name := func() string { return []string{"k", "n", "tags", "tags[]"}[rng.IntN(4)] }
		for step := range 150 {
			what := fmt.Sprintf("seed %d, step %d", seed, step)
			switch n := rng.IntN(30); {
			case n < 3:
				schema := vectord.FieldSchema{Type: fieldTypes[rng.IntN(len(fieldTypes))]}
				b.index(name(), schema, rng.IntN(4) > 0)
			case n == 3:
				if _, err := b.db.DeleteFieldIndex(context.Background(), "c", name()); err != nil {
					t.Fatal(err)
				}
			case n == 4:
				b.restart()
			case n == 5:
				b.cut(rng.IntN(3)*50, rng.Uint64())
			default:
				b.randomWrite(rng, 60)
			}
			if step%10 == 9 {
				b.check(what)
			}
			if t.Failed() {
				t.Fatal(what)
			}
		}
		// What was being built is built.
		for _, d := range b.collection().fields {
			b.index(d.Name, d.Schema, true)
		}
		b.check(fmt.Sprintf("seed %d, at the end", seed))
		b.stop()
	}
}

// TestFieldIndexBuiltUnderWrites builds an index over points, several commands of them, while writers and readers are at work.
func TestFieldIndexBuiltUnderWrites(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	b := newFieldBench(t, 1)
	defer b.stop()
	const points = fillPointsMax*2 + 100
	for first := 0; first < points; first += 500 {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for id := first; id < min(first+500, points); id++ {
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(id)), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: randomPayload(rng)})
		}
		b.write(op)
	}
	filter, err := vectord.ParseFilter([]byte(`{"must":[{"key":"k","match":{"value":"red"}},{"key":"n","range":{"gt":0}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	stop := make(chan struct{})
	for worker := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 2+worker))
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				op := vectord.Operation{Kind: vectord.OpUpsert}
				for range 5 {
					id := uint64(rng.IntN(points/2))*2 + worker // each its own ids
					op.Points = append(op.Points[:0], vectord.Point{ID: vectord.NumberID(id), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: randomPayload(rng)})
				}
				b.write(op)
			}
		})
	}
	work.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := b.db.Count(context.Background(), "c", filter); err != nil {
				t.Error(err)
			}
			if _, err := b.db.Search(context.Background(), "c", vectord.Query{Nearest: vectord.Near([]float32{1, 2}), Limit: 5, Filter: filter}); err != nil {
				t.Error(err)
			}
		}
	})
	b.index("k", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	b.index("n", vectord.FieldSchema{Type: vectord.FieldFloat}, true)
	for range 30 {
		b.randomWrite(rng, points)
	}
	close(stop)
	work.Wait()
	b.check(fmt.Sprintf("seed %d", seed))
	b.restart()
	b.check(fmt.Sprintf("seed %d, after a restart", seed))
}

// TestIndexedSearchMeetsNoHalf moves points that all match to other slots while searches and counts that an index decides
// must find each of them.
func TestIndexedSearchMeetsNoHalf(t *testing.T) {
	b := newFieldBench(t, 1)
	defer b.stop()
	const points = 40
	upsert := func(rng *rand.Rand, ids ...int) {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for _, id := range ids {
			p := vectord.Point{ID: vectord.NumberID(uint64(id)), Vectors: vectord.Unnamed([]float32{rng.Float32(), 1}), Payload: []byte(`{"k":"red"}`)}
			if id >= points {
				p.Payload = []byte(`{"k":"blue"}`) // others, so that a scan of all is dearer
			}
			op.Points = append(op.Points, p)
		}
		b.write(op)
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	upsert(rng, rng.Perm((2+readCost)*points)...)
	b.index("k", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	var work sync.WaitGroup
	stop := make(chan struct{})
	work.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 2))
		for {
			select {
			case <-stop:
				return
			default:
				upsert(rng, rng.Perm(points)[:5]...)
			}
		}
	})
	ctx := context.Background()
	for i := range 300 {
		// Filters that differ are evaluated, not remembered.
		filter, err := vectord.ParseFilter(fmt.Appendf(nil, `{"must":{"key":"k","match":{"any":["red","%d"]}}}`, i%100))
		if err != nil {
			t.Fatal(err)
		}
		hits, err := b.db.Search(ctx, "c", vectord.Query{Nearest: vectord.Near([]float32{1, 2}), Limit: points + i%5, Filter: filter})
		if err != nil || len(hits) != points {
			t.Errorf("seed %d: search %d found %d of %d points: %v", seed, i, len(hits), points, err)
			break
		}
		page, err := b.db.Scroll(ctx, "c", vectord.ScrollRequest{Limit: points, Filter: filter})
		if err != nil || len(page.Points) != points || page.Next != nil {
			t.Errorf("seed %d: scroll %d found %d of %d points: %v", seed, i, len(page.Points), points, err)
			break
		}
	}
	close(stop)
	work.Wait()
}

// TestFieldIndexCommands: creating an index again changes nothing, with another schema replaces it; what contradicts itself
// is refused.
func TestFieldIndexCommands(t *testing.T) {
	b := newFieldBench(t, 2)
	defer b.stop()
	keyword, integer := vectord.FieldSchema{Type: vectord.FieldKeyword}, vectord.FieldSchema{Type: vectord.FieldInteger}
	numbers := func() (numbers []uint16) {
		for _, d := range b.collection().fields {
			numbers = append(numbers, d.Number)
		}
		return numbers
	}
	expect := func(want ...uint16) {
		t.Helper()
		if got := numbers(); !slices.Equal(got, want) {
			t.Errorf("indexes %v, want %v", got, want)
		}
	}
	b.write(vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: []byte(`{"k":"x","n":1}`)}}})
	b.index("k", keyword, true)
	b.index("k", keyword, true)
	expect(0)
	b.index("n", integer, true)
	b.index("k", integer, true)
	expect(1, 2)
	b.restart()
	expect(1, 2)
	b.index("k", integer, true)
	expect(1, 2)
	ctx := context.Background()
	if _, err := b.db.DeleteFieldIndex(ctx, "c", "n"); err != nil {
		t.Error(err)
	}
	expect(2)
	b.index("n", keyword, true)
	expect(2, 3)
	b.check("at the end")
	refused := func(collection, name string, s vectord.FieldSchema, kind vectord.Kind) {
		t.Helper()
		if _, err := b.db.CreateFieldIndex(ctx, collection, name, s, true); vectord.KindOf(err) != kind {
			t.Errorf("index on %q of type %s: %v, want kind %s", name, s.Type, err, kind)
		}
	}
	refused("none", "k", keyword, vectord.KindNotFound)
	refused("c", "", keyword, vectord.KindUnprocessable)
	refused("c", "a[", keyword, vectord.KindInvalid)
	refused("c", `"k"`, keyword, vectord.KindInvalid)
	refused("c", "x", vectord.FieldSchema{Type: "color"}, vectord.KindInvalid)
	refused("c", "x", vectord.FieldSchema{Type: vectord.FieldText, Params: []byte(`{"tokenizer":"none"}`)}, vectord.KindInvalid)
	expect(2, 3)
	info, err := b.db.CollectionInfo("c")
	if f := info.Fields["k"]; err != nil || f.Type != vectord.FieldInteger || f.Points != 1 || len(info.Fields) != 2 {
		t.Errorf("info %+v: %v", info.Fields, err)
	}
	for i := range vectord.MaxFieldIndexes - 2 {
		b.index(fmt.Sprint("f", i), keyword, false)
	}
	refused("c", "one.more", keyword, vectord.KindInvalid)
}

// TestTextIndexDecides: with a text index its tokens decide, also when points are selected to be changed, and answers that
// were kept from before are not given again.
func TestTextIndexDecides(t *testing.T) {
	b := newFieldBench(t, 1)
	defer b.stop()
	b.write(vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{
		{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: []byte(`{"t":"Quick brown foxes"}`)},
		{ID: vectord.NumberID(2), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: []byte(`{"t":"brown quick"}`)},
		{ID: vectord.NumberID(3), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: []byte(`{"t":["quick","brown"]}`)},
	}})
	count := func(match string, want int) {
		t.Helper()
		f, err := vectord.ParseFilter([]byte(`{"must":{"key":"t","match":` + match + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.db.Count(context.Background(), "c", f); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", match, got, err, want)
		}
	}
	count(`{"text":"brown QUICK"}`, 0)
	count(`{"text":"rown"}`, 3)
	b.index("t", vectord.FieldSchema{Type: vectord.FieldText}, true)
	count(`{"text":"brown QUICK"}`, 2)
	count(`{"text":"rown"}`, 0)
	count(`{"phrase":"quick brown"}`, 1)
	count(`{"text_any":"foxes none"}`, 1)
	f, err := vectord.ParseFilter([]byte(`{"must":{"key":"t","match":{"text":"FOXES quick"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	b.write(vectord.Operation{Kind: vectord.OpSetPayload, Filter: f, Payload: []byte(`{"t":"found"}`)})
	count(`{"text":"Found"}`, 1)
	if _, err := b.db.DeleteFieldIndex(context.Background(), "c", "t"); err != nil {
		t.Fatal(err)
	}
	count(`{"text":"Found"}`, 0)
	count(`{"text":"brown QUICK"}`, 0)
}

func BenchmarkTermsOf(b *testing.B) {
	var fields []*fieldDef
	for i, m := range []fieldMeta{{Name: "city", Schema: vectord.FieldSchema{Type: vectord.FieldKeyword}}, {Name: "price", Schema: vectord.FieldSchema{Type: vectord.FieldFloat}},
		{Name: "tags", Schema: vectord.FieldSchema{Type: vectord.FieldKeyword}}} {
		m.Number = uint16(i)
		fields = append(fields, mustField(b, m))
	}
	row := &storage.PointRow{Payload: []byte(`{"city":"Berlin","price":12.5,"tags":["a","b","c"],"text":"some words that nobody indexes"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := termsOf(fields, row); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzTerms: whatever a payload holds, its terms are sorted, each once, and fit a posting.
func FuzzTerms(f *testing.F) {
	f.Add(`{"a":["x",1,null,{"lon":1,"lat":2}]}`)
	f.Add(`{"a":"` + strings.Repeat("x", 300) + `"}`)
	f.Fuzz(func(t *testing.T, payload string) {
		if checkPayload("payload", []byte(payload)) != nil {
			return
		}
		v, err := fastjson.Parse(payload)
		if err != nil {
			return
		}
		for _, of := range fieldTypes {
			d := mustField(t, fieldMeta{Name: "a", Schema: vectord.FieldSchema{Type: of}})
			terms := d.appendTerms(nil, v)
			for i, term := range terms {
				if term == "" || len(term) > storage.TermBytesMax || i > 0 && terms[i-1] >= term {
					t.Errorf("%s: terms %q of %s", of, terms, payload)
				}
			}
		}
	})
}

// BenchmarkFilter evaluates filters over 100,000 points in storage, by payload indexes and by reading every payload, and loads
// the indexes.
func BenchmarkFilter(b *testing.B) {
	f := newFieldBench(b, 1)
	defer f.stop()
	const points = 100_000
	rng := rand.New(rand.NewPCG(1, 1))
	for first := 0; first < points; first += 5000 {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for id := first; id < first+5000; id++ {
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(id)), Vectors: vectord.Unnamed([]float32{1, 2}),
				Payload: fmt.Appendf(nil, `{"city":"city %d","price":%.2f,"user":"user-%d","tags":["t%d","t%d"],"text":"the quick brown fox %d"}`,
					rng.IntN(50), rng.Float64()*1000, id, rng.IntN(10), 10+rng.IntN(10), rng.IntN(1000))})
		}
		f.write(op)
	}
	filters := []struct{ name, text string }{
		{"keyword/2%", `{"must":{"key":"city","match":{"value":"city 7"}}}`},
		{"unique", `{"must":{"key":"user","match":{"value":"user-77777"}}}`},
		{"range/50%", `{"must":{"key":"price","range":{"lt":500}}}`},
		{"range/1%", `{"must":{"key":"price","range":{"gte":500,"lt":510}}}`},
		{"and", `{"must":[{"key":"city","match":{"any":["city 7","city 8"]}},{"key":"price","range":{"gte":500}}],"must_not":{"key":"tags","match":{"value":"t3"}}}`},
		{"half indexed", `{"must":[{"key":"city","match":{"value":"city 7"}},{"key":"text","match":{"text":"fox 7"}}]}`},
	}
	run := func(b *testing.B, indexed string) {
		for _, filter := range filters {
			b.Run(filter.name+"/"+indexed, func(b *testing.B) {
				parsed, err := vectord.ParseFilter([]byte(filter.text))
				if err != nil {
					b.Fatal(err)
				}
				c := f.collection()
				m, err := c.compileFilter(parsed)
				if err != nil {
					b.Fatal(err)
				}
				s, ctx := c.shards[0], context.Background()
				for b.Loop() {
					found, err := s.indexed(ctx, f.store, m, 0, true)
					if err == nil && found == nil {
						_, err = s.evaluate(ctx, f.store, m, 0)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	run(b, "scanned")
	f.index("city", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	f.index("price", vectord.FieldSchema{Type: vectord.FieldFloat}, true)
	f.index("user", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	f.index("tags", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	run(b, "indexed")
	b.Run("load", func(b *testing.B) {
		c := f.collection()
		var loaded *fieldIndexes
		for b.Loop() {
			loaded = &fieldIndexes{}
			if err := loaded.load(f.store, c.shards[0].id, c.fields); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(loaded.memoryBytes())/points, "bytes/point")
	})
}
