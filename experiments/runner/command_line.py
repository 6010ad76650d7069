"""What the command line shows: its errors, one line each, and the log."""

import difflib
import importlib.util
import itertools
import pathlib
import re
from types import ModuleType
from typing import NamedTuple

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

import tgmm_jax

# The folders whose log lines are shown.
_OWN = (
  pathlib.Path(__file__).parents[1],
  pathlib.Path(tgmm_jax.__file__).parent,
)

# What config_flags puts around the message of an error in a config file.
_LAST_LINE = re.compile(r"^\w*(?:Error|Exception): (.+)$", re.MULTILINE)


class UsageError(ValueError):
  """The command line cannot be used; the message is one line."""


class Question(NamedTuple):
  """The file that `--config` names, executed once.

  Attributes:
    name: of the file, without its suffix.
    module: with `get_config`, `sweep` and `experiment`.
    config: of the variant, with the overrides of the command line.
  """

  name: str
  module: ModuleType
  config: ml_collections.ConfigDict


# What `parse` has found.
_found: dict[str, Question] = {}


def parse(argv: list[str]) -> list[str]:
  """Parses flags as `app.run` wants it, and rewords what goes wrong.

  The file that `--config=FILE:VARIANT` names is executed here, and its config
  is made a flag, so that `--config.FIELD=VALUE` changes it.

  Raises:
    UsageError: an unknown flag or config key, a value of another type, a
      config file that does not exist or a variant that it does not have.
  """
  given, rest = _take_config(argv)
  if given is not None:
    _found["config"] = _load(given)
  try:
    if given is not None:
      config_flags.DEFINE_config_dict(
        "config", _found["config"].config, sys_argv=rest
      )
    rest = flags.FLAGS(rest)
  except (AttributeError, KeyError, ValueError) as error:
    message = _unknown_key(argv, given)
    if message is None:  # a mistake in the config file
      raise
    raise UsageError(message) from error
  except flags.Error as error:
    text = str(error)
    inner = _LAST_LINE.findall(text)
    head = text.split(": ", 1)[0]
    if "\n" in text and inner:
      text = f"{head}: {inner[-1]}"
    raise UsageError(" ".join(text.split())) from error
  if len(rest) > 1:
    raise UsageError(f"arguments are {rest[1:]}, takes flags only")
  return rest


def question() -> Question:
  """What the command line asks.

  Raises:
    ValueError: it has no `--config`.
  """
  if "config" not in _found:
    raise ValueError("--config is missing, takes e.g. experiments/rq1.py:quick")
  return _found["config"]


def _load(given):
  """Executes the file that `--config` names."""
  path = pathlib.Path(given.partition(":")[0])
  if path.suffix != ".py" or not path.is_file():
    raise UsageError(
      f"--config is {given!r}, takes a Python file that exists, such as"
      " experiments/rq1.py, with :VARIANT behind it"
    )
  module = load_module(path)
  variant = given.partition(":")[2]
  try:
    config = module.get_config(*([variant] if variant else []))
  except ValueError as error:
    raise UsageError(f"--config={given}: {error}") from error
  return Question(path.stem, module, config)


def load_module(path: pathlib.Path) -> ModuleType:
  """The experiment's file as a module."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def log_own_lines() -> None:
  """Shows the log of this project from INFO on, of its libraries warnings."""

  def is_shown(record):
    folders = pathlib.Path(record.pathname).parents
    is_own = any(own in folders for own in _OWN)
    return is_own or record.levelno >= logging.converter.STANDARD_WARNING

  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(is_shown)


def _take_config(argv):
  """The value of `--config`, None if there is none, and the other arguments."""
  value, rest, skips = None, [], False
  for argument, following in itertools.pairwise([*argv, None]):
    name, equals, own = argument.partition("=")
    if skips:
      skips = False
    elif name in ("-config", "--config"):
      value, skips = (own, False) if equals else (following, True)
      if value is None:
        raise UsageError(
          "--config has no value, takes e.g. experiments/rq1.py:quick"
        )
    else:
      rest.append(argument)
  return value, rest


def _unknown_key(argv, given):
  """What to say of the first override that the config has no place for."""
  if "config" not in _found:
    return None
  keys = _keys(_found["config"].config.to_dict())
  overrides = [
    argument.lstrip("-").partition("=")[0].removeprefix("config.")
    for argument in argv[1:]
    if argument.startswith(("-config.", "--config."))
  ]
  wrong = next((key for key in overrides if key not in keys), None)
  if wrong is None:
    return None
  nearest = difflib.get_close_matches(wrong, keys, n=3, cutoff=0.5)
  # A name right in itself may stand at the wrong place.
  last = wrong.rpartition(".")[2]
  nearest = [k for k in keys if k.split(".")[-1] == last] or nearest
  takes = ", ".join(f"--config.{key}" for key in nearest or sorted(keys)[:5])
  file = given.partition(":")[0]
  return f"--config.{wrong} is no key of {file}, takes e.g. {takes}"


def _keys(tree, prefix=""):
  """The flags' names of all fields below."""
  keys = []
  for name, value in tree.items():
    key = f".{name}" if name.isidentifier() else f"[{name!r}]"
    key = prefix + key if prefix or key[0] == "[" else name
    keys += _keys(value, key) if isinstance(value, dict) else [key]
  return keys
