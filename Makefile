# Everything a newcomer needs: `make up`, then `make test`. Targets install what they need and are safe to repeat.
SHELL := /bin/bash
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
export TESTCONTAINERS_RYUK_DISABLED := true

.PHONY: help up down test check bench images proto clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

up: ## install what is missing, start the five services, run the demo agent
	@deploy/bootstrap.sh packages confinement engine images
	@bin/interlock up --detach
	@node examples/agent.ts

down: ## stop what `make up` started
	@bin/interlock down

test: ## install what is missing, check, and run every test
	@deploy/bootstrap.sh packages confinement engine gvisor nats python images compose clients
	@deploy/check.sh
	@deploy/test.sh

check: ## types, lint, layering, sizes, contracts, generated code
	@deploy/bootstrap.sh packages
	@deploy/check.sh

bench: ## measure; SUITE=call for one suite, FULL=1 for the long form
	@deploy/bootstrap.sh packages confinement engine gvisor nats images postgres
	@node bench/main.ts $(if $(SUITE),--suite $(SUITE)) $(if $(FULL),--full)

images: ## build the sandbox images
	@deploy/bootstrap.sh packages confinement engine images
	@sandbox-images/build.sh --check || sandbox-images/build.sh

proto: ## lint the contracts and generate their code
	@deploy/bootstrap.sh packages
	@buf lint && buf generate

clean: ## stop what runs, remove what was made (not the installed system packages)
	-@bin/interlock down 2>/dev/null
	rm -rf .interlock node_modules test/.tmp
