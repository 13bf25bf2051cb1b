package server

import "github.com/vectord/vectord"

// The decoders of this file read the older forms of queries, each of which is a query with one form.

// legacyJSON are the fields that recommend and discover have in common.
type legacyJSON struct {
	nearJSON
	Using      string      `json:"using"`
	LookupFrom *lookupJSON `json:"lookup_from"`
}

// complete checks the fields and puts them into out.
func (l *legacyJSON) complete(out *query, field string) error {
	if l.Limit == nil {
		return missing(field + "limit")
	}
	if err := l.nearJSON.complete(out, field); err != nil {
		return err
	}
	out.Using, out.Lookup = l.Using, l.LookupFrom.lookup()
	if err := out.Check(); err != nil {
		return vectord.Errorf(vectord.KindOf(err), "%s%v", field, err)
	}
	return nil
}

// decodeLegacy reads a body that is one query in the form B.
func decodeLegacy[B any, P queryForm[B]](body []byte) (query, error) {
	var b B
	if err := decodeBody(body, &b); err != nil {
		return query{}, err
	}
	return P(&b).query("")
}

// recommendBodyJSON is the body of POST points/recommend.
type recommendBodyJSON struct {
	legacyJSON
	recommendJSON
}

func (b *recommendBodyJSON) query(field string) (out query, err error) {
	if out.Recommend, err = b.recommend(); err != nil {
		return out, err
	}
	return out, b.complete(&out, field)
}

func decodeRecommend(body []byte) (query, error) { return decodeLegacy[recommendBodyJSON](body) }

// decodeRecommendBatch reads the body of POST points/recommend/batch.
func decodeRecommendBatch(body []byte) ([]query, error) { return decodeBatch[recommendBodyJSON](body) }

// discoverBodyJSON is the body of POST points/discover: without a target the context is all that counts.
type discoverBodyJSON struct {
	legacyJSON
	discoverJSON
}

func (b *discoverBodyJSON) query(field string) (out query, err error) {
	switch {
	case b.Target != nil:
		out.Discover, err = b.discover()
	case len(b.Context) > 0:
		var pairs []vectord.ContextPair
		pairs, err = b.Context.pairs("context")
		out.Context = &pairs
	default:
		return out, missing(field + "target")
	}
	if err != nil {
		return out, err
	}
	return out, b.complete(&out, field)
}

func decodeDiscover(body []byte) (query, error) { return decodeLegacy[discoverBodyJSON](body) }

// decodeDiscoverBatch reads the body of POST points/discover/batch.
func decodeDiscoverBatch(body []byte) ([]query, error) { return decodeBatch[discoverBodyJSON](body) }

// decodeSearchGroups reads the body of POST points/search/groups.
func decodeSearchGroups(body []byte) (out groups, err error) {
	var b struct {
		searchJSON
		groupsJSON
		GroupBy *string `json:"group_by"`
	}
	if err := decodeBody(body, &b); err != nil {
		return out, err
	}
	q, err := b.query("")
	if err != nil {
		return out, err
	}
	return b.legacyGroups(q, b.GroupBy)
}

// decodeRecommendGroups reads the body of POST points/recommend/groups.
func decodeRecommendGroups(body []byte) (out groups, err error) {
	var b struct {
		recommendBodyJSON
		groupsJSON
		GroupBy *string `json:"group_by"`
	}
	if err := decodeBody(body, &b); err != nil {
		return out, err
	}
	q, err := b.query("")
	if err != nil {
		return out, err
	}
	return b.legacyGroups(q, b.GroupBy)
}

// legacyGroups is groups where the size must be said.
func (g *groupsJSON) legacyGroups(q query, by *string) (groups, error) {
	if g.GroupSize == nil {
		return groups{}, missing("group_size")
	}
	return g.groups(q, by)
}
