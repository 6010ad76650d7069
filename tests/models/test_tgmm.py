import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tgmm_jax.models import parameters, tgmm
from tgmm_jax.models import prediction as prediction_lib

DIM = 3
SMALL = {
  "dim": DIM,
  "num_components": (2, 3, 5),
  "width": 16,
  "num_layers": 2,
  "num_heads": 2,
  "max_points": 12,
  "embedding_width": 8,
  "state_size": 4,
  "num_groups": 1,
  "head_dim": 16,
  "expansion": 2,
}
VARIANTS = [
  (backbone, is_causal)
  for backbone in tgmm.BACKBONES
  for is_causal in (False, True)
]
of_each_backbone = pytest.mark.parametrize("backbone", tgmm.BACKBONES)
slow_of_mamba2 = pytest.mark.parametrize(
  "backbone",
  ["transformer", pytest.param("mamba2", marks=pytest.mark.slow)],
)
of_each_variant = pytest.mark.parametrize(("backbone", "is_causal"), VARIANTS)


@functools.cache
def network(**changes):
  """A compiled `(params, problem) -> Prediction` and its params."""
  config = tgmm.TGMMConfig(**{**SMALL, **changes})
  abstract = nnx.eval_shape(lambda: tgmm.TGMM(config, rngs=nnx.Rngs(0)))
  graphdef, params = nnx.split(abstract, nnx.Param)
  # Wider than at the start of a training, so that everything shows.
  generator = np.random.default_rng(1)

  def draw(path, leaf):
    is_scale = "scale" in jax.tree_util.keystr(path)
    values = is_scale + 0.3 * generator.normal(size=leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  def apply(params, problem):
    return nnx.merge(graphdef, params)(problem)

  return jax.jit(apply), jax.tree.map_with_path(draw, params)


def problem_of(points, sample_weight, num_components):
  return prediction_lib.NetworkInput(
    points,
    sample_weight,
    jnp.asarray(num_components, jnp.int32),
    jnp.full(np.shape(num_components), float(DIM)),
  )


def padded_problem(num_points=8, count=3, seed=2):
  points = 3.0 * jax.random.normal(jax.random.key(seed), (12, DIM))
  return problem_of(
    points, (jnp.arange(12) < num_points).astype(jnp.float32), count
  )


def batch(counts=(3, 2, 5, 3), num_points=(12, 5, 9, 7)):
  points = 3.0 * jax.random.normal(jax.random.key(3), (4, 12, DIM))
  is_point = jnp.arange(12) < jnp.array(num_points)[:, None]
  return problem_of(points, is_point.astype(jnp.float32), counts)


def loss(prediction):
  weights = jnp.cos(jnp.arange(prediction.means.size, dtype=jnp.float32))
  return jnp.sum(
    weights.reshape(prediction.means.shape) * prediction.means
  ) + jnp.sum(jnp.exp(prediction.log_weights[..., 0]))


def assert_close(one, other, atol=5e-5):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, atol=atol)


def test_answer_has_one_stage_and_is_a_mixture():
  apply, params = network(has_scales=True)
  prediction = apply(params, padded_problem(count=3))
  assert prediction.log_weights.shape == (1, 5)
  assert prediction.means.shape == prediction.scales.shape == (1, 5, DIM)
  np.testing.assert_allclose(
    np.exp(prediction.log_weights[0, :3]).sum(), 1.0, atol=1e-6
  )
  np.testing.assert_array_equal(prediction.means[0, 3:], 0.0)
  assert np.all(np.abs(prediction.means[0, :3]) > 0.0)


@of_each_backbone
def test_order_of_the_points_does_not_matter(backbone):
  apply, params = network(backbone=backbone)
  problem = padded_problem()
  order = jax.random.permutation(jax.random.key(7), 12)
  permuted = problem._replace(
    points=problem.points[order], sample_weight=problem.sample_weight[order]
  )
  assert_close(apply(params, permuted), apply(params, problem))


@of_each_backbone
def test_order_matters_to_the_causal_variant(backbone):
  apply, params = network(backbone=backbone, is_causal=True)
  problem = padded_problem()
  swapped = problem._replace(
    points=problem.points.at[:2].set(problem.points[1::-1])
  )
  difference = apply(params, swapped).means - apply(params, problem).means
  assert np.abs(difference).max() > 1e-2
  bidirectional, its_params = network(backbone=backbone)
  difference = (
    apply(params, problem).means - bidirectional(its_params, problem).means
  )
  assert np.abs(difference).max() > 1e-2


