"""Figures and tables of the studies of the constructed networks."""

import numpy as np

from experiments.studies.constructed import spectral_network
from tgmm_jax.figures import curves as curve_figures


def _panel(study, metric, title, x_label, y_label, **options):
  return curve_figures.Panel(study, metric, title, x_label, y_label, **options)


def draw_em_distance(rows):
  """Responsibilities and means against EM's, layer by layer."""
  label = "layers passed"
  return curve_figures.draw(
    rows,
    [
      _panel(
        "em_distance",
        f"{quantity}, 95th percentile",
        f"{quantity} against EM's",
        label,
        "largest difference, 95th percentile",
      )
      for quantity in ("responsibilities", "means")
    ],
  )


def draw_em_limit(rows):
  """Distance to EM's limit with the fitted form of the bound."""
  return curve_figures.draw(
    rows,
    [
      _panel(
        "em_limit",
        "distance, median",
        "Distance to EM's limit",
        "steps L",
        "largest difference, median",
      )
    ],
  )


def draw_tensor(rows):
  """Error of the direction, growth of the length, what is within range."""
  # float32's largest number; float64's is far above the panel.
  largest = {"largest float32": float(np.log10(np.finfo(np.float32).max))}
  return curve_figures.draw(
    rows,
    [
      _panel(
        "tensor",
        "error of the direction, largest",
        "Direction",
        "steps",
        "largest error while within range",
      ),
      _panel(
        "tensor",
        "log10 of the length",
        "Length",
        "steps",
        "log10 of the length, median",
        is_log_y=False,
        lines=largest,
      ),
      _panel(
        "tensor",
        "share within range",
        "Problems within range",
        "steps",
        "share",
        is_log_y=False,
      ),
    ],
  )


def draw_power(rows):
  """Error of eigenvectors against tau, and at the predicted tau."""
  return curve_figures.draw(
    rows,
    [
      _panel(
        "power",
        "1 - |cos|, median",
        "Leading eigenvector",
        "tau, power iterations",
        "1 - |cos| to the eigenvector, median",
      ),
      _panel(
        "power",
        "1 - |cos| at the predicted tau, largest",
        "At the tau that the gap predicts",
        "number of the eigenvector",
        "1 - |cos|, largest of all problems",
        lines={"asked for": 1e-6},
      ),
    ],
  )


def draw_two_classes(rows):
  """Misclassification against separation."""
  return curve_figures.draw(
    rows,
    [
      _panel(
        "two_classes",
        "error",
        "Misclassified points",
        "separation |mu|",
        "share",
      )
    ],
  )


def draw_residual_stream(rows):
  """A map of the residual stream after each layer."""
  names = sorted({row.metric for row in rows})
  tokens = sorted({row.series for row in rows})
  layers = sorted({row.x for row in rows})
  states = np.zeros((len(layers), len(names), len(tokens)))
  for row in rows:
    index = (layers.index(row.x), names.index(row.metric))
    states[(*index, tokens.index(row.series))] = row.value
  slots = {}
  for name in names:
    slot = name.split(" ", 1)[1]
    slots[slot] = slots.get(slot, 0) + 1
  titles = [
    "start",
    "layer A, attention:\nresponsibilities",
    "layer A, MLP:\ntheir logarithms",
    "layer B, attention:\nnew means and weights",
    "layer B, MLP:\nput in place, rest cleared",
  ]
  return curve_figures.residual_stream(
    states,
    slots=tuple(slots.items()),
    tokens=[token.split(" ", 1)[1] for token in tokens],
    titles=titles,
  )


# What the theorems say of the sizes, beside what ours have.
_CLAIMS = {
  "EM, 2 layers a step": "Theorem 1: 2L layers, O(1) heads, one network for"
  " all d <= d0 and K <= K0",
  "EM, 3 layers a step": "not the theorem's: 3L layers for a smaller MLP",
  "tensor power": "Theorem 2: 2L ReLU layers, exact, not normalised",
  "tensor power, normalised": "not the theorem's: 3L layers, lengths stay in"
  " range",
  "power method": "Theorem 2.1: symmetrise, tau iterations for each of k"
  " vectors, estimate and remove each",
  "two classes": "the same with k = 1 and a layer that labels",
  "spectral method": "open in both papers: 17 + 6 n + K (20 + 3 (s + i + j) +"
  " 2 m + 6 n) layers",
}
_SIZE_HEADS = {
  "num_layers": "layers",
  "num_heads": "heads, most in a layer",
  "width": "width D",
  "mlp_width": "MLP width, largest",
  "num_parameters": "parameters, heads factored",
  "num_dense": "parameters, dense",
  "num_distinct": "parameters, repeated layers once",
  "nonzero_share": "non-zero share",
}


