"""How large the constructed networks are."""

from experiments.studies.constructed import em as constructed_em
from experiments.studies.constructed import rows as constructed_rows
from tgmm_jax.constructed import (
  em,
  em_network,
  power_method,
  primitives,
  spectral_method,
  spectral_network,
  tensor_power,
)


def sizes(settings, seed, on_step):
  """How large each network is, unrolled over its schedule."""
  del seed
  dim, size, steps = settings.dim, settings.num_components, settings.num_steps
  built = {}
  for design in em_network.DESIGNS:
    network = em.build(dim, size, segments=settings.segments, design=design)
    name = f"EM, {constructed_em.DESIGN_NAMES[design]}"
    built[name] = (network.transformer, network.schedule(steps))
  for is_normalised in (False, True):
    network = tensor_power.build(
      dim, settings.num_points, is_normalised=is_normalised
    )
    name = "tensor power" + (", normalised" if is_normalised else "")
    built[name] = (network, tensor_power.schedule(network, steps))
  count = settings.num_vectors
  built["power method"] = (
    power_method.build(dim, count),
    power_method.schedule(count, steps),
  )
  built["two classes"] = (
    power_method.build(dim),
    power_method.label_schedule(steps),
  )
  # The method has at most d components.
  size = min(size, dim)
  total = spectral_method.num_tokens(settings.num_points, dim, size, 10)
  built["spectral method"] = (
    spectral_network.build(dim, size, total).transformer,
    spectral_network.schedule(size),
  )
  rows = []
  for done, (name, (network, schedule)) in enumerate(built.items()):
    found = primitives.sizes(network, schedule)._asdict()
    rows += [
      constructed_rows.point("sizes", metric, name, steps, value, count=1)
      for metric, value in found.items()
    ]
    on_step(done + 1, len(built))
  return rows