@of_each_variant
def test_padded_is_truncated(backbone, is_causal):
  apply, params = network(backbone=backbone, is_causal=is_causal)
  problem = padded_problem(num_points=8)
  truncated = problem._replace(
    points=problem.points[:8], sample_weight=problem.sample_weight[:8]
  )
  assert_close(apply(params, truncated), apply(params, problem))


@of_each_backbone
def test_where_padding_stands_has_no_effect(backbone):
  # Not causal with positions: those are of the rows, padding included.
  apply, params = network(backbone=backbone)
  problem = padded_problem(num_points=8)
  rows = jnp.array([8, 0, 1, 9, 2, 3, 4, 10, 5, 6, 7, 11])
  spread = problem._replace(
    points=problem.points[rows], sample_weight=problem.sample_weight[rows]
  )
  assert_close(apply(params, spread), apply(params, problem))


@of_each_variant
def test_what_stands_in_padding_has_no_effect(backbone, is_causal):
  apply, params = network(backbone=backbone, is_causal=is_causal)
  problem = padded_problem(num_points=8)

  @jax.jit
  def value_and_grads(points):
    def of(params, points):
      return loss(apply(params, problem._replace(points=points)))

    return jax.value_and_grad(of, (0, 1))(params, points)

  clean = jax.tree.leaves(value_and_grads(problem.points))
  for padding in (0.0, 1e6, 1e30, jnp.inf, jnp.nan):
    dirty = problem.points.at[8:].set(padding)
    for one, other in zip(
      jax.tree.leaves(value_and_grads(dirty)), clean, strict=True
    ):
      np.testing.assert_array_equal(one, other)


@of_each_variant
def test_number_of_points(backbone, is_causal):
  apply, params = network(backbone=backbone, is_causal=is_causal)

  def means(num_points, num_rows):
    points = jax.random.normal(jax.random.key(5), (num_rows, DIM))
    is_point = jnp.arange(num_rows) < num_points
    problem = problem_of(points, is_point.astype(jnp.float32), 3)
    return apply(params, problem).means

  for num_points, num_rows in [(0, 12), (1, 12), (12, 12)]:
    assert np.all(np.isfinite(means(num_points, num_rows)))
  if (backbone, is_causal) == ("transformer", True):
    with pytest.raises(ValueError, match=r"13 rows.*max_points = 12"):
      means(13, 13)
  else:
    assert np.all(np.isfinite(means(300, 300)))


@of_each_variant
def test_gradient_reaches_every_point_and_no_padding(backbone, is_causal):
  apply, params = network(backbone=backbone, is_causal=is_causal)
  problem = padded_problem(num_points=8)
  gradient = jax.jit(
    jax.grad(
      lambda points: loss(apply(params, problem._replace(points=points)))
    )
  )(problem.points)
  np.testing.assert_array_equal(gradient[8:], 0.0)
  assert np.all(np.abs(gradient[:8]).max(-1) > 1e-6)


@slow_of_mamba2
def test_all_parameters_learn(backbone):
  apply, params = network(backbone=backbone, is_causal=True, has_scales=True)
  problems = batch()

  def total(params):
    prediction = apply(params, problems)
    return loss(prediction) + jnp.sum(prediction.scales[..., :2, :])

  gradient = jax.jit(jax.grad(total))(params)
  for path, leaf in jax.tree.leaves_with_path(gradient):
    assert np.any(leaf), jax.tree_util.keystr(path)


@slow_of_mamba2
def test_a_batch_in_one_call_is_vmap_and_one_at_a_time(backbone):
  apply, params = network(backbone=backbone)
  problems = batch()

  def mapped(params, problems):
    return jax.vmap(apply, in_axes=(None, 0))(params, problems)

  def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)

  def gradient(function):
    return jax.jit(jax.grad(lambda params: loss(function(params, problems))))(
      params
    )

  together = apply(params, problems)
  assert_close(together, mapped(params, problems))
  for index in range(4):
    alone = apply(params, pick(problems, index))
    assert_close(alone, pick(together, index))
  assert_close(gradient(apply), gradient(mapped))


@of_each_backbone
def test_answer_does_not_depend_on_the_neighbours(backbone):
  apply, params = network(backbone=backbone)
  problems = batch()
  others = problems._replace(
    points=problems.points.at[1:].multiply(-2.0),
    num_components=jnp.array([3, 5, 2, 2]),
  )
  for one, other in zip(
    apply(params, problems), apply(params, others), strict=True
  ):
    if one is not None:
      np.testing.assert_array_equal(one[0], other[0])


