# The developer's commands; what each does stands in tools/dev.py. `make test ARGS="-k lease"` passes arguments on.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)

help verify fast test long coverage format docs:
	@$(PYTHON) -m tools.dev $(subst help,--help,$@) $(ARGS)

ci:
	.ci/run

.PHONY: help verify fast test long coverage format docs ci
