// Measures hnswlib (Debian: libhnswlib-dev). See README.md.
#include <hnswlib/hnswlib.h>

#include "peer.h"

namespace {

class Hnswlib : public peer::Index {
 public:
  Hnswlib(const peer::Options &o, size_t dim, size_t n) : threads_(o.threads) {
    if (o.metric == "euclid")
      space_ = std::make_unique<hnswlib::L2Space>(dim);
    else
      space_ = std::make_unique<hnswlib::InnerProductSpace>(dim);
    graph_ = std::make_unique<hnswlib::HierarchicalNSW<float>>(space_.get(), n, o.m, o.ef_construction);
  }

  void build(const peer::Vectors &base) override {
    std::atomic<size_t> next{0};
    auto insert = [&] {
      for (size_t i; (i = next++) < base.size();) graph_->addPoint(base.at(i), i);
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < threads_; i++) threads.emplace_back(insert);
    insert();
    for (auto &t : threads) t.join();
  }

  void set_ef(int ef) override { graph_->setEf(ef); }

  void search(const float *query, int k, int64_t *ids) const override {
    auto found = graph_->searchKnn(query, k); // the furthest on top
    std::fill(ids, ids + k, -1);
    for (size_t i = found.size(); i-- > 0; found.pop()) ids[i] = int64_t(found.top().second);
  }

 private:
  int threads_;
  std::unique_ptr<hnswlib::SpaceInterface<float>> space_;
  std::unique_ptr<hnswlib::HierarchicalNSW<float>> graph_;
};

} // namespace

int main(int argc, char **argv) {
  return peer::run(argc, argv, "hnswlib", {"float32"}, [](const peer::Options &o, size_t dim, size_t n) {
    return std::make_unique<Hnswlib>(o, dim, n);
  });
}
