package engine

import (
	"cmp"
	"context"
	"slices"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
)

const (
	// groupSpare is how many hits the first round of a grouping asks for, for each hit that the groups have room for.
	groupSpare = 2

	// groupRoundsPlain is how many rounds ask for more hits only. Those after them leave out what no group has room for: a
	// filter by the group's field, which costs a look at every payload if the field has no index.
	groupRoundsPlain = 2
)

// SearchGroups returns the best groups, in the order of their best hits, and the best hits of each. All groups together have
// room for MaxLimit hits at most. What a query prefetches is not more for groups than without them, and of mmr the points
// considered are, unless it says, as many as the groups have room for.
//
// It searches in rounds, each for more hits than the one before, until the groups are full or no hits are left. In the later
// rounds only points count that are in groups with room. A round that finds all that it asks for fills one more group then, or
// meets points with values that make no groups, of which it gets past MaxFilterListLength. So there are no more rounds than
// groups, beside those few, and those in which the number of hits grows to MaxLimit.
func (db *DB) SearchGroups(ctx context.Context, name string, of vectord.Groups) ([]vectord.Group, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return nil, err
	}
	g, err := newGrouping(col, &of)
	if err != nil {
		return nil, err
	}
	limited := of.Query
	limited.Limit = of.Limit * of.Size
	if err := col.checkStrict(&limited); err != nil {
		return nil, err
	}
	if of.WithPoint != nil {
		other, err := db.catalog.resolve(of.WithPoint.Collection)
		if err != nil {
			return nil, err
		}
		if _, err := other.compileSelection(of.WithPoint.Select); err != nil {
			return nil, err
		}
	}
	if err := g.fill(func(q vectord.Query) ([]vectord.Hit, error) { return db.searchIn(ctx, col, &q) }); err != nil {
		return nil, err
	}
	groups, err := g.answer()
	if err == nil && of.WithPoint != nil {
		err = db.addPoints(ctx, groups, of.WithPoint)
	}
	return groups, err
}

// grouping sorts hits into groups.
type grouping struct {
	of        *vectord.Groups
	by        path
	selection selection
	compare   func(a, b *vectord.Hit) int // nil: hits are in the order in which they come
	once      bool                        // the first round has all the hits that there are

	groups map[vectord.Scalar]*vectord.Group
	ranked []*vectord.Group // by their best hits
	chosen bool             // groups has those of the answer, and no others
	// without are points that passed a narrowed filter by values that make no groups, as 2.5 and true. They are left out then.
	without []vectord.PointID
}

func newGrouping(col *collection, of *vectord.Groups) (g *grouping, err error) {
	unprocessable := func(format string, args ...any) error {
		return vectord.Errorf(vectord.KindUnprocessable, format, args...)
	}
	switch {
	case of.Size < 1 || of.Size > vectord.MaxGroupSize:
		return nil, unprocessable("group_size: value %d invalid, must be from 1 to %d", of.Size, vectord.MaxGroupSize)
	case of.Limit < 1 || of.Limit > vectord.MaxLimit/of.Size:
		return nil, unprocessable("limit: value %d invalid, must be from 1 to %d with groups of %d", of.Limit, vectord.MaxLimit/of.Size, of.Size)
	case of.Offset != 0:
		return nil, unprocessable("offset: value %d invalid, groups have none", of.Offset)
	}
	g = &grouping{of: of, groups: map[vectord.Scalar]*vectord.Group{}}
	if g.by, err = parsePath(of.By); err != nil {
		return nil, err
	}
	if g.selection, err = col.compileSelection(of.Select); err != nil {
		return nil, err
	}
	// A narrowed filter has two more conditions: what is too much then is so from the start.
	narrowed := g.narrowed()
	narrowed.MustNot = append(narrowed.MustNot, vectord.Condition{HasID: &[]vectord.PointID{}})
	if err := narrowed.Check(); err != nil {
		return nil, err
	}
	// What these rank depends on how many there are, and on the filter.
	g.once = len(of.Prefetch) > 0 || of.MMR != nil
	if !g.once {
		g.compare, err = col.ranking(&of.Query)
	}
	return g, err
}

