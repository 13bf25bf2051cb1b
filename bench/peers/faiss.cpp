// Measures faiss's HNSW (Debian: libfaiss-dev) over float32 (IndexHNSWFlat) or 8-bit codes (IndexHNSWSQ). See README.md.
#include <faiss/IndexHNSW.h>
#include <omp.h>

#include "peer.h"

namespace {

class Faiss : public peer::Index {
 public:
  Faiss(const peer::Options &o, size_t dim) : threads_(o.threads) {
    const auto metric = o.metric == "euclid" ? faiss::METRIC_L2 : faiss::METRIC_INNER_PRODUCT;
    if (o.codec == "sq8")
      index_ = std::make_unique<faiss::IndexHNSWSQ>(int(dim), faiss::ScalarQuantizer::QT_8bit, o.m, metric);
    else
      index_ = std::make_unique<faiss::IndexHNSWFlat>(int(dim), o.m, metric);
    index_->hnsw.efConstruction = o.ef_construction;
  }

  void build(const peer::Vectors &base) override {
    omp_set_num_threads(threads_);
    index_->train(base.size(), base.at(0));
    index_->add(base.size(), base.at(0));
  }

  void set_ef(int ef) override { index_->hnsw.efSearch = ef; }

  void search(const float *query, int k, int64_t *ids) const override {
    omp_set_num_threads(1); // holds for the calling thread, which would start a team for its one query
    std::vector<float> distances(k);
    index_->search(1, query, k, distances.data(), ids);
  }

  bool search_all(const peer::Vectors &queries, int k, int64_t *ids) const override {
    omp_set_num_threads(threads_);
    std::vector<float> distances(queries.size() * k);
    index_->search(queries.size(), queries.at(0), k, distances.data(), ids);
    return true;
  }

 private:
  int threads_;
  std::unique_ptr<faiss::IndexHNSW> index_;
};

} // namespace

int main(int argc, char **argv) {
  return peer::run(argc, argv, "faiss", {"float32", "sq8"}, [](const peer::Options &o, size_t dim, size_t) {
    return std::make_unique<Faiss>(o, dim);
  });
}
