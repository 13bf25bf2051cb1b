package node

import (
	"reflect"
	"slices"

	"pgregory.net/rapid"

	"github.com/vectord/vectord"
)

// indexed draws a payload path and, mostly, creates an index of one of the types on it.
func (m *modelMachine) indexed(t *rapid.T, name string, types ...vectord.FieldType) string {
	key := rapid.SampledFrom([]string{"n", "n", "color", "at", "flag", "deep.list[].v", "items[].v", "items[].tags"}).Draw(t, "key")
	if rapid.IntRange(0, 3).Draw(t, "as it is") > 0 {
		schema := vectord.FieldSchema{Type: rapid.SampledFrom(types).Draw(t, "type")}
		wait := rapid.Bool().Draw(t, "wait")
		m.building = m.building || !wait
		_, err := m.node.Engine().CreateFieldIndex(background, name, key, schema, wait)
		_, wantErr := m.model.CreateFieldIndex(background, name, key, schema, wait)
		same(t, "index "+key, err, wantErr)
	}
	return key
}

func (m *modelMachine) facet(t *rapid.T) {
	name := targets.Draw(t, "name")
	key := m.indexed(t, name, vectord.FieldKeyword, vectord.FieldUUID, vectord.FieldInteger, vectord.FieldBool, vectord.FieldFloat)
	f := vectord.Facet{Key: key, Filter: filters.Draw(t, "filter"), Limit: rapid.SampledFrom([]int{1, 2, 10, 0}).Draw(t, "limit")}
	got, err := m.node.Engine().Facet(background, name, f)
	want, wantErr := m.model.Facet(background, name, f)
	if same(t, "facet", err, wantErr) && !slices.Equal(got, want) {
		t.Fatalf("facet of %s: %v, the model has %v", key, got, want)
	}
}

func orderBy(t *rapid.T, key string) *vectord.OrderBy {
	by := &vectord.OrderBy{Key: key, Descending: rapid.Bool().Draw(t, "descending")}
	if rapid.Bool().Draw(t, "from the end") {
		return by
	}
	by.StartFrom = rapid.SampledFrom([]*vectord.OrderValue{{Int: 1}, {Kind: vectord.OrderFloat, Float: 2.5}, {Int: 9007199254740993}, {Int: 1 << 62},
		{Kind: vectord.OrderFloat, Float: -1e300}, {Kind: vectord.OrderTime, Int: 1785839400000001}, {Kind: vectord.OrderTime, Int: 1785801600000000},
		{Kind: vectord.OrderFloat, Float: 1785839400000000.5}, {Int: 1785839400000000}}).Draw(t, "start from")
	return by
}

// order scrolls and queries in the order of a payload value.
func (m *modelMachine) order(t *rapid.T) {
	name := targets.Draw(t, "name")
	by := orderBy(t, m.indexed(t, name, vectord.FieldInteger, vectord.FieldFloat, vectord.FieldDatetime, vectord.FieldKeyword))
	if rapid.Bool().Draw(t, "query") {
		params := m.params(name)
		d := queryDraw{T: t, params: params}
		q := d.query(1)
		q = vectord.Query{OrderBy: by, Filter: q.Filter, Limit: q.Limit, Prefetch: q.Prefetch, Select: selection(t), Offset: rapid.IntRange(0, 2).Draw(t, "offset")}
		got, err := m.node.Engine().Search(background, name, q)
		want, wantErr := m.model.Search(background, name, q)
		if same(t, "search by order", err, wantErr) {
			m.sameHits(t, name, q, got, want)
		}
		return
	}
	r := vectord.ScrollRequest{Limit: rapid.IntRange(1, 12).Draw(t, "limit"), Filter: filters.Draw(t, "filter"), Select: selection(t), OrderBy: by}
	if rapid.IntRange(0, 20).Draw(t, "with offset") == 0 {
		r.Offset = new(vectord.NumberID(1))
	}
	got, err := m.node.Engine().Scroll(background, name, r)
	want, wantErr := m.model.Scroll(background, name, r)
	if same(t, "scroll by order", err, wantErr) {
		sameRecords(t, "scroll by order", got.Points, want.Points)
		if got.Next != nil {
			t.Fatalf("scroll by order: next page at %v", got.Next)
		}
	}
}

func (m *modelMachine) groups(t *rapid.T) {
	name := targets.Draw(t, "name")
	params := m.params(name)
	d := queryDraw{T: t, params: params}
	d.pick, _ = m.node.Engine().CollectionInfo(name) // nothing, if there is no such collection
	g := vectord.Groups{Query: d.query(1), By: rapid.SampledFrom([]string{"n", "color", "deep.list[].v", "items[].color", "none"}).Draw(t, "by"),
		Size: rapid.IntRange(1, 4).Draw(t, "size")}
	g.Limit, g.Select = rapid.IntRange(1, 6).Draw(t, "groups"), selection(t)
	g.MMR, g.Sample = nil, false // the order of these has no model
	if rapid.IntRange(0, 2).Draw(t, "with point") == 0 {
		g.WithPoint = &vectord.GroupLookup{Collection: targets.Draw(t, "lookup in"), Select: selection(t)}
	}
	m.sameGroups(t, name, g)
}

