"""Programs that run for milliseconds and must be there in a second or two."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

# Little optimisation by LLVM, and one piece for it: each has its memory maps,
# of which a process has so many.
_OPTIONS = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  "xla_cpu_parallel_codegen_split_count": 1,
}
# The older of XLA's two ways to emit fused loops, where it has both.
if jaxlib.version.__version_info__ < (0, 11):
  _OPTIONS["xla_cpu_use_fusion_emitters"] = False


def quick(
  function: Callable[..., Any], *, static_argnames: Any = ()
) -> Callable[..., Any]:
  """`jax.jit` for a program that is compiled for longer than it runs.

  Args:
    function: pure.
    static_argnames: as of `jax.jit`.
  """

  @functools.cache
  def program(backend):
    options = _OPTIONS if backend == "cpu" else None
    return jax.jit(
      function, static_argnames=static_argnames, compiler_options=options
    )

  @functools.wraps(function)
  def call(*args, **options):
    return program(jax.default_backend())(*args, **options)

  return call


def over_problems(function: Callable[..., Any], *args: Any) -> Any:
  """`jax.vmap`, without its detours where there is one problem.

  Args:
    function: of one problem.
    *args: pytrees with the leading axis B.
  """
  if jax.tree.leaves(args)[0].shape[0] > 1:
    return jax.vmap(function)(*args)
  one = function(*jax.tree.map(lambda leaf: leaf[0], args))
  return jax.tree.map(lambda leaf: leaf[None], one)
