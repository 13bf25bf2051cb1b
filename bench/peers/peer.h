// What the drivers of C++ libraries share: the command line, the files, the clock, the recall and the report. Everything is
// counted as `vectord bench ann` counts it (bench/ann.go), so that the lines that the drivers print can be compared.
#pragma once

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace peer {

// The least time that each ef is measured for; the queries are repeated until then.
constexpr double kMeasureSeconds = 1.0;

constexpr int kDimensionMax = 65536;
constexpr int kThreadsMax = 1024;
constexpr int kEfMax = 100000;

struct Options {
  std::string base, query, truth, metric = "cosine", codec;
  int k = 10, m = 16, ef_construction = 200, threads = 1;
  std::vector<int> ef = {10, 20, 40, 80, 160, 320};
};

// Rows of a vecs file: each is a little-endian int32 length and so many 4-byte values.
template <typename T>
struct Rows {
  size_t dim = 0;
  std::vector<T> data;

  size_t size() const { return dim == 0 ? 0 : data.size() / dim; }
  const T *at(size_t i) const { return data.data() + i * dim; }
  T *at(size_t i) { return data.data() + i * dim; }
};
using Vectors = Rows<float>;

template <typename T>
Rows<T> load(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path);
  Rows<T> rows;
  int32_t dim;
  while (in.read(reinterpret_cast<char *>(&dim), sizeof dim)) {
    if (dim < 1 || dim > kDimensionMax || (rows.dim != 0 && size_t(dim) != rows.dim))
      throw std::runtime_error(path + ": row " + std::to_string(rows.size()) + " has " + std::to_string(dim) + " values");
    rows.dim = dim;
    rows.data.resize(rows.data.size() + dim);
    if (!in.read(reinterpret_cast<char *>(rows.data.data() + rows.data.size() - dim), dim * sizeof(T)))
      throw std::runtime_error(path + ": ends within a row");
  }
  if (in.gcount() != 0 || rows.dim == 0) throw std::runtime_error(path + ": is empty or ends within a row");
  rows.data.shrink_to_fit();
  return rows;
}

// Scales each vector to length 1, for cosine is then a dot product.
inline void normalize(Vectors &v) {
  for (size_t i = 0; i < v.size(); i++) {
    double sum = 0;
    for (size_t j = 0; j < v.dim; j++) sum += double(v.at(i)[j]) * v.at(i)[j];
    if (sum == 0) continue;
    const double scale = 1 / std::sqrt(sum);
    for (size_t j = 0; j < v.dim; j++) v.at(i)[j] = float(v.at(i)[j] * scale);
  }
}

// The distance that recall is decided by; it is no part of what is timed.
inline float distance(const std::string &metric, const float *a, const float *b, size_t dim) {
  float sum = 0;
  if (metric == "euclid") {
    for (size_t i = 0; i < dim; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
  }
  for (size_t i = 0; i < dim; i++) sum += a[i] * b[i];
  return -sum;
}

// An index of one library. Rows of the base are its ids.
class Index {
 public:
  virtual ~Index() = default;
  virtual void build(const Vectors &base) = 0;
  virtual void set_ef(int ef) = 0;

  // Writes the ids of the k nearest found, -1 where there is none. Called from several threads at once.
  virtual void search(const float *query, int k, int64_t *ids) const = 0;

  // Searches for all queries in one call on all threads, if the library has such a call: it may then share among queries
  // what a call has to set up.
  virtual bool search_all(const Vectors &, int /*k*/, int64_t * /*ids*/) const { return false; }
};

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Bytes that malloc has handed out.
inline int64_t bytes_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return int64_t(info.uordblks) + int64_t(info.hblkhd);
}

struct Row {
  int ef;
  double recall, qps, mean, p50, p95, p99;
};

