import io

import pytest

from tgmm_jax.fitting.tables import contents

TEXT = "größe;y\n1,5;2\n"


@pytest.mark.parametrize(
  ("encoding", "expected"),
  [
    ("utf-8", "utf-8"),
    ("utf-8-sig", "utf-8-sig"),
    ("latin-1", "latin-1"),
    ("utf-16", "utf-16"),
    ("utf-16-le", "utf-16-le"),
    ("utf-16-be", "utf-16-be"),
    ("utf-32", "utf-32"),
  ],
)
def test_encodings_are_told_from_the_bytes(encoding, expected):
  text, found = contents.decoded("a", TEXT.encode(encoding))
  assert (text, found) == (TEXT, expected)


def test_line_ends_minus_and_spaces_are_made_plain():
  text, _ = contents.decoded("a", "a\r\n\u22121\u00a0\rb".encode())
  assert text == "a\n-1 \nb"


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.csv", b"\x89HDF\r\n", "a.csv is an HDF5 file, takes .csv"),
    ("a.csv", b"%PDF-1.4", "a.csv is a PDF file"),
    ("a.npy", b"1,2\n", "a.npy is no .npy file"),
    ("a.PARQUET", b"1,2\n", "a.PARQUET is no .parquet file"),
    ("a.json", b"{}", "a.json has the suffix '.json', takes .csv"),
    ("a.csv", b"PK\x03\x04", "a.csv is a damaged zip file"),
  ],
)
def test_files_of_other_kinds_are_refused(name, content, message):
  with pytest.raises(ValueError, match=message):
    contents.kind_of(name, content)


def test_workbooks_and_other_archives_are_refused():
  import zipfile

  for member, message in (("xl/a.xml", "Excel"), ("a.csv", "is a zip file")):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
      archive.writestr(member, "")
    with pytest.raises(ValueError, match=message):
      contents.kind_of("a", stream.getvalue())


def test_a_file_that_is_cut_off_is_a_line():
  import gzip

  packed = gzip.compress(b"1,2\n" * 100)
  assert contents.unpacked("a.csv.gz", packed) == ("a.csv", b"1,2\n" * 100)
  with pytest.raises(ValueError, match="a.csv.gz cannot be unpacked"):
    contents.unpacked("a.csv.gz", packed[:-9])


def test_bytes_that_are_no_text():
  with pytest.raises(ValueError, match="a is no text, takes .csv"):
    contents.decoded("a", b"1,2\n\0\0\n" + b"3,4\n" * 10)
  with pytest.raises(ValueError, match="a is no text in utf-16"):
    contents.decoded("a", b"\xff\xfe\x00\xd8")


def test_standard_input_has_a_name():
  assert contents.read(io.BytesIO(b"1")) == ("standard input", b"1")
