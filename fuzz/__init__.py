"""Coverage-guided fuzzing (atheris) of everything that reads bytes of strangers. `python -m fuzz` runs it.

Beside them, libFuzzer on the engine in C: see `native`.

`target` says what a harness is and the bounds every input must keep, `signalling`, `websocket`, `media`, `service`,
`xcap` and `operating` hold the harnesses, `run` runs them, `child` is one run in a process of its own. What was found
stays in `tests/fuzz_findings/<target>/` and is replayed by the ordinary tests.
"""
