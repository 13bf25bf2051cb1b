package model

import (
	"context"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

var ctx = context.Background()

// with returns a model with the collection c of one point, 1, that has this payload.
func with(t *testing.T, payload string) *Model {
	t.Helper()
	m := New()
	if err := m.CreateCollection(ctx, "c", vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	write(t, m, vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{
		{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 2}), Payload: []byte(payload)}}})
	return m
}

func write(t *testing.T, m *Model, op vectord.Operation) {
	t.Helper()
	if _, err := m.Write(ctx, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestFilter(t *testing.T) {
	m := with(t, `{"s":"Berlin","i":3,"f":3.0,"big":18446744073709551615,"t":true,"n":null,"none":[],"nulls":[1,null],
		"tags":["a","b"],"nums":[1,2.5],"o":{"x":1,"deep":[{"y":"p"},{"y":"q"},{}]},"a.b":7,"grid":[[1,2],[3]]}`)
	f := func(filter string, want bool) {
		t.Helper()
		parsed, err := vectord.ParseFilter([]byte(filter))
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		n, err := m.Count(ctx, "c", parsed)
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		if (n == 1) != want {
			t.Errorf("%s holds: %v, want %v", filter, n == 1, want)
		}
	}
	field := func(condition string, want bool) {
		t.Helper()
		f(`{"must":[{"key":`+condition+`}]}`, want)
		f(`{"must_not":[{"key":`+condition+`}]}`, !want)
	}
	f(`{}`, true)
	f(`{"must":[],"should":[],"must_not":[]}`, true)

	field(`"s","match":{"value":"Berlin"}`, true)
	field(`"s","match":{"value":"berlin"}`, false)
	field(`"i","match":{"value":3}`, true)
	field(`"i","match":{"value":"3"}`, false)
	field(`"f","match":{"value":3}`, false) // 3.0 is not an integer
	field(`"t","match":{"value":true}`, true)
	field(`"t","match":{"value":1}`, false)
	field(`"tags","match":{"value":"b"}`, true)
	field(`"grid","match":{"value":1}`, false) // arrays within arrays are no elements
	field(`"grid[]","match":{"value":3}`, true)
	field(`"s","match":{"any":["x","Berlin"]}`, true)
	field(`"s","match":{"any":[]}`, false)
	field(`"s","match":{"except":["x"]}`, true)
	field(`"s","match":{"except":["Berlin"]}`, false)
	field(`"i","match":{"except":["x"]}`, true)
	field(`"n","match":{"except":["x"]}`, false)
	field(`"missing","match":{"except":["x"]}`, false)
	field(`"tags","match":{"except":["a"]}`, true) // b is another
	field(`"none","match":{"except":["a"]}`, false)
	field(`"s","match":{"text":"erl"}`, true)
	field(`"s","match":{"text":"Erl"}`, false)
	field(`"tags","match":{"text":"a"}`, true)

	field(`"i","range":{"gte":3,"lt":4}`, true)
	field(`"i","range":{"gt":3}`, false)
	field(`"f","range":{"lte":3}`, true)
	field(`"nums","range":{"gt":2}`, true)
	field(`"big","range":{"gt":1e19}`, true)
	field(`"s","range":{"gt":0}`, false)

	field(`"tags","values_count":{"gte":2,"lte":2}`, true)
	field(`"s","values_count":{"gte":1,"lte":1}`, true)
	field(`"n","values_count":{"lt":1}`, true)
	field(`"missing","values_count":{"lt":1}`, true)
	field(`"none","values_count":{"gt":0}`, false)

	for key, want := range map[string][2]bool{"s": {false, false}, "n": {true, true}, "none": {true, false}, "nulls": {false, true},
		"missing": {true, false}, "o": {false, false}, "o.deep[2].y": {true, false}, "o.deep[].y": {false, false}} {
		for i, name := range []string{"is_empty", "is_null"} {
			f(`{"must":{"`+name+`":{"key":"`+key+`"}}}`, want[i])
			field(`"`+key+`","`+name+`":true`, want[i])
			field(`"`+key+`","`+name+`":false`, !want[i])
		}
	}

	field(`"o.x","match":{"value":1}`, true)
	field(`"o.deep[].y","match":{"value":"q"}`, true)
	field(`"o.deep[0].y","match":{"value":"q"}`, false)
	field(`"o.deep[9].y","match":{"value":"q"}`, false)
	field(`"o.deep.y","match":{"value":"q"}`, false) // a key does not reach into an array
	field(`"\"a.b\"","match":{"value":7}`, true)
	field(`"a.b","match":{"value":7}`, false)
	field(`"grid[][]","match":{"value":2}`, true)
	field(`"i","match":{"value":9},"range":{"gt":1}`, true) // one of several tests is enough

	f(`{"must":{"has_id":[2,1]}}`, true)
	f(`{"must":{"has_id":[]}}`, false)
	f(`{"should":[{"has_id":[1]},{"has_id":[2]}]}`, true)
	f(`{"should":[{"has_id":[3]},{"has_id":[2]}]}`, false)
	f(`{"must":[{"has_id":[1]}],"must_not":[{"has_id":[1]}]}`, false)
	f(`{"must":[{"should":[{"has_id":[3]},{"must_not":{"has_id":[2]}}]}]}`, true)
	const three = `{"conditions":[{"has_id":[1]},{"has_id":[2]},{"key":"i","match":{"value":3}}],"min_count":`
	f(`{"min_should":`+three+`2}}`, true)
	f(`{"min_should":`+three+`3}}`, false)

	for _, path := range []string{"a..b", ".a", "a.", "a[", "a[x]", "a[-1]", "a]", `"a`, `a"b"`, "[0]", "a[0]b"} {
		filter := &vectord.Filter{Must: []vectord.Condition{{IsEmpty: path}}}
		if _, err := m.Count(ctx, "c", filter); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

func TestPayloadChanges(t *testing.T) {
	const start = `{"a":1,"o":{"x":1,"y":[{"z":1,"w":2},{"z":3}]},"l":[1,2,3]}`
	f := func(op vectord.Operation, want string) {
		t.Helper()
		m := with(t, start)
		op.IDs = []vectord.PointID{vectord.NumberID(1)}
		write(t, m, op)
		records, err := m.Retrieve(ctx, "c", op.IDs, vectord.Selection{Payload: true})
		if err != nil || len(records) != 1 || string(records[0].Payload) != want || records[0].Version != 2 {
			t.Errorf("%+v:\n got %s, version %d, %v\nwant %s", op, records[0].Payload, records[0].Version, err, want)
		}
	}
	set := func(key, payload, want string) {
		t.Helper()
		f(vectord.Operation{Kind: vectord.OpSetPayload, Key: key, Payload: []byte(payload)}, want)
	}
	set("", `{"a":2,"b":{"c":1}}`, `{"a":2,"b":{"c":1},"l":[1,2,3],"o":{"x":1,"y":[{"w":2,"z":1},{"z":3}]}}`)
	set("", `{"a":null,"o":{}}`, `{"l":[1,2,3],"o":{}}`)
	set("o", `{"x":null,"n":1e2}`, `{"a":1,"l":[1,2,3],"o":{"n":1e2,"y":[{"w":2,"z":1},{"z":3}]}}`)
	set("o.y[]", `{"z":9}`, `{"a":1,"l":[1,2,3],"o":{"x":1,"y":[{"w":2,"z":9},{"z":9}]}}`)
	set("o.y[1].deep", `{"k":1}`, `{"a":1,"l":[1,2,3],"o":{"x":1,"y":[{"w":2,"z":1},{"deep":{"k":1},"z":3}]}}`)
	set("o.y[7]", `{"k":1}`, `{"a":1,"l":[1,2,3],"o":{"x":1,"y":[{"w":2,"z":1},{"z":3}]}}`)
	set("a.new", `{"k":"<&>"}`, `{"a":{"new":{"k":"<&>"}},"l":[1,2,3],"o":{"x":1,"y":[{"w":2,"z":1},{"z":3}]}}`)

	remove := func(want string, keys ...string) {
		t.Helper()
		f(vectord.Operation{Kind: vectord.OpDeletePayload, Keys: keys}, want)
	}
	remove(`{"l":[1,2,3],"o":{"y":[{"w":2},{}]}}`, "a", "o.x", "o.y[].z", "missing.key")
	remove(`{"a":1,"l":[],"o":{"x":1,"y":[{"w":2,"z":1},{}]}}`, "l[]", "o.y[1].z", "o.y[0]")

	f(vectord.Operation{Kind: vectord.OpOverwritePayload, Payload: []byte(`{"k":18446744073709551615}`)}, `{"k":18446744073709551615}`)
	f(vectord.Operation{Kind: vectord.OpClearPayload}, ``)
	f(vectord.Operation{Kind: vectord.OpUpdateVectors, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{0, 0})}}},
		`{"a":1,"l":[1,2,3],"o":{"x":1,"y":[{"w":2,"z":1},{"z":3}]}}`)
}

func TestSelection(t *testing.T) {
	m := with(t, `{"a":1,"b":{"c":2,"d":[{"e":1,"f":2},{"f":3},4]}}`)
	f := func(s vectord.Selection, want string) {
		t.Helper()
		s.Payload = true
		records, err := m.Retrieve(ctx, "c", []vectord.PointID{vectord.NumberID(1), vectord.NumberID(2)}, s)
		if err != nil || len(records) != 1 || string(records[0].Payload) != want {
			t.Errorf("%+v: %s, %v, want %s", s, records[0].Payload, err, want)
		}
	}
	f(vectord.Selection{}, `{"a":1,"b":{"c":2,"d":[{"e":1,"f":2},{"f":3},4]}}`)
	f(vectord.Selection{Include: []string{"a", "b.c"}}, `{"a":1,"b":{"c":2}}`)
	f(vectord.Selection{Include: []string{"b.d[].f"}}, `{"b":{"d":[{"f":2},{"f":3}]}}`)
	f(vectord.Selection{Include: []string{"b.d[0]"}}, `{"b":{"d":[{"e":1,"f":2}]}}`)
	f(vectord.Selection{Include: []string{"b", "b.c"}}, `{"b":{"c":2,"d":[{"e":1,"f":2},{"f":3},4]}}`)
	f(vectord.Selection{Include: []string{"nothing"}}, `{}`)
	f(vectord.Selection{Exclude: []string{"a", "b.d[].e"}}, `{"b":{"c":2,"d":[{"f":2},{"f":3},4]}}`)
}

func TestSearch(t *testing.T) {
	id := vectord.NumberID
	f := func(d vectord.Distance, q vectord.Query, want ...vectord.Hit) {
		t.Helper()
		m := New()
		if err := m.CreateCollection(ctx, "c", vectord.DefaultCollectionConfig(2, d)); err != nil {
			t.Fatal(err)
		}
		write(t, m, vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{
			{ID: id(1), Vectors: vectord.Unnamed([]float32{3, 4})}, {ID: id(2), Vectors: vectord.Unnamed([]float32{0, 2})}, {ID: id(3), Vectors: vectord.Unnamed([]float32{0, 0})}, {ID: id(4), Vectors: vectord.Unnamed([]float32{0, 2})}}})
		if q.Limit == 0 {
			q.Limit = 10
		}
		got, err := m.Search(ctx, "c", q)
		if err != nil {
			t.Fatal(err)
		}
		same := len(got) == len(want)
		for i := 0; same && i < len(got); i++ {
			same = got[i].ID == want[i].ID && got[i].Score == want[i].Score
		}
		if !same {
			t.Errorf("%v %+v: %+v, want %+v", d, q, got, want)
		}
	}
	hit := func(n uint64, score float32) vectord.Hit {
		return vectord.Hit{Record: vectord.Record{ID: id(n)}, Score: score}
	}
	at := func(x, y float32) vectord.Query { return vectord.Query{Nearest: vectord.Near([]float32{x, y})} }
	f(vectord.Cosine, at(0, 5), hit(2, 1), hit(4, 1), hit(1, 0.8), hit(3, 0))
	f(vectord.Cosine, at(0, 0), hit(1, 0), hit(2, 0), hit(3, 0), hit(4, 0))
	f(vectord.Dot, at(0, 5), hit(1, 20), hit(2, 10), hit(4, 10), hit(3, 0))
	f(vectord.Euclid, at(0, 0), hit(3, 0), hit(2, 2), hit(4, 2), hit(1, 5))
	f(vectord.Manhattan, at(0, 0), hit(3, 0), hit(2, 2), hit(4, 2), hit(1, 7))

	threshold := float32(2)
	q := at(0, 0)
	q.ScoreThreshold = &threshold
	f(vectord.Euclid, q, hit(3, 0)) // strictly nearer
	threshold = 10
	q = at(0, 5)
	q.ScoreThreshold = &threshold
	f(vectord.Dot, q, hit(1, 20))
	q = at(0, 5)
	q.Offset, q.Limit = 1, 2
	f(vectord.Dot, q, hit(2, 10), hit(4, 10))
	q.Offset = 9
	f(vectord.Dot, q)
	two := id(2)
	f(vectord.Euclid, vectord.Query{Nearest: &vectord.Example{ID: &two}, Limit: 2}, hit(4, 0), hit(3, 2))
	f(vectord.Euclid, vectord.Query{Limit: 2, Offset: 1}, hit(2, 0), hit(3, 0))
}