// ranking returns how the hits of a query are ordered, nil if at random.
func (c *collection) ranking(q *vectord.Query) (func(a, b *vectord.Hit) int, error) {
	byID := func(a, b *vectord.Hit) int { return a.ID.Compare(b.ID) }
	byScore := func(nearer func(a, b float32) bool) func(a, b *vectord.Hit) int {
		return func(a, b *vectord.Hit) int {
			switch {
			case nearer(a.Score, b.Score):
				return -1
			case nearer(b.Score, a.Score):
				return 1
			}
			return byID(a, b)
		}
	}
	switch {
	case q.Sample:
		return nil, nil
	case q.OrderBy != nil:
		return func(a, b *vectord.Hit) int {
			order := numberOfValue(a.Order).Compare(numberOfValue(b.Order))
			if q.OrderBy.Descending {
				order = -order
			}
			return cmp.Or(order, byID(a, b))
		}, nil
	case q.Nearest != nil, q.Recommend != nil && q.Recommend.Strategy == vectord.AverageVector:
		spec, err := c.spec(q.Using)
		if err != nil {
			return nil, err
		}
		return byScore(spec.distance.Nearer), nil
	case q.Recommend != nil, q.Discover != nil, q.Context != nil, q.Formula != nil:
		return byScore(func(a, b float32) bool { return a > b }), nil
	}
	return byID, nil
}

// fill searches until the groups have what the answer needs.
func (g *grouping) fill(search func(vectord.Query) ([]vectord.Hit, error)) error {
	q := g.of.Query
	q.Select = g.needed()
	q.Limit = g.firstLimit()
	for round := 0; ; round++ {
		if round >= groupRoundsPlain {
			q.Filter = g.narrowed()
		}
		hits, err := search(q)
		if err != nil {
			return err
		}
		before := g.state()
		if err := g.add(hits, round >= groupRoundsPlain); err != nil {
			return err
		}
		all := len(hits) < q.Limit
		// A round may bring nothing where too many points make no groups, or few are named again and again by an order.
		stuck := q.Limit == vectord.MaxLimit && round >= groupRoundsPlain && g.state() == before
		if g.once || all || g.full() || stuck {
			return nil
		}
		q.Limit = min(2*q.Limit, vectord.MaxLimit)
	}
}

// firstLimit is how many hits the first round asks for.
func (g *grouping) firstLimit() int {
	room := g.of.Limit * g.of.Size
	switch {
	case len(g.of.Prefetch) > 0:
		all := 0
		for i := range g.of.Prefetch {
			all += g.of.Prefetch[i].Limit
		}
		return min(max(all, 1), vectord.MaxLimit)
	case g.of.MMR != nil:
		return min(max(g.of.MMR.Candidates, room), vectord.MaxLimit)
	}
	return min(groupSpare*room, vectord.MaxLimit)
}

// needed returns what hits must carry for their groups to be known and for the answer to be cut from it.
func (g *grouping) needed() vectord.Selection {
	s := g.of.Select
	// To keep single elements of an array moves them to other places, so these paths want the whole.
	whole := slices.ContainsFunc(append(slices.Clone(g.selection.include), g.by), path.hasIndex)
	switch {
	case whole || len(s.Exclude) > 0 || s.Payload && len(s.Include) == 0:
		s.Include, s.Exclude = nil, nil
	default:
		s.Include = append(slices.Clone(s.Include), g.of.By)
	}
	s.Payload = true
	return s
}

func (p path) hasIndex() bool {
	return slices.ContainsFunc(p, func(s segment) bool { return s.kind == indexSegment })
}

// narrowed returns the filter of the points that can still matter: once the groups are chosen those in a group with room,
// until then those with any value of which no full group is known.
func (g *grouping) narrowed() *vectord.Filter {
	values := []vectord.Scalar{}
	for _, group := range g.ranked { // in this order, so that equal filters are the same
		if g.isFull(group) != g.chosen {
			values = append(values, group.Value)
		}
	}
	match := vectord.Match{Except: &values}
	if g.chosen {
		match = vectord.Match{Any: &values}
	}
	f := &vectord.Filter{Must: []vectord.Condition{{Field: &vectord.FieldCondition{Key: g.of.By, Match: &match}}}}
	if len(g.without) > 0 {
		f.MustNot = []vectord.Condition{{HasID: &g.without}}
	}
	return bothFilters(g.of.Filter, f)
}

func (g *grouping) isFull(group *vectord.Group) bool { return len(group.Hits) == g.of.Size }

// state changes whenever there is progress: a group is new or becomes full, or points without are known.
func (g *grouping) state() (s struct{ groups, full, without int }) {
	s.groups, s.without = len(g.ranked), len(g.without)
	for _, group := range g.ranked {
		if g.isFull(group) {
			s.full++
		}
	}
	return s
}

