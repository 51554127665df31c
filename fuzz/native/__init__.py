"""Checks of the engine in C (`media_relay/engine/csrc`), which the Python fuzzer cannot see into.

`targets` lists the harnesses, programs in C beside it: `payloads.c`, `datagrams.c` and `commands.c` for libFuzzer,
`threads.c` for ThreadSanitizer. `build` compiles them. They stand here and not beside the engine, so that what is
installed holds no line of them.
"""