// sameGroups compares groups as sameHits does hits: those at equal scores may come in any order, and any may be cut off.
func (m *modelMachine) sameGroups(t *rapid.T, name string, g vectord.Groups) {
	got, err := m.node.Engine().SearchGroups(background, name, g)
	want, wantErr := m.model.SearchGroups(background, name, g)
	if err != nil && wantErr != nil {
		return // perhaps one of the query and one of the lookup
	}
	same(t, "groups", err, wantErr)
	all := g
	all.Limit, all.Size = 100, 100
	everything, err := m.model.SearchGroups(background, name, all)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d groups, the model has %d", len(got), len(want))
	}
	for i, group := range got {
		at := slices.IndexFunc(everything, func(other vectord.Group) bool { return other.Value == group.Value })
		if at < 0 || slices.ContainsFunc(got[:i], func(other vectord.Group) bool { return other.Value == group.Value }) {
			t.Fatalf("group %v is twice or none by the model", group.Value)
		}
		other := everything[at]
		if len(group.Hits) != min(g.Size, len(other.Hits)) || !near(group.Hits[0].Score, want[i].Hits[0].Score) {
			t.Fatalf("group %d, %v: %v; the model has %v there, and %v", i, group.Value, group.Hits, want[i], other.Hits)
		}
		if (group.Point == nil) != (other.Point == nil) {
			t.Fatalf("group %v with point %v, the model has %v", group.Value, group.Point, other.Point)
		}
		if group.Point != nil {
			sameRecord(t, "point of a group", *group.Point, *other.Point)
		}
		for j, hit := range group.Hits {
			at := slices.IndexFunc(other.Hits, func(h vectord.Hit) bool { return h.ID == hit.ID })
			if at < 0 || slices.ContainsFunc(group.Hits[:j], func(h vectord.Hit) bool { return h.ID == hit.ID }) {
				t.Fatalf("group %v: point %s is twice or no hit by the model", group.Value, hit.ID)
			}
			if !near(hit.Score, other.Hits[j].Score) || !near(hit.Score, other.Hits[at].Score) {
				t.Fatalf("group %v: hit %d is %s with score %v, the model has %v", group.Value, j, hit.ID, hit.Score, other.Hits)
			}
			if g.OrderBy != nil && at != j {
				t.Fatalf("group %v: hit %d is %s, the model has %v", group.Value, j, hit.ID, other.Hits)
			}
			sameRecord(t, "hit of a group", hit.Record, other.Hits[at].Record)
		}
	}
}

// matrix checks that the sample is one, and compares its rows with searches among it.
func (m *modelMachine) matrix(t *rapid.T) {
	name := targets.Draw(t, "name")
	params := m.params(name)
	d := queryDraw{T: t, params: params}
	x := vectord.Matrix{Sample: rapid.IntRange(1, 12).Draw(t, "sample"), Limit: rapid.IntRange(1, 5).Draw(t, "limit"),
		Filter: filters.Draw(t, "filter"), Using: d.name()}
	rows, err := m.node.Engine().Matrix(background, name, x)
	all := x
	if x.Sample > 1 { // which is an error otherwise
		all.Sample = vectord.MaxMatrixSample
	}
	everything, wantErr := m.model.Matrix(background, name, all)
	if !same(t, "matrix", err, wantErr) {
		return
	}
	if len(rows) != min(x.Sample, len(everything)) {
		t.Fatalf("a sample of %d points among %d, %d were asked for", len(rows), len(everything), x.Sample)
	}
	var ids []vectord.PointID
	for _, row := range rows {
		if !slices.ContainsFunc(everything, func(r vectord.MatrixRow) bool { return r.ID == row.ID }) {
			t.Fatalf("point %s in the sample does not match", row.ID)
		}
		ids = append(ids, row.ID)
	}
	if !slices.IsSortedFunc(ids, vectord.PointID.Compare) || len(slices.Compact(slices.Clone(ids))) < len(ids) {
		t.Fatalf("the sample %v is not in order", ids)
	}
	all.Filter = &vectord.Filter{Must: []vectord.Condition{{HasID: &ids}}}
	want, err := m.model.Matrix(background, name, all)
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range rows {
		if len(row.Neighbors) != len(want[i].Neighbors) || row.ID != want[i].ID {
			t.Fatalf("row %v, the model has %v", row, want[i])
		}
		for j, n := range row.Neighbors {
			if !near(n.Score, want[i].Neighbors[j].Score) || n.ID == row.ID || !reflect.DeepEqual(n.Record, vectord.Record{ID: n.ID}) {
				t.Fatalf("row %v, the model has %v", row, want[i])
			}
		}
	}
}
