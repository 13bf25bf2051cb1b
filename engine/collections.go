package engine

import (
	"context"
	"math"
	"slices"

	"github.com/vectord/vectord"
)

// CreateCollection makes an empty collection.
func (db *DB) CreateCollection(ctx context.Context, name string, config vectord.CollectionConfig) error {
	if err := vectord.CheckCollectionName(name); err != nil {
		return err
	}
	if err := config.Validate(); err != nil {
		return err
	}
	if err := checkPayload("metadata", config.Metadata); err != nil {
		return err
	}
	return db.proposeCatalog(ctx, commandCreateCollection, createCollection{Name: name, Config: config})
}

// UpdateCollection changes settings of a collection; searches and writes go on meanwhile.
func (db *DB) UpdateCollection(ctx context.Context, name string, u vectord.CollectionUpdate) error {
	if err := checkPayload("metadata", u.Metadata); err != nil {
		return err
	}
	return db.proposeCatalog(ctx, commandUpdateCollection, updateCollection{Name: name, Update: u})
}

// DeleteCollection removes a collection, its points and the aliases that point to it, and reports whether there was one.
func (db *DB) DeleteCollection(ctx context.Context, name string) (existed bool, err error) {
	command, err := encodeCatalogCommand(commandDeleteCollection, deleteCollection{Name: name})
	if err != nil {
		return false, err
	}
	r, err := db.log.Propose(ctx, metaGroup, command)
	if err != nil {
		return false, err
	}
	existed, _ = r.Value.(bool)
	return existed, r.Err
}

// UpdateAliases applies all actions or none.
func (db *DB) UpdateAliases(ctx context.Context, actions []vectord.AliasAction) error {
	for _, a := range actions {
		var name string
		switch {
		case a.Create != nil:
			name = a.Create.Name
		case a.Rename != nil:
			name = a.Rename.New
		default:
			continue
		}
		if err := vectord.CheckCollectionName(name); err != nil {
			return err
		}
	}
	return db.proposeCatalog(ctx, commandUpdateAliases, updateAliases{Actions: actions})
}

func (db *DB) proposeCatalog(ctx context.Context, kind commandKind, body any) error {
	command, err := encodeCatalogCommand(kind, body)
	if err != nil {
		return err
	}
	r, err := db.log.Propose(ctx, metaGroup, command)
	if err != nil {
		return err
	}
	return r.Err
}

// Collections returns the names of all collections, sorted, without aliases.
func (db *DB) Collections() []string {
	return slices.Clone(db.catalog.names())
}

// CollectionExists reports whether a collection or an alias has the name.
func (db *DB) CollectionExists(name string) bool {
	_, err := db.catalog.resolve(name)
	return err == nil
}

// Aliases returns all aliases, sorted by name.
func (db *DB) Aliases() []vectord.Alias { return db.catalog.allAliases() }

// ResolveAlias returns the collection that an alias stands for. Any other name stands for itself, whether or not a
// collection has it.
func (db *DB) ResolveAlias(name string) string { return db.catalog.resolveAlias(name) }

// CollectionInfo returns the configuration and state of a collection.
func (db *DB) CollectionInfo(name string) (vectord.CollectionInfo, error) {
	c, err := db.catalog.resolve(name)
	if err != nil {
		return vectord.CollectionInfo{}, err
	}
	info := vectord.CollectionInfo{Status: vectord.StatusGreen, Config: c.config}
	if len(c.fields) > 0 {
		info.Fields = make(map[string]vectord.FieldInfo, len(c.fields))
	}
	for _, d := range c.fields {
		field := vectord.FieldInfo{FieldSchema: d.Schema}
		for _, s := range c.shards {
			field.Points += s.fields.points(d.Number, s.expiry.expired(db.now(), math.MaxInt))
		}
		info.Fields[d.Name] = field
		if !d.Ready {
			info.Status = vectord.StatusYellow
		}
	}
	for _, spec := range c.specs {
		if spec.kind == vectord.DenseVector {
			if info.Recall == nil {
				info.Recall = map[string]vectord.RecallState{}
			}
			info.Recall[spec.name] = c.recallState(spec)
		}
	}
	for _, s := range c.shards {
		info.Points += int(s.points.Load()) - len(s.expiry.expired(db.now(), math.MaxInt))
		for _, v := range *s.vectors.Load() {
			if v.sparse != nil {
				info.IndexedVectors += v.sparse.Len()
				continue
			}
			info.IndexedVectors += v.dense.indexed()
			if err := v.dense.failed.Load(); err != nil {
				info.Status, info.Problem = vectord.StatusRed, (*err).Error()
			}
			if v.dense.busy() && info.Status != vectord.StatusRed {
				info.Status = vectord.StatusYellow
				if db.budget.indexingPaused() {
					info.Status = vectord.StatusGrey
				}
			}
		}
	}
	return info, nil
}

// busy reports whether vectors wait for the graph, or the graph to be replaced or dropped.
func (x *vectorIndex) busy() bool {
	threshold := x.buildThreshold()
	waiting := x.waiting()
	g := x.graph.Load()
	return threshold >= 0 && waiting > 0 && (g != nil || waiting >= threshold) ||
		g != nil && (x.unwanted() || threshold >= 0 && !x.asConfigured(g)) || x.next.Load() != nil
}
