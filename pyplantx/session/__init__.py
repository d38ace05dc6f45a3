"""One demand, from the question to its answer: what the plant sets to work for `produce` and `run_reactor`."""
