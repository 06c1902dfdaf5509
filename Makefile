# Weft. `make demo` runs a mesh, `make test` tests everything.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X weft.mesh/weft/internal/version.Version=$(VERSION)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

# The profile by which weft-proxy is optimised; off: none, which saves compiling all its packages a second time.
export WEFT_PGO ?= cmd/weft-proxy/release.pgo

# One way of compiling for programs, vet and tests, so that each package is compiled once, and once more for the race detector.
export CGO_ENABLED := 0
export GOFLAGS := $(GOFLAGS) -trimpath

.PHONY: help demo build test test-short test-e2e lint bench bench-gate bench-scale bench-scale-curves pgo soak images test-kubernetes test-chaos test-conformance console test-chart crds fuzz deps clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## build, then run the mesh with Bookinfo on http://localhost:8080/productpage
	bin/weft demo

build: ## bin/weft, bin/weft-proxy, bin/weft-node and the samples in bin/samples
	@mkdir -p bin/samples
	$(BUILD) -o bin/weft ./cmd/weft
	$(BUILD) -pgo=$(WEFT_PGO) -tags grpcnotrace -o bin/weft-proxy ./cmd/weft-proxy # without golang.org/x/net/trace: 4.7 MB less
	$(BUILD) -o bin/weft-node ./cmd/weft-node
	$(BUILD) -o bin/samples/bookinfo ./samples/bookinfo/cmd/bookinfo

test: export WEFT_PGO := off
test: deps lint build ## everything that must pass: vet, unit tests under the race detector, end-to-end
	test/run

test-short: ## unit tests only, without the race detector
	$(GO) test $$($(GO) list ./... | grep -v /test/e2e)

test-e2e: build ## end-to-end tests in network namespaces
	$(GO) test -count=1 -v ./test/e2e/...

lint: ## gofmt and go vet
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...

bench: build ## proxy benchmarks next to HAProxy, nginx, Envoy and Caddy; writes docs/benchmarks.md and docs/benchmarks.json
	test/deps bench
	$(GO) run ./test/bench -peers all -rounds 9 -seconds 1.5 -write docs/benchmarks.md -json docs/benchmarks.json $(BENCH)

pgo: ## cmd/weft-proxy/release.pgo, by which weft-proxy is optimised: profiles of the saturated benchmarks, on a quiet machine
	rm -rf .cache/pgo && mkdir -p .cache/pgo
	$(GO) run ./test/bench -cases h1,mtls,h2,grpc -rounds 1 -seconds 8 -peers "" -profiles .cache/pgo
	$(GO) tool pprof -proto .cache/pgo/*.cpu > .cache/release.pgo
	mv .cache/release.pgo cmd/weft-proxy/release.pgo

bench-gate: ## fail if weft-proxy costs more than at the merge base with main (BASE=commit to choose another)
	$(GO) run ./test/bench -gate $(or $(BASE),auto) -rounds 15 -seconds 0.5

bench-scale: ## the control plane with 1,000 services, 10,000 endpoints and 1,000 proxies; writes docs/benchmarks.md and docs/benchmarks-scale.json; SCALE='-churn 10m' adds flags
	$(GO) run ./test/kubernetes/cluster build
	$(GO) run ./test/scale -sizes 100x1000x100,300x3000x300,1000x10000x1000 -write docs/benchmarks.md -json docs/benchmarks-scale.json $(SCALE)

bench-scale-curves: ## the same, growing in one dimension at a time: services, endpoints and proxies ×1, ×3, ×10
	$(GO) run ./test/kubernetes/cluster build
	$(GO) run ./test/scale -sizes 100x3000x300,300x3000x300,1000x3000x300,300x1000x300,300x10000x300,1000x10000x100,1000x10000x300 -churn 10s -section curves -write docs/benchmarks.md $(SCALE)

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	test/fuzz

soak: ## mixed traffic, faults and changing configuration under the race detector for SOAKTIME (1h), SOAKRATE (60) operations/s
	WEFT_SOAK_TIME=$(or $(SOAKTIME),1h) WEFT_SOAK_RATE=$(or $(SOAKRATE),60) $(GO) test -count=1 -v -timeout 0 -run TestSoak ./test/soak

images: ## OCI archives of weft/weft, weft/proxy and the sample in bin/images, without Docker (ARCH=amd64,arm64)
	$(GO) run ./deploy/image/build -version '$(VERSION)' -registry '$(REGISTRY)' -arch '$(or $(ARCH),amd64,arm64)' -o bin/images

test-kubernetes: ## a two-node cluster on this machine (root; builds Kubernetes once), weft install, Bookinfo, restarts under load
	$(GO) run ./test/kubernetes/cluster peers
	$(GO) run ./test/kubernetes/cluster run -- $(GO) test -count=1 -p 1 -v -timeout 30m ./test/kubernetes/...
	$(GO) run ./test/kubernetes/cluster run -- $(GO) test -count=1 -v -timeout 15m ./test/kubernetes/migrate

test-chaos: ## the same cluster broken under traffic: API server, leader, webhook, node, etcd (root; about 15 minutes)
	WEFT_CHAOS=1 $(GO) run ./test/kubernetes/cluster run -- $(GO) test -count=1 -v -timeout 40m ./test/kubernetes/chaos

test-conformance: ## the Gateway API's conformance suite on such a cluster; writes docs/kubernetes/gateway-api-conformance.yaml
	$(GO) run ./test/kubernetes/cluster run -- $(GO) run ./test/kubernetes/conformance $(CONFORMANCE)

console: ## build the web console's assets
	cd console && npm ci && npm run build

test-chart: ## the chart against Helm's own renderer, linter and schema (a module of its own)
	cd test/chart && $(GO) test -count=1 ./...

crds: ## deploy/crds from the modules that publish them
	$(GO) run ./deploy/crdgen

deps: ## the programs that tests use as peers (Debian packages; skipped if not root or already there)
	test/deps

clean: ## remove what was built
	rm -rf bin .cache