// full reports whether all groups of the answer are there and full.
func (g *grouping) full() bool {
	return g.chosen && !slices.ContainsFunc(g.ranked, func(group *vectord.Group) bool { return !g.isFull(group) })
}

// add puts the hits of a round, whose filter may have been a narrowed one, into their groups.
func (g *grouping) add(hits []vectord.Hit, narrowed bool) error {
	for i := range hits {
		values, err := g.values(hits[i].Payload)
		if err != nil {
			return err
		}
		if len(values) == 0 && narrowed && len(g.without) < vectord.MaxFilterListLength {
			g.without = append(g.without, hits[i].ID)
		}
		for _, value := range values {
			g.addTo(value, &hits[i])
		}
	}
	if g.compare != nil {
		slices.SortStableFunc(g.ranked, func(a, b *vectord.Group) int { return g.compare(&a.Hits[0], &b.Hits[0]) })
	}
	if !g.chosen && len(g.ranked) >= g.of.Limit {
		g.chosen = true
		for _, group := range g.ranked[g.of.Limit:] {
			delete(g.groups, group.Value)
		}
		g.ranked = g.ranked[:g.of.Limit]
	}
	return nil
}

// addTo puts a hit into the group of a value.
func (g *grouping) addTo(value vectord.Scalar, hit *vectord.Hit) {
	group := g.groups[value]
	if group == nil {
		if g.chosen {
			return
		}
		group = &vectord.Group{Value: value}
		g.groups[value] = group
		g.ranked = append(g.ranked, group)
	}
	for i := range group.Hits {
		if group.Hits[i].ID == hit.ID {
			return
		}
	}
	at := len(group.Hits)
	if g.compare != nil {
		at, _ = slices.BinarySearchFunc(group.Hits, hit, func(a vectord.Hit, b *vectord.Hit) int { return g.compare(&a, b) })
	}
	if at == g.of.Size {
		return
	}
	group.Hits = slices.Insert(group.Hits, at, *hit)
	group.Hits = group.Hits[:min(len(group.Hits), g.of.Size)]
}

// values returns the values of a payload that make groups, each once.
func (g *grouping) values(payload []byte) (values []vectord.Scalar, err error) {
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return nil, err
	}
	anyElement(g.by, v, func(e *fastjson.Value) bool {
		value := vectord.Scalar{Kind: vectord.ScalarString}
		switch e.Type() {
		case fastjson.TypeString:
			value.String = string(e.GetStringBytes())
		case fastjson.TypeNumber:
			n, err := e.Int64()
			if err != nil {
				return false
			}
			value = vectord.Scalar{Kind: vectord.ScalarInt, Int: n}
		default:
			return false
		}
		if !slices.Contains(values, value) {
			values = append(values, value)
		}
		return false
	})
	return values, nil
}

// answer returns the groups with hits that carry what was selected.
func (g *grouping) answer() ([]vectord.Group, error) {
	groups := make([]vectord.Group, len(g.ranked))
	for i, group := range g.ranked {
		groups[i] = *group
		for j := range group.Hits {
			hit := &group.Hits[j]
			if !g.selection.payload {
				hit.Payload = nil
				continue
			}
			var err error
			if hit.Payload, err = g.selection.project(hit.Payload); err != nil {
				return nil, err
			}
		}
	}
	return groups, nil
}

// addPoints gives each group the point whose id is the group's value.
func (db *DB) addPoints(ctx context.Context, groups []vectord.Group, lookup *vectord.GroupLookup) error {
	var ids []vectord.PointID
	for i := range groups {
		if id, ok := idOf(groups[i].Value); ok {
			ids = append(ids, id)
		}
	}
	records, err := db.Retrieve(ctx, lookup.Collection, ids, lookup.Select)
	if err != nil {
		return err
	}
	byID := map[vectord.PointID]*vectord.Record{}
	for i := range records {
		byID[records[i].ID] = &records[i]
	}
	for i := range groups {
		if id, ok := idOf(groups[i].Value); ok {
			groups[i].Point = byID[id]
		}
	}
	return nil
}

// idOf returns the id that a value is: a number that is not negative, or the string of a UUID.
func idOf(value vectord.Scalar) (vectord.PointID, bool) {
	if value.Kind == vectord.ScalarInt {
		return vectord.NumberID(uint64(value.Int)), value.Int >= 0
	}
	id, err := vectord.ParsePointID(value.String)
	return id, err == nil && id.IsUUID()
}
