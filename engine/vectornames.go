package engine

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// Names of vectors come and go at run time. A name gets a number that no other of the collection had, so that what is left
// in rows of points of a name that was dropped, which go on naming its number, is never taken for something else. Its
// vectors go with the commit that drops it; points keep their slots and versions.

type createVectorName struct {
	Collection string             `json:"collection"`
	Name       string             `json:"name"`
	Vectors    vectord.NewVectors `json:"vectors"`
}

type deleteVectorName struct {
	Collection string `json:"collection"`
	Name       string `json:"name"`
}

// CreateVectorName adds a name of vectors, of which no point has one yet. To add it again as it is changes nothing.
func (db *DB) CreateVectorName(ctx context.Context, name, vectorName string, v vectord.NewVectors) (vectord.UpdateResult, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	if _, err := col.config.WithVectors(vectorName, v); err != nil {
		return vectord.UpdateResult{}, err
	}
	return db.proposeField(ctx, commandCreateVectorName, createVectorName{Collection: col.name, Name: vectorName, Vectors: v})
}

// DeleteVectorName drops a name and the vectors that points have of it.
func (db *DB) DeleteVectorName(ctx context.Context, name, vectorName string) (vectord.UpdateResult, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	return db.proposeField(ctx, commandDeleteVectorName, deleteVectorName{Collection: col.name, Name: vectorName})
}

// createVectorName applies the command of that name.
func (a *applier) createVectorName(e vectord.Entry, c createVectorName) (value any, refusal, err error) {
	col := a.db.catalog.collections[c.Collection]
	if col == nil {
		return nil, noCollection(c.Collection), nil
	}
	config, refusal := col.config.WithVectors(c.Name, c.Vectors)
	if refusal != nil {
		return nil, refusal, nil
	}
	if _, ok := col.numbers[c.Name]; ok {
		return nil, nil, nil // as it is
	}
	if col.nextNumber == math.MaxUint16 {
		return nil, vectord.Errorf(vectord.KindInvalid, "the collection has had %d vector names, which is the most", math.MaxUint16), nil
	}
	changed := *col
	numbers := maps.Clone(col.numbers)
	if numbers == nil {
		numbers = map[string]uint16{}
	}
	numbers[c.Name] = changed.nextNumber
	changed.nextNumber++
	if err := a.reshape(&changed, config, numbers); err != nil {
		return nil, nil, err
	}
	spec := changed.specOf(numbers[c.Name])
	for _, s := range changed.shards {
		v := a.db.newShardVectors(s, spec)
		if v.dense != nil {
			v.dense.trimmed.Store(e.Index)
		}
		vectors := append(slices.Clone(*s.vectors.Load()), v) // the number is the highest so far
		s.vectors.Store(&vectors)
	}
	a.db.catalog.put(&changed)
	return nil, nil, nil
}

// deleteVectorName applies the command of that name.
func (a *applier) deleteVectorName(c deleteVectorName) (value any, refusal, err error) {
	col := a.db.catalog.collections[c.Collection]
	if col == nil {
		return nil, noCollection(c.Collection), nil
	}
	number, ok := col.numbers[c.Name]
	if !ok {
		return nil, vectord.NoVectorName(c.Name), nil
	}
	changed := *col
	numbers := maps.Clone(col.numbers)
	delete(numbers, c.Name)
	if err := a.reshape(&changed, col.config.WithoutVectors(c.Name), numbers); err != nil {
		return nil, nil, err
	}
	a.db.catalog.put(&changed)
	for _, s := range changed.shards {
		a.batch.DropVectors(storage.VectorSet{Shard: s.id, Number: number})
		// Searches of the name are refused from here on; one under way sees that the removals went on, and looks again.
		dropped := s.vectorsOf(number)
		vectors := slices.DeleteFunc(slices.Clone(*s.vectors.Load()), func(v *shardVectors) bool { return v == dropped })
		s.vectors.Store(&vectors)
		dropped.noteRemoval()
		a.nameless = append(a.nameless, droppedVectors{s, dropped})
	}
	return nil, nil, nil
}

// reshape gives a collection that is about to change another configuration.
func (a *applier) reshape(changed *collection, config vectord.CollectionConfig, numbers map[string]uint16) (err error) {
	if changed.shape, err = a.db.shapes.of(config, numbers); err != nil {
		return err
	}
	return a.putMeta(collectionKey(changed.id), changed.meta())
}

// droppedVectors are what a shard had of a name that was dropped.
type droppedVectors struct {
	shard   *shard
	vectors *shardVectors
}

func (v *shardVectors) noteRemoval() {
	if v.sparse != nil {
		v.sparse.removals.Add(1)
		return
	}
	v.dense.removals.Add(1)
}

// releaseDropped frees what dropped vectors held in memory and in derived files.
func (db *DB) releaseDropped(all []droppedVectors) {
	if len(all) == 0 {
		return
	}
	db.background.Go(func() {
		for _, d := range all {
			d.vectors.noteRemoval() // for a search that got hold of them and began to count after the first
			db.releaseVectors(d.vectors)
			d.shard.feed.drop(d.vectors.number) // the background work that could set it has ended
		}
	})
}
