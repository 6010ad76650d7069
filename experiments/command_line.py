"""The command line's errors: one line each, before anything is done."""

import difflib
import importlib.util
import pathlib
import re
from types import ModuleType

from absl import flags

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
  try:
    rest = flags.FLAGS(argv)
  except AttributeError as error:
    raise UsageError(_unknown_key(argv, str(error).strip("\"'"))) from error
  except OSError as error:
    raise UsageError(_no_file(argv)) from error
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


def _config_flag(argv):
  """The value of `--config` as it was given."""
  for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
    name, equals, value = argument.lstrip("-").partition("=")
    if name == "config":
      return value if equals else following
  return ""


def _unknown_key(argv, name):
  file, _, variant = _config_flag(argv).partition(":")
  config = load_module(file).get_config(*([variant] if variant else []))
  keys = _keys(config.to_dict())
  wrong = [
    argument.split("=")[0].removeprefix("--config.")
    for argument in argv[1:]
    if argument.startswith("--config.")
  ]
  wrong = [key for key in wrong if key not in keys and name in key.split(".")]
  wrong = wrong[0] if wrong else name
  nearest = difflib.get_close_matches(wrong, keys, n=3, cutoff=0.5)
  # A name right in itself may stand at the wrong place.
  last = wrong.rpartition(".")[2]
  nearest = [k for k in keys if k.split(".")[-1] == last] or nearest
  takes = ", ".join(f"--config.{key}" for key in nearest or sorted(keys)[:5])
  return f"--config.{wrong} is no key of {file}, takes e.g. {takes}"


def _keys(tree, prefix=""):
  keys = []
  for name, value in tree.items():
    below = isinstance(value, dict)
    keys += _keys(value, f"{prefix}{name}.") if below else [prefix + name]
  return keys


def _no_file(argv):
  file = _config_flag(argv)
  return (
    f"--config is {file!r}, takes a Python file that exists, such as"
    " experiments/rq1.py, with :VARIANT behind it"
  )