func TestNamesAndAliases(t *testing.T) {
	m := with(t, "")
	config := vectord.DefaultCollectionConfig(2, vectord.Dot)
	f := func(err error, kind vectord.Kind, text string) {
		t.Helper()
		if err == nil || vectord.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %v with %q", err, kind, text)
		}
	}
	act := func(a ...vectord.AliasAction) error { return m.UpdateAliases(ctx, a) }
	create := func(name, target string) vectord.AliasAction {
		return vectord.AliasAction{Create: &vectord.Alias{Name: name, Collection: target}}
	}
	if err := act(create("a", "c"), vectord.AliasAction{Rename: &vectord.AliasRename{Old: "a", New: "b"}}); err != nil {
		t.Fatal(err)
	}
	f(act(create("x", "c"), create("c", "c")), vectord.KindExists, "Collection `c` already exists!")
	f(act(create("x", "b")), vectord.KindNotFound, "Collection `b` doesn't exist!")
	f(act(vectord.AliasAction{Rename: &vectord.AliasRename{Old: "zz", New: "b"}}), vectord.KindNotFound, "Alias zz does not exists!")
	if got := m.Aliases(); len(got) != 1 || got[0] != (vectord.Alias{Name: "b", Collection: "c"}) {
		t.Errorf("aliases %v: refused actions changed something", got)
	}
	f(m.CreateCollection(ctx, "c", config), vectord.KindExists, "Collection `c` already exists!")
	f(m.CreateCollection(ctx, "b", config), vectord.KindInvalid, "Alias with the same name already exists")
	f(m.UpdateCollection(ctx, "b", vectord.CollectionUpdate{}), vectord.KindNotFound, "Collection `b` doesn't exist!")
	if n, err := m.Count(ctx, "b", nil); n != 1 || err != nil || !m.CollectionExists("b") {
		t.Errorf("through the alias: %d, %v", n, err)
	}
	if existed, _ := m.DeleteCollection(ctx, "b"); existed {
		t.Error("an alias was deleted as a collection")
	}
	if existed, _ := m.DeleteCollection(ctx, "c"); !existed || len(m.Aliases()) != 0 || m.CollectionExists("b") {
		t.Error("the collection or its alias is still there")
	}
}