def test_answer_depends_on_the_number_of_components():
  apply, params = network()
  two, three = (apply(params, padded_problem(count=k)) for k in (2, 3))
  assert np.abs(two.means[0, :2] - three.means[0, :2]).max() > 1e-2


@slow_of_mamba2
def test_bfloat16_is_close_to_float32(backbone):
  apply, params = network(backbone=backbone)
  rounded, _ = network(backbone=backbone, compute_dtype="bfloat16")
  problems = batch()
  means = apply(params, problems).means
  difference = np.asarray(rounded(params, problems).means - means)
  assert 1e-5 < np.sqrt(np.mean(difference**2)) < 3e-2 * np.std(means)
  gradient = jax.jit(jax.grad(lambda p: loss(rounded(p, problems))))(params)
  for leaf in jax.tree.leaves(gradient):
    assert leaf.dtype == jnp.float32
    assert np.all(np.isfinite(leaf))


def backbone_size(backbone, is_causal, width=16):
  """Parameters of two blocks, the last norm and the positions."""
  if backbone == "transformer":
    positions = 12 * width if is_causal else 0
    return 2 * (12 * width**2 + 13 * width) + 2 * width + positions
  inner, num_heads, state_size = 32, 2, 4
  channels = inner + 2 * state_size
  maps = width * (inner + channels + num_heads) + inner * width
  # A convolution with bias; a step, a rate and a skip for each head.
  block = maps + 5 * channels + 3 * num_heads + width + inner
  return 2 * block + width


@of_each_variant
def test_number_of_parameters(backbone, is_causal):
  config = tgmm.TGMMConfig(**SMALL, backbone=backbone, is_causal=is_causal)
  width, embedding, served, components = 16, 8, 3, 5
  shared = (DIM + embedding + 1) * width + backbone_size(backbone, is_causal)
  outputs = components + DIM
  per_task = served * (embedding + components * width + (width + 1) * outputs)
  model = nnx.eval_shape(lambda: tgmm.TGMM(config, rngs=nnx.Rngs(0)))
  counts = parameters.count(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
  assert counts == (shared + per_task, shared, per_task)


def test_another_dimension_is_refused():
  apply, params = network()
  problem = padded_problem()._replace(points=jnp.zeros((12, 4)))
  with pytest.raises(ValueError, match=r"\(12, 4\).*dim = 3"):
    apply(params, problem)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_components": ()}, r"num_components is \(\), takes"),
    ({"num_components": (2, 0)}, r"num_components is \(2, 0\), takes"),
    ({"num_components": (2, 2)}, "takes each K once"),
    ({"dim": 0}, "dim is 0, takes"),
    ({"num_layers": 0}, "num_layers is 0, takes"),
    ({"max_points": 0}, "max_points is 0, takes"),
    ({"width": 10, "num_heads": 4}, "width is 10, takes a multiple of"),
    ({"compute_dtype": "float16"}, "compute_dtype is 'float16', takes"),
    ({"backbone": "rnn"}, "backbone is 'rnn', takes one of"),
    ({"state_size": 0}, "state_size is 0, takes"),
    ({"num_groups": 0}, "num_groups is 0, takes"),
    ({"head_dim": 0}, "head_dim is 0, takes"),
    ({"expansion": 0}, "expansion is 0, takes"),
    (
      {"backbone": "mamba2", "head_dim": 8},
      r"num_heads is 2 and head_dim 8, takes a.*width x expansion = 32",
    ),
    (
      {"backbone": "mamba2", "num_groups": 3},
      "num_heads is 2, takes a multiple of num_groups = 3",
    ),
  ],
)
def test_bad_sizes_are_refused_in_one_line(changes, message):
  with pytest.raises(ValueError, match=message) as error:
    tgmm.TGMMConfig(**{**SMALL, **changes})
  assert "\n" not in str(error.value)


def test_papers_mamba2():
  config = tgmm.TGMMConfig(dim=2, backbone="mamba2", num_heads=8)
  assert (config.width, config.num_layers) == (128, 12)
  assert (config.head_dim, config.state_size, config.num_groups) == (64, 16, 2)
  with pytest.raises(ValueError, match="num_heads is 4 and head_dim 64"):
    tgmm.TGMMConfig(dim=2, backbone="mamba2")