class Measurement {
 public:
  Measurement(const Options &options, const Vectors &base, const Vectors &queries, const Rows<int32_t> &truth)
      : options_(options), base_(base), queries_(queries) {
    for (size_t i = 0; i < queries.size(); i++) {
      const int32_t row = truth.at(i)[options.k - 1];
      if (row < 0 || size_t(row) >= base.size())
        throw std::runtime_error("the truth of query " + std::to_string(i) + " names row " + std::to_string(row));
      bounds_.push_back(distance(options.metric, queries.at(i), base.at(row), base.dim));
    }
  }

  Row measure(Index &index, int ef) const {
    index.set_ef(ef);
    Row row = {ef, recall(index), 0, 0, 0, 0, 0};
    std::vector<double> took = singles(index, row.qps);
    std::vector<int64_t> ids(queries_.size() * options_.k);
    if (index.search_all(queries_, options_.k, ids.data())) {
      const auto begin = Clock::now();
      int calls = 0;
      double wall;
      do {
        index.search_all(queries_, options_.k, ids.data());
        calls++;
        wall = seconds_since(begin);
      } while (wall <= kMeasureSeconds);
      row.qps = double(calls) * queries_.size() / wall;
    }
    std::sort(took.begin(), took.end());
    double sum = 0;
    for (double t : took) sum += t;
    auto at = [&](double share) {
      const auto rank = int64_t(share * took.size() + 0.999999) - 1;
      return took[std::clamp<int64_t>(rank, 0, took.size() - 1)];
    };
    row.mean = sum / took.size(), row.p50 = at(0.50), row.p95 = at(0.95), row.p99 = at(0.99);
    return row;
  }

 private:
  // The share of found points that are no further than the k-th true neighbor; it also warms up.
  double recall(const Index &index) const {
    std::vector<int64_t> ids(options_.k);
    int64_t right = 0;
    for (size_t i = 0; i < queries_.size(); i++) {
      index.search(queries_.at(i), options_.k, ids.data());
      for (int64_t id : ids)
        right += id >= 0 && distance(options_.metric, queries_.at(i), base_.at(id), base_.dim) <= bounds_[i];
    }
    return double(right) / (double(options_.k) * queries_.size());
  }

  // Searches one query a call on each thread; returns how long each took in microseconds.
  std::vector<double> singles(const Index &index, double &qps) const {
    std::vector<std::vector<double>> took(options_.threads);
    std::atomic<int64_t> next{0};
    const auto begin = Clock::now();
    auto run = [&](int thread) {
      std::vector<int64_t> ids(options_.k);
      for (;;) {
        const int64_t q = next++;
        if (q >= int64_t(queries_.size()) && seconds_since(begin) > kMeasureSeconds) return;
        const float *query = queries_.at(q % queries_.size());
        const auto start = Clock::now();
        index.search(query, options_.k, ids.data());
        took[thread].push_back(seconds_since(start) * 1e6);
      }
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < options_.threads; i++) threads.emplace_back(run, i);
    run(0);
    for (auto &t : threads) t.join();
    const double wall = seconds_since(begin);
    std::vector<double> all;
    for (const auto &t : took) all.insert(all.end(), t.begin(), t.end());
    qps = all.size() / wall;
    return all;
  }

  const Options &options_;
  const Vectors &base_, &queries_;
  std::vector<float> bounds_;
};

inline int number(const std::string &name, const std::string &text, int max) {
  char *end;
  const long n = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != 0 || n < 1 || n > max)
    throw std::invalid_argument(name + ": " + text + " invalid, must be from 1 to " + std::to_string(max));
  return int(n);
}

