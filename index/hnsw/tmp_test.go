package hnsw
import ("testing";"math/rand/v2";"github.com/vectord/vectord")
func TestTmp(t *testing.T) {
	const n, dim = 8000, 24
	for _, frac := range []int{20, 3} {
	vectors := clustered(11, n+200, dim)
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	rng := rand.New(rand.NewPCG(11, 3))
	t.Logf("start: findable(16) %.5f recall %.4f", w.findable(16), w.codeRecall(vectors[n:],10,24,nil))
	for range 8 {
		slots := rng.Perm(n)[:n/frac]
		for _, slot := range slots { w.delete(t, uint32(slot)) }
		w.unlink(t)
		_, orphans := w.graph.survey2()
		for _, slot := range slots { w.insert(t, uint32(slot)) }
		t.Logf("orphans %d findable(16) %.5f findable(64) %.5f recall %.4f", orphans, w.findable(16), w.findable(64),  w.codeRecall(vectors[n:],10,24,nil))
	}}
}
func (g *Graph) survey2() (int,int) {
	a := g.arena.Load(); seen := map[uint32]bool{}; links := 0
	for slot := range g.high.Load() { if a.isLive(slot) { for _, l := range appendLinks(nil, a.links(slot,0)) { seen[l]=true; links++ } } }
	return links/g.Len(), g.Len()-len(seen)
}
