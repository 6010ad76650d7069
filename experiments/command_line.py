"""What the command line shows: its errors, one line each, and the log."""

import difflib
import importlib.util
import itertools
import pathlib
import re
from types import ModuleType

from absl import flags, logging

import tgmm_jax

# The folders whose log lines are shown.
_OWN = (pathlib.Path(__file__).parent, pathlib.Path(tgmm_jax.__file__).parent)

# What config_flags puts around the message of an error in a config file.
_LAST_LINE = re.compile(r"^\w*(?:Error|Exception): (.+)$", re.MULTILINE)


class UsageError(ValueError):
  """The command line cannot be used; the message is one line."""


def parse(argv: list[str]) -> list[str]:
  """Parses flags as `app.run` wants it, and rewords what goes wrong.

  Raises:
    UsageError: an unknown flag or config key, a value of another type, a
      config file that does not exist or a variant that it does not have.
  """
  given = _config_flag(argv)
  path = pathlib.Path((given or "").split(":")[0])
  if given is not None and not (path.suffix == ".py" and path.is_file()):
    raise UsageError(
      f"--config is {given!r}, takes a Python file that exists, such as"
      " experiments/rq1.py, with :VARIANT behind it"
    )
  try:
    rest = flags.FLAGS(argv)
  except (AttributeError, KeyError, ValueError) as error:
    message = _unknown_key(argv)
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


def load_module(config_flag: str) -> ModuleType:
  """The experiment's file as a module, from `FILE[:VARIANT]`."""
  path = pathlib.Path(config_flag.split(":")[0])
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


def _config_flag(argv):
  """The value of `--config` as it was given, None if there is none."""
  for argument, following in itertools.pairwise([*argv[1:], None]):
    name, equals, value = argument.partition("=")
    if name in ("-config", "--config"):
      return value if equals else following
  return None


def _unknown_key(argv):
  """What to say of the first override that the config has no place for."""
  file, _, variant = _config_flag(argv).partition(":")
  config = load_module(file).get_config(*([variant] if variant else []))
  keys = _keys(config.to_dict())
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
  return f"--config.{wrong} is no key of {file}, takes e.g. {takes}"


def _keys(tree, prefix=""):
  """The flags' names of all fields below."""
  keys = []
  for name, value in tree.items():
    key = f".{name}" if name.isidentifier() else f"[{name!r}]"
    key = prefix + key if prefix or key[0] == "[" else name
    keys += _keys(value, key) if isinstance(value, dict) else [key]
  return keys