def tabulate_sizes(rows):
  """Sizes beside what the theorems claim."""
  table = {name: {} for name in _CLAIMS}
  for row in rows:
    is_count = row.metric != "nonzero_share"
    value = int(row.value) if is_count else f"{row.value:.1%}"
    table[row.series][_SIZE_HEADS[row.metric]] = value
  return {
    name: {head: line.get(head, "–") for head in _SIZE_HEADS.values()}
    | {"what the theorem claims": _CLAIMS[name]}
    for name, line in table.items()
  }


def tabulate_em_distance(rows):
  """Means after one and after all steps."""
  series = dict.fromkeys(row.series for row in rows)
  table = {}
  for name in series:
    own = [
      row
      for row in rows
      if row.series == name and row.metric == "means, 95th percentile"
    ]
    own.sort(key=lambda row: row.x)
    period = 3 if name.startswith("3") else 2
    table[name] = {
      "one step": f"{own[0].value:.1e}",
      f"{own[-1].x / period:.0f} steps": f"{own[-1].value:.1e}",
      "problems": own[0].count,
      "of these with a dying component": own[0].failures,
    }
  return table


def tabulate_em_limit(rows):
  """The fitted constants and the floor that they mean."""
  table = {}
  for row in rows:
    if row.metric.startswith("fit, "):
      table.setdefault(row.series, {})[row.metric[5:]] = row.value
  return {
    name: {key: f"{line[key]:.3g}" for key in ("a", "beta", "eps")}
    | {"eps / (1 - beta)": f"{line['eps'] / (1 - line['beta']):.2g}"}
    for name, line in table.items()
  }


def tabulate_power(rows):
  """The predicted tau and the largest errors there."""
  table = {}
  for row in rows:
    if row.metric == "predicted tau":
      table.setdefault(row.series, {})["tau"] = int(row.value)
  for row in rows:
    if row.metric == "1 - |cos| at the predicted tau, largest":
      table[row.series][f"vector {row.x:.0f}"] = f"{row.value:.1e}"
  return table


def tabulate_equality(rows):
  """Problems in range and the largest differences, a line for each cell."""
  table = {}
  for row in rows:
    line = table.setdefault(f"d = {row.x:.0f}, {row.series}", {})
    if row.metric == "in range":
      line["problems"] = row.count
      line["in range"] = f"{row.value:.0%}"
    else:
      kind, place = row.metric.split(", ")
      line[f"{kind} difference, {place}"] = f"{row.value:.1e}"
      line[f"above 1e-6, {place}"] = row.failures
  heads = dict.fromkeys(head for line in table.values() for head in line)
  return {
    name: {head: line.get(head, "–") for head in heads}
    for name, line in table.items()
  }


def tabulate_orders(rows):
  """The order p of `segments^-p`, where it is not rounding that counts."""
  lines = {}
  for row in rows:
    is_curve = row.metric == "median, against segments"
    if is_curve and 1e-12 < row.value < 1.0:
      lines.setdefault(row.series, []).append((row.x, row.value))
  return {
    name: {
      "order": f"{spectral_network.order_of(*np.array(pairs).T):.1f}",
      "from": f"{pairs[0][1]:.1e} at {pairs[0][0]:.0f}",
      "to": f"{pairs[-1][1]:.1e} at {pairs[-1][0]:.0f}",
    }
    for name, pairs in lines.items()
    if len(pairs) > 1
  }


def draw_spectral_errors(rows):
  """Against segments, power steps and tensor steps."""
  return curve_figures.draw(
    rows,
    [
      _panel(
        "spectral_errors",
        f"median, against {what}",
        title,
        label,
        "largest difference, median",
        is_log_x=what != "tensor steps",
      )
      for what, title, label in (
        ("segments", "Curves", "segments"),
        ("power steps", "Power method", "tau"),
        ("tensor steps", "Tensor power method", "steps, twice"),
      )
      if any(row.metric == f"median, against {what}" for row in rows)
    ],
  )


def draw_em_truth(rows):
  """Rate and floor against N."""
  rows = [row for row in rows if row.series.endswith(", EM")]
  return curve_figures.draw(
    rows,
    [
      _panel("em_truth", metric, title, "N", label, is_log_x=True, is_log_y=y)
      for metric, title, label, y in (
        ("beta", "Rate of a step", "beta, median", False),
        ("floor", "Distance from the truth", "largest of a mean, median", True),
      )
    ],
  )


def tabulate_em_truth(rows):
  """Rate, floor and the floor's order with 90% intervals."""
  found = {(row.series, row.metric, row.x): row.value for row in rows}
  table = {}
  for series, metric, x in found:
    if metric not in ("beta", "floor", "order of the floor"):
      continue
    head = metric if not x else f"{metric}, N = {x:.0f}"
    middle, low, high = (
      found[series, metric + end, x] for end in ("", ", low", ", high")
    )
    line = table.setdefault(series, {})
    line[head] = f"{middle:.2g} ({low:.2g} to {high:.2g})"
  heads = dict.fromkeys(head for line in table.values() for head in line)
  return {
    name: {head: line.get(head, "–") for head in heads}
    for name, line in table.items()
  }
