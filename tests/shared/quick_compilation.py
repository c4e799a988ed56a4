"""Options of the compiler for functions that run once or twice: compiling takes half the time."""

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # the same
