package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vectord/vectord/bench"
)

// TestBenchHybrid measures a dictionary whose answers are known, with a real server. Half of its sentences have no word in
// common with their definition but one that means the same; the other half has a rare word in common, and another that means
// what a dozen definitions are about. Dense vectors find the first half only, BM25 the second, and a fusion both.
func TestBenchHybrid(t *testing.T) {
	const n = 20
	dir := t.TempDir()
	var nouns strings.Builder
	synset := func(word, gloss string) { fmt.Fprintf(&nouns, "00000001 03 n 01 %s 0 000 | %s\n", word, gloss) }
	embedding := map[string][]float32{} // by word: 1 in the first component, and 1 in one that words of the same meaning share
	order := []string{}
	means := func(word string, meaning int) {
		v := make([]float32, 2*n+2)
		v[0], v[1+meaning] = 1, 1
		embedding[word] = v
		order = append(order, word)
	}
	for i := range n {
		means(fmt.Sprintf("plain%d", i), i)
		means(fmt.Sprintf("fancy%d", i), i)
		synset(fmt.Sprintf("fancy%d", i), fmt.Sprintf(`plain%d; "the fancy%d"`, i, i))
		means(fmt.Sprintf("other%d", i), n+i)
		synset("nothing", fmt.Sprintf(`rare%d other%d; "rare%d common"`, i, i, i))
	}
	means("common", 2*n)
	for i := range 12 {
		synset("nothing", fmt.Sprintf(`common decoy%d`, i))
	}
	vectors := `{"dimensions":42,"vectors":{`
	for i, word := range order {
		if i > 0 {
			vectors += ","
		}
		b, err := json.Marshal(append(embedding[word], 1.414, float32(i)))
		if err != nil {
			t.Fatal(err)
		}
		vectors += fmt.Sprintf("%q:%s", word, b)
	}
	vectorsPath, glossesPath := filepath.Join(dir, "vectors.json"), filepath.Join(dir, "glosses.tgz")
	if err := os.WriteFile(vectorsPath, []byte(vectors+"}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(glossesPath)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	archive := tar.NewWriter(z)
	for name, text := range map[string]string{"data.noun": nouns.String(), "data.verb": "1 29 v 01 v 0 000 | v\n", "data.adj": "1 00 a 01 a 0 000 | a\n",
		"data.adv": "1 02 r 01 r 0 000 | r\n"} {
		if err := archive.WriteHeader(&tar.Header{Name: "package/dict/" + name, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []interface{ Close() error }{archive, z, f} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}

	p := start(t, "serve", "--data-dir", filepath.Join(dir, "data"), "--http", "127.0.0.1:0", "--grpc", "", "--tcp", "", "--memory-limit", "256MiB")
	measure := func(args ...string) (code int, stdout, stderr string) {
		return invoke(t, nil, append([]string{"bench", "hybrid", "--url", p.url(), "--glosses", glossesPath, "--vectors", vectorsPath,
			"--queries", "100", "--prefetch", "50"}, args...)...)
	}
	code, stdout, stderr := measure("--json", "--avg-len", "2")
	var report bench.HybridReport
	if code != exitOK || json.Unmarshal([]byte(stdout), &report) != nil || len(report.Judged) != 2 {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if report.Texts != 2*n+12+3 || report.WithVector != 2*n+12 {
		t.Errorf("%d texts, %d with a vector, want %d and %d", report.Texts, report.WithVector, 2*n+15, 2*n+12)
	}
	rows := func(kind bench.HybridJudged) (dense, approximate, sparse, rrf, tuned, dbsf bench.HybridRow) {
		t.Helper()
		if len(kind.Rows) != 7 || !strings.HasPrefix(kind.Rows[5].Search, "tuned: rrf") || kind.Relevant != 1 {
			t.Fatalf("%+v", kind)
		}
		return kind.Rows[0], kind.Rows[1], kind.Rows[2], kind.Rows[3], kind.Rows[5], kind.Rows[6]
	}
	dense, approximate, sparse, rrf, tuned, dbsf := rows(report.Judged[0])
	if dense.Recall == 0 || sparse.Recall == 0 || dense.Recall+sparse.Recall != 1 || dense.NDCG != dense.Recall || sparse.NDCG != sparse.Recall {
		t.Errorf("sentences: dense %+v, sparse %+v", dense, sparse)
	}
	if approximate.Recall != dense.Recall || rrf.Recall != 1 || dbsf.Recall != 1 || tuned.NDCG < rrf.NDCG || !(rrf.NDCG < 1) {
		t.Errorf("sentences: approximate %+v, rrf %+v, tuned %+v, dbsf %+v", approximate, rrf, tuned, dbsf)
	}
	if dense.Gain != 0 && sparse.Gain != 0 || tuned.Gain <= 0 || tuned.GainError <= 0 {
		t.Errorf("sentences: gains of dense %v, sparse %v, tuned %v ± %v", dense.Gain, sparse.Gain, tuned.Gain, tuned.GainError)
	}
	// Behind two decoys, which both lists have, comes what BM25 has first: 1 / log2 4 for each that dense vectors do not find.
	if want := dense.Recall + sparse.Recall/2; rrf.NDCG < want-1e-9 || rrf.NDCG > want+1e-9 {
		t.Errorf("sentences: nDCG of rrf %v, want %v", rrf.NDCG, want)
	}
	dense, _, sparse, rrf, _, _ = rows(report.Judged[1])
	if report.Judged[1].Kind != "words" || report.Judged[1].Queries != n/2 || dense.NDCG != 1 || sparse.Recall != 0 || rrf.NDCG != 1 {
		t.Errorf("words: %d, dense %+v, sparse %+v, rrf %+v", report.Judged[1].Queries, dense, sparse, rrf)
	}

	if code, _, stderr = measure(); code != exitError || !strings.Contains(stderr, "already exists") {
		t.Errorf("the same collection again: exit code %d: %s", code, stderr)
	}
	code, stdout, stderr = measure("--collection", "entries", "--headwords")
	if code != exitOK || strings.Contains(stdout, "words: ") || !strings.Contains(stdout, "nDCG@10") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