inline Options parse(int argc, char **argv, const std::vector<std::string> &codecs) {
  Options o;
  o.codec = codecs.front();
  const std::map<std::string, std::string *> texts = {{"--base", &o.base},     {"--query", &o.query}, {"--truth", &o.truth},
                                                      {"--metric", &o.metric}, {"--codec", &o.codec}};
  const std::map<std::string, std::pair<int *, int>> numbers = {{"--k", {&o.k, kEfMax}},
                                                                {"--m", {&o.m, 512}},
                                                                {"--ef-construction", {&o.ef_construction, kEfMax}},
                                                                {"--threads", {&o.threads, kThreadsMax}}};
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) throw std::invalid_argument(name + ": has no value");
    const std::string value = argv[i + 1];
    if (texts.count(name)) {
      *texts.at(name) = value;
    } else if (numbers.count(name)) {
      *numbers.at(name).first = number(name, value, numbers.at(name).second);
    } else if (name == "--ef") {
      o.ef.clear();
      std::istringstream list(value);
      for (std::string item; std::getline(list, item, ',');) o.ef.push_back(number(name, item, kEfMax));
    } else {
      throw std::invalid_argument("unknown flag " + name);
    }
  }
  for (const auto &[name, value] : texts)
    if (value->empty()) throw std::invalid_argument(name + ": not given");
  if (o.metric != "cosine" && o.metric != "euclid" && o.metric != "dot")
    throw std::invalid_argument("--metric: " + o.metric + " invalid, must be cosine, euclid or dot");
  if (std::find(codecs.begin(), codecs.end(), o.codec) == codecs.end())
    throw std::invalid_argument("--codec: " + o.codec + " invalid");
  if (o.ef.empty()) throw std::invalid_argument("--ef: none given");
  for (int ef : o.ef)
    if (ef < o.k) throw std::invalid_argument("--ef: " + std::to_string(ef) + " is less than k = " + std::to_string(o.k));
  return o;
}

// A driver's main: make(options, dim, rows) returns the empty index. The first of codecs is the default.
template <typename Make>
int run(int argc, char **argv, const char *engine, const std::vector<std::string> &codecs, Make make) {
  try {
    const Options options = parse(argc, argv, codecs);
    Vectors base = load<float>(options.base), queries = load<float>(options.query);
    const Rows<int32_t> truth = load<int32_t>(options.truth);
    if (base.dim != queries.dim) throw std::runtime_error("base and queries differ in dimension");
    if (truth.size() < queries.size() || truth.dim < size_t(options.k))
      throw std::runtime_error("the truth has too few rows, or fewer than k neighbors");
    if (options.metric == "cosine") normalize(base), normalize(queries);
    const Measurement measurement(options, base, queries, truth);

    const int64_t before = bytes_in_use();
    const auto begin = Clock::now();
    std::unique_ptr<Index> index = make(options, base.dim, base.size());
    index->build(base);
    const double build_seconds = seconds_since(begin);
    const int64_t memory = bytes_in_use() - before;

    std::vector<Row> rows;
    for (int ef : options.ef) rows.push_back(measurement.measure(*index, ef));

    std::string metric = options.metric;
    metric[0] += 'A' - 'a'; // as vectord writes it
    std::printf("{\"engine\":\"%s\",\"n\":%zu,\"dim\":%zu,\"metric\":\"%s\",\"codec\":\"%s\",\"build_seconds\":%.6g,"
                "\"bytes_in_memory\":%lld,\"rows\":[",
                engine, base.size(), base.dim, metric.c_str(), options.codec.c_str(), build_seconds, (long long)memory);
    for (size_t i = 0; i < rows.size(); i++)
      std::printf("%s{\"ef\":%d,\"recall\":%.6g,\"qps\":%.6g,\"mean_us\":%.6g,\"p50_us\":%.6g,\"p95_us\":%.6g,\"p99_us\":%.6g}",
                  i ? "," : "", rows[i].ef, rows[i].recall, rows[i].qps, rows[i].mean, rows[i].p50, rows[i].p95, rows[i].p99);
    std::printf("]}\n");
    return 0;
  } catch (const std::invalid_argument &e) {
    std::fprintf(stderr, "%s: %s\n", argv[0], e.what());
    return 2;
  } catch (const std::exception &e) {
    std::fprintf(stderr, "%s: %s\n", argv[0], e.what());
    return 1;
  }
}

} // namespace peer
